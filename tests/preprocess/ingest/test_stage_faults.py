"""Bad input and full disks stop the regrid stage with a name, and lose nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import store
from pipeline.config import Config
from pipeline.weather.sections import Channels
from pipeline.weather.variables import Channel
from preprocess.ingest.stage import run_regrid
from tests import forked
from tests.preprocess.stores import command, nothing_written, tree
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

Atmosphere = Callable[..., xr.Dataset]
Configure = Callable[..., Config]


def celsius(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(t2m=(ds["t2m"] - 273.15).assign_attrs(units="K"))


def gap(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(u10=ds["u10"].where((ds.time < ds.time[1]) | (ds.time > ds.time[2]) | (ds.latitude != 0)))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: d.drop_vars("u10"), "none of: variable 'u10' (10m_u_component_of_wind)"),
        (lambda d: d.isel(level=[0]), "none of: 'z' at 850 hPa (it has 500 hPa); 't' at 850 hPa"),
        (celsius, "variable 't2m' (2m_temperature) must lie within 170 .. 340 K, got"),
        (
            gap,
            "variable 'u10' (10m_u_component_of_wind) must have no missing values, got 36 of 684 at 2001-01-01T06:00",
        ),
        (lambda d: d.isel(time=[0, 2, 1]), "got 2001-01-01T06:00 after 2001-01-01T12:00"),
        (lambda d: d.isel(time=[0, 1, 1]), "got 2001-01-01T06:00 twice"),
        (lambda d: d.isel(longitude=slice(0, 20)), "source grid must cover the globe, got Grid(19 x 20"),
        (
            lambda d: d.assign_coords(time=d.time + np.timedelta64(365, "D")),
            "data.period must hold times of the source",
        ),
    ],
)
def test_bad_input_stops_before_anything_is_written(
    atmosphere: Atmosphere, configure: Configure, tmp_path: Path, break_it: Callable[..., Any], message: str
) -> None:
    """Catches bad data written, or a message that does not say what is wrong and where."""
    path = tmp_path / "bad.nc"
    break_it(atmosphere()).to_netcdf(path)
    config = configure([path])
    with pytest.raises(ValueError) as error:
        run_regrid(config)
    assert message in str(error.value)
    assert "bad.nc" in str(error.value) or "data.period" in str(error.value)
    assert nothing_written(config)


def test_a_fault_in_a_later_slab_loses_nothing(atmosphere: Atmosphere, configure: Configure, tmp_path: Path) -> None:
    """Catches good slabs thrown away, or a store marked complete, when a later time is bad."""
    ds = atmosphere()
    good = ds.copy(deep=True)
    ds["t2m"][6, 3, 3] = np.nan
    path = tmp_path / "source.nc"
    ds.to_netcdf(path)
    config = configure([path])
    with pytest.raises(ValueError, match="got 1 of 684 at 2001-01-02T12:00"):
        run_regrid(config)
    manifest = json.loads(store.manifest_path(config.paths.store).read_text())
    assert list(manifest["slabs"]) == ["0"]
    assert not manifest["complete"]
    path.unlink()
    good.to_netcdf(path)
    xr.backends.file_manager.FILE_CACHE.clear()
    run_regrid(config)
    fresh = configure([path], name="fresh")
    run_regrid(fresh)
    assert tree(config) == tree(fresh)


def test_the_earliest_fault_is_named(atmosphere: Atmosphere, configure: Configure, tmp_path: Path) -> None:
    """Catches a message about whichever of many files happened to be read first."""
    ds = atmosphere()
    for i in range(9):
        part = ds.isel(time=[i])
        (part if i < 1 else part.assign(t2m=part["t2m"] * np.nan)).to_netcdf(tmp_path / f"{9 - i}.nc")
    config = configure([tmp_path / "*.nc"], slab_times=9)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"got 684 of 684 at 2001-01-01T06:00 in \S+/8.nc"):
            run_regrid(config)
    assert nothing_written(config)


def test_command_line_status(atmosphere: Atmosphere, configure: Configure, tmp_path: Path, root: Path) -> None:
    """Catches a traceback shown to a user, or status 0 or 1 for bad data."""
    celsius(atmosphere()).to_netcdf(tmp_path / "bad.nc")
    config = configure([tmp_path / "bad.nc"])
    done = forked.run(command(config, tmp_path), cwd=root)
    assert done.returncode == 2
    assert "error: variable 't2m'" in done.stderr
    assert "Traceback" not in done.stderr
    assert nothing_written(config)


def test_another_contract_is_refused(source: Path, configure: Configure) -> None:
    """Catches a store of other content written over or added to."""
    config = configure([source])
    run_regrid(config)
    config.paths.receipt("regrid").unlink()
    group = zarr.open_group(config.paths.store, mode="r+")
    contract: Any = group.attrs["contract"]
    other = contract | {"regrid": contract["regrid"] | {"engine": "xesmf"}, "step_hours": 12}
    group.attrs["contract"] = other
    rewrite_manifest(config.paths.store, lambda content: content.update(contract=other))
    before = tree(config)
    with pytest.raises(
        ValueError, match=r"got 2 difference.s.(?s:.*)regrid.engine: xesmf against builtin(?s:.*)step_hours"
    ):
        run_regrid(config)
    assert tree(config) == before


def test_a_store_of_other_times_is_refused(source: Path, configure: Configure, atmosphere: Atmosphere) -> None:
    """Catches slabs shifted against those on disk when a file that was missing arrives later."""
    whole = atmosphere()
    source.unlink()
    whole.isel(time=[0, 1, 2, 4, 5, 6, 7, 8]).to_netcdf(source)
    config = configure([source])
    run_regrid(config)
    before = tree(config)
    config.paths.receipt("regrid").unlink()
    source.unlink()
    xr.backends.file_manager.FILE_CACHE.clear()
    whole.to_netcdf(source)
    with pytest.raises(ValueError, match=r"same time and slabs as this .*'length': 8.* against .*'length': 9"):
        run_regrid(config)
    assert tree(config) == before


def test_a_disk_too_small(source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a long run begun on a disk that cannot hold its result."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=20000))
    config = configure([source])
    with pytest.raises(ValueError, match=r"disk must hold 0.00 GB for \S+, got 0.00 GB free"):
        run_regrid(config)
    assert nothing_written(config)


def test_a_disk_that_fills_up(source: Path, configure: Configure, tmp_path: Path, root: Path) -> None:
    """Catches a traceback, a store marked complete, or one that cannot go on, when a write fails half-way."""
    config = configure([source])
    limited = forked.run(command(config, tmp_path), cwd=root, file_size=9000)
    assert limited.returncode == 2, limited.stderr
    assert "error:" in limited.stderr
    assert "Traceback" not in limited.stderr
    assert not config.paths.receipt("regrid").exists()
    whole = configure([source], name="whole")
    for each in (config, whole):
        run_regrid(each)
    assert tree(config) == tree(whole)


def test_a_store_of_colliding_channels(
    atmosphere: Callable[..., xr.Dataset], tmp_path: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a store whose 10 hPa wind an earlier version called u10, taken for complete, or read again."""
    ds = atmosphere(("u", "u10"), levels=(10, 500))
    ds.to_netcdf(tmp_path / "a.nc")
    config = configure([tmp_path / "a.nc"], channels={"variables": ["u", "u10"], "levels": [10, 500], "statics": []})
    with monkeypatch.context() as earlier:
        earlier.setattr(Channel, "name", property(lambda c: f"{c.variable}{c.level or ''}"))
        earlier.setattr(Channels, "dynamic", property(lambda _: (Channel("u", 10), Channel("u", 500), Channel("u10"))))
        earlier.setattr(Channels, "static", property(lambda _: ()))
        run_regrid(config)
    (tmp_path / "a.nc").unlink()
    with pytest.raises(ValueError, match=r"channels by variable and level, got u10 is u@10hPa: .* regrid again"):
        run_regrid(config)
