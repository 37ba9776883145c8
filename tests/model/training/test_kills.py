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
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline.config import Config, dump, load
from pipeline.provenance import read_receipt
from tests.model.parallel.harness import forking

KILLS = int(os.environ.get("CHAGCAST_KILLS", "3"))


def _train(path: str, ready: Event) -> None:
    torch.set_num_threads(1)
    ready.set()
    run_train(load(path))


def _start(path: Path) -> mp.process.BaseProcess:
    """A training in a process of its own, its imports done."""
    context = forking()
    ready = context.Event()
    process = context.Process(target=_train, args=(str(path), ready))
    process.start()
    assert ready.wait(timeout=60)
    return process


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(
    experiment: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches any state that survives a kill half: in a checkpoint, in the metrics, in what is kept or removed."""
    total = 6 * KILLS
    config = experiment(steps=total, checkpoint_every=1, validate_every=2, batch_size=4)
    undisturbed = config.model_copy(update={"directory": tmp_path / "undisturbed"})
    undisturbed.root.mkdir()
    (undisturbed.root / "data").symlink_to(config.root / "data")
    files = []
    for some in (undisturbed, config):
        files.append(tmp_path / f"{some.root.name}.yaml")
        files[-1].write_text(dump(some))
    process = _start(files[0])
    began = time.monotonic()
    process.join(timeout=120)
    assert process.exitcode == 0
    loop = read_receipt(undisturbed, stage="train")["facts"]["seconds"]
    start = max(0.05, time.monotonic() - began - loop)
    draw, done, writing = random.Random(20260101), 0, 0
    while done < KILLS:
        process = _start(files[1])
        process.join(timeout=draw.uniform(0.0, start + 5 * loop / total))
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        done += 1
        writing += any(config.paths.checkpoints.glob(".*"))
    steps = [r["step"] for r in read_metrics(config.paths.metrics)] if config.paths.metrics.exists() else [0]
    with capsys.disabled():
        print(f"\n{done} kills, {writing} inside the writing of a checkpoint, the last after step {max(steps)}")
    assert done >= KILLS // 2
    run_train(config)
    ours, theirs = (checkpoint.newest(c.paths.checkpoints) for c in (config, undisturbed))
    assert ours is not None
    assert theirs is not None
    names = checkpoint._SafeReader(theirs).read_metadata().state_dict_metadata
    for tag in ("step", "best"):
        tensors = []
        for some in (config, undisturbed):
            path = checkpoint.newest(some.paths.checkpoints, tag=tag)
            assert path is not None
            into = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in names.items()}
            checkpoint.load(path, into, expected={})
            tensors.append(into)
        assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in names)
    keep = ("kind", "step", "loss", "gradient_norm", "leads")
    curves = [[{k: r[k] for k in keep if k in r} for r in read_metrics(c.paths.metrics)] for c in (config, undisturbed)]
    assert curves[0] == curves[1]
