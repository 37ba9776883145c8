"""A small made-up atmosphere, written in every spelling the sources must read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.config import Config
from pipeline.weather.variables import BY_SHORT, standard_geopotential
from tests.preprocess.stores import experiment
from tests.stores import SMALL_STEPS, data_block

LATITUDE = np.linspace(90.0, -90.0, 19)
LONGITUDE = np.arange(36) * 10.0
LEVELS = (500, 850)
BASE = {"t": 260.0, "u": 10.0, "v": -3.0, "q": 0.004, "t2m": 280.0, "u10": 5.0, "v10": -2.0}


def truth(short: str, level: int | None, times: Any, latitude: Any, longitude: Any) -> np.ndarray:
    """Values (time, latitude, longitude) that differ between any two variables, levels, times and places."""
    lat, lon = np.deg2rad(latitude)[:, None], np.deg2rad(longitude)[None, :]
    hours = ((np.asarray(times) - np.datetime64("2001-01-01")) / np.timedelta64(1, "h"))[:, None, None]
    if short == "lsm":
        return np.clip(0.5 + 0.6 * np.sin(2 * lon + lat), 0, 1)[None]
    if short == "orog":
        return 2e4 * (1 + np.sin(lon) * np.cos(lat))[None]
    middle = standard_geopotential(float(level or 0)) if short == "z" else BASE[short]
    size = 0.02 * middle if short in ("z", "q") else 4.0
    wave = np.sin(lat) + 0.5 * np.cos(lat) * np.cos(lon - hours / 100.0)
    return middle + size * (wave + (level or 0) / 1000.0) + 1e-3 * size * hours


def axis(steps: int, *, start: str = "2001-01-01", hours: int = 6) -> np.ndarray:
    """A time axis."""
    return np.datetime64(start, "ns") + np.arange(steps) * np.timedelta64(hours, "h")


def era5_like(
    variables: Sequence[str] = ("z", "t", "t2m", "u10"),
    *,
    times: np.ndarray | None = None,
    levels: Sequence[int] = LEVELS,
    latitude: np.ndarray = LATITUDE,
    longitude: np.ndarray = LONGITUDE,
) -> xr.Dataset:
    """A dataset in catalogue short names and canonical units, float32."""
    times = axis(9) if times is None else times
    ds = xr.Dataset(coords={"time": times, "latitude": latitude, "longitude": longitude})
    for short in variables:
        spec = BY_SHORT[short]
        dims: tuple[str, ...] = ("time", "latitude", "longitude")
        if spec.levels:
            values = np.stack([truth(short, p, times, latitude, longitude) for p in levels], axis=1)
            dims = ("time", "level", "latitude", "longitude")
            ds = ds.assign_coords(level=("level", list(levels), {"units": "hPa"}))
        else:
            values = truth(short, None, times, latitude, longitude)
            if spec.static:
                values, dims = values[0], dims[1:]
        ds[short] = (dims, values.astype(np.float32), {"units": spec.unit})
    return ds


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., Config]:
    """Configurations of the regrid and normals stages that write below tmp_path."""

    def make(paths: Sequence[Path | str], *, name: str = "out", **data: Any) -> Config:
        constants = data.pop("constants", [])
        settings = data_block(
            ("2001-01-01", "2001-01-03T00:00"),
            train=("2001-01-01", "2001-01-01T18:00"),
            test=("2001-01-02", "2001-01-03T00:00"),
            **SMALL_STEPS,
            statics=[],
        )
        files, statics = ([str(p) for p in group] for group in (paths, constants))
        source = {"kind": "files", "label": "made up", "paths": files, "constants": statics}
        return experiment(name, tmp_path / name, source=source, data=settings | data)

    return make


@pytest.fixture(scope="session")
def atmosphere() -> Callable[..., xr.Dataset]:
    """`era5_like`, for tests."""
    return era5_like


@pytest.fixture(scope="session")
def expected() -> Callable[..., np.ndarray]:
    """`truth`, for tests."""
    return truth


@pytest.fixture(scope="session")
def time_axis() -> Callable[..., np.ndarray]:
    """`axis`, for tests."""
    return axis


@pytest.fixture
def source(atmosphere: Callable[..., xr.Dataset], tmp_path: Path) -> Path:
    """Nine times on a 10 degree grid."""
    path = tmp_path / "source.nc"
    atmosphere().to_netcdf(path)
    return path
