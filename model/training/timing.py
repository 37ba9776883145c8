"""How long a training takes on a machine, and which layout is fastest there: modelled from a rehearsal of the step.

Contract: nothing here has run on the machine in question, unless it is this one and was measured. Candidates are all
layouts of the ranks that the network allows, each with the largest micro-batch that fits, without and with
recomputation. What is chosen is the fastest, and among layouts within a hundredth of it the one that needs least
memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from model.costs.hardware import Hardware
from model.costs.roofline import StepTime, step_time
from model.parallel.wrap import LayoutError
from model.training.layouts import Least, arrangements, first_fits
from model.training.planner import size_text
from model.training.rehearsal import Footprint, rehearse
from model.training.task import PlannedTask
from pipeline.sections import Training
from pipeline.words import counted

_ALIKE = 0.01
"""Steps that differ by less are alike."""


@dataclass(frozen=True)
class Prediction:
    """A training with a layout on a machine, modelled.

    Attributes:
        options: of the training, with the layout.
        footprint: of the rank that needs most.
        time: of a step.
        machine: that it would run on.
    """

    options: Training
    footprint: Footprint
    time: StepTime
    machine: Hardware

    @property
    def samples_per_second(self) -> float:
        """Of all ranks."""
        return self.options.batch_size / self.time.total

    @property
    def device_hours(self) -> float:
        """Of all configured steps, at the longest roll-out that is trained through."""
        return self.options.steps * self.time.total * self.options.layout.world_size / 3600

    @property
    def energy(self) -> float:
        """Of the devices at full load for these hours [kWh]."""
        return self.device_hours * self.machine.watts / 1000

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        layout = self.options.layout
        return {
            "layout": layout.model_dump(include={"data", "channel", "trunk", "sharding"}),
            "recompute": self.options.recompute,
            "micro_batch": self.options.micro_batch,
            "ranks": layout.world_size,
            "peak_bytes": self.footprint.peak,
            "step_seconds": self.time.total,
            "samples_per_second": self.samples_per_second,
            "share_of_peak": self.time.share_of_peak,
            "share_of_communication": self.time.share_of_communication,
            "device_hours": self.device_hours,
            "energy_kWh": self.energy,
        }


def predict(task: PlannedTask[Any], options: Training, *, machine: Hardware, device_type: str) -> Prediction:
    """Memory and time of a training's step.

    Args:
        task: what is trained.
        options: of the training.
        machine: that it shall run on.
        device_type: "cpu" or "cuda", whose rules of memory apply.

    Raises:
        ValueError: a layout that the network does not allow.
    """
    found = rehearse(task, options, device_type=device_type)
    assert found.work is not None
    products = "tfloat32" if options.matmul_precision != "highest" and "tfloat32" in machine.flops else "float32"
    time = step_time(found.work, machine, ranks=options.layout.world_size, data=found.data, products=products)
    return Prediction(options, found.footprint, time, machine)


def ranked(
    task: PlannedTask[Any],
    options: Training,
    *,
    machine: Hardware,
    ranks: int,
    limit: float,
    device_type: str,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Prediction]:
    """Every layout of some ranks that fits, the best first; at least one.

    Args:
        task: what is trained.
        options: of the training; its layout does not matter.
        machine: that it shall run on.
        ranks: of the run.
        limit: bytes of a rank.
        device_type: "cpu" or "cuda", whose rules of memory apply.
        progress: told what is tried next.

    Raises:
        ValueError: none fits, or batch, groups and heads allow none.
    """
    least = Least(task.network)

    def attempt(candidate: Training) -> Prediction | None:
        progress(layout_text(candidate))
        prediction = predict(task, candidate, machine=machine, device_type=device_type)
        return prediction if prediction.footprint.peak <= limit else None

    found: list[Prediction] = []
    tried = 0
    for arrangement in arrangements(task.network, options, ranks=ranks):
        tried += 1
        if least(arrangement) > limit:
            continue
        try:
            found += first_fits(arrangement, attempt)
        except LayoutError:
            tried -= 1  # heads or hidden features that the ranks do not divide
    if not found:
        raise ValueError(_nothing(options, ranks=ranks, limit=limit if tried else math.inf))
    fastest = min(prediction.time.total for prediction in found)

    def order(prediction: Prediction) -> tuple[bool, float]:
        alike = prediction.time.total <= fastest * (1 + _ALIKE)
        return not alike, prediction.footprint.peak if alike else prediction.time.total

    return sorted(found, key=order)


def _nothing(options: Training, *, ranks: int, limit: float) -> str:
    """Why there is no layout; `limit` is infinite where it is not to blame."""
    if math.isinf(limit):
        return (
            f"training.batch_size, channel groups and heads must be divisible by the ranks of some layout, got "
            f"{counted(ranks, 'rank')} and a batch of {options.batch_size}"
        )
    return (
        f"training must fit into {size_text(int(limit))} per rank, got no layout of {counted(ranks, 'rank')} that "
        "does; take more ranks or a smaller model"
    )


def layout_text(options: Training) -> str:
    """A layout in a few words."""
    layout = options.layout
    words = [f"{layout.data} data x {layout.channel} channel"]
    words += [f"{layout.trunk} trunk"] if layout.trunk != "replicated" else []
    words += ["FSDP"] if layout.sharding == "fsdp" and layout.data > 1 else []
    words += ["recomputed"] if options.recompute else []
    words += [f"micro-batches of {options.micro_batch}"] if options.micro_batch else []
    return ", ".join(words)
