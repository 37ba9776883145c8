"""The season, the time of day and the place as fields, against formulas written out."""

from __future__ import annotations

from datetime import UTC, datetime
from math import cos, pi, radians, sin

import numpy as np
import pytest

from model.weather.features import feature_fields
from model.weather.names import FEATURES, feature_names

LATITUDE, LONGITUDE = np.array([-60.0, 0.0, 45.0]), np.array([0.0, 90.0, 187.5, 337.5])


def fields(*times: str, names: tuple[str, ...] = feature_names(FEATURES)) -> np.ndarray:
    when = np.array(times, dtype="datetime64[ns]")
    return feature_fields(names, times=when, latitude=LATITUDE, longitude=LONGITUDE)


@pytest.mark.parametrize("time", ["2000-02-29T18", "2001-12-31T21", "2024-12-31T00", "1900-07-01T06", "2023-03-01T00"])
def test_features_equal_plain_formulas(time: str) -> None:
    """Catches degrees for radians, sine for cosine, west for east, a season of 365 days in leap years, or in 1900."""
    found = fields(time)
    assert found.shape == (1, 8, 3, 4)
    assert found.dtype == np.float32
    when = datetime.fromisoformat(time).replace(tzinfo=UTC)
    new_year, next_year = (datetime(when.year + n, 1, 1, tzinfo=UTC) for n in (0, 1))
    season = 2 * pi * (when - new_year).total_seconds() / (next_year - new_year).total_seconds()
    assert (next_year - new_year).days == (366 if when.year in (2000, 2024) else 365)
    for i, latitude in enumerate(LATITUDE):
        for j, longitude in enumerate(LONGITUDE):
            local = (when.hour + longitude / 15) % 24
            angles = (season, 2 * pi * local / 24, radians(latitude), radians(longitude))
            right = [wave(angle) for angle in angles for wave in (sin, cos)]
            assert found[0, :, i, j] == pytest.approx(right, abs=1e-6)


def test_nothing_jumps_at_midnight_or_new_year() -> None:
    """Catches a clock that ends at 23 hours and a year that ends on its last morning."""
    for before, after in (("2000-12-31T23:59:59", "2001-01-01"), ("2023-12-31T23:59:59", "2024-01-01")):
        one, other = fields(before, after)
        assert np.abs(one - other).max() < 1e-4
    noon, later = fields("2001-05-05T12", "2001-05-06T12", names=("sin_time_of_day", "cos_time_of_day"))
    assert np.allclose(noon, later, atol=1e-6)


def test_names_decide_the_order() -> None:
    """Catches channels in the order of the formulas instead of that asked for, as one rank of several asks."""
    everything = dict(zip(feature_names(FEATURES), fields("2001-05-05T12")[0], strict=True))
    some = ("cos_longitude", "sin_season")
    assert np.array_equal(fields("2001-05-05T12", names=some)[0], [everything[name] for name in some])
    assert fields("2001-05-05T12", names=()).shape == (1, 0, 3, 4)
