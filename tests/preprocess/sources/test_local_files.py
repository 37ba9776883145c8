"""Many files become one archive: every time once, nothing guessed, every fault named with its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from pipeline.weather.sections import Channels, FilesSource
from pipeline.weather.variables import STANDARD_GRAVITY
from preprocess.sources import Archive, grib_messages
from preprocess.sources.local_files import find_files, open_file, open_files
from preprocess.sources.netcdf3 import expected_size
from tests.preprocess.sources.gribs import grib

Atmosphere = Callable[..., xr.Dataset]
T2M = Channels(variables=["t2m"], levels=[], statics=[])


def archive(*paths: Path | str, channels: Channels = T2M, constants: tuple[Path, ...] = ()) -> Archive:
    source = FilesSource(kind="files", paths=[str(p) for p in paths], constants=[str(p) for p in constants])
    return open_files(source, channels=channels)


def write(ds: xr.Dataset, path: Path) -> Path:
    ds.to_netcdf(path)
    return path


def test_files_out_of_order_and_overlapping(
    atmosphere: Atmosphere, time_axis: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    """Catches times in the order of file names, and a time that two files share taken twice."""
    ds = atmosphere(("t2m",), times=time_axis(12))
    write(ds.isel(time=slice(5, 12)), tmp_path / "a.nc")
    write(ds.isel(time=slice(0, 7)), tmp_path / "b.nc")
    found = archive(tmp_path / "*.nc")
    np.testing.assert_array_equal(found.times, ds["time"].values)
    assert found.facts["times_held_more_than_once"] == 2
    np.testing.assert_array_equal(found.dataset()["t2m"].compute(), ds["t2m"])
    some = found.times[[2, 6, 11]]
    np.testing.assert_array_equal(found.dataset(some)["t2m"].compute(), ds["t2m"].sel(time=some))
    with pytest.raises(ValueError, match="among those of the archive"):
        found.dataset(found.times[:1] + np.timedelta64(1, "h"))


def test_contradicting_files(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches one of two different values for the same time chosen in silence."""
    ds = atmosphere(("t2m",))
    write(ds, tmp_path / "a.nc")
    other = ds.isel(time=[4])
    write(other.where((other.latitude != 30) | (other.longitude != 50), other + 0.25), tmp_path / "b.nc")
    found = archive(tmp_path / "*.nc")
    found.dataset(found.times[:4]).compute()
    with pytest.raises(
        ValueError, match=r"one value at 2001-01-02T00:00, got up to 0.25\S* between \S+a.nc and \S+b.nc"
    ):
        found.dataset().compute()


