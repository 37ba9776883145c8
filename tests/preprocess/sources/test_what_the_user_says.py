"""What a user may say about files that do not say it themselves: names, units, members, folders, calendars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.weather.sections import Channels, Data, FilesSource
from preprocess.ingest.stage import store_times
from preprocess.sources import Archive
from preprocess.sources.local_files import find_files, open_files
from tests.preprocess.sources.gribs import grib

Atmosphere = Callable[..., xr.Dataset]
T2M = Channels(variables=["t2m"], levels=[], statics=[])
Z = Channels(variables=["z"], levels=[500, 850], statics=[])


def archive(*paths: Path | str, channels: Channels = T2M, **said: Any) -> Archive:
    return open_files(FilesSource(kind="files", paths=[str(p) for p in paths], **said), channels=channels)


def write(ds: xr.Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.to_netcdf(path)
    return path


def test_names(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a field that only its owner can name, left out; and a wrong name that is passed over."""
    ds = atmosphere(("z",))
    odd = ds.rename(z="MYZ").assign(z=ds["z"] * 0.5)
    odd["MYZ"].attrs["units"] = "m2 s-2"
    path = write(odd, tmp_path / "a.nc")
    found = archive(path, channels=Z, names={"z": "MYZ"}).dataset()["z"]
    np.testing.assert_array_equal(found.compute(), ds["z"])
    with pytest.raises(ValueError, match=r"source.names must be names in the files, got z: MYX; .* hold .*'MYZ'"):
        archive(path, channels=Z, names={"z": "MYX"})
    flat = write(ds.isel(level=0, drop=True).rename(z="MYZ"), tmp_path / "flat.nc")
    with pytest.raises(ValueError, match=r"give 'z' a field on pressure levels, got 'MYZ', which is none; .* in hPa"):
        archive(flat, channels=Z, names={"z": "MYZ"})


