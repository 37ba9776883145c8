"""What a training would take on a machine: printed, and kept in the plan.

Contract: `--hardware` names a machine of the table or this one, which `--calibrate` measures; what was not measured is
called modelled wherever it is printed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from model.costs import hardware
from model.costs.hardware import HERE, Hardware
from model.training import this_machine
from model.training.planner import parse_memory
from model.training.task import PlannedTask
from model.training.timing import Prediction, layout_text, ranked
from pipeline import files
from pipeline.sections import Training
from pipeline.words import counted

_WIDTH = 150
_SHOWN = 6
"""The best layout and some runners-up."""


@dataclass(frozen=True)
class Asked:
    """What the command line asks about a machine.

    Attributes:
        hardware: its name; None for no question.
        nodes: how many; None for the configured number of ranks.
        calibrate: measure this machine first.
    """

    hardware: str | None = None
    nodes: int | None = None
    calibrate: bool = False

    def __post_init__(self) -> None:
        if self.nodes is not None and self.nodes < 1:
            raise ValueError(f"nodes must be at least 1, got {self.nodes}")
        if self.nodes is not None and self.name is None:
            raise ValueError("--nodes must go with --hardware, got none")
        if self.calibrate and self.hardware not in (None, HERE):
            raise ValueError(f"--calibrate measures this machine, --hardware {HERE}, got {self.hardware}")

    @property
    def name(self) -> str | None:
        """Of the machine asked about."""
        return HERE if self.calibrate else self.hardware


def plan_times(
    task: PlannedTask[Any], options: Training, *, asked: Asked, memory: str | None, folder: Path
) -> dict[str, Any]:
    """Print the best layouts for a machine and what the training takes with each.

    Args:
        task: what is trained.
        options: of the training.
        asked: about which machine.
        memory: of one rank, such as "16GB"; None takes the machine's.
        folder: of the experiment, where this machine's figures are kept.

    Returns:
        The same as JSON.

    Raises:
        ValueError: a machine that is not known or measured, or nothing fits.
    """
    path = folder / "hardware.json"
    console = Console(stderr=True)
    if asked.calibrate:
        with console.status("measuring this machine"):
            machine = this_machine.measure(task, options)
        files.write_json(path, machine.to_dict())
    assert asked.name is not None
    machine = hardware.known(asked.name, measured=path)
    ranks = options.layout.world_size if asked.nodes is None else asked.nodes * machine.per_node
    if asked.nodes is None and asked.name == HERE and machine.cores is not None:
        machine = this_machine.shared_by(machine, ranks)
    limit = float(parse_memory(memory)) if memory is not None else machine.memory or math.inf
    device = "cpu" if machine.cores is not None else "cuda"
    with console.status("") as status:
        found = ranked(
            task,
            options,
            machine=machine,
            ranks=ranks,
            limit=limit,
            device_type=device,
            progress=lambda text: status.update(f"rehearsing {text}"),
        )
    _print(found, machine)
    origin = "operations measured on this machine, the rest modelled" if machine.measured else "modelled"
    return {
        "hardware": machine.name,
        "origin": origin,
        "source": machine.source,
        "ranks": ranks,
        "limit": None if math.isinf(limit) else limit,
        "layouts": [prediction.to_dict() for prediction in found],
    }


def _print(found: list[Prediction], machine: Hardware) -> None:
    steps, ranks = found[0].options.steps, found[0].options.layout.world_size
    origin = "operations measured here, the rest modelled" if machine.measured else "modelled, not measured"
    table = Table(title=f"{counted(ranks, 'rank')} on {machine.title}: {origin}", title_justify="left")
    headings = ("GB", "step [s]", "samples/s", "of peak", "waiting for ranks", f"{steps} steps [device h]", "kWh")
    table.add_column("layout, the best first", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right")
    for prediction in found[:_SHOWN]:
        time = prediction.time
        table.add_row(
            layout_text(prediction.options),
            f"{prediction.footprint.peak / 1e9:.2f}",
            f"{time.total:.3g}",
            f"{prediction.samples_per_second:.3g}",
            f"{time.share_of_peak:.0%}",
            f"{time.share_of_communication:.0%}",
            f"{prediction.device_hours:.3g}",
            f"{prediction.energy:.3g}" if machine.watts else "-",
        )
    console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    console.print(table)
    console.print(f"Figures of the machine: {machine.source}.", markup=False)