def test_orientations_of_one_grid(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches fields of opposite conventions joined without being turned."""
    ds = atmosphere(("t2m",))
    write(ds.isel(time=slice(0, 4)), tmp_path / "a.nc")
    turned = ds.isel(time=slice(4, None), latitude=slice(None, None, -1))
    turned = turned.assign_coords(longitude=(turned.longitude + 180) % 360 - 180).sortby("longitude")
    write(turned, tmp_path / "b.nc")
    np.testing.assert_array_equal(archive(tmp_path / "*.nc").dataset()["t2m"].compute(), ds["t2m"])


def test_variables_and_levels_in_separate_files(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a file a level, or a file a variable, put together in the wrong order."""
    ds = atmosphere(("z", "t", "t2m"), levels=(300, 500, 850))
    write(ds[["z"]].sel(level=[850, 300]), tmp_path / "two.nc")
    write(ds[["z"]].sel(level=[500]), tmp_path / "one.nc")
    write(ds[["t"]], tmp_path / "t.nc")
    write(ds[["t2m"]], tmp_path / "t2m.nc")
    channels = Channels(variables=["z", "t", "t2m"], levels=[300, 500, 850], statics=[])
    found = archive(tmp_path / "*.nc", channels=channels).dataset().compute()
    assert list(found) == ["z", "t", "t2m"]
    for short in found:
        np.testing.assert_array_equal(found[short].transpose(*ds[short].dims), ds[short])
    assert found["level"].values.tolist() == [300, 500, 850]
    alone = archive(tmp_path / "*.nc", channels=Channels(variables=["z"], levels=[300, 500, 850], statics=[]))
    assert alone.dataset()["level"].values.tolist() == [300, 500, 850]


def test_times_with_some_channels_only(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a time completed, or dropped without a word, where one variable lacks it."""
    ds = atmosphere(("t2m", "u10"))
    write(ds[["t2m"]], tmp_path / "t2m.nc")
    write(ds[["u10"]].isel(time=[0, 1, 2, 4, 5, 8]), tmp_path / "u10.nc")
    both = Channels(variables=["t2m", "u10"], levels=[], statics=[])
    found = archive(tmp_path / "*.nc", channels=both)
    np.testing.assert_array_equal(found.times, ds["time"].values[[0, 1, 2, 4, 5, 8]])
    lacking = ["2001-01-01T18:00", "2001-01-02T12:00", "2001-01-02T18:00"]
    assert found.facts["times_with_some_channels_only"] == lacking
    np.testing.assert_array_equal(found.dataset()["t2m"].compute(), ds["t2m"].isel(time=[0, 1, 2, 4, 5, 8]))
    shifted = write(ds[["u10"]].assign_coords(time=ds.time + np.timedelta64(1, "h")), tmp_path / "shifted.nc")
    with pytest.raises(
        ValueError, match=r"every channel is there, got none .*t2m: 2001-01-01T00:00 .. 2001-01-03T00:00"
    ):
        archive(tmp_path / "t2m.nc", shifted, channels=both)


def test_everything_missing_in_one_message(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a report of the first fault only, or one that does not list what there is."""
    write(atmosphere(("z", "u10")).assign(sst=("time", np.zeros(9))), tmp_path / "a.nc")
    channels = Channels(variables=["z", "t2m", "u10"], levels=[300, 500], statics=["lsm"])
    with pytest.raises(ValueError, match="got none of") as error:
        archive(tmp_path / "a.nc", channels=channels)
    text = str(error.value)
    for phrase in (
        "'z' at 300 hPa (it has 500, 850 hPa)",
        "variable 't2m' (2m_temperature)",
        "static variable 'lsm' (land_sea_mask)",
        "a.nc holds z at 500, 850 hPa, u10",
        "data.channels",
    ):
        assert phrase in text, phrase
    assert "'u10'" not in text


def test_statics(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches statics of another grid refused or regridded, and a field that changes taken as static."""
    write(atmosphere(("t2m",)), tmp_path / "a.nc")
    fine = atmosphere(("lsm", "orog"), latitude=np.linspace(-87, 87, 30), longitude=np.arange(40) * 9.0)
    constants = fine.rename(orog="z").expand_dims(valid_time=fine["time"].values[:1]).drop_vars("time")
    write(constants, tmp_path / "constants.nc")
    channels = Channels(variables=["t2m"], levels=[], statics=["lsm", "orog"])
    found = archive(tmp_path / "a.nc", channels=channels, constants=(tmp_path / "constants.nc",)).statics()
    for short in ("lsm", "orog"):
        assert found[short].shape == (30, 40)
        np.testing.assert_array_equal(found[short], fine[short])
    changing = xr.concat(
        [constants, (constants * 0.5).assign_coords(valid_time=fine["time"].values[1:2])], "valid_time"
    )
    write(changing, tmp_path / "changing.nc")
    with pytest.raises(ValueError, match=r"'lsm' must not change with time, .* of 2 times in \S+changing.nc"):
        archive(tmp_path / "a.nc", channels=channels, constants=(tmp_path / "changing.nc",)).statics()


def test_grids_that_cannot_be_used(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a region, or two different grids, accepted."""
    ds = atmosphere(("t2m",))
    write(ds.sel(latitude=slice(70, 30), longitude=slice(0, 40)), tmp_path / "region.nc")
    with pytest.raises(
        ValueError, match=r"cover the globe, got Grid\(5 x 5, latitude 70 .. 30, longitude 0 .. 40\) in \S+region.nc"
    ):
        archive(tmp_path / "region.nc")
    write(ds.isel(longitude=slice(0, 35)), tmp_path / "gap.nc")
    with pytest.raises(ValueError, match=r"cover the globe, got .* in \S+gap.nc"):
        archive(tmp_path / "gap.nc")
    write(ds.isel(time=slice(0, 3)), tmp_path / "one.nc")
    finer = atmosphere(("t2m",), latitude=np.linspace(90, -90, 37), longitude=np.arange(72) * 5.0)
    write(finer.isel(time=slice(3, None)), tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"share one grid, got Grid.19 x 36.* in \S+one.nc and Grid.37 x 72"):
        archive(tmp_path / "one.nc", tmp_path / "other.nc")


@pytest.mark.parametrize("kind", ["NETCDF3_CLASSIC", "NETCDF3_64BIT", "NETCDF4"])
@pytest.mark.parametrize("kept", [0.7, 0.97])
def test_a_truncated_netcdf(atmosphere: Atmosphere, tmp_path: Path, kind: Any, kept: float) -> None:
    """Catches the lost end of a classic file read as zeros, which the NetCDF library does."""
    path = tmp_path / "cut.nc"
    atmosphere(("u10",)).to_netcdf(path, format=kind, unlimited_dims=["time"])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"NetCDF file must be .*whole, got .*cut.nc.*fetch it again"):
        archive(path, channels=Channels(variables=["u10"], levels=[], statics=[]))


@pytest.mark.parametrize("version", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
@pytest.mark.parametrize("types", [("i2",), ("f8",), ("i1", "f4"), ("i2", "i2")])
@pytest.mark.parametrize("unlimited", [False, True])
def test_size_of_a_classic_file(tmp_path: Path, version: Any, types: tuple[str, ...], unlimited: bool) -> None:
    """Catches a whole file refused, or one cut by a single value accepted: padding follows odd rules."""
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=version) as file:
        for name, size in (("time", None if unlimited else 5), ("latitude", 7), ("longitude", 9)):
            file.createDimension(name, size)
        file.title = "abcde"
        for i, kind in enumerate(types):
            variable = file.createVariable(f"field{i}", kind, ("time", "latitude", "longitude"))
            variable.flags = np.arange(3, dtype="i2")
            variable[:] = np.ones((5, 7, 9))
    assert 0 <= path.stat().st_size - expected_size(path) < 4


def test_files_of_another_kind(tmp_path: Path) -> None:
    """Catches a file skipped because it cannot be read, or a pattern that matches nothing."""
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"must be NetCDF or GRIB, got \S+notes.txt, which begins with b'hell'"):
        open_file(tmp_path / "notes.txt")
    with pytest.raises(ValueError, match=r"got none for '\S+absent\*.nc'"):
        find_files([str(tmp_path / "*.txt"), str(tmp_path / "absent*.nc")])


def test_a_zarr_folder(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a folder mistaken for a file, and native chunks that a task cuts."""
    ds = atmosphere(("t2m",)).chunk({"time": 4})
    ds.to_zarr(tmp_path / "a.zarr")
    found = archive(tmp_path / "*.zarr").dataset()
    assert found["t2m"].chunks[0] == (9,)
    np.testing.assert_array_equal(found["t2m"].compute(), ds["t2m"])


@pytest.mark.parametrize("edition", [1, 2])
def test_grib(tmp_path: Path, edition: int) -> None:
    """Catches values, levels, times or rows of GRIB in the wrong place, and index files beside the user's."""
    a, b = np.datetime64("2001-01-01T00", "ns"), np.datetime64("2001-01-01T06", "ns")
    path = grib(
        tmp_path / "name_that_says_nothing",
        [
            {"name": "t", "time": b, "level": 850, "value": 270.0},
            {"name": "t", "time": a, "level": 500, "value": 240.0},
            {"name": "2t", "time": a, "value": 280.0},
            {"name": "t", "time": b, "level": 500, "value": 250.0},
            {"name": "2t", "time": b, "value": 290.0},
            {"name": "t", "time": a, "level": 850, "value": 260.0},
        ],
        edition=edition,
    )
    found = archive(path, channels=Channels(variables=["t", "t2m"], levels=[500, 850], statics=[]))
    np.testing.assert_array_equal(found.times, [a, b])
    assert found.grid.latitude[0] == 90.0
    assert found.grid.shape == (7, 12)
    ds = found.dataset().compute()
    index = np.arange(84).reshape(7, 12) / 8.0
    for i, values in enumerate(([240.0, 260.0, 280.0], [250.0, 270.0, 290.0])):
        np.testing.assert_allclose(ds["t"][i, 0], values[0] + index, atol=1e-4)
        np.testing.assert_allclose(ds["t"][i, 1], values[1] + index, atol=1e-4)
        np.testing.assert_allclose(ds["t2m"][i], values[2] + index, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_grib_indexing(tmp_path: Path) -> None:
    """Catches a lazy GRIB array that disagrees with NumPy about an index."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(4) * np.timedelta64(6, "h")
    fields = [
        {"name": "t", "time": t, "level": p, "value": 200.0 + 10 * i + p / 100}
        for i, t in enumerate(times)
        for p in (500, 850)
    ]
    (piece,) = open_file(grib(tmp_path / "a.grib", fields))
    lazy, whole = piece.raw["t"], piece.raw["t"].copy(deep=True).load()
    for key in (
        {"time": 2},
        {"time": slice(1, 4, 2), "level": [1]},
        {"time": [3, 0], "level": 1},
        {"latitude": 3},
        {"time": 1, "level": 0, "latitude": slice(None, None, -1), "longitude": [5, 2]},
        {"longitude": 4, "time": [0]},
    ):
        np.testing.assert_array_equal(lazy.isel(key).values, whole.isel(key).values)


def test_forecasts_give_way_to_analyses(tmp_path: Path) -> None:
    """Catches a forecast taken where there is an analysis, or a valid time without its lead."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(3) * np.timedelta64(3, "h")
    grib(tmp_path / "a6", [{"name": "10u", "time": times[2], "lead": 6, "value": 1.0}])
    grib(tmp_path / "b3", [{"name": "10u", "time": t, "lead": 3, "value": 2.0} for t in times[1:]])
    grib(
        tmp_path / "an",
        [{"name": "10u", "time": times[0], "value": 3.0}, {"name": "10u", "time": times[1], "value": 4.0}],
    )
    found = archive(tmp_path / "*", channels=Channels(variables=["u10"], levels=[], statics=[]))
    np.testing.assert_array_equal(found.times, times)
    np.testing.assert_allclose(found.dataset()["u10"][:, 0, 0].values, [3.0, 4.0, 2.0], atol=1e-4)
    assert found.facts["longer_leads_dropped"] == 2
    assert found.lead_hours(times).tolist() == [0.0, 0.0, 3.0]


def test_grib_fields_of_no_interest(tmp_path: Path) -> None:
    """Catches a file refused for fields ecCodes has no name for, or an average taken for the field itself."""
    time = np.datetime64("2001-01-01", "ns")
    odd = {"name": "2t", "time": time, "value": 1.0, "keys": {"parameterCategory": 190, "parameterNumber": 233}}
    mean = {"productDefinitionTemplateNumber": 8, "typeOfStatisticalProcessing": 0, "lengthOfTimeRange": 6}
    fields = [
        {"name": "2t", "time": time, "value": 280.0},
        odd,
        odd | {"value": 2.0},
        {"name": "2t", "time": time, "value": 270.0, "keys": mean},
    ]
    found = archive(grib(tmp_path / "a.grib", fields))
    assert float(found.dataset()["t2m"][0, 0, 0]) == pytest.approx(280.0)
    analysis = {"name": "2t", "time": time, "value": 280.0, "keys": {"timeRangeIndicator": 123}}
    assert archive(grib(tmp_path / "b.grib", [analysis], edition=1)).times.size == 1  # as the CDS delivers ERA5
    assert sorted(n for p in found.pieces for n in p.survey.unknown) == ["avg_2t_avg", "unknown"]


def test_faulty_grib(tmp_path: Path) -> None:
    """Catches missing points filled with the code for missing, a message cut short, and doubled messages."""
    time = np.datetime64("2001-01-01", "ns")
    field = {"name": "2t", "time": time, "value": 280.0}
    with pytest.raises(ValueError, match=r"'t2m' .* no missing values, got 1 of 84 at 2001-01-01T00:00 in"):
        archive(grib(tmp_path / "gap.grib", [field], bitmap=True)).dataset().compute()
    whole = grib(tmp_path / "cut.grib", [field, field | {"time": time + np.timedelta64(6, "h")}]).read_bytes()
    for kept in (len(whole) - 5, len(whole) // 2 + 60):
        (tmp_path / "cut.grib").write_bytes(whole[:kept])
        with pytest.raises(ValueError, match=r"GRIB file must be whole, got \S+cut.grib, which ends inside message 2"):
            archive(tmp_path / "cut.grib")
    with pytest.raises(ValueError, match=r"hold a field once, got '2t' at 2001-01-01T00.* twice"):
        archive(grib(tmp_path / "twice.grib", [field, field]))


def test_heights_become_geopotential(tmp_path: Path, time_axis: Callable[..., np.ndarray]) -> None:
    """Catches geopotential height in metres, as GFS has it, that is refused or not multiplied by gravity."""
    time = time_axis(1)[0]
    path = grib(tmp_path / "gh.grib", [{"name": "gh", "time": time, "level": 500, "value": 5500.0}])
    found = archive(path, channels=Channels(variables=["z"], levels=[500], statics=[])).dataset()["z"].values
    assert abs(found.min() - 5500.0 * STANDARD_GRAVITY) < 0.1


def test_headers_are_scanned_once(
    tmp_path: Path, time_axis: Callable[..., np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches headers scanned at every start, and an index believed for a file that has changed or when damaged."""
    times, index = time_axis(3), tmp_path / "index"

    def fields(*values: float) -> list[dict[str, Any]]:
        return [{"name": "2t", "time": t, "value": v} for t, v in zip(times, values, strict=False)]

    path = grib(tmp_path / "t.grib", fields(270.0, 280.0))
    scanned: list[Path] = []
    original = grib_messages.scan
    monkeypatch.setattr(grib_messages, "scan", lambda p: (scanned.append(p), original(p))[1])
    first = open_file(path, index=index)
    again = open_file(path, index=index)
    assert len(scanned) == 1
    xr.testing.assert_identical(first[0].raw.load(), again[0].raw.load())
    grib(path, fields(270.0, 280.0, 290.0))
    assert open_file(path, index=index)[0].raw.sizes["time"] == 3
    kept = next(index.iterdir())
    kept.write_text(kept.read_text()[:-40])
    assert open_file(path, index=index)[0].raw.sizes["time"] == 3
    assert len(scanned) == 3
