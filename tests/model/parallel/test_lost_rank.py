"""A rank that dies: the job ends soon, says so once, and goes on with fewer ranks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from model.parallel.launch import process_group
from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline.config import Config, parse
from tests.model.conftest import write_store
from tests.model.parallel.test_torchrun import TOGETHER, command, environment
from tests.model.parallel.test_train_ranks import raw

pytestmark = pytest.mark.slow


def wait_for_checkpoint(config: Config, job: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and job.poll() is None:
        if checkpoint.newest(config.paths.checkpoints) is not None:
            return
        time.sleep(0.1)
    raise AssertionError(job.communicate()[0])


def test_a_rank_that_dies_ends_the_job_which_resumes_on_fewer(tmp_path: Path) -> None:
    """Catches ranks that wait for a dead one, its death told by each of the others in its own way or by nobody, and a
    checkpoint that only as many ranks can read."""
    content = raw(tmp_path / "results", data=1, channel=2)
    content["training"] |= {"steps": 100000, "checkpoint_every": 2}
    endless = parse(content)
    write_store(endless)
    with subprocess.Popen(command(endless, "train"), env=environment(), **TOGETHER) as job:
        wait_for_checkpoint(endless, job)
        ranks = [p for p in psutil.Process(job.pid).children(recursive=True) if "pipeline" in p.cmdline()]
        assert len(ranks) == 2
        os.kill(ranks[1].pid, signal.SIGKILL)
        said = job.communicate(timeout=400)[0]  # ranks that wait for a dead one do so for half an hour
    assert job.returncode == 128 + signal.SIGKILL
    assert said.count("error: ") == said.count("error: rank 1 was ended by SIGKILL") == 1, said
    assert "Traceback" not in said
    newest = checkpoint.newest(endless.paths.checkpoints)
    assert newest is not None
    step = checkpoint.describe(newest)["step"]
    content["training"] |= {"steps": step + 4, "layout": {}}
    fewer = parse(content)
    shutil.copytree(endless.paths.train, fewer.paths.train)
    with process_group(world_size=1):
        run_train(fewer)
    records = [r["step"] for r in read_metrics(fewer.paths.metrics) if r["kind"] == "train"]
    assert records[-4:] == [step + 1, step + 2, step + 3, step + 4]
