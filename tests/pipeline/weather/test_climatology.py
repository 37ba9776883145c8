"""The normals reader finds the right field for a date, whatever the year, and refuses what it cannot know."""

from __future__ import annotations

import doctest
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline.weather.climatology
from pipeline.weather.climatology import SCHEMA, SLOTS, Normals, day_slots, hours_of_day

CHANNELS = ("z500", "t850", "u10")
HOURS = (0, 12)
SHAPE = (2, 4)


def expected(slot: int, hour: int, channel: int) -> np.ndarray:
    """A field that no other slot, hour or channel has."""
    return (slot * 1000 + hour * 10 + channel + np.arange(8).reshape(SHAPE) / 16).astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Normals written by hand in the documented layout."""
    folder = tmp_path_factory.mktemp("normals") / "normals.zarr"
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    fields = np.empty((SLOTS, 2, 3, *SHAPE), np.float32)
    for slot in range(1, SLOTS + 1):
        for h, hour in enumerate(HOURS):
            for channel in range(3):
                fields[slot - 1, h, channel] = expected(slot, hour, channel)
    group.create_array("climatology", data=fields, chunks=(1, 1, 2, *SHAPE))
    small = {
        "channel": np.array(CHANNELS),
        "static_channel": np.array(["lsm"]),
        "hour": np.array(HOURS),
        "latitude": np.array([-45.0, 45.0]),
        "longitude": np.array([0.0, 90.0, 180.0, 270.0]),
        "mean": np.array([5.4e4, 275.0, -0.5]),
        "std": np.array([3e3, 15.0, 5.0]),
        "anomaly_std": np.array([800.0, 4.0, 3.0]),
        "static_mean": np.array([0.3]),
        "static_std": np.array([0.4]),
    }
    for name, values in small.items():
        group.create_array(name, data=values)
    group.attrs.update(
        {"schema": SCHEMA, "contract": {"kind": "normals"}, "digest": "d", "climatology_kind": "day of year x hour"}
    )
    return folder


def test_doctest() -> None:
    """Catches an example in the documentation that is no longer true."""
    assert doctest.testmod(pipeline.weather.climatology).failed == 0


@pytest.mark.parametrize("year", [1999, 2000, 1900, 2100])
def test_a_date_has_the_same_slot_in_every_year(year: int) -> None:
    """Catches day-of-year numbering, by which every day after February moves in leap years."""
    days = np.arange(f"{year}-01-01", f"{year + 1}-01-01", dtype="datetime64[D]")
    slots = day_slots(days)
    leap = year == 2000
    assert slots[0] == 1
    assert slots[-1] == SLOTS
    assert (60 in slots) == leap
    assert slots[days == np.datetime64(f"{year}-03-01")] == 61
    assert slots[days == np.datetime64(f"{year}-10-17")] == 291
    assert np.unique(slots).size == days.size


def test_hours_must_be_whole() -> None:
    """Catches half hours that would silently be taken for the hour before."""
    assert hours_of_day(np.array(["2001-01-01T18", "1969-12-31T23"], "datetime64[h]")).tolist() == [18, 23]
    with pytest.raises(ValueError, match="full hour, got 2001-01-01T06:30"):
        hours_of_day(np.array(["2001-01-01T06:00", "2001-01-01T06:30"], "datetime64[m]"))


@pytest.mark.parametrize("in_memory", [False, True])
def test_fields_by_time(path: Path, in_memory: bool) -> None:
    """Catches an axis or order mixed up: unsorted and repeated times, several hours, channels reordered."""
    normals = Normals.open(path)
    if in_memory:
        normals = normals.in_memory()
    text = ["2003-12-31T12", "2004-02-29T00", "2003-01-01T00", "2003-12-31T12", "1971-03-01T12"]
    found = normals.climatology_at(np.array(text, "datetime64[ns]"), channels=["u10", "z500"])
    assert found.shape == (5, 2, *SHAPE)
    assert found.dtype == np.float32
    for field, (slot, hour) in zip(found, [(366, 12), (60, 0), (1, 0), (366, 12), (61, 12)], strict=True):
        np.testing.assert_array_equal(field[0], expected(slot, hour, 2))
        np.testing.assert_array_equal(field[1], expected(slot, hour, 0))


def test_a_field_in_memory_cannot_be_changed(path: Path) -> None:
    """Catches arithmetic in place on a returned field that changes the climatology itself."""
    normals = Normals.open(path).in_memory()
    field = normals.climatology_at(np.array(["2003-12-31T12"], "datetime64[h]"))
    np.testing.assert_array_equal(field[0, 2], expected(366, 12, 2))
    with pytest.raises(ValueError, match="read-only"):
        field += 1


def test_some_channels_in_memory(path: Path) -> None:
    """Catches a rank that holds the climatology of channels it never reads, or of the wrong ones."""
    some = Normals.open(path).in_memory(channels=["u10", "z500"])
    time = np.array(["2004-02-29T12"], "datetime64[h]")
    np.testing.assert_array_equal(some.climatology_at(time)[0], [expected(60, 12, 2), expected(60, 12, 0)])
    assert some.nbytes == Normals.open(path).nbytes * 2 // 3
    assert some.std.tolist() == [5.0, 3e3]
    with pytest.raises(ValueError, match="t850"):
        some.climatology_at(time, channels=["t850"])


def test_changes_over_a_step(path: Path, tmp_path: Path) -> None:
    """Catches the changes of another step or channel, or those of all where few are held."""
    fields = path / "climatology"  # left out: a thousand files
    shutil.copytree(path, tmp_path / "stepping.zarr", ignore=lambda folder, _: {"c"} if Path(folder) == fields else ())
    group = zarr.open_group(tmp_path / "stepping.zarr", mode="r+")
    group.create_array("step_hours", data=np.array([6, 24]))
    group.create_array("change_std", data=np.array([[100.0, 1.5, 1.0], [400.0, 3.5, 2.5]]))
    normals = Normals.open(tmp_path / "stepping.zarr")
    assert normals.step_hours == (6, 24)
    assert normals.change_std(6).tolist() == [100.0, 1.5, 1.0]
    assert normals.change_std(24, ["u10", "z500"]).tolist() == [2.5, 400.0]
    some = normals.in_memory(channels=["u10", "z500"])
    assert some.step_hours == (6, 24)
    assert some.change_std(24).tolist() == [2.5, 400.0]
    assert some.change_std(6, channels=["z500"]).tolist() == [100.0]
    with pytest.raises(ValueError, match=r"over a step of 12 h, got those over 6, 24 h; add it to training.step_hours"):
        normals.change_std(12)
    with pytest.raises(ValueError, match="t850"):
        some.change_std(24, ["t850"])
    assert Normals.open(path).step_hours == ()
    with pytest.raises(ValueError, match=r"over a step of 24 h, got none; .* run python -m pipeline normals"):
        Normals.open(path).change_std(24)


def test_shape_of_times_is_kept(path: Path) -> None:
    """Catches a lookup that flattens (init, lead) pairs."""
    normals = Normals.open(path)
    init = np.array(["2001-01-01T00", "2001-06-01T12"], "datetime64[h]")
    valid = init[:, None] + np.array([0, 168, 720]) * np.timedelta64(1, "h")
    found = normals.climatology_at(valid)
    assert found.shape == (2, 3, 3, *SHAPE)
    slot = int(day_slots(valid)[1, 2])
    np.testing.assert_array_equal(found[1, 2, 1], expected(slot, 12, 1))


def test_small_arrays(path: Path) -> None:
    """Catches mean and spread read from the wrong array or narrowed to float32."""
    normals = Normals.open(path)
    assert normals.channels == CHANNELS
    assert normals.hours == HOURS
    assert normals.grid.shape == SHAPE
    assert normals.mean.dtype == np.float64
    assert normals.mean.tolist() == [5.4e4, 275.0, -0.5]
    assert normals.std[1] == 15.0
    assert normals.anomaly_std[0] == 800.0
    assert normals.static_std.tolist() == [0.4]
    assert "3 channels" in repr(normals)


def test_survives_pickling(path: Path) -> None:
    """Catches a reader that data-loading workers cannot take over."""
    normals = pickle.loads(pickle.dumps(Normals.open(path)))
    np.testing.assert_array_equal(
        normals.climatology_at(np.array(["2001-01-02"], "datetime64[D]"))[0, 1], expected(2, 0, 1)
    )


def test_refusals(path: Path, tmp_path: Path) -> None:
    """Catches the silent choice of a neighbouring hour, a missing channel, NaT, or no normals at all."""
    normals = Normals.open(path)
    with pytest.raises(ValueError, match=r"hours 0, 12 UTC.*got 2001-01-01T06"):
        normals.climatology_at(np.array(["2001-01-01T00", "2001-01-01T06"], "datetime64[h]"))
    with pytest.raises(ValueError, match="NaT"):
        normals.climatology_at(np.array(["NaT"], "datetime64[h]"))
    with pytest.raises(ValueError, match="got t2m; it has z500, t850, u10"):
        normals.climatology_at(np.array(["2001-01-01"], "datetime64[h]"), channels=["z500", "t2m"])
    with pytest.raises(ValueError, match="run python -m pipeline normals first"):
        Normals.open(tmp_path / "absent.zarr")
    zarr.open_group(tmp_path / "old.zarr", mode="w").attrs["schema"] = SCHEMA + 1
    with pytest.raises(ValueError, match=f"layout version {SCHEMA}, got {SCHEMA + 1}"):
        Normals.open(tmp_path / "old.zarr")


@pytest.mark.slow
def test_needs_no_dask(root: Path) -> None:
    """Catches an import that the model stage must not make."""
    code = (
        "import sys, pipeline.weather.climatology; sys.exit(any(m in sys.modules for m in ('dask', 'torch', 'xarray')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
