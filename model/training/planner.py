"""What a rank of a training will hold, found before anything is started.

Contract: the step of the worst rank is rehearsed with fake tensors (`model.training.rehearsal`), so a plan takes
seconds and next to no memory on any machine. A layout that does not fit is refused with the nearest one that does. What
is compared with the limit are tensors: the process itself (about 0.3 GB of libraries), buffers of the network and
scratch of matrix libraries come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from model.network.cut import NetworkConfig
from model.training.layouts import Least, splits, thrifts
from model.training.rehearsal import Footprint, footprint
from model.training.task import PlannedTask
from pipeline.sections import Training
from pipeline.words import counted

_MOST_RANKS = 16
"""A search stops at this many times the configuration's ranks."""
_FIELDS = ("layout.data", "layout.channel", "layout.trunk", "layout.sharding", "recompute", "micro_batch")
_MEANING = {
    "parameters": "parameters",
    "gradients": "gradients",
    "optimiser": "optimiser state",
    "average": "averaged parameters",
    "batches": "batches on the device",
    "activations": "activations, at the peak",
    "peak": "peak",
}


def plan_training(
    task: PlannedTask[Any], options: Training, *, memory: str | None = None, device: str | None = None
) -> tuple[Footprint, dict[str, Any], str | None]:
    """What a rank of the configured layout holds, and whether it fits.

    Args:
        task: what is trained; no data need exist.
        options: of the training.
        memory: of one rank, such as "16GB"; None plans without a limit.
        device: "cpu" or "cuda"; by default what this machine would train on.

    Returns:
        The footprint, the plan as JSON, and why it is refused, None where it fits.

    Raises:
        ValueError: a size or device that is none, or a layout that the network does not allow.
    """
    if options.layout.auto:
        raise ValueError(
            "training.layout must say which layout to plan, got auto; add --hardware and --nodes to see the layouts it "
            "would choose from"
        )
    limit = parse_memory(memory) if memory is not None else None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    found = footprint(task, options, device_type=device)
    content: dict[str, Any] = {
        "layout": _settings(options),
        "ranks": options.layout.world_size,
        "device": device,
        "bytes_per_rank": found.to_dict(),
        "bytes_per_part": found.parts,
        "limit": limit,
        "fits": limit is None or found.peak <= limit,
    }
    if limit is None or found.peak <= limit:
        return found, content, None
    with Console(stderr=True).status("looking for the nearest layout that fits"):
        nearest = nearest_fit(task, options, limit=limit, device=device)
    content["nearest"] = None if nearest is None else _settings(nearest[0])
    return found, content, _refusal(options, found, nearest, limit=limit)


def print_plan(found: Footprint, options: Training, *, name: str, device: str) -> None:
    """The footprint as a table on standard output."""
    layout, console = options.layout, Console(highlight=False, soft_wrap=True)
    ranks = f"{layout.world_size} ({layout.data} data x {layout.channel} channel)"
    table = Table(title=f"{name}: the rank that holds most, of {ranks}, on {device}", title_justify="left")
    table.add_column("per rank")
    table.add_column("MB", justify="right")
    for kind, value in found.to_dict().items():
        table.add_row(_MEANING[kind], f"{value / 1e6:,.1f}", end_section=kind in ("activations", "peak"))
    for part, value in found.parts.items():
        table.add_row(f"of the peak: {part}", f"{value / 1e6:,.1f}")
    console.print(table)


def parse_memory(text: str) -> int:
    """Bytes of "16GB", "80GiB", "500 MB".

    Raises:
        ValueError: not a size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ValueError(f"memory must be a size such as 16GB or 80GiB, got {text!r}") from None


def nearest_fit(
    task: PlannedTask[Any], options: Training, *, limit: int, device: str
) -> tuple[Training, Footprint] | None:
    """The first options that fit, from near to far.

    Near means: smaller micro-batches, then recomputation, then sharding, then another split of the same ranks or
    another trunk, then more ranks.

    Args:
        task: what is trained.
        options: that do not fit.
        limit: bytes of a rank.
        device: "cpu" or "cuda".
    """
    least = Least(task.network)
    for arrangement in _arrangements(task.network, options):
        if least(arrangement) > limit:
            continue
        thriftiest = _changed(arrangement, {"recompute": True, "micro_batch": 1})
        smallest = _attempt(task, thriftiest, device)
        if smallest is None or smallest.peak > limit:
            continue
        for recompute in dict.fromkeys([arrangement.recompute, True]):
            for candidate in thrifts(arrangement, recompute=recompute):
                found = None if candidate == options else _attempt(task, candidate, device)
                if found is not None and found.peak <= limit:
                    return candidate, found
        return thriftiest, smallest
    return None


def size_text(count: int) -> str:
    """Bytes as messages print them.

    >>> size_text(2_500_000), size_text(16_000_000_000)
    ('2.5 MB', '16.00 GB')
    """
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _arrangements(network: NetworkConfig, options: Training) -> Iterator[Training]:
    """Layouts from near to far, the configured one first."""
    own = options.layout
    seen = set()
    factor = 1
    while factor <= _MOST_RANKS:
        world = own.world_size * factor
        near = sorted(splits(network, options, ranks=world), key=lambda c: (abs(c - own.channel), c))
        for channel in near:
            data = world // channel
            shardings = dict.fromkeys([own.sharding, "fsdp"] if data > 1 else [own.sharding])
            trunks = dict.fromkeys([own.trunk, "tensor", "sequence"] if channel > 1 else [own.trunk])
            for trunk in trunks:
                for sharding in shardings:
                    settings = {"data": data, "channel": channel, "trunk": trunk, "sharding": sharding}
                    if (key := tuple(settings.values())) not in seen:
                        seen.add(key)
                        yield _changed(options, {f"layout.{name}": value for name, value in settings.items()})
        factor *= 2


def _attempt(task: PlannedTask[Any], options: Training, device: str) -> Footprint | None:
    """None where the network does not allow the layout."""
    try:
        return footprint(task, options, device_type=device)
    except ValueError:
        return None


def _changed(old: Training, values: dict[str, Any]) -> Training:
    training: dict[str, Any] = {}
    layout: dict[str, Any] = {}
    for name, value in values.items():
        (layout if name.startswith("layout.") else training)[name.removeprefix("layout.")] = value
    return old.model_copy(update={**training, "layout": old.layout.model_copy(update=layout)})


def _settings(options: Training) -> dict[str, Any]:
    owners = {name: options.layout if name.startswith("layout.") else options for name in _FIELDS}
    return {f"training.{name}": getattr(owner, name.removeprefix("layout.")) for name, owner in owners.items()}


def _refusal(options: Training, found: Footprint, nearest: tuple[Training, Footprint] | None, *, limit: int) -> str:
    problem = f"training must fit into {size_text(limit)} per rank, got a peak of {size_text(found.peak)}"
    if nearest is None:
        ranks = options.layout.world_size * _MOST_RANKS
        return f"{problem}; no layout of up to {ranks} ranks fits: choose a smaller model or larger devices"
    before, after = _settings(options), _settings(nearest[0])
    changes = " ".join(f"--set {k}={_as_yaml(v)}" for k, v in after.items() if v != before[k])
    ranks = nearest[0].layout.world_size
    return f"{problem}; the nearest that fits has {size_text(nearest[1].peak)} on {counted(ranks, 'rank')}: {changes}"


def _as_yaml(value: Any) -> str:
    return "null" if value is None else str(value).lower()
