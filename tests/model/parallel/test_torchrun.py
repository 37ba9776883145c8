"""torchrun from the command line: ranks that train and forecast, are stopped, fail, and say why once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from model.parallel import torchrun
from model.training import checkpoint
from model.training.metrics_log import read_metrics
from pipeline.config import Config, dump, parse
from pipeline.logs import speaks_first
from tests.model.conftest import write_store
from tests.model.parallel.test_train_ranks import raw
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
TOGETHER: Any = {"cwd": ROOT, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
"""One text of all that a command prints."""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A small experiment on two channel ranks, its store written."""
    config = parse(raw(tmp_path_factory.mktemp("two") / "results", data=1, channel=2))
    write_store(config)
    return config


def command(config: Config, stage: str, *options: str) -> list[str]:
    """What the workflow runs."""
    path = config.root / "config.yaml"
    path.write_text(dump(config))
    torchrun = [sys.executable, "-m", "model.parallel.torchrun", "--standalone", "--nproc-per-node=2"]
    log = config.root / "logs" / f"{stage}.log"
    return [*torchrun, "-m", "pipeline", stage, "--config", str(path), "--log", str(log), *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def run(config: Config, stage: str, *options: str) -> subprocess.CompletedProcess[str]:
    asked = command(config, stage, *options)
    return subprocess.run(asked, env=environment(), check=False, timeout=400, **TOGETHER)


SRUN = """#!/bin/sh
shift
"$@" & first=$!
"$@" & second=$!
echo $first $second > "$PIDS"
wait $first; status=$?
wait $second; other=$?
[ $status -gt $other ] && exit $status
exit $other
"""
"""A cluster of two nodes, as far as a script can tell: a launcher on each, and the highest of their statuses."""


def sbatch(config: Config, folder: Path) -> subprocess.Popen[str]:
    """The script for several nodes, one rank on each of two."""
    for name, content in (("srun", SRUN), ("scontrol", f'#!/bin/sh\necho "$@" >> {folder}/asked\necho localhost\n')):
        (folder / name).write_text(content)
        (folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    (config.root / "config.yaml").write_text(dump(config))
    job = {"SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1", "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "here[1-2]"}
    job |= {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": sys.executable, "PORT": str(port)}
    script = ["bash", "workflows/slurm/train.sbatch", str(config.root / "config.yaml")]
    return subprocess.Popen(script, env=environment() | job | {"PIDS": str(folder / "pids")}, **TOGETHER)


@pytest.mark.parametrize(("said", "status"), [(2, 2), (None, 1)])
def test_the_rank_that_spoke_decides_the_status(monkeypatch: pytest.MonkeyPatch, said: int | None, status: int) -> None:
    """Catches a user's mistake on one rank that ends as a defect, because the rank that lost it was gone before it."""

    def run(_: object) -> None:
        assert speaks_first(status=said)
        assert not speaks_first(status=7)
        raise ChildFailedError("train", {0: ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file="<N/A>")})

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(torchrun, "run", run)
    assert torchrun.main(["--nproc-per-node=2", "-m", "pipeline", "train"]) == status


@pytest.mark.slow
def test_preempted_ranks_save_and_go_on(two_ranks: Config, tmp_path: Path) -> None:
    """Catches SIGTERM that does not reach the ranks, a status that hides it, nodes that do not meet, and a job that
    ends at its time limit instead of going back to the queue."""
    long = parse(two_ranks.model_dump(mode="json") | {"training": {**two_ranks.training.model_dump(), "steps": 4000}})
    with sbatch(long, tmp_path) as job:
        end = time.monotonic() + 120
        while time.monotonic() < end and job.poll() is None:
            if long.paths.metrics.exists() and len(long.paths.metrics.read_text().splitlines()) > 3:
                break
            time.sleep(0.1)
        assert job.poll() is None, job.communicate()[0]
        for launcher in (tmp_path / "pids").read_text().split():
            os.kill(int(launcher), signal.SIGTERM)
        said = job.communicate(timeout=120)[0]
    assert job.returncode == 128 + signal.SIGTERM, said
    assert (tmp_path / "asked").read_text().splitlines() == ["show hostnames here[1-2]", "requeue 17"]
    newest = checkpoint.newest(long.paths.checkpoints)
    assert newest is not None
    step = checkpoint.describe(newest)["step"]
    records = [r for r in read_metrics(long.paths.metrics) if r["kind"] == "train"]
    assert step == records[-1]["step"]
    assert said.count("stopped by a signal") == 1

    done = run(two_ranks, "train")
    assert done.returncode == 0, done.stdout
    assert two_ranks.paths.receipt("train").exists()
    assert (two_ranks.root / "logs" / "train.rank1.log").exists()


@pytest.mark.slow
def test_one_rank_that_fails_says_why_once(two_ranks: Config, tmp_path: Path) -> None:
    """Catches a message shown by every rank or drowned in reports of those left alone, and a status other than 2."""
    shutil.copytree(two_ranks.root / "data", tmp_path / "results" / "data")
    broken = two_ranks.model_copy(update={"directory": tmp_path / "results"})
    array = zarr.open_group(broken.paths.store, mode="r+")["state"]
    array[:, 2] = np.nan  # t2m, which one of the two ranks reads
    rewrite_manifest(broken.paths.store, lambda content: None)
    done = run(broken, "train")
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("error: store must hold finite values only") == 1
    assert "Traceback" not in done.stdout
    logs = [p.read_text() for p in sorted((broken.root / "logs").iterdir())]
    assert sum("ValueError: store must hold finite values only" in text for text in logs) == 1
