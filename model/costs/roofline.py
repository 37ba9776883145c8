"""How long a rank's step takes on a machine: a roofline for every operation, rings and trees for collectives.

Contract: an operation takes max(FLOPs / peak, bytes / bandwidth) / efficiency + overhead. The efficiency is that of its
class where this was measured, of the nearest class of the same operation where another one was, or what the machine is
assumed to reach. On machines that can, transfers of the data axis hide behind work: those of shards behind that of the
whole step, sums of gradients behind that of the backward pass. Everything else that crosses ranks waits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.costs.collectives import ALL_GATHER, ALL_REDUCE, Collective, ring, tree
from model.costs.hardware import Hardware
from model.costs.operators import OperatorClass, Tally, Work

BACKWARD_SHARE = 2 / 3
"""Of a step's operations that are the backward pass: two products for each of the forward pass."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step.

    Attributes:
        operations: of the rank's own work.
        host: time for launching operations that work on the device does not hide; all of it where the host cannot run
            ahead.
        communication: waited for.
        hidden: of communication that passes behind work.
        flops: of the rank.
        peak: of the device in the type of most of its FLOPs [FLOP/s].
    """

    operations: float
    host: float
    communication: float
    hidden: float
    flops: float
    peak: float

    @property
    def total(self) -> float:
        """Of the step [s]."""
        return self.operations + self.host + self.communication

    @property
    def share_of_peak(self) -> float:
        """Operations done, recomputed ones too, over those that the device could do."""
        return self.flops / (self.total * self.peak)

    @property
    def share_of_communication(self) -> float:
        """Of the step spent waiting for other ranks."""
        return self.communication / self.total


def step_time(
    work: Work, machine: Hardware, *, ranks: int, data: str | None = None, products: str = "float32"
) -> StepTime:
    """Seconds of a rank's step.

    Args:
        work: of the rank.
        machine: that it runs on.
        ranks: of the run.
        data: name of the process group of the data axis, whose transfers may hide.
        products: the type in which matrix products of float32 multiply, e.g. "tfloat32".
    """
    crowd = 1.0
    if machine.cores is not None:
        crowd = max(1.0, min(ranks, machine.per_node) / machine.cores)
    operations = crowd * sum(
        _seconds(key, tally, machine, products) + tally.count * machine.overhead
        for key, tally in work.operators.items()
    )
    host = crowd * host_seconds(work, machine, data=data)
    waiting = sums = shards = 0.0
    for collective, count in work.collectives.items():
        seconds = count * collective_seconds(collective, machine)
        if not machine.runs_ahead or collective.group != data:
            waiting += seconds
        elif collective.kind == ALL_REDUCE:
            sums += seconds
        else:
            shards += seconds
    hidden = hidden_seconds(operations, sums=sums, shards=shards)
    ahead = max(0.0, host - operations) if machine.runs_ahead else host
    by_type: dict[str, float] = {}
    for key, tally in work.operators.items():
        by_type[key.dtype] = by_type.get(key.dtype, 0.0) + tally.flops
    kind = max(by_type, key=lambda k: by_type[k], default="float32")
    peak = machine.peak(products if kind == "float32" else kind)
    waiting += sums + shards - hidden
    return StepTime(operations, ahead, waiting, hidden, work.flops, peak)


def host_seconds(work: Work, machine: Hardware, *, data: str | None) -> float:
    """What torch itself takes for a step, beside doing it [s].

    Args:
        work: of the rank.
        machine: that it runs on.
        data: name of the process group of the data axis, on which FSDP gathers.
    """
    gathers = sum(n for c, n in work.collectives.items() if c.kind == ALL_GATHER and c.group == data)
    operation, wrapped, gather = machine.host
    return work.calls * operation + work.wrapped * wrapped + gathers * gather


def hidden_seconds(operations: float, *, sums: float, shards: float) -> float:
    """How much of the data axis' transfers passes behind work [s].

    Args:
        operations: seconds of work in a step.
        sums: of gradients, which are there during the backward pass only.
        shards: of parameters and their gradients, all through the step.
    """
    behind_backward = min(sums, BACKWARD_SHARE * operations)
    return behind_backward + min(shards, operations - behind_backward)


def collective_seconds(collective: Collective, machine: Hardware, *, trees: bool = True) -> float:
    """Of a ring over the slowest link that it crosses, or as measured; ranks fill node after node.

    Args:
        collective: of ranks.
        machine: with its links.
        trees: let an all-reduce go up and down trees where that is faster.
    """
    if collective.kind in machine.links:
        bandwidth, latency = machine.links[collective.kind]
        return ring(collective, bandwidth=bandwidth, latency=latency)
    inside = len({rank // machine.per_node for rank in collective.ranks}) == 1
    link = {
        "bandwidth": machine.node_link if inside else machine.network,
        "latency": machine.latency[0 if inside else 1],
    }
    around = ring(collective, **link)
    return min(around, tree(collective, **link)) if trees and collective.kind == ALL_REDUCE else around


def ideal_seconds(flops: float, nbytes: float, *, dtype: str, machine: Hardware) -> float:
    """What the roofline allows."""
    return max(flops / machine.peak(dtype), nbytes / machine.bandwidth)


def _seconds(key: OperatorClass, tally: Tally, machine: Hardware, products: str) -> float:
    dtype = products if key.dtype == "float32" and len(key.sizes) > 1 else key.dtype
    if (efficiency := machine.efficiencies.get(str(key)) or _nearest(key, machine)) is not None:
        return ideal_seconds(tally.flops, tally.nbytes, dtype=dtype, machine=machine) / efficiency
    by_products = tally.flops / (machine.product_share * machine.peak(dtype))
    return max(by_products, tally.nbytes / (machine.bandwidth_share * machine.bandwidth))


def _nearest(key: OperatorClass, machine: Hardware) -> float | None:
    """The efficiency of the measured class of the same operation whose sizes are nearest."""
    found: tuple[float, float] | None = None
    for name, efficiency in machine.efficiencies.items():
        operation, dtype, sizes, *_ = name.split(" ")
        if (operation, dtype) == (key.name, key.dtype):
            logs = [math.log2(max(1, int(size))) for size in sizes.split("x")]
            own = [math.log2(max(1, size)) for size in key.sizes]
            if len(logs) == len(own):
                distance = math.dist(logs, own)
                found = min(found or (distance, efficiency), (distance, efficiency))
    return None if found is None else found[1]
