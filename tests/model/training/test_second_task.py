"""A second task trains, resumes, is planned and runs on ranks, and nothing outside its own file knows of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from model.parallel.wrap import plan_for
from model.training.planner import plan_training
from model.training.rehearsal import footprint
from model.training.trainer import RunFolder, Trainer
from pipeline.sections import Training
from tests.forked import forking
from tests.model.parallel.harness import run_distributed
from tests.model.runs import equal_runs, losses, saved_tensors, training_peak
from tests.model.training.toy import Images, PixelsConfig, PixelTask, train

pytestmark = pytest.mark.slow

CHANNELS = tuple(f"band{i}" for i in range(10))


def task(*, network: dict[str, Any] | None = None, **training: Any) -> PixelTask:
    shape: dict[str, Any] = {"channels": CHANNELS, "image": (8, 12), "width": 16, "depth": 1, "heads": 4, "groups": 4}
    settings = {"steps": 12, "batch_size": 8, "warmup_steps": 2, "learning_rate": 5e-3, "ema_decay": 0.9}
    every = {"validate_every": 5, "checkpoint_every": 4, "tensorboard": False}
    config = PixelsConfig(**{**shape, "dropout": 0.1, **(network or {})})
    return PixelTask(config, Training(**{**settings, **every, **training}))


def test_it_trains(tmp_path: Path) -> None:
    """Catches a trainer that needs something of forecasting."""
    train(tmp_path, task(steps=100, validate_every=100, learning_rate=1e-2, network={"dropout": 0.0}))
    found = losses(tmp_path, "train")
    assert sum(found[-10:]) < 0.5 * sum(found[:10])
    assert losses(tmp_path, "validation")[0] < 0.5


def train_and_die(folder: Path, step: int) -> None:
    """A training that ends by SIGKILL in a step."""

    class Dying(PixelTask):
        def loss(self, predict: Any, batch: Images, *, mesh: Any) -> torch.Tensor:
            if len(losses_seen) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            losses_seen.append(step)
            return super().loss(predict, batch, mesh=mesh)

    losses_seen: list[int] = []
    torch.set_num_threads(1)
    train(folder, Dying(task().network, task().options))


def test_it_resumes_bit_identically(tmp_path: Path) -> None:
    """Catches a resume that works for forecasting alone."""
    train(tmp_path / "whole", task())
    process = forking().Process(target=train_and_die, args=(tmp_path / "killed", 8))
    process.start()
    process.join(timeout=400)
    assert process.exitcode == -signal.SIGKILL
    train(tmp_path / "killed", task())
    assert equal_runs(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("training", [{}, {"recompute": True, "micro_batch": 8}], ids=["plain", "thrifty"])
def test_its_plan_agrees_with_a_real_run(tmp_path: Path, training: dict[str, Any]) -> None:
    """Catches a planner that rehearses another task, or counts tensors that only forecasting has."""
    large = task(
        network={"width": 128, "depth": 3, "image": (16, 24)}, steps=2, batch_size=32, validate_every=2, **training
    )

    def make() -> Trainer[Images]:
        folder, console = RunFolder(tmp_path), Console(quiet=True)
        return Trainer(large, large.options, folder=folder, device=torch.device("cpu"), console=console)

    planned = footprint(large, large.options)
    assert planned.peak == pytest.approx(training_peak(make), rel=0.1)
    assert planned.optimiser == 2 * planned.parameters == 2 * planned.average


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_does() -> None:
    """Catches a search for a layout that knows the settings of forecasting's network."""
    one = task(batch_size=16)
    peak = footprint(one, one.options).peak
    _, content, refusal = plan_training(one, one.options, memory=str(int(0.8 * peak)), device="cpu")
    assert not content["fits"]
    assert refusal is not None
    assert "--set training.micro_batch=" in refusal


LAYOUTS = [{"data": 2}, {"channel": 2}, {"data": 2, "sharding": "fsdp"}, {"channel": 2, "trunk": "sequence"}]


def exact(**layout: Any) -> PixelTask:
    """In float64 and without dropout, whose masks belong to a data rank."""
    return task(precision="float64", layout=layout, steps=6, validate_every=3, network={"dropout": 0.0})


def train_exactly(folder: Path, layout: dict[str, Any]) -> int:
    """What a rank reads is a part of the channels; the number of these."""
    run = train(folder, exact(**layout))
    return run.data.batch(0).x.shape[1]


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_two_ranks_give_the_losses_of_one(tmp_path: Path, layout: dict[str, Any]) -> None:
    """Catches ranks that see the same images or other patches, and channels joined in another order."""
    train(tmp_path / "one", exact())
    read = run_distributed(train_exactly, 2, tmp_path / "two", layout)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-10)
    ours, theirs = saved_tensors(tmp_path / "two"), saved_tensors(tmp_path / "one")
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[n], theirs[n], rtol=0, atol=1e-8) for n in ours if n.startswith("model."))
    plan = plan_for(exact().network, ranks=layout.get("channel", 1))
    assert sorted(read) == sorted(len(plan.channels[rank % len(plan.channels)]) for rank in range(2))
