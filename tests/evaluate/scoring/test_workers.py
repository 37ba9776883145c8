"""Scores summed by several processes and by Dask workers are those of one process, and end with their parent."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
import xarray as xr

from evaluate.scoring.kernel import Sums
from evaluate.scoring.stores import Scored, ScoringOptions, score_stores
from pipeline.config import Config
from pipeline.store import open_store
from pipeline.weather.climatology import Normals

pytestmark = pytest.mark.slow

OPTIONS = ScoringOptions([24, 168], ["z500"], batch_size=4)


def stores(config: Config) -> tuple[xr.Dataset, xr.Dataset, Normals]:
    """Forecast of 30 init times, truth, normals."""
    forecast = open_store(config.paths.forecast).isel(init_time=slice(0, 30))
    return forecast, open_store(config.paths.store), Normals.open(config.paths.normals)


def equal(a: Scored, b: Scored) -> None:
    """The same sums; those over init times up to the order of additions."""
    xr.testing.assert_equal(a.sums.regional.sums, b.sums.regional.sums)
    for name in ("maps", "blocks", "spectra"):
        xr.testing.assert_allclose(getattr(a.sums, name).sums, getattr(b.sums, name).sums, rtol=1e-12)


def test_two_processes_give_the_same_sums(experiment: Config) -> None:
    """Catches pieces out of order, twice, or left out at the end (8 batches in pieces of 2, the last one short)."""
    forecast, truth, normals = stores(experiment)
    alone = score_stores({"tiny": forecast}, truth, normals, OPTIONS)
    equal(score_stores({"tiny": forecast}, truth, normals, dataclasses.replace(OPTIONS, workers=2)), alone)


def test_a_dask_scheduler_gives_the_same_sums(experiment: Config) -> None:
    """The same through a running scheduler; and an address where none runs is one clear error."""
    distributed = pytest.importorskip("distributed")
    forecast, truth, normals = stores(experiment)
    alone = score_stores({"tiny": forecast}, truth, normals, OPTIONS)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None, protocol="tcp://"
    ) as cluster:
        options = dataclasses.replace(OPTIONS, scheduler=cluster.scheduler_address)
        found = score_stores({"tiny": forecast}, truth, normals, options)
    equal(found, alone)


SCRIPT = """
import sys
from evaluate.scoring import stores
from pathlib import Path
from pipeline.weather.climatology import Normals
from pipeline.store import open_store
if __name__ == "__main__":
    forecast, store, normals, folder, workers = sys.argv[1:]
    stores.SAVE_SECONDS = 0.0
    some = open_store(Path(forecast)).isel(init_time=slice(0, 30))
    options = stores.ScoringOptions([24, 168], ["z500"], batch_size=1, workers=int(workers))
    truth, checkpoint = open_store(Path(store)), Path(folder) / "sums.nc"
    stores.score_stores({"tiny": some}, truth, Normals.open(Path(normals)), options, checkpoint=checkpoint)
    print("finished")
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_outright_and_resumed(experiment: Config, tmp_path: Path, root: Path, workers: int) -> None:
    """kill -9 in the middle: no process is left behind, and the same command ends with the same sums."""
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(SCRIPT))
    paths = experiment.paths
    arguments = (paths.forecast, paths.store, paths.normals, tmp_path, workers)
    command = [sys.executable, str(script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not (tmp_path / "sums.json").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert (tmp_path / "sums.json").exists()
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "finished", done.stderr
    assert not [p for p in children if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    forecast, truth, normals = stores(experiment)
    alone = score_stores({"tiny": forecast}, truth, normals, dataclasses.replace(OPTIONS, batch_size=1))
    again = Sums.load(tmp_path / "sums.nc")
    xr.testing.assert_equal(again.regional.sums, alone.sums.regional.sums)
