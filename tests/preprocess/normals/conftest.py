"""A training store with given fields, and its normals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.weather.climatology import Normals
from preprocess.normals import stage as stage
from preprocess.normals.stage import run_normals

GRID = Grid.regular(22.5)
WEIGHTS = GRID.area_weights / GRID.size
NAMES = ["t850", "t2m", "u10"]
Configure = Callable[..., Config]


def days(start: str, stop: str, *, hours: int = 24) -> np.ndarray:
    return np.arange(start, stop, np.timedelta64(hours, "h"), dtype="datetime64[ns]")


def noise(times: np.ndarray, *, seed: int = 3) -> np.ndarray:
    """Fields (time, channel, latitude, longitude) whose spread differs between rows and channels."""
    dice = np.random.default_rng(seed)
    size = np.array([3.0, 10.0, 0.5])[:, None, None] * (1 + np.arange(8))[:, None]
    fields = dice.normal(size=(times.size, 3, 8, 16)) * size + np.array([260.0, 280.0, -1.0])[:, None, None]
    return fields.astype(np.float32)


@pytest.fixture
def prepare(configure: Configure) -> Callable[..., Config]:
    """Write a training store with given fields, and return the configuration of its normals."""

    def make(
        times: np.ndarray, fields: np.ndarray, *, train: Any, statics: np.ndarray | None = None, **data: Any
    ) -> Config:
        channels = {"variables": ["t", "t2m", "u10"], "levels": [850], "statics": [] if statics is None else ["lsm"]}
        after = [str(times[-1] + np.timedelta64(h, "h"))[:13] + ":00" for h in (24, 47)]
        config = configure(
            ["unused.nc"],
            channels=channels,
            period={"start": str(times[0])[:13] + ":00", "end": after[1]},
            splits={"train": train, "test": {"start": after[0], "end": after[1]}},
            **data,
        )
        static_names = np.array(["lsm"] if statics is not None else [], dtype="U8")
        planes = np.zeros((0, *GRID.shape), np.float32) if statics is None else statics[None].astype(np.float32)
        coords = xr.Dataset(
            {"static": (("static_channel", "latitude", "longitude"), planes)},
            coords={
                "time": times,
                "channel": NAMES,
                "static_channel": static_names,
                "latitude": GRID.latitude,
                "longitude": GRID.longitude,
            },
        )
        spec = store.ArraySpec(("time", "channel", "latitude", "longitude"), fields.shape, (1, 2, *GRID.shape))
        contract = {"kind": "training store", "channels": NAMES, "source": {"kind": "files", "label": "made up"}}
        with store.SlabStore(
            config.paths.store, arrays={"state": spec}, coords=coords, slab_dim="time", slab_size=50, contract=contract
        ) as writer:
            for slab in writer.pending():
                writer.write(slab, {"state": fields[slab.slice]})
            writer.finish()
        return config

    return make


def run(config: Config) -> Normals:
    run_normals(config)
    return Normals.open(config.paths.normals)


def stepping(config: Config, *steps: int, **normals: Any) -> Config:
    """The same experiment for a model with steps."""
    raw = config.model_dump(mode="json")
    raw["training"]["step_hours"] = list(steps)
    del raw["forecast"]["lead_hours"]
    raw["evaluation"]["baselines"] = []
    raw["data"]["normals"] |= normals
    return configuration.parse(raw)
