"""Slabs computed elsewhere: the same bytes, and a lost worker costs only what it had in hand."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline import files, store
from pipeline.config import Config
from pipeline.sections import Compute
from preprocess.ingest import stage
from preprocess.ingest.cluster import computed, slurm_cluster
from preprocess.ingest.stage import run_regrid
from tests.preprocess.stores import tree

pytestmark = pytest.mark.slow

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
Configure = Callable[..., Config]


def on(config: Config, **compute: Any) -> Config:
    return config.model_copy(update={"compute": Compute(**compute)})


@pytest.fixture
def source(atmosphere: Callable[..., xr.Dataset], time_axis: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """Sixteen times on a 2 degree grid: slabs that take a moment."""
    path = tmp_path / "source.nc"
    grid = {"latitude": np.linspace(90, -90, 91), "longitude": np.arange(180) * 2.0}
    atmosphere(times=time_axis(16), **grid).to_netcdf(path)
    return path


def settings(configure: Configure, source: Path, name: str) -> Config:
    splits = {
        "train": {"start": "2001-01-01", "end": "2001-01-02T18:00"},
        "test": {"start": "2001-01-03", "end": "2001-01-04T18:00"},
    }
    period = {"start": "2001-01-01", "end": "2001-01-04T18:00"}
    return configure([source], name=name, slab_times=2, period=period, splits=splits)


def test_results_do_not_depend_on_results_before_them() -> None:
    """Catches an item left out, given twice, or paired with another's result."""
    items = [3, 1, 4, 1, 5]
    assert list(computed(lambda x: x * 10, items, compute=Compute())) == [(x, x * 10) for x in items]
    for scheduler in ("threads", "processes"):
        assert list(computed(abs, [], compute=Compute(scheduler=scheduler))) == []

    def fail(x: int) -> int:
        if x == 4:
            raise ValueError("four")
        return x

    results = computed(fail, items, compute=Compute())
    assert [next(results), next(results)] == [(3, 3), (1, 1)]
    with pytest.raises(ValueError, match="four"):
        next(results)


