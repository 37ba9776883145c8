"""The verdict on a free run, and its table."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evaluate.scoring.free_run import departure_ratio, free_run_table, verdicts
from pipeline.weather.free_run_store import MOMENTS, SOURCES

DAYS = 200


def run_of(departure: np.ndarray, *, outside: np.ndarray | None = None, truth_days: int = DAYS) -> xr.Dataset:
    """A run of one channel in steps of a day, as the store is read; the truth's departures are 4 on average."""
    days = np.arange(1, len(departure) + 1)
    truth = 4.0 + 2.0 * np.cos(days / 3.0)
    numbers = np.empty((len(days), 2, 3, 1))
    numbers[:, 0, :, 0] = np.stack([1.0 + 0.01 * days, 2.0 + 0.0 * days, departure], axis=1)
    numbers[:, 1, :, 0] = np.stack([1.0 + 0.0 * days, 3.0 + 0.0 * days, truth], axis=1)
    numbers[truth_days:, 1] = np.nan
    flags = np.zeros((len(days), 1)) if outside is None else outside[:, None]
    time = np.datetime64("2001-01-01T00", "ns") + days.astype("timedelta64[D]")
    return xr.Dataset(
        {"numbers": (("time", "source", "moment", "channel"), numbers), "outside": (("time", "channel"), flags)},
        coords={"time": time, "source": list(SOURCES), "moment": list(MOMENTS), "channel": ["t2m"],
                "unit": ("channel", ["K"])},
        attrs={"contract": {"init_time": "2001-01-01T00", "step_hours": 24, "steps": len(days)}},
    )  # fmt: skip


STEADY = 4.0 + np.sin(np.arange(DAYS) / 5.0)
GROWING = 4.0 * np.exp(np.maximum(np.arange(DAYS) - 50, 0) / 20.0)
COLLAPSING = 4.0 * np.exp(-np.arange(DAYS) / 20.0)


@pytest.mark.parametrize(
    ("departure", "kind"), [(STEADY, "bounded"), (GROWING, "grows"), (COLLAPSING, "fades"), (2.0 * STEADY, "bounded")]
)
def test_a_run_that_grows_or_collapses_is_told_from_one_that_stays(departure: np.ndarray, kind: str) -> None:
    """Catches a run that blows up, or ends at the climatology, and is called bounded; and an alarm for nothing."""
    (verdict,) = verdicts(run_of(departure))
    assert verdict.kind == kind
    truth = 4.0 + 2.0 * np.cos(np.arange(1, DAYS + 1) / 3.0)
    means = [departure[max(0, k - 29) : k + 1].mean() / truth.mean() if k >= 29 else np.nan for k in range(DAYS)]
    limit = {"grows": np.array(means) > 4, "fades": np.array(means) < 0.25}
    if kind == "bounded":
        assert np.isnan(verdict.day)
    else:
        assert verdict.day == 1 + np.flatnonzero(limit[kind])[0]


def test_a_single_value_outside_the_range_is_the_first_sign() -> None:
    """Catches a run that limits at every step hide, one that is not finite, and a day that is off by one."""
    outside = np.zeros(DAYS)
    outside[[41, 120]] = 1e-3
    (verdict,) = verdicts(run_of(GROWING, outside=outside))
    assert (verdict.kind, verdict.day) == ("leaves its range", 42.0)
    lost, gone = np.where(np.arange(DAYS) < 10, 4.0, np.nan), np.where(np.arange(DAYS) < 10, 0.0, 1.0)
    (verdict,) = verdicts(run_of(lost, outside=gone))
    assert (verdict.kind, verdict.day) == ("leaves its range", 11.0)


def test_days_without_truth_are_judged_by_those_with() -> None:
    """Catches a run that is judged only as long as the store reaches."""
    (verdict,) = verdicts(run_of(GROWING, truth_days=60))
    assert verdict.kind == "grows"
    assert verdict.day > 60


def test_a_run_shorter_than_a_month_has_one_window() -> None:
    """Catches a short run that cannot be judged at all."""
    ratio = departure_ratio(run_of(np.full(10, 40.0)))
    assert np.isnan(ratio[:-1]).all()
    assert verdicts(run_of(np.full(10, 40.0)))[0].kind == "grows"


def test_the_table_has_means_and_variances_by_season() -> None:
    """Catches a variance without that of the means, days without truth, and seasons of other months."""
    run = run_of(STEADY, truth_days=100)
    table = free_run_table(run).set_index("season")
    assert set(table.index) == {"all", "DJF", "MAM"}  # 2 January to 11 April
    assert table.loc["all", "days"] == 100
    assert table.loc["DJF", "days"] == 58
    days = np.arange(1, 101)
    assert table.loc["all", "mean"] == pytest.approx((1.0 + 0.01 * days).mean())
    assert table.loc["all", "variance"] == pytest.approx(2.0 + (0.01 * days).var())
    assert table.loc["all", "truth_variance"] == pytest.approx(3.0)
    assert table.loc["MAM", "departure"] == pytest.approx(STEADY[58:100].mean())
    assert table.loc["MAM", "verdict"] == "bounded"
