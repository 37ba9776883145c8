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

from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline import provenance
from pipeline.config import Config
from tests.forked import forking
from tests.model.runs import equal_runs
from tests.model.training.stub import train
from tests.model.weather.trainers import elsewhere, with_steps

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


@pytest.mark.slow
def test_kills_inside_a_schedule_of_roll_outs_change_nothing(
    experiment: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a number of steps, noise or a loader that depend on when a training of roll-outs was started."""
    kills = -(-KILLS // 2)
    options = {"rollout": [[0, 1], [0.3, 2], [0.6, 3]], "input_noise": 0.1, "steps": 10 * kills, "checkpoint_every": 1}
    undisturbed = with_steps(experiment, validate_every=4, **options)
    began = time.monotonic()
    run_train(undisturbed)
    loop = provenance.read_receipt(undisturbed, stage="train")["facts"]["seconds"]
    start = max(0.05, time.monotonic() - began - loop)
    again = elsewhere(undisturbed, tmp_path / "killed")
    work, folder = partial(run_train, again), again.paths.train
    hit = _kill(work, folder, kills=kills, start=start, between=10 * loop / options["steps"])
    with capsys.disabled():
        print(hit)
    work()
    assert equal_runs(folder, undisturbed.paths.train)
