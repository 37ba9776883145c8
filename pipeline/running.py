"""How the command line runs what a user asks for: settings are read, messages kept, finished stages left alone.

Contract: nothing is loaded before it is needed: a stage that is complete says so without its module.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline import files, workloads
from pipeline.stages import Stage

ROOT = Path(__file__).resolve().parent.parent


def check_checkout() -> None:
    """Refuse to run on a foreign package that shares one of our folder names.

    Raises:
        ValueError: naming the foreign path.
    """
    for name in ("preprocess", "model", "evaluate"):
        spec = importlib.util.find_spec(name)
        places = [] if spec is None else [Path(p).resolve() for p in spec.submodule_search_locations or []]
        if places != [ROOT / name]:
            found = ", ".join(map(str, places)) or "nothing"
            raise ValueError(
                f"package {name!r} must be the one in {ROOT}, got {found}; "
                "run from the project's root with PYTHONPATH unset"
            )


def load_settings(config: Path, overrides: list[str] | None) -> Any:
    """The experiment that a file and `--set` describe.

    Raises:
        ValueError: a mistake in them, or packages that are not ours.
    """
    from pipeline.config import load

    check_checkout()
    return load(config, overrides or [])


def run(settings: Any, module_name: str, function: str, log: Path | None, **options: Any) -> None:
    """Call a function of a module with the settings, its messages kept in a log."""
    with talking(log, settings):
        function_of(module_name, function)(settings, **options)


@contextmanager
def talking(log: Path | None, settings: Any) -> Iterator[None]:
    """Keep a copy of what is said; let an interrupt say what it leaves, and a full disk where it is full."""
    from pipeline.files import named_in_errors
    from pipeline.logs import logged, speaks_first

    try:
        with named_in_errors(Path() if settings is None else settings.root), logged(log):
            if settings is not None:
                files.clear_abandoned(settings.root, below=True)
            yield
    except KeyboardInterrupt:  # caught here, since click would turn it into a bare "Aborted"
        if speaks_first():
            print("interrupted; the same command resumes the run", file=sys.stderr)
        raise SystemExit(130) from None


def run_stage(name: str, config: Path, overrides: list[str] | None, log: Path | None, **options: Any) -> None:
    """Run a stage of the workload that the configuration names.

    Raises:
        ValueError: that workload has no such stage.
    """
    settings = load_settings(config, overrides)
    stage = stage_of(name, settings)
    with talking(log, settings):
        if not any(options.values()) and _complete(stage, settings):
            return
        function_of(stage.module, f"run_{name}")(settings, **options)


def stage_of(name: str, settings: Any) -> Stage:
    """A stage of the workload that the configuration names.

    Raises:
        ValueError: that workload has no such stage.
    """
    known = {stage.name: stage for stage in workloads.stages(settings.task)}
    if name not in known:
        raise ValueError(f"stage must be one of task {settings.task!r} ({', '.join(known)}), got {name}")
    return known[name]


def _complete(stage: Stage, settings: Any) -> bool:
    """Whether a stage has nothing left to do, which rank 0 then says; asked before its module is loaded."""
    main = os.environ.get("RANK", "0") == "0"
    options = {"mend": main} if stage.verifies and stage.on_ranks else {}
    done = function_of(stage.complete, f"complete_{stage.name}")(settings, **options) if stage.complete else None
    if done and main:
        from pipeline.console import say

        say(done)
    return bool(done)


def function_of(module_name: str, name: str) -> Callable[..., Any]:
    """A function of a module, which is loaded for it."""
    found: Callable[..., Any] = getattr(importlib.import_module(module_name), name)
    return found


def choice(known: dict[str, str], option: str, wanted: str, task: str) -> str:
    """The module of what an option chooses, among what the workload has."""
    if wanted not in known:
        raise ValueError(f"--{option} must be one of {', '.join(known)} for task {task!r}, got {wanted}")
    return known[wanted]
