"""A small experiment with real stores: a wave that travels over a seasonal cycle, on a 6 x 12 grid."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.parallel.launch import process_group
from pipeline.config import Config, dump, parse
from pipeline.grid import Grid
from tests.stores import data_block, write_training_store

torch.set_num_threads(1)

GAP = (np.datetime64("2000-05-10T00"), np.datetime64("2000-05-12T12"))
"""Times missing from the store, both ends included."""


def raw_config(directory: Path, **training: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "directory": str(directory),
        "source": {"kind": "simulation"},
        "data": data_block(
            ("2000-01-01", "2001-03-31"),
            train=("2000-01-01", "2000-12-31"),
            validation=("2001-01-01", "2001-01-20"),
            test=("2001-01-21", "2001-03-31"),
            variables=["t", "t2m"], levels=[500, 850], statics=["lsm", "orog"],
            step_hours=12, regrid={"resolution": 30.0}, slab_times=50,
        ),
        "model": {"width": 16, "depth": 1, "heads": 2, "decoder_depth": 1, "dropout": 0.1},
        "training": {
            "steps": 12, "batch_size": 4, "lead_hours": [24, 72], "warmup_steps": 2, "learning_rate": 2e-3,
            "ema_decay": 0.9, "validate_every": 5, "validation_samples": 8, "checkpoint_every": 4,
            "tensorboard": False, **training,
        },
        "forecast": {"lead_hours": [24, 72], "batch_size": 5},
        "evaluation": {"variables": ["t850", "t2m"]},
    }  # fmt: skip


def store_times() -> np.ndarray:
    times = np.arange("2000-01-01T00", "2001-04-01T00", np.timedelta64(12, "h"), dtype="datetime64[h]")
    return times[(times < GAP[0]) | (times > GAP[1])].astype("datetime64[ns]")


def synthetic_state(times: np.ndarray, grid: Grid) -> np.ndarray:
    """(time, 3 channels, lat, lon) float32 [K]: mean, season, a wave moving 30 degrees east a day, a little noise."""
    days = (times - np.datetime64("2000-01-01")) / np.timedelta64(1, "D")
    lat, lon = np.deg2rad(grid.latitude)[:, None], np.deg2rad(grid.longitude)[None, :]
    noise = np.random.default_rng(7).standard_normal((len(times), 3, *grid.shape))
    fields = []
    for c, (mean, amplitude, wavenumber) in enumerate([(250.0, 3.0, 2), (280.0, 5.0, 1), (287.0, 4.0, 3)]):
        season = 8.0 * np.sin(lat) * np.cos(2 * np.pi * days / 365.25)[:, None, None]
        wave = amplitude * np.cos(lat) * np.cos(wavenumber * (lon - np.pi / 6 * days[:, None, None]) + c)
        fields.append(mean - 20.0 * np.sin(lat) ** 2 + season + wave)
    return (np.stack(fields, axis=1) + 0.3 * noise).astype(np.float32)


def write_store(config: Config, *, together: int = 2) -> None:
    """The training store as `regrid` would write it, `together` channels in a chunk, and its normals."""
    from preprocess.normals.stage import run_normals

    grid, times = config.data.regrid.grid, store_times()
    static = np.random.default_rng(3).random((len(config.data.channels.static), *grid.shape)).astype(np.float32)
    chunk, facts = (1, together, *grid.shape), {"label": "simulated"}
    write_training_store(config, times, synthetic_state(times, grid), static, chunk=chunk, facts=facts)
    run_normals(config)


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an experiment with its store, normals and receipts; never written to again."""
    directory = tmp_path_factory.mktemp("synthetic") / "results"
    config = parse(raw_config(directory))
    write_store(config)
    (directory / "config.yaml").write_text(dump(config))
    return directory


@pytest.fixture
def experiment(tmp_path: Path, synthetic: Path) -> Callable[..., Config]:
    """Makes an experiment on its own copy of the data; keyword arguments go to `training`."""

    def make(**training: Any) -> Config:
        directory = tmp_path / "results"
        if not directory.exists():
            shutil.copytree(synthetic, directory)
        return parse(raw_config(directory, **training))

    return make


@pytest.fixture
def group_of_one() -> Iterator[None]:
    """A process group of one rank, for tests that look into a trainer."""
    with process_group(world_size=1):
        yield
