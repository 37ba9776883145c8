"""Times as a store holds them, and which init times forecasts are issued for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.store import open_store
from pipeline.weather.sections import Period
from pipeline.weather.times import init_times, stored_times
from tests.stores import TRUTH_DIMS, rewrite_manifest, write_store

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


@pytest.mark.parametrize("unit", ["hours since 1970-01-01", "hours since 1900-01-01 12:00", "days since 2004-01-01"])
def test_times_read_without_xarray_are_those_it_reads(unit: str, tmp_path: Path) -> None:
    """Catches times that are off by an origin or a unit: the normals would be taken for others, or for complete."""
    times = np.array(["2004-02-28", "2004-02-29T12", "2004-03-01T18"], "datetime64[ns]")
    ds = xr.Dataset({"state": (TRUTH_DIMS, np.zeros((3, 1, 2, 3), np.float32))}, {"time": times, "channel": ["t2m"]})
    path = tmp_path / "a.zarr"
    write_store(path, ds, {"kind": "training store"})
    attrs = open_store(path).attrs
    shutil.rmtree(path / "time")
    encoding = {"time": {"units": unit, "dtype": "float64" if unit.startswith("days") else "int64"}}
    again = xr.Dataset(coords={"time": times}, attrs=attrs)
    again.to_zarr(path, mode="a", zarr_format=3, consolidated=False, encoding=encoding)
    rewrite_manifest(path, lambda content: None)
    np.testing.assert_array_equal(stored_times(path), times)
    np.testing.assert_array_equal(open_store(path)["time"].values, times)
