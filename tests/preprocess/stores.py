"""Looks at what the regrid stage has written, and starts it as users do."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config


def tree(config: Config) -> dict[str, bytes]:
    """Every byte of the store and its manifest."""
    path = config.paths.store
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    return files | {"manifest": store.manifest_path(path).read_bytes()}


def nothing_written(config: Config) -> bool:
    return not config.paths.store.exists() and not config.paths.receipt("regrid").exists()


def save(config: Config, folder: Path) -> Path:
    path = folder / f"{config.name}.yaml"
    path.write_text(configuration.dump(config))
    return path


def command(config: Config, folder: Path, root: Path, *, stage: str = "regrid") -> list[str]:
    return [sys.executable, "-m", "pipeline", stage, "--config", str(save(config, folder))]
