"""The workloads, by the configuration's key `task`: what each one's package has to offer the common parts.

Contract: a workload is a package with a module `config` (class CONFIG) and a module `stages` (STAGES, PLANS, EXPORTS,
COMMANDS, KINDS). Both are light: nothing here loads torch, xarray or dask.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
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


def summary(name: str) -> str:
    """What a stage does, as help says it: in each of the workloads that have it."""
    said = {task: stage.summary for task in WORKLOADS for stage in stages(task) if stage.name == name}
    if len(said) == 1:
        return next(iter(said.values()))
    return " ".join(f"Task {task}: {text}" for task, text in said.items())


def plans(task: str) -> dict[str, str]:
    """What `plan --stage` can look ahead at -> module with `run_plan`."""
    return dict(_module(task, "stages").PLANS)


def exports(task: str) -> dict[str, str]:
    """What `export --to` can write -> module with `run_export`."""
    return dict(_module(task, "stages").EXPORTS)


def command(task: str, name: str) -> str:
    """The module of a command that is no stage.

    Raises:
        ValueError: the workload has no such command.
    """
    known = {other: dict(_module(other, "stages").COMMANDS) for other in WORKLOADS}
    if name not in known[task]:
        having = [other for other, commands in known.items() if name in commands]
        raise ValueError(f"{name} must be of a configuration of task {' or '.join(having)}, got one of task {task!r}")
    return str(known[task][name])


def task_of(contract: Any) -> str:
    """The workload whose stores have contracts of this kind; the default one where it cannot be known."""
    kind = contract.get("kind") if isinstance(contract, Mapping) else None
    return next((task for task in WORKLOADS if kind in _module(task, "stages").KINDS), DEFAULT)


def _module(task: str, name: str) -> Any:
    return importlib.import_module(f"{WORKLOADS[task]}.{name}")
