"""The plan of the training stage: what a rank will hold, found before anything is started.

Contract: the step of the worst rank is rehearsed with fake tensors (`rehearsal`), so a plan takes seconds and
next to no memory on any machine. A layout that does not fit is refused with the nearest one that does. What is
compared with the limit are tensors: the process itself (about 0.3 GB of libraries), buffers of the network and scratch
of matrix libraries come on top.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from model.dchag import DCHAG, DCHAGConfig
from model.parallel.wrap import plan_for
from model.training.rehearsal import Footprint, architecture, footprint
from pipeline import files
from pipeline.weather.config import WeatherConfig

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


def run_plan(config: WeatherConfig, *, memory: str | None = None, device: str | None = None) -> None:
    """Print what a rank of the configured layout holds, and write it to <results>/plan-train.json.

    Args:
        config: the experiment; no stage need have run.
        memory: of one rank, such as "16GB"; None plans without a limit.
        device: "cpu" or "cuda"; by default what this machine would train on.

    Raises:
        ValueError: it does not fit, naming the nearest layout that does; or a layout that the model does not allow.
    """
    limit = parse_memory(memory) if memory is not None else None
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    found = footprint(config, device_type=device)
    content: dict[str, Any] = {
        "layout": _settings(config),
        "ranks": config.training.layout.world_size,
        "device": device,
        "bytes_per_rank": found.to_dict(),
        "bytes_of_fields_in_host_memory": host_bytes(config),
        "limit": limit,
        "fits": limit is None or found.peak <= limit,
    }
    nearest = None
    if not content["fits"]:
        assert limit is not None
        with Console(stderr=True).status("looking for the nearest layout that fits"):
            nearest = nearest_fit(config, limit=limit, device=device)
        content["nearest"] = None if nearest is None else _settings(nearest[0])
    files.write_json(config.root / "plan-train.json", content)
    _print(config, found, content)
    if not content["fits"]:
        raise ValueError(_refusal(config, found, nearest, limit=limit or 0))


def parse_memory(text: str) -> int:
    """Bytes of "16GB", "80GiB", "500 MB".

    Raises:
        ValueError: not a size.
    """
    try:
        return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        raise ValueError(f"memory must be a size such as 16GB or 80GiB, got {text!r}") from None


def nearest_fit(config: WeatherConfig, *, limit: int, device: str) -> tuple[WeatherConfig, Footprint] | None:
    """The first configuration that fits, from near to far.

    Near means: smaller micro-batches, then recomputation, then sharding, then another split of the same ranks or
    another trunk, then more ranks.

    Args:
        config: the experiment, which does not fit.
        limit: bytes of a rank.
        device: "cpu" or "cuda".
    """
    for arrangement in _arrangements(config):
        if _least(arrangement) > limit:
            continue
        thriftiest = _changed(arrangement, {"recompute": True, "micro_batch": 1})
        smallest = _attempt(thriftiest, device)
        if smallest is None or smallest.peak > limit:
            continue
        for candidate in _thrifts(arrangement):
            found = None if candidate == config else _attempt(candidate, device)
            if found is not None and found.peak <= limit:
                return candidate, found
        return thriftiest, smallest
    return None


def host_bytes(config: WeatherConfig) -> int:
    """What the store's fields take in a rank's host memory where the trainer finds room for them."""
    data, layout = config.data, config.training.layout
    periods = [*data.splits.train, *data.splits.validation]
    times = sum((p.end - p.start).total_seconds() / 3600 // data.step_hours + 1 for p in periods)
    slots = 366 * max(1, 24 // data.step_hours)
    values = (int(times) + slots) * len(data.channels.dynamic) * data.regrid.grid.size
    return int(values * 4 / layout.channel)


def _arrangements(config: WeatherConfig) -> Iterator[WeatherConfig]:
    """Layouts from near to far, the configured one first."""
    own = config.training.layout
    groups_channel = [c for c in range(1, own.world_size * _MOST_RANKS + 1) if _allows(config, c)]
    seen = set()
    factor = 1
    while factor <= _MOST_RANKS:
        world = own.world_size * factor
        splits = sorted(
            (c for c in groups_channel if world % c == 0 and config.training.batch_size % (world // c) == 0),
            key=lambda c: (abs(c - own.channel), c),
        )
        for channel in splits:
            data = world // channel
            shardings = dict.fromkeys([own.sharding, "fsdp"] if data > 1 else [own.sharding])
            trunks = dict.fromkeys([own.trunk, "tensor", "sequence"] if channel > 1 else [own.trunk])
            for trunk in trunks:
                for sharding in shardings:
                    settings = {"data": data, "channel": channel, "trunk": trunk, "sharding": sharding}
                    if (key := tuple(settings.values())) not in seen:
                        seen.add(key)
                        yield _changed(config, {f"layout.{name}": value for name, value in settings.items()})
        factor *= 2


def _allows(config: WeatherConfig, channel: int) -> bool:
    try:
        plan_for(architecture(config), ranks=channel)
    except ValueError:
        return False
    return True


def _thrifts(config: WeatherConfig) -> Iterator[WeatherConfig]:
    """The same layout with smaller micro-batches, then with recomputation too."""
    options = config.training
    whole = -(-options.batch_size // options.layout.data)
    first = min(options.micro_batch or whole, whole)
    sizes = [first]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    for recompute in dict.fromkeys([options.recompute, True]):
        for size in sizes:
            yield _changed(config, {"recompute": recompute, "micro_batch": None if size == whole else size})


def _least(config: WeatherConfig) -> int:
    """Bytes that a rank cannot do without: parameters, gradients, moments and averages, cut where the layout cuts."""
    layout, options = config.training.layout, config.training
    trunk, rest = _sizes(architecture(config))
    trunk_ranks = 1 if layout.trunk == "replicated" else layout.channel
    parameters = (trunk / trunk_ranks + rest / layout.channel) / (layout.data if layout.sharding == "fsdp" else 1)
    copies = 4 + (options.ema_decay > 0)
    return int(parameters * copies * (8 if options.precision == "float64" else 4))


@cache
def _sizes(shape: DCHAGConfig) -> tuple[int, int]:
    """Numbers of parameters in the trunk and elsewhere."""
    with torch.device("meta"):
        parameters = dict(DCHAG(shape, seed=None).named_parameters())
    trunk = sum(p.numel() for name, p in parameters.items() if name.startswith("trunk."))
    return trunk, sum(p.numel() for p in parameters.values()) - trunk


def _attempt(config: WeatherConfig, device: str) -> Footprint | None:
    """None where the model does not allow the layout."""
    try:
        return footprint(config, device_type=device)
    except ValueError:
        return None


def _changed(config: WeatherConfig, values: dict[str, Any]) -> WeatherConfig:
    training: dict[str, Any] = {}
    layout: dict[str, Any] = {}
    for name, value in values.items():
        (layout if name.startswith("layout.") else training)[name.removeprefix("layout.")] = value
    old = config.training
    options = old.model_copy(update={**training, "layout": old.layout.model_copy(update=layout)})
    return config.model_copy(update={"training": options})


def _settings(config: WeatherConfig) -> dict[str, Any]:
    values = {}
    for name in _FIELDS:
        owner = config.training.layout if name.startswith("layout.") else config.training
        values[f"training.{name}"] = getattr(owner, name.removeprefix("layout."))
    return values


def _print(config: WeatherConfig, found: Footprint, content: dict[str, Any]) -> None:
    layout, console = config.training.layout, Console(highlight=False, soft_wrap=True)
    table = Table(
        title=f"{config.name}: the rank that holds most, of {layout.world_size} "
        f"({layout.data} data x {layout.channel} channel), on {content['device']}",
        title_justify="left",
    )
    table.add_column("per rank")
    table.add_column("MB", justify="right")
    for name, value in found.to_dict().items():
        table.add_row(_MEANING[name], f"{value / 1e6:,.1f}", end_section=name == "activations")
    console.print(table)
    console.print(
        f"plan: beside it, the store's fields take {_size(content['bytes_of_fields_in_host_memory'])} of host memory "
        "where there is room; they are read from the store otherwise"
    )


def _refusal(
    config: WeatherConfig, found: Footprint, nearest: tuple[WeatherConfig, Footprint] | None, *, limit: int
) -> str:
    problem = f"training must fit into {_size(limit)} a rank, got a peak of {_size(found.peak)}"
    if nearest is None:
        ranks = config.training.layout.world_size * _MOST_RANKS
        return f"{problem}; no layout of up to {ranks} ranks fits: choose a smaller model or larger devices"
    before, after = _settings(config), _settings(nearest[0])
    changes = " ".join(f"--set {k}={_word(v)}" for k, v in after.items() if v != before[k])
    ranks = nearest[0].training.layout.world_size
    return f"{problem}; the nearest that fits has {_size(nearest[1].peak)} on {ranks} rank(s): {changes}"


def _word(value: Any) -> str:
    """As YAML spells it."""
    return "null" if value is None else str(value).lower()


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
