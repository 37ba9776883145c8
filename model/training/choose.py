"""The layout of `training.layout: auto`: chosen by rank 0 before anything is built, the same on all ranks.

Contract: every layout of the ranks is rehearsed in a process of its own (it pretends to be a rank, which a process
with real ranks cannot), for the machine it runs on. The choice is kept beside the checkpoints, and taken up again by a
run that resumes with the same question. It decides memory and speed; no result depends on it.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from model.costs import calibrate
from model.costs.hardware import HARDWARE, HERE, Hardware, known
from model.parallel import launch
from model.training.host_memory import available_memory
from model.training.planner import parse_memory, size_text
from model.training.task import PlannedTask
from model.training.timing import layout_text, ranked
from pipeline import files
from pipeline.config import Config
from pipeline.sections import Training
from pipeline.words import counted

Planned = Callable[[Any], PlannedTask[Any]]
"""The task of a configuration, as far as a plan needs it; a function of a module."""
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
    question = {"ranks": options.layout.world_size, "memory": options.layout.memory, "batch_size": options.batch_size}
    if path.exists() and (before := files.read_json(path))["question"] == question:
        console.print(f"train: layout as before: {before['words']}", markup=False)
        return dict(before)
    with console.status("choosing a layout"):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            found = pool.submit(best, config, planned).result()
    if "refused" not in found:
        found["question"] = question
        folder.mkdir(parents=True, exist_ok=True)
        files.write_json(path, found)
        console.print(f"train: layout {found['words']}: {found['why']}", markup=False)
    return found


def best(config: Config, planned: Planned) -> dict[str, Any]:
    """The fastest layout that fits, why, and the runners-up; in a process without ranks."""
    options = config.training
    ranks = options.layout.world_size
    machine = _machine(config.root / "hardware.json", ranks=ranks)
    on_gpu = machine.cores is None
    limit = _limit(options.layout.memory, machine, ranks=ranks)
    found = ranked(
        planned(config), options, machine=machine, ranks=ranks, limit=limit, device_type="cuda" if on_gpu else "cpu"
    )
    if not found:
        return {
            "refused": f"training must fit into {size_text(int(limit))} per rank, got no layout of "
            f"{counted(ranks, 'rank')} that does; take more ranks (training.layout.ranks) or a smaller model"
        }
    first = found[0]
    why = (
        f"{first.time.total:.3g} s a step and {size_text(first.footprint.peak)} a rank by the model of {machine.title}"
    )
    if len(found) > 1:
        why += f"; next {layout_text(found[1].options)} with {found[1].time.total:.3g} s"
    others = [prediction.to_dict() for prediction in found[1:_SHOWN]]
    return {**first.to_dict(), "words": layout_text(first.options), "why": why, "runners_up": others}


def _machine(path: Path, *, ranks: int) -> Hardware:
    """This machine: as `plan --calibrate` has measured it, by its name, or by its peak and bandwidth alone."""
    cuda = torch.cuda.is_available()
    if path.exists():
        machine = known(HERE, measured=path)
    else:
        name = torch.cuda.get_device_name().lower() if cuda else ""
        listed = [machine for machine in HARDWARE.values() if machine.name in name]
        machine = listed[0] if listed else calibrate.measure([], device=torch.device("cuda" if cuda else "cpu"))
    if cuda:
        return machine
    return replace(machine, per_node=ranks, cores=len(os.sched_getaffinity(0)))


def _limit(memory: str | None, machine: Hardware, *, ranks: int) -> float:
    if memory is not None:
        return float(parse_memory(memory))
    if machine.cores is not None:
        return available_memory() / ranks or math.inf
    return machine.memory or math.inf