@pytest.mark.slow
def test_a_worker_lost_in_the_middle(source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that ends with its worker, a slab lost with it, and other bytes from another process."""
    here = settings(configure, source, "threads")
    run_regrid(here)
    there = on(settings(configure, source, "processes"), scheduler="processes", workers=2)
    killed: list[int] = []
    written = store.SlabStore.write

    def write(self: store.SlabStore, slab: store.Slab, data: Any, **keys: Any) -> None:
        if not killed:  # after the first slab, while others are being computed
            import psutil

            workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
            assert len(workers) >= 2
            workers[0].kill()
            killed.append(workers[0].pid)
        written(self, slab, data, **keys)

    monkeypatch.setattr(store.SlabStore, "write", write)
    run_regrid(there)
    assert killed
    assert tree(there) == tree(here)


@pytest.mark.slow
def test_a_scheduler_elsewhere(source: Path, configure: Configure, tmp_path: Path, root: Path) -> None:
    """Catches a cluster started here though an address was given, and a task that only works in this process."""
    here = settings(configure, source, "threads")
    run_regrid(here)
    environment = {**os.environ, "PYTHONPATH": str(root)}
    address = tmp_path / "scheduler.json"
    options = {"env": environment, "stderr": subprocess.DEVNULL}

    def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{program}", "--no-dashboard", *arguments]
        return subprocess.Popen([*command, "--scheduler-file", str(address)], **options)

    started = [start("scheduler", "--host", "127.0.0.1", "--port", "0")]
    try:
        for _ in range(200):
            if address.exists():
                break
            time.sleep(0.1)
        started.append(start("worker", "--nthreads", "1", "--local-directory", str(tmp_path)))
        there = on(settings(configure, source, "address"), scheduler=files.read_json(address)["address"])
        run_regrid(there)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(20)
    assert tree(there) == tree(here)


@pytest.mark.slow
def test_bad_data_on_a_worker(source: Path, configure: Configure, atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches a fault on a worker that reaches the user as a traceback of the cluster, or not at all."""
    with xr.open_dataset(source) as ds:
        bad = ds.load()
    bad["t2m"][:, 3, 3] = np.nan
    source.unlink()
    bad.to_netcdf(source)
    config = on(settings(configure, source, "bad"), scheduler="processes", workers=1)
    with pytest.raises(ValueError, match=r"variable 't2m' .* must have no missing values, got 1 of 16380 at 2001-01"):
        run_regrid(config)
    assert not config.paths.store.exists()


def test_no_scheduler_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wait without end, and a traceback, for an address that is wrong."""
    import distributed

    def refuse(*arguments: Any, **keys: Any) -> None:
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(ValueError, match=r"no answer from tcp://127.0.0.1:9.*; start one"):
        list(computed(abs, [1], compute=Compute(scheduler="tcp://127.0.0.1:9")))


def test_job_script_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Catches jobs in another queue, with other resources, or that cannot import our packages."""
    pytest.importorskip("dask_jobqueue")
    slurm = {
        "queue": "cpu",
        "account": "weather",
        "walltime": "02:30:00",
        "directives": ["--constraint=big"],
        "prologue": ["module load python"],
    }
    compute = Compute.model_validate({"scheduler": "slurm", "threads": 4, "memory": "6 GB", "slurm": slurm})
    with slurm_cluster(compute) as cluster:
        script = cluster.job_script()
    for line in (
        "-p cpu",
        "-A weather",
        "-t 02:30:00",
        "--constraint=big",
        "--cpus-per-task=4",
        "--mem=6G",
        "module load python",
        f"export PYTHONPATH={root}",
        f"cd {Path.cwd()}",
        "--nthreads 1",
    ):
        assert line in script, line


def test_a_second_run_is_refused_at_once(source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches two runs that compute the same slabs until one of them wants to write."""
    config = settings(configure, source, "out")
    inside, go = threading.Event(), threading.Event()
    original = stage._Task.read

    def slow(task: Any) -> Any:
        inside.set()
        assert go.wait(30)
        return original(task)

    monkeypatch.setattr(stage._Task, "read", slow)
    first = threading.Thread(target=run_regrid, args=(config,))
    first.start()
    assert inside.wait(30)
    try:
        assert not config.paths.store.exists()  # the first slab is still being read
        with pytest.raises(ValueError, match="one writer at a time"):
            run_regrid(config)
    finally:
        go.set()
        first.join()
    assert store.read_manifest(config.paths.store)["complete"]


@pytest.mark.slow
def test_killed_at_random_moments(source: Path, configure: Configure, tmp_path: Path, root: Path) -> None:
    """Catches any state left by kill -9, of the run, of a worker or of all at once, that a resume does not repair.

    CHAGCAST_KILLS=50 kills fifty times.
    """
    import psutil

    wanted = int(os.environ.get("CHAGCAST_KILLS", "2"))
    whole = settings(configure, source, "whole")
    run_regrid(whole)
    config = on(settings(configure, source, "killed"), scheduler="processes", workers=2)
    (tmp_path / "killed.yaml").write_text(configuration.dump(config))
    command = [sys.executable, "-m", "pipeline", "regrid", "--config", str(tmp_path / "killed.yaml")]

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    began = time.perf_counter()
    assert start().wait() == 0
    span = time.perf_counter() - began
    assert tree(config) == tree(whole)
    dice, kills, partial = random.Random(5), 0, 0
    while kills < wanted:
        process = start()
        try:
            process.wait(dice.uniform(0.3, 1.0) * span)
        except subprocess.TimeoutExpired:
            kills += 1
            workers = psutil.Process(process.pid).children(recursive=True)
            match dice.choice(["run", "all", "worker"]):
                case "run":
                    process.kill()
                case "all":
                    os.killpg(process.pid, signal.SIGKILL)
                case "worker" if workers:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        dice.choice(workers).kill()
                    time.sleep(dice.uniform(0.0, 1.0))
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
            manifest = store.manifest_path(config.paths.store)
            partial += manifest.exists() and not files.read_json(manifest)["complete"]
            print(f"kill {kills}: {partial} with a store half done", flush=True)
        else:
            assert tree(config) == tree(whole)
        if config.paths.receipt("regrid").exists():  # done: begin again from nothing
            shutil.rmtree(config.root)
    assert start().wait() == 0
    assert tree(config) == tree(whole)
    assert not list(config.paths.store.parent.glob(".*"))
