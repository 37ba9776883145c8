"""kill -9 at random moments, checkpoint writing included: the final parameters are those of an undisturbed run.

The suite kills a few times; `CHAGCAST_KILLS=20 pytest -s tests/model/training/test_kills.py` kills as often as you
like and says how many kills fell into the writing or removal of a checkpoint.
"""

from __future__ import annotations

import multiprocessing as mp
import os
import random
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch

import model.weather.train
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline.config import Config
from pipeline.weather.config import WeatherConfig
from tests.forked import forking
from tests.model.runs import equal_runs
from tests.model.training.stub import train
from tests.model.weather.trainers import dying_task, elsewhere, with_steps

KILLS = int(os.environ.get("CHAGCAST_KILLS", "6"))
Work = Callable[[], Any]
SETTINGS = {"steps": 10 * KILLS, "checkpoint_every": 1, "validate_every": 2}


def _train(work: Work, ready: Event) -> None:
    torch.set_num_threads(1)
    ready.set()
    work()


def _start(work: Work) -> mp.process.BaseProcess:
    """A training in a process of its own, its imports done."""
    context = forking()
    ready = context.Event()
    process = context.Process(target=_train, args=(work, ready))
    process.start()
    assert ready.wait(timeout=60)
    return process


def _kill(work: Work, run: Path, *, kills: int, start: float, between: float) -> str:
    """Kill a training at random moments.

    Args:
        work: trains, or resumes.
        run: its folder.
        kills: how often.
        start: seconds until a training is under way.
        between: seconds that it is then left alone at most.

    Returns:
        What was hit.
    """
    draw, done, writing = random.Random(20260101), 0, 0
    while done < kills:
        process = _start(work)
        process.join(timeout=draw.uniform(0.0, start + between))
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        writing += any((run / "checkpoints").glob(".*"))
    assert done >= kills // 2
    metrics = run / "metrics.jsonl"
    last = max(r["step"] for r in read_metrics(metrics)) if metrics.exists() else 0
    return f"\n{done} kills, {writing} inside the writing of a checkpoint, the last after step {last}"


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches any state that survives a kill half: in a checkpoint, in the metrics, in what is kept or removed."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    began = time.monotonic()
    loop = train(undisturbed, **SETTINGS).seconds
    start = max(0.05, time.monotonic() - began - loop)
    work = partial(train, killed, **SETTINGS)
    hit = _kill(work, killed, kills=KILLS, start=start, between=10 * loop / SETTINGS["steps"])
    with capsys.disabled():
        print(hit)
    work()
    assert equal_runs(killed, undisturbed)


def _train_and_die(config: WeatherConfig, step: int) -> None:
    """Train, or resume, until a number of losses has been computed; then die."""
    torch.set_num_threads(1)
    model.weather.train.ForecastTask = dying_task(step, kill=True)  # type: ignore[misc]
    run_train(config)


@pytest.mark.slow
def test_kills_inside_a_schedule_of_roll_outs_change_nothing(experiment: Callable[..., Config], tmp_path: Path) -> None:
    """Catches a number of steps, noise or a loader that depend on when a training of roll-outs was started."""
    options = {"rollout": [[0, 1], [0.3, 2], [0.6, 3]], "input_noise": 0.1, "steps": 20, "checkpoint_every": 1}
    undisturbed = with_steps(experiment, validate_every=20, **options)
    run_train(undisturbed)
    again, died_after = elsewhere(undisturbed, tmp_path / "killed"), []
    for step in (2, 5, 1, 6, 4):
        process = forking().Process(target=_train_and_die, args=(again, step))
        process.start()
        process.join(timeout=300)
        assert process.exitcode == -signal.SIGKILL
        died_after.append(max(r["step"] for r in read_metrics(again.paths.metrics)))
    assert [sum(low <= step < low + 6 for step in died_after) > 0 for low in (0, 6, 12)] == [True] * 3
    run_train(again)
    assert equal_runs(again.paths.train, undisturbed.paths.train)