def test_units(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a unit that is missing or wrong in the file and cannot be put right without editing it."""
    ds = atmosphere(("z",))
    height = ds / 9.80665
    height["z"].attrs["units"] = "pickles"
    path = write(height, tmp_path / "a.nc")
    with pytest.raises(ValueError, match=r"got 'pickles' for 'z' in \S+a.nc; .*source.units: {z: m2 s-2}"):
        archive(path, channels=Z)
    found = archive(path, channels=Z, units={"z": "m"})
    np.testing.assert_allclose(found.dataset()["z"], ds["z"], rtol=1e-6)
    assert found.facts["converted_units"] == ["z: m to m2 s-2"]
    with pytest.raises(ValueError, match=r"'z' must be in m2 s-2 .* got 'K'"):
        FilesSource(kind="files", paths=["a"], units={"z": "K"})
    with pytest.raises(ValueError, match="did you mean 't2m'"):
        FilesSource(kind="files", paths=["a"], names={"t2": "x"})


def without_unit(ds: xr.Dataset) -> xr.Dataset:
    ds = ds.copy(deep=True)
    for name in ds.data_vars:
        ds[name].attrs.pop("units", None)
    return ds


@pytest.mark.parametrize(
    ("short", "change", "unit"),
    [
        ("t2m", lambda x: x, "K"),
        ("t2m", lambda x: x - 273.15, "degC"),
        ("z", lambda x: x, "m2 s-2"),
        ("z", lambda x: x / 9.80665, "gpm"),
        ("z", lambda x: x / 98.0665, "gpdam"),
        ("u10", lambda x: x, "m s-1"),
    ],
)
def test_the_plausible_range_settles_a_unit(
    atmosphere: Atmosphere, tmp_path: Path, short: str, change: Callable[..., Any], unit: str
) -> None:
    """Catches Celsius taken for Kelvin, or heights for geopotential, where the file is silent; or nothing said."""
    ds = atmosphere((short,))
    path = write(without_unit(change(ds)), tmp_path / "a.nc")
    found = archive(path, channels=Channels(variables=[short], levels=[500, 850], statics=[]))
    np.testing.assert_allclose(found.dataset()[short], ds[short], rtol=1e-5)
    (line,) = found.facts["units_by_range"]
    assert line.startswith(f"{short} ('{short}' in {path}, ")
    assert line.endswith(f" names no unit; only {unit} is plausible, and taken")


def test_units_that_the_range_does_not_settle(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a guess: dry air in kg/kg is also plausible in g/kg; and all such fields are named at once."""
    ds = atmosphere(("q", "t2m"))
    strange = without_unit(ds.assign(t2m=ds["t2m"] * 10))
    path = write(strange, tmp_path / "a.nc")
    both = Channels(variables=["q", "t2m"], levels=[500], statics=[])
    with pytest.raises(ValueError, match="fields must have a unit, got none for: ") as error:
        archive(path, channels=both)
    for phrase in ("fits kg kg-1 and g kg-1", "fits neither K nor degC", "source.units: {q: kg kg-1}"):
        assert phrase in str(error.value)
    found = archive(write(without_unit(ds), tmp_path / "b.nc"), channels=both, units={"q": "kg kg-1"})
    np.testing.assert_array_equal(found.dataset()["q"][:, 0], ds["q"][:, 0])


def test_folders_and_brackets(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a folder that matches nothing, hidden files that are read, and brackets taken for a pattern."""
    ds = atmosphere(("t2m",))
    for i, name in enumerate(("run[1]/a[2001].nc", "run[1]/deeper/b.nc", "run1/c.nc")):
        write(ds.isel(time=[i]), tmp_path / name)
    ds.isel(time=[4]).to_zarr(tmp_path / "run[1]" / "d.zarr")
    (tmp_path / "run[1]" / ".hidden").write_text("no data")
    inside = tmp_path / "run[1]"
    assert len(find_files([str(inside)])) == 3
    np.testing.assert_array_equal(archive(inside).times, ds["time"].values[[0, 1, 4]])
    assert find_files([str(inside / "a[2001].nc")]) == [inside / "a[2001].nc"]
    assert find_files([str(inside / "*.nc")]) == [tmp_path / "run1" / "c.nc"]  # as a pattern, where that matches
    (tmp_path / "run1" / "c.nc").unlink()
    assert find_files([str(inside / "*.nc")]) == [inside / "a[2001].nc"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"source.paths must name files, got an empty folder '\S+empty'"):
        find_files([str(tmp_path / "empty")])


def ensemble(ds: xr.Dataset) -> xr.Dataset:
    """Three members, numbered 5, 6 and 7, a degree apart."""
    members = [ds + float(i) for i in range(3)]
    stacked = xr.concat(members, xr.DataArray([5, 6, 7], dims="number", name="number"))
    return stacked.map(lambda x: x.assign_attrs(ds[x.name].attrs))


def test_members_of_an_ensemble(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches an ensemble that is refused after the progress bar has started, or one member taken for another."""
    ds = atmosphere(("t2m",))
    path = write(ensemble(ds), tmp_path / "all.nc")
    with pytest.raises(ValueError, match=r"one member .*, got 3 \(5 .. 7\) in \S+all.nc; choose .* source.member: 5"):
        archive(path)
    np.testing.assert_array_equal(archive(path, member=6).dataset()["t2m"], ds["t2m"] + 1)
    with pytest.raises(ValueError, match=r"source.member must be one of the .*, got 1; \S+all.nc holds 3 \(5 .. 7\)"):
        archive(path, member=1)


def test_a_file_a_member(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches files of several members, each of one, compared as if they were the same times twice."""
    ds = atmosphere(("t2m",))
    for number in (5, 6, 7):
        write(ensemble(ds).sel(number=number), tmp_path / f"{number}.nc")
    with pytest.raises(ValueError, match=r"got 3 \(5 .. 7\) in \S+5.nc and others; choose one, e.g. source.member: 5"):
        archive(tmp_path)
    np.testing.assert_array_equal(archive(tmp_path, member=7).dataset()["t2m"], ds["t2m"] + 2)
    with pytest.raises(ValueError, match=r"source.member must be one of .*, got 9; the files hold 3 \(5 .. 7\)"):
        archive(tmp_path, member=9)


def test_members_in_grib(tmp_path: Path) -> None:
    """Catches a member of another number read, and fields of other members that are not wanted in the way."""
    time = np.datetime64("2001-01-01", "ns")
    keys = {"productDefinitionTemplateNumber": 1}
    fields = [
        {"name": "2t", "time": time, "value": 270.0 + n, "keys": keys | {"perturbationNumber": n}} for n in (1, 2, 3)
    ]
    path = grib(tmp_path / "a.grib", fields)
    with pytest.raises(ValueError, match=r"got 3 \(1 .. 3\) in \S+a.grib; choose one, e.g. source.member: 1"):
        archive(path)
    assert float(archive(path, member=2).dataset()["t2m"][0, 0, 0]) == pytest.approx(272.0)


def in_calendar(ds: xr.Dataset, calendar: str, start: str) -> xr.Dataset:
    times = xr.date_range(start, periods=ds.sizes["time"], freq="6h", calendar=calendar, use_cftime=True)
    return ds.assign_coords(time=times)


@pytest.mark.parametrize("calendar", ["360_day", "julian", "all_leap"])
def test_calendars_that_are_refused(atmosphere: Atmosphere, tmp_path: Path, calendar: str) -> None:
    """Catches dates of another calendar refused as "object", or given other dates in silence."""
    path = write(in_calendar(atmosphere(("t2m",)), calendar, "2001-01-01"), tmp_path / "a.nc")
    name = {"all_leap": "366_day"}.get(calendar, calendar)
    with pytest.raises(ValueError, match=rf"got calendar '({calendar}|{name})' for 'time' in \S+a.nc; convert"):
        archive(path)


def spanning(start: str, end: str) -> Data:
    splits = {"train": {"start": start, "end": start}, "test": {"start": end, "end": end}}
    return Data.model_validate({"period": {"start": start, "end": end}, "splits": splits})


def test_a_calendar_without_leap_days(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches noleap refused where its dates are those of everyone, and steps taken over a 29 February it lacks."""
    ds = atmosphere(("t2m",))
    path = write(in_calendar(ds, "noleap", "2004-02-27T12:00"), tmp_path / "leap.nc")
    found = archive(path)
    assert found.times[0] == np.datetime64("2004-02-27T12")
    assert found.times[-1] == np.datetime64("2004-03-01T12")  # the day between does not exist there
    np.testing.assert_array_equal(found.dataset()["t2m"].values, ds["t2m"].values)
    with pytest.raises(ValueError, match=r"calendar without 29 February .* got 2004-02-29 .*data.period"):
        store_times(found, spanning("2004-02-27", "2004-03-02"))
    other = archive(write(in_calendar(ds, "noleap", "2001-02-27T12:00"), tmp_path / "plain.nc"))
    times, missing = store_times(other, spanning("2001-02-27", "2001-03-02"))
    assert times.size == 9
    assert missing.size == 7
