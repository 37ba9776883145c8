"""What is known of the machine that a training is planned for, or runs on."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from model.costs import calibrate
from model.costs.hardware import HARDWARE, HERE, Hardware, known
from model.parallel import launch
from model.training.host_memory import MEMORY_SHARE, available_memory
from model.training.rehearsal import rehearse
from model.training.task import PlannedTask
from pipeline.sections import Training


def measure(task: PlannedTask[Any] | None = None, options: Training | None = None) -> Hardware:
    """This machine, for the operations of a configured step; of no step, its peak and bandwidth alone."""
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    works = []
    if task is not None and options is not None:
        work = rehearse(task, options, device_type=kind).work
        assert work is not None
        works.append(work)
    cores = max(1, len(os.sched_getaffinity(0)) // torch.get_num_threads())
    return calibrate.measure(works, device=torch.device(kind), cores=cores)


def shared_by(machine: Hardware, ranks: int) -> Hardware:
    """A measured machine with all ranks of a run on it: processors are shared then, and all links are inside."""
    return replace(machine, per_node=max(ranks, machine.per_node))


def of_training(path: Path, *, ranks: int) -> tuple[Hardware, str | None]:
    """The machine that a training runs on: as `plan --calibrate` has measured it, by its name, or by two figures.

    Args:
        path: of the figures measured, if there are any.
        ranks: of the training.

    Returns:
        The machine, and a sentence for the user where figures were not used.
    """
    cuda = torch.cuda.is_available()
    note = None
    if path.exists():
        machine = known(HERE, measured=path)
        if (machine.cores is None) == cuda:
            return (machine if cuda else shared_by(machine, ranks)), None
        note = f"{path} was measured on another kind of device and is not used; run plan --calibrate here"
    name = torch.cuda.get_device_name().lower() if cuda else ""
    listed = [machine for machine in HARDWARE.values() if machine.name in name]
    if listed:
        return max(listed, key=lambda machine: len(machine.name)), note  # "gh200" has "h200" inside
    return (measure() if cuda else shared_by(measure(), ranks)), note


def memory_of_a_rank() -> float:
    """Bytes that tensors of a training may take here; infinite where the system does not say.

    On a CPU the ranks share what is free, less what they may fill with fields; a GPU is a rank's own.
    """
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[1])
    return (1 - MEMORY_SHARE) * available_memory() / launch.local_ranks() or math.inf
