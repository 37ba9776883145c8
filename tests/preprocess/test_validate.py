"""`validate` names every departure of a store at once, and is silent about a good one."""

from __future__ import annotations

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
from preprocess.ingest.stage import run_regrid
from preprocess.validate import departures, run_validate
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]


@pytest.fixture
def good(atmosphere: Callable[..., xr.Dataset], configure: Configure, tmp_path: Path) -> Config:
    ds = atmosphere(("z", "t", "t2m", "u10", "lsm"))
    ds.isel(time=[0, 1, 2, 4, 5, 6, 7, 8]).to_netcdf(tmp_path / "a.nc")
    channels = {"variables": ["z", "t", "t2m", "u10"], "levels": [500, 850], "statics": ["lsm"]}
    config = configure([tmp_path / "a.nc"], channels=channels)
    run_regrid(config)
    return config


def open_for_change(config: Config) -> Any:
    return zarr.open_group(config.paths.store, mode="r+")


def edit(config: Config, **changes: Any) -> None:
    """Write another manifest, as sound as one that was written so."""

    def change(content: dict[str, Any]) -> None:
        for key, value in changes.items():
            part, _, name = key.partition("__")
            if name:
                content[part][name] = value
            else:
                content[part] = value

    rewrite_manifest(config.paths.store, change)


def test_a_good_store(good: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches complaints about what `regrid` makes."""
    assert departures(good.paths.store, config=good) == []
    run_validate(good, [])
    assert "keeps the contract" in capsys.readouterr().err


def test_a_flipped_byte(good: Config) -> None:
    """Catches damage on the disk that nobody notices: by validate and by reading."""
    shard = next(p for p in (good.paths.store / "state" / "c" / "1").rglob("*") if p.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(bytes(content))
    line = "slab 1 (2001-01-02T06:00 .. 2001-01-03T00:00) must be readable: a checksum does not fit in state/c/1/0/0/0"
    assert line in departures(good.paths.store)
    with pytest.raises(ValueError, match="run python -m pipeline regrid --verify, which writes again what is damaged"):
        run_validate(good, [])
    assert store.verify_store(good.paths.store)
    with pytest.raises(ValueError, match=r"slab 1 \(2001-01-02T06:00 .. 2001-01-03T00:00\): a checksum"):
        store.open_store(good.paths.store)["state"].isel(time=slice(4, 8)).load()


def test_all_departures_at_once(good: Config) -> None:
    """Catches a check that stops at the first fault, and any one of these that is not looked for."""
    group = open_for_change(good)
    values = group["state"][0:1]
    values[0, 4] -= 273.15  # t2m in degrees Celsius
    values[0, 5, 2, 2] = np.nan
    group["state"][0:1] = values
    units = group["unit"][:]
    units[0] = "m"
    group["unit"][:] = units
    group["latitude"][:] = group["latitude"][:][::-1]
    times = group["time"][:]
    times[1] += 1
    group["time"][:] = times
    edit(good, complete=False, facts__missing_times=[])
    lines = departures(good.paths.store, config=good)
    for start in (
        "must be complete",
        "unit of channel 'z500' must be 'm2 s-2', got 'm'",
        "latitude must run from south to north",
        "contract.grid must describe the coordinates",
        "grid must be that of the configuration",
        "times must lie 6 h apart",
        "slab 0 (2001-01-01T00:00 .. 2001-01-02T00:00) must match its recorded digest",
        "channel 't2m' must lie within 170 .. 340 K",
        "channel 'u10' must have no missing values, got 1",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)
    with pytest.raises(ValueError, match=rf"got {len(lines)} departure\(s\):\n{good.paths.store}\n  must be complete"):
        run_validate(good, [good.paths.store])


def test_missing_times_must_be_listed(good: Config) -> None:
    """Catches gaps that are neither data nor told."""
    assert store.read_manifest(good.paths.store)["facts"]["missing_times"] == ["2001-01-01T18:00"]
    edit(good, facts__missing_times=["2001-01-01T12:00"])
    lines = departures(good.paths.store)
    assert any("got 1 that is not, 2001-01-01T18:00 first" in line for line in lines)
    assert any("got 1 that is there, 2001-01-01T12:00 first" in line for line in lines)


def test_channels_in_another_order_or_unknown(good: Config, configure: Configure) -> None:
    """Catches a store whose channels mean something else than the catalogue says."""
    group = open_for_change(good)
    names = group["channel"][:]
    group["channel"][:] = np.array([names[1], names[0], names[2], names[3], "x9", names[5]], names.dtype)
    lines = departures(good.paths.store)
    assert any("channel must be a short name, got 'x9'" in line for line in lines)
    assert any("must be in the catalogue's order, z500, z850" in line for line in lines)
    assert any(line.startswith("contract.channels must be") for line in lines)
    assert any(line.startswith("level of channel 'z850' must be 850, got 500") for line in lines)


def test_stores_of_someone_else(good: Config, tmp_path: Path) -> None:
    """Catches a traceback for what is no store of ours at all."""
    (tmp_path / "empty").mkdir()
    assert departures(tmp_path / "empty")
    assert departures(tmp_path / "absent.zarr")[0].startswith("must be a Zarr group")
    lonely = tmp_path / "lonely.zarr"
    shutil.copytree(good.paths.store, lonely)
    assert departures(lonely)[0].startswith("must have a manifest, got no lonely.manifest.json")
    with xr.open_zarr(good.paths.store, consolidated=False) as ds:
        plain = ds[["state"]].drop_vars(["unit", "level"]).astype(np.float64).load()
    plain = plain.drop_encoding().transpose("time", "latitude", "longitude", "channel")
    plain.attrs = {}
    plain.to_zarr(tmp_path / "plain.zarr", zarr_format=3, consolidated=False)
    lines = departures(tmp_path / "plain.zarr")
    for start in (
        "attribute 'contract' must be a mapping",
        "state must have dimensions",
        "state must be float32",
        "coordinate 'level' must be there",
        "coordinate 'unit' must be there",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)


def test_forecasts_of_weatherbench(tmp_path: Path) -> None:
    """Catches faults in someone's forecast that would end as scores: names, dimensions, missing values."""
    lead = np.array([24, 48], "timedelta64[h]").astype("timedelta64[ns]")
    init = np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    lat, lon = -90 + (np.arange(4) + 0.5) * 45, np.arange(8) * 45.0
    coords = {"time": init, "prediction_timedelta": lead, "level": [500], "latitude": lat, "longitude": lon}
    rng = np.random.default_rng(0)
    surface = ("time", "prediction_timedelta", "latitude", "longitude")
    upper = ("time", "prediction_timedelta", "level", "latitude", "longitude")
    ds = xr.Dataset(
        {
            "geopotential": (upper, rng.normal(5e4, 9, (2, 2, 1, 4, 8))),
            "2m_temperature": (surface, rng.normal(280, 9, (2, 2, 4, 8))),
        },
        coords,
    )
    ds.to_zarr(tmp_path / "good.zarr")
    assert departures(tmp_path / "good.zarr") == []
    ds["2m_temperature"][1, 0, 2, 3] = np.nan
    ds["vorticity_of_mine"] = ds["2m_temperature"]
    ds["10m_u_component_of_wind"] = ds["2m_temperature"].isel(prediction_timedelta=0)
    ds.to_zarr(tmp_path / "bad.zarr")
    lines = departures(tmp_path / "bad.zarr")
    assert len(lines) == 3
    assert any("2m_temperature must have no missing values, got 1 at 2020-01-02T00:00" in line for line in lines)
    assert any("'vorticity_of_mine' must be one of the catalogue's long names" in line for line in lines)
