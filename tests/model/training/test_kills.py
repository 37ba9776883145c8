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
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from model.training.metrics_log import read_metrics
from tests.model.parallel.harness import forking
from tests.model.runs import equal_runs
from tests.model.training.stub import train

KILLS = int(os.environ.get("CHAGCAST_KILLS", "6"))
SETTINGS = {"steps": 10 * KILLS, "checkpoint_every": 1, "validate_every": 2}


def _train(folder: Path, ready: Event) -> None:
    torch.set_num_threads(1)
    ready.set()
    train(folder, **SETTINGS)


def _start(folder: Path) -> mp.process.BaseProcess:
    """A training in a process of its own, its imports done."""
    context = forking()
    ready = context.Event()
    process = context.Process(target=_train, args=(folder, ready))
    process.start()
    assert ready.wait(timeout=60)
    return process


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches any state that survives a kill half: in a checkpoint, in the metrics, in what is kept or removed."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    began = time.monotonic()
    loop = train(undisturbed, **SETTINGS).seconds
    start = max(0.05, time.monotonic() - began - loop)
    draw, done, writing = random.Random(20260101), 0, 0
    while done < KILLS:
        process = _start(killed)
        process.join(timeout=draw.uniform(0.0, start + 10 * loop / SETTINGS["steps"]))
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        writing += any((killed / "checkpoints").glob(".*"))
    metrics = killed / "metrics.jsonl"
    steps = [r["step"] for r in read_metrics(metrics)] if metrics.exists() else [0]
    with capsys.disabled():
        print(f"\n{done} kills, {writing} inside the writing of a checkpoint, the last after step {max(steps)}")
    assert done >= KILLS // 2
    train(killed, **SETTINGS)
    assert equal_runs(killed, undisturbed)
