"""Which init times forecasts are issued for."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.weather.sections import Period
from pipeline.weather.times import init_times

PERIOD = Period(start="2004-02-25", end="2004-03-10")  # type: ignore[arg-type]


def test_init_times_have_all_their_valid_times() -> None:
    """Every other day over a leap day; a gap takes the init times whose valid time it holds, and the last is the
    longest lead before the end; catches an end that is left out and a lead that is not looked at."""
    times = np.arange("2004-02-20", "2004-03-20", 12, dtype="datetime64[h]").astype("datetime64[ns]")
    times = np.delete(times, np.flatnonzero(times == np.datetime64("2004-03-05")))
    found, missing = init_times(times, lead_hours=[24, 72], period=PERIOD, step_hours=48, setting="x")
    assert [str(t)[:10] for t in missing] == ["2004-03-02", "2004-03-04"]
    assert [str(t)[:10] for t in times[found]] == ["2004-02-25", "2004-02-27", "2004-02-29", "2004-03-06"]
    later = Period(start="2004-02-25T06:00", end="2004-03-10")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"test period must hold an init time every 48 h .* choose x on"):
        init_times(times, lead_hours=[24], period=later, step_hours=48, setting="x")
    with pytest.raises(ValueError, match=r"every lead must have at least one pair .* none for 720 h"):
        init_times(times, lead_hours=[720], period=PERIOD, step_hours=48, setting="x")
