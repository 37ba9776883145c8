"""Checkpoints from before networks had an architecture and trainings a clock still open."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import model.weather.train
from model.training import checkpoint
from model.weather.forecast import run_forecast
from model.weather.train import run_train
from pipeline import files
from pipeline.store import open_store
from pipeline.weather.config import WeatherConfig
from tests.model.runs import equal_runs
from tests.model.weather.trainers import dying_task, elsewhere

pytestmark = pytest.mark.slow

# A description as it was written then, for the small experiment of these tests; what the store and the step decide
# (contract, normals, step, sampler, best, files) is put in below. No seconds, no task, no architecture, no minutes.
OLD: dict[str, Any] = {
    "format": 1,
    "model": {
        "channels": ["t500", "t850", "t2m", "lsm", "orog"],
        "out_channels": ["t500", "t850", "t2m"],
        "image": [6, 12], "patch": 2, "width": 16, "depth": 1, "heads": 2, "mlp_ratio": 4.0, "decoder_depth": 1,
        "dropout": 0.1, "groups": "all", "tree": "Tree0", "unit": "C", "channel_stage": "fused",
    },
    "network_input": "state",
    "splits": {
        "train": [{"start": "2000-01-01T00:00:00", "end": "2000-12-31T23:00:00"}],
        "validation": [{"start": "2001-01-01T00:00:00", "end": "2001-01-20T23:00:00"}],
        "test": {"start": "2001-01-21T00:00:00", "end": "2001-03-31T23:00:00"},
    },
    "config": {
        "name": "small",
        "model": {
            "network_input": "state", "history_hours": [], "patch": 2, "width": 16, "depth": 1, "heads": 2,
            "mlp_ratio": 4.0, "decoder_depth": 1, "dropout": 0.1,
            "groups": {"by": "flat", "count": 1, "listed": []}, "tree": "Tree0", "unit": "C", "channel_stage": "fused",
        },
        "training": {"steps": 12, "batch_size": 4, "lead_hours": [24, 72], "seed": 0},
    },
    "weights": "average",
    "start_from": None,
    "ranks": {"data": 1, "channel": 1},
    "commit": "f2ad796e9613",
}  # fmt: skip
PUT_IN = ("step", "contract", "normals", "sampler", "best", "files")


def age(path: Path) -> None:
    """Rewrite the description of a checkpoint as the old version wrote it."""
    new = checkpoint.describe(path)
    files.write_json(path / "checkpoint.json", {**OLD, **{key: new[key] for key in PUT_IN}})


@pytest.fixture
def stopped(experiment: Callable[..., WeatherConfig], monkeypatch: pytest.MonkeyPatch) -> WeatherConfig:
    """A training stopped after step 8 of 12, its checkpoints as the old version left them."""
    config = experiment()
    with monkeypatch.context() as patch:
        patch.setattr(model.weather.train, "ForecastTask", dying_task(9))
        with pytest.raises(KeyboardInterrupt):
            run_train(config)
    for path in config.paths.checkpoints.iterdir():
        age(path)
    return config


def test_training_resumes_from_an_old_checkpoint(stopped: WeatherConfig, tmp_path: Path) -> None:
    """Catches a key that came later and is asked for, and an identity that no longer equals the old one."""
    undisturbed = elsewhere(stopped, tmp_path / "undisturbed")
    run_train(undisturbed)
    run_train(stopped)
    assert equal_runs(stopped.paths.train, undisturbed.paths.train)
    newest = checkpoint.newest(stopped.paths.checkpoints)
    assert newest is not None
    assert checkpoint.describe(newest)["step"] == 12


def test_forecasts_come_from_an_old_checkpoint(stopped: WeatherConfig) -> None:
    """Catches a forecast that cannot tell which network an old checkpoint holds, and one of other weights."""
    run_train(stopped)
    run_forecast(stopped)
    expected = open_store(stopped.paths.forecast).load()
    for path in stopped.paths.checkpoints.iterdir():
        age(path)
    stopped.paths.receipt("forecast").unlink()
    shutil.rmtree(stopped.paths.forecast)
    run_forecast(stopped)
    found = open_store(stopped.paths.forecast)
    assert found.attrs["contract"]["checkpoint"] == expected.attrs["contract"]["checkpoint"]
    assert np.array_equal(found["state"].values, expected["state"].values)
