"""Layouts that ranks may have, and what a layout can do to need less memory; the planner and the choice share them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from model.network.cut import NetworkConfig
from model.parallel.wrap import plan_for
from pipeline.sections import Training

T = TypeVar("T")


def allows(network: NetworkConfig, channel: int) -> bool:
    """Whether the groups of a network can be spread over so many channel ranks."""
    try:
        plan_for(network, ranks=channel)
    except ValueError:
        return False
    return True


def splits(network: NetworkConfig, options: Training, *, ranks: int) -> list[int]:
    """Channel ranks that the groups allow, where the batch can be spread over the other axis."""
    divisors = (c for c in range(1, ranks + 1) if ranks % c == 0)
    return [c for c in divisors if options.batch_size % (ranks // c) == 0 and allows(network, c)]


def arrangements(network: NetworkConfig, options: Training, *, ranks: int) -> Iterator[Training]:
    """Every layout of some ranks that channels and the batch allow."""
    for channel in splits(network, options, ranks=ranks):
        data = ranks // channel
        for trunk in ("replicated", "tensor", "sequence") if channel > 1 else ("replicated",):
            for sharding in ("ddp", "fsdp") if data > 1 else ("ddp",):
                values = {"data": data, "channel": channel, "trunk": trunk, "sharding": sharding}
                yield options.model_copy(update={"layout": type(options.layout)(**values)})


def thrifts(options: Training, *, recompute: bool) -> Iterator[Training]:
    """The same layout with ever smaller micro-batches, the configured size first."""
    whole = -(-options.batch_size // options.layout.data)
    size = min(options.micro_batch or whole, whole)
    while True:
        micro_batch = None if size == whole else size
        yield options.model_copy(update={"recompute": recompute, "micro_batch": micro_batch})
        if size == 1:
            return
        size //= 2


def first_fits(options: Training, attempt: Callable[[Training], T | None]) -> Sequence[T]:
    """The largest micro-batch that fits; where it is not the whole batch, also the largest with recomputation.

    Args:
        options: with the layout.
        attempt: gives something where such a training fits, None where it does not.
    """
    configured = next(thrifts(options, recompute=options.recompute))
    if (result := attempt(configured)) is not None:
        return [result]  # more thrift could only be slower
    if attempt(options.model_copy(update={"recompute": True, "micro_batch": 1})) is None:
        return []
    found = []
    for recompute in dict.fromkeys([options.recompute, True]):
        for candidate in thrifts(options, recompute=recompute):
            if candidate != configured and (result := attempt(candidate)) is not None:
                found.append(result)
                break
    return found


class Least:
    """Bytes that every rank needs at least: parameters, gradients, moments and averages, cut where the layout cuts.

    Args:
        network: of the training.
    """

    def __init__(self, network: NetworkConfig) -> None:
        with torch.device("meta"):
            whole = network.build(seed=None)
        self.in_stacks = sum(p.numel() for stack in whole.stacks() for p in stack.module.parameters())
        self.elsewhere = sum(p.numel() for p in whole.parameters()) - self.in_stacks

    def __call__(self, options: Training) -> int:
        """Of a rank with this layout."""
        layout: Any = options.layout
        stack_ranks = 1 if layout.trunk == "replicated" else layout.channel
        sharded = layout.data if layout.sharding == "fsdp" else 1
        parameters = (self.in_stacks / stack_ranks + self.elsewhere / layout.channel) / sharded
        copies = 4 + (options.ema_decay > 0)
        return int(parameters * copies * (8 if options.precision == "float64" else 4))
