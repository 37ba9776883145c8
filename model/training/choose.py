"""The layout of `training.layout: auto`: chosen by rank 0 before anything is built, the same on all ranks.

Contract: every layout of the ranks is rehearsed in a process of its own (it pretends to be a rank, which a process
with real ranks cannot), for the machine it runs on. The choice is kept beside the checkpoints, and taken up again by a
run that resumes with the same question. It decides memory and speed; no result depends on it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from model.parallel import launch
from model.training.planner import parse_memory, size_text
from model.training.task import PlannedTask
from model.training.this_machine import memory_of_a_rank, of_training
from model.training.timing import layout_text, ranked
from pipeline import files
from pipeline.config import Config
from pipeline.sections import Training
from pipeline.store import contract_digest

Planned = Callable[[Any], PlannedTask[Any]]
"""The task of a configuration, as far as a plan needs it; a function that another process can import."""
_SHOWN = 5


def settled(
    config: Config, planned: Planned, *, folder: Path, console: Console
) -> tuple[Training, dict[str, Any] | None]:
    """The options of a training with a layout that is decided.

    Args:
        config: the experiment.
        planned: its task, for the rehearsals.
        folder: of the run.
        console: for the choice and its reason.

    Returns:
        The options, and what was chosen and why, JSON-ready; None where the configuration says which layout.

    Raises:
        ValueError: on every rank: no layout of the ranks fits.
    """
    options = config.training
    if not options.layout.auto:
        return options, None
    found = launch.from_main(_choice(config, planned, folder=folder, console=console) if launch.is_main() else {})
    if "refused" in found:
        raise ValueError(found["refused"])
    layout = options.layout.model_copy(update={**found["layout"], "auto": False, "ranks": None, "memory": None})
    thrift = {name: found[name] for name in ("recompute", "micro_batch")}
    return options.model_copy(update={**thrift, "layout": layout}), found


def _choice(config: Config, planned: Planned, *, folder: Path, console: Console) -> dict[str, Any]:
    """Of rank 0: the choice of an earlier run that asked the same, or a new one."""
    path = folder / "layout.json"
    options = config.training
    asked = options.model_dump(include={"batch_size", "micro_batch", "recompute"})
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    measured = kept.read_text(encoding="utf-8") if (kept := config.root / "hardware.json").exists() else ""
    of_machine = {"device": device, "measured": contract_digest({"text": measured})}
    question = {"ranks": options.layout.world_size, "memory": options.layout.memory, **asked, **of_machine}
    if path.exists() and (before := files.read_json(path))["question"] == question:
        console.print(f"train: layout as before: {before['words']}", markup=False)
        return dict(before)
    with console.status("choosing a layout"):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found = pool.submit(best, config, planned, memory_of_a_rank()).result()
    if found.get("note"):
        console.print(f"train: {found['note']}", markup=False)
    if "refused" not in found:
        found["question"] = question
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, found)
        console.print(f"train: layout {found['words']}: {found['why']}", markup=False)
    return found


def best(config: Config, planned: Planned, available: float) -> dict[str, Any]:
    """The fastest layout that fits, why, and the runners-up; in a process without ranks.

    Args:
        config: the experiment.
        planned: its task.
        available: bytes of a rank, where the configuration does not say how many.
    """
    options = config.training
    ranks, memory = options.layout.world_size, options.layout.memory
    note = None
    try:
        machine, note = of_training(config.root / "hardware.json", ranks=ranks)
        kind = "cuda" if machine.cores is None else "cpu"
        limit = float(parse_memory(memory)) if memory is not None else available
        found = ranked(planned(config), options, machine=machine, ranks=ranks, limit=limit, device_type=kind)
    except ValueError as error:
        return {"refused": str(error), "note": note}
    first = found[0]
    why = (
        f"{first.time.total:.3g} s a step and {size_text(first.footprint.peak)} a rank by the model of {machine.title}"
    )
    if len(found) > 1:
        why += f"; next {layout_text(found[1].options)} with {found[1].time.total:.3g} s"
    others = [prediction.to_dict() for prediction in found[1:_SHOWN]]
    return {**first.to_dict(), "words": layout_text(first.options), "why": why, "runners_up": others, "note": note}
