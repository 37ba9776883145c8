"""Trainings of an experiment under other layouts and seeds, on the data of one that has been made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.support.process import ROOT
from model.training.metrics_log import read_metrics
from pipeline.config import load


def train(path: Path, overrides: list[str], *, made: list[str], ranks: int) -> list[dict[str, Any]]:
    """Train, or go on, with a thread for each rank, unless that has been done; the run's log.

    Args:
        path: of the configuration.
        overrides: the run's settings, with a directory of its own.
        made: the settings of the experiment whose store and normals are used.
        ranks: of the layout.
    """
    source, config = load(path, made), load(path, overrides)
    if not source.paths.receipt("normals").exists():
        raise SystemExit(
            f"error: the store of {path.name} must exist, got no {source.paths.receipt('normals')}; run it first"
        )
    if not config.paths.receipt("train").exists():
        config.root.mkdir(parents=True, exist_ok=True)
        for part in ("data", "receipts"):
            (config.root / part).mkdir(exist_ok=True)
            for found in (source.root / part).iterdir():
                if not (config.root / part / found.name).exists() and not found.name.startswith("train"):
                    (config.root / part / found.name).symlink_to(found.resolve())
        launch = [sys.executable, "-m"]
        if ranks > 1:
            launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
        sets = [part for item in overrides for part in ("--set", item)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [*launch, "pipeline", "train", "--config", str(path), *sets]
        subprocess.run(command, check=True, cwd=ROOT, env=environment)
    return read_metrics(config.paths.metrics)
