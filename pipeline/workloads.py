"""The workloads, by the configuration's key `task`: what each one's package has to offer the common parts.

Contract: a workload is a package with a module `config` (class CONFIG) and a module `stages` (STAGES, PLANS, EXPORTS).
Both are light: nothing here loads torch, xarray or dask.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pipeline.stages import Stage

if TYPE_CHECKING:
    from pipeline.config import Config

DEFAULT = "forecast"
WORKLOADS = {"forecast": "pipeline.weather", "reconstruct": "pipeline.imaging"}
"""Task -> package."""


def config_class(task: str) -> type[Config]:
    """The configuration of a workload."""
    found: type[Config] = _module(task, "config").CONFIG
    return found


def stages(task: str) -> tuple[Stage, ...]:
    """The table of a workload, in order of running."""
    found: tuple[Stage, ...] = _module(task, "stages").STAGES
    return found


def all_stages() -> dict[str, Stage]:
    """Stages of every workload by name; of those that share one, the first workload's."""
    return {stage.name: stage for task in reversed(WORKLOADS) for stage in reversed(stages(task))}


def plans(task: str) -> dict[str, str]:
    """What `plan --stage` can look ahead at -> module with `run_plan`."""
    return dict(_module(task, "stages").PLANS)


def exports(task: str) -> dict[str, str]:
    """What `export --to` can write -> module with `run_export`."""
    return dict(_module(task, "stages").EXPORTS)


def _module(task: str, name: str) -> Any:
    return importlib.import_module(f"{WORKLOADS[task]}.{name}")
