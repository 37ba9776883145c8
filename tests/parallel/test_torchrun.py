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

import numpy as np
import pytest
import zarr

from model import checkpoint
from model.metrics_log import read_metrics
from pipeline.config import Config, dump, parse
from tests.parallel.test_train_ranks import raw

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A small experiment on two channel ranks, its store written."""
    from tests.model.conftest import write_store

    config = parse(raw(tmp_path_factory.mktemp("two") / "results", data=1, channel=2))
    write_store(config)
    return config


def command(config: Config, stage: str, *options: str) -> list[str]:
    """What the workflow runs."""
    path = config.root / "config.yaml"
    path.write_text(dump(config))
    return [
        sys.executable, "-m", "model.parallel.torchrun", "--standalone", "--nproc-per-node=2", "-m", "pipeline",
        stage, "--config", str(path), "--log", str(config.root / "logs" / f"{stage}.log"), *options,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def run(config: Config, stage: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, stage, *options), cwd=ROOT, env=environment(), text=True, check=False, timeout=180,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run_sbatch(config: Config, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script for several nodes on a cluster of one node, made of two lines of shell."""
    for name, content in (("srun", 'shift\nexec "$@"'), ("scontrol", "echo localhost")):
        (folder / name).write_text(f"#!/bin/sh\n{content}\n")
        (folder / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    job = {"SLURM_NNODES": "1", "SLURM_GPUS_ON_NODE": "2", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "localhost"}
    job |= {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": sys.executable, "PORT": str(port)}
    return subprocess.run(
        ["bash", "workflows/slurm/train.sbatch", str(config.root / "config.yaml")], cwd=ROOT, text=True, check=False,
        env=environment() | job, timeout=180, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.mark.slow
def test_preempted_ranks_save_and_go_on(two_ranks: Config, tmp_path: Path) -> None:
    """Catches SIGTERM that does not reach the ranks, a status that hides it, and a script for clusters that fails."""
    long = parse(two_ranks.model_dump(mode="json") | {"training": {**two_ranks.training.model_dump(), "steps": 4000}})
    with subprocess.Popen(
        command(long, "train"), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + 120
        while time.monotonic() < end and process.poll() is None:
            if long.paths.metrics.exists() and len(long.paths.metrics.read_text().splitlines()) > 3:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGTERM, said
    newest = checkpoint.newest(long.paths.checkpoints)
    assert newest is not None
    step = checkpoint.describe(newest)["step"]
    records = [r for r in read_metrics(long.paths.metrics) if r["kind"] == "train"]
    assert step == records[-1]["step"]
    assert said.count("stopped by a signal") == 1
    assert (long.root / "logs" / "train.rank1.log").exists()

    (two_ranks.root / "config.yaml").write_text(dump(two_ranks))
    done = run_sbatch(two_ranks, tmp_path)
    assert done.returncode == 0, done.stdout
    assert two_ranks.paths.receipt("train").exists()


@pytest.mark.slow
def test_one_rank_that_fails_says_why_once(two_ranks: Config, tmp_path: Path) -> None:
    """Catches a message shown by every rank or drowned in reports of those left alone, and a status other than 2."""
    shutil.copytree(two_ranks.root / "data", tmp_path / "results" / "data")
    broken = two_ranks.model_copy(update={"directory": tmp_path / "results"})
    array = zarr.open_group(broken.paths.store, mode="r+")["state"]
    array[:, 2] = np.nan  # t2m, which one of the two ranks reads
    done = run(broken, "train")
    assert done.returncode == 2, done.stdout
    assert done.stdout.count("error: store must hold finite values only") == 1
    assert "Traceback" not in done.stdout
    logs = [p.read_text() for p in sorted((broken.root / "logs").iterdir())]
    assert sum("ValueError: store must hold finite values only" in text for text in logs) == 1
