"""Small experiments, what their regrid stage has written, and how users start it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config


def experiment(name: str, folder: Path, *, source: dict[str, Any], data: dict[str, Any]) -> Config:
    """A configuration that writes below a folder, its leads one step of the store long."""
    step = data["step_hours"]
    return configuration.parse(
        {
            "name": name,
            "directory": str(folder),
            "source": source,
            "data": data,
            "model": {"patch": 2},
            "training": {"lead_hours": [step]},
            "forecast": {"lead_hours": [step], "init_step_hours": step},
            "evaluation": {"variables": []},
        }
    )


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


def command(config: Config, folder: Path, *, stage: str = "regrid") -> list[str]:
    """What a user types after `python -m`; for `tests.forked`."""
    return ["pipeline", stage, "--config", str(save(config, folder))]


PLANET = {"kind": "simulation", "levels": 6, "resolution": 15.0, "seed": 3}
"""A simulated planet that is quick to integrate."""


def global_grid(rows: int, columns: int) -> dict[str, float]:
    """GRIB keys of a global grid with rows on the poles, north to south from Greenwich eastward."""
    return {
        "Ni": columns,
        "Nj": rows,
        "iDirectionIncrementInDegrees": 360 / columns,
        "jDirectionIncrementInDegrees": 180 / (rows - 1),
        "latitudeOfFirstGridPointInDegrees": 90.0,
        "latitudeOfLastGridPointInDegrees": -90.0,
        "longitudeOfFirstGridPointInDegrees": 0.0,
        "longitudeOfLastGridPointInDegrees": 360.0 - 360.0 / columns,
    }
