"""Where an output came from: settings, versions, commit, host and time, written beside it.

Contract: provenance explains a result and never decides whether two results are the same; that is
the contract's job (`pipeline.store`).
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.config import Config

PACKAGES = (
    "numpy", "xarray", "zarr", "dask", "scipy", "xesmf", "dinosaur", "jax", "torch", "cfgrib", "matplotlib", "cartopy",
    "spectral",
)  # fmt: skip


@cache
def commit() -> str:
    """The checkout's commit, with "+changes" when tracked files differ from it; "unknown" outside git."""
    root = Path(__file__).resolve().parent.parent
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}+changes" if changed else head


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def collect(config: Config, *, stage: str) -> dict[str, Any]:
    """Everything worth knowing about a run of a stage, JSON-ready."""
    return {
        "stage": stage,
        "experiment": config.name,
        "written": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
        "versions": versions(),
        "machine": {"system": platform.platform(), "cpus": os.cpu_count()},
        "config": config.model_dump(mode="json"),
    }


def write_receipt(config: Config, *, stage: str, outputs: list[Path], facts: dict[str, Any]) -> Path:
    """Write a stage's receipt: its outputs, what it found, and its provenance. Call it last.

    Returns:
        The receipt's path.
    """
    path = config.paths.receipt(stage)
    files.write_json(
        path,
        {
            "stage": stage,
            "outputs": [str(p) for p in outputs],
            "facts": facts,
            "provenance": collect(config, stage=stage),
        },
    )
    return path


def read_receipt(config: Config, *, stage: str) -> dict[str, Any]:
    """A stage's receipt.

    Raises:
        ValueError: the stage has not finished with these settings.
    """
    path = config.paths.receipt(stage)
    if not path.exists():
        raise ValueError(f"stage {stage} must be finished first, got no {path}; run python -m pipeline {stage}")
    content: dict[str, Any] = files.read_json(path)
    return content


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
