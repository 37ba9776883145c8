"""What this machine can do: a micro-benchmark of the classes of operations that a step has.

Contract: every class is measured with the shapes, strides and types of one of its operations, the costliest classes
first, until those left are a small share of the step. Times are the least of several calls, less the overhead of a
call; operations too large for the cache of a core start without it. Where ranks share a machine, as many as there are
cores begin every call together, and the median counts, so that what they take from one another is in it: the least
would be that of a moment in which the others wait. The other ranks wait, and `step_time` allows for cores that ranks
share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_map

from model.costs.clock import FLUSH, REPEATS, finish, least_seconds, seconds_of
from model.costs.collectives import ALL_GATHER, ALL_REDUCE, REDUCE_SCATTER
from model.costs.hardware import HERE, Hardware
from model.costs.host import measure_host
from model.costs.operators import OperatorClass, Spec, Tally, Work
from model.costs.roofline import ideal_seconds
from model.parallel.collectives import all_gather, reduce_scatter
from model.parallel.launch import from_main

_LEFT = 0.01
"""Share of a step's roofline that classes which are not measured may have together."""
_LARGE = 2048
"""Side of the matrices that give the peak."""
_CACHED = 2**20
"""Bytes of an operation that find place in the cache of a core, where the operation before has left them."""
_LINK = (2**10, 2**20, 2**23)
"""Bytes of the collectives that give latency and bandwidth between ranks."""
_TIMES = 10
"""Collectives in a row, each after some work."""
_BEFORE = 384
"""Side of the matrices whose product is that work."""
KINDS = (ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE)


def measure(works: Iterable[Work], *, device: torch.device, ranks: int = 1, cores: int | None = None) -> Hardware:
    """This machine, for the operations of some steps.

    Args:
        works: the steps.
        device: of this rank.
        ranks: of this process group, which measure together; 1 measures alone.
        cores: that the ranks share on a CPU.
    """
    flops = {name: _peak(dtype, device) for name, dtype in (("float32", torch.float32), ("float64", torch.float64))}
    if device.type == "cuda":
        flops["bfloat16"] = _peak(torch.bfloat16, device)
    links = _links(device) if ranks > 1 else {}
    bandwidth, latency = links.get(ALL_REDUCE, (1.5e9, 2e-4))
    cuda = device.type == "cuda"
    measuring = ranks if cuda else min(ranks, cores or ranks)
    group = dist.new_group(range(measuring)) if measuring > 1 else None
    idle = ranks > 1 and dist.get_rank() >= measuring
    free = torch.cuda.mem_get_info()[1] if cuda else 0
    machine = Hardware(
        HERE,
        torch.cuda.get_device_name() if cuda else "this processor",
        flops,
        bandwidth=_bandwidth(device),
        memory=float(free),
        per_node=max(ranks, torch.cuda.device_count() if cuda else ranks),
        node_link=bandwidth,
        network=bandwidth,
        latency=(latency, latency),
        watts=0.0,
        source="measured here" if ranks > 1 else "measured here; links between ranks assumed",
        overhead=0.0,
        host=measure_host(device, idle=idle),
        runs_ahead=cuda,
        cores=None if cuda else cores or ranks,
        links=links,
    )
    if ranks > 1:
        dist.barrier()  # until the last has measured what torch takes
        machine = from_main(machine)  # all must measure the same classes in the same order
    total = Work()
    for work in works:
        total.add(work)
    efficiencies = {}
    for key, tally in _costly(total, machine):
        if ranks > 1:
            dist.barrier()
        seconds = None if idle else _measured(tally, device, group)
        if seconds is not None:
            flops_once, bytes_once = tally.of_example
            ideal = ideal_seconds(flops_once, bytes_once, dtype=key.dtype, machine=machine)
            efficiencies[str(key)] = ideal / seconds
    return Hardware(**{**machine.to_dict(), "efficiencies": from_main(efficiencies) if ranks > 1 else efficiencies})


def _costly(work: Work, machine: Hardware) -> list[tuple[OperatorClass, Tally]]:
    """Classes from the costliest on, without the last ones that together hardly count."""

    def seconds(item: tuple[OperatorClass, Tally]) -> float:
        ideal = ideal_seconds(item[1].flops, item[1].nbytes, dtype=item[0].dtype, machine=machine)
        return ideal + item[1].count * machine.host[0]

    ordered = sorted(work.operators.items(), key=seconds, reverse=True)
    allowed = _LEFT * sum(map(seconds, ordered))
    while ordered and seconds(ordered[-1]) < allowed:
        allowed -= seconds(ordered.pop())
    return ordered


def _measured(tally: Tally, device: torch.device, group: dist.ProcessGroup | None) -> float | None:
    """Time of the example of a class [s]; None for what cannot run by itself.

    Args:
        tally: the class.
        device: of this rank.
        group: the ranks that measure together; None for this one alone.
    """
    assert tally.example is not None
    name, args, named = tally.example
    library, packet, overload = name.split(".")
    function = getattr(getattr(getattr(torch.ops, library), packet), overload)
    args, named = tree_map(lambda value: _tensor(value, device), (args, named))
    if "device" in named:
        named = {**named, "device": device}
    cold = tally.of_example[1] > _CACHED

    def call() -> Any:
        return function(*args, **named)

    if not _runs(call, group, device):
        return None
    usual = min if group is None else statistics.median
    real, empty = (usual(seconds_of(work, device, cold=cold, group=group)) for work in (call, _empty_call))
    return max(real - empty, 1e-8)


def _runs(call: Callable[[], Any], group: dist.ProcessGroup | None, device: torch.device) -> bool:
    """Whether an operation can run by itself, on all ranks that measure together."""
    try:
        call()
        can = True
    except (RuntimeError, IndexError):
        can = False
    if group is None:
        return can
    all_can = torch.tensor(int(can), device=device)
    dist.all_reduce(all_can, dist.ReduceOp.MIN, group=group)
    return bool(all_can)


def _tensor(value: Any, device: torch.device) -> Any:
    """A tensor laid out as it was, of numbers that stay ordinary; indices are zero."""
    if not isinstance(value, Spec):
        return value
    last = sum((size - 1) * stride for size, stride in zip(value.shape, value.stride, strict=True))
    base = torch.zeros(last + 1 if 0 not in value.shape else 0, dtype=value.dtype, device=device)
    if value.dtype.is_floating_point:
        base.uniform_(0.1, 0.9)
    return base.as_strided(value.shape, value.stride)


def _empty_call() -> None:
    torch.ops.aten.detach.default(_ONE)


def _alone() -> None:
    return


def _peak(dtype: torch.dtype, device: torch.device) -> float:
    side = _LARGE if device.type == "cpu" else 4 * _LARGE
    if dtype is torch.float64:
        side //= 2
    a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3 / least_seconds(lambda: a @ b, device)


def _bandwidth(device: torch.device) -> float:
    count = FLUSH if device.type == "cpu" else 16 * FLUSH
    source = torch.zeros(count // 4, device=device)
    target = torch.empty_like(source)
    return 2.0 * count / least_seconds(lambda: target.copy_(source), device)


def _links(device: torch.device) -> dict[str, tuple[float, float]]:
    """Bandwidth and latency by kind of collective, as a ring would have them; means over ranks.

    A step waits for many of them, so what one usually takes counts here, not the least.
    """
    ranks = dist.get_world_size()
    found = torch.zeros(len(KINDS), 2, dtype=torch.float64)
    for row, kind in enumerate(KINDS):
        times = 2 if kind == ALL_REDUCE else 1
        small, medium, large = (_usual(kind, size // 4 // ranks * ranks, device) for size in _LINK)
        bandwidth = times * (ranks - 1) / ranks * (_LINK[2] - _LINK[1]) / max(large - medium, 1e-9)
        found[row] = torch.tensor([bandwidth, small / (times * (ranks - 1))])
    dist.all_reduce(found)
    return {
        kind: (bandwidth, latency) for kind, (bandwidth, latency) in zip(KINDS, (found / ranks).tolist(), strict=True)
    }


def _usual(kind: str, count: int, device: torch.device) -> float:
    """Seconds that a collective of so many float32 adds to the work before it.

    Ranks come to a collective from work, not all in the same moment, and on a processor with fewer cores than ranks
    one that has received waits for its turn: a collective by itself would take less than it does in a step.
    """
    ranks = dist.get_world_size()
    whole, part = torch.zeros(count, device=device), torch.zeros(count // ranks, device=device)
    a = torch.rand(_BEFORE, _BEFORE, device=device)

    def collective() -> None:
        if kind == ALL_GATHER:
            all_gather(whole, part)
        elif kind == REDUCE_SCATTER:
            reduce_scatter(part, whole)
        else:
            dist.all_reduce(whole)

    added = []
    for _ in range(REPEATS):
        seconds = []
        for last in (_alone, collective):
            dist.barrier()
            start = time.perf_counter()
            for _ in range(_TIMES):
                a @ a
                last()
            dist.barrier()
            finish(device)
            seconds.append(time.perf_counter() - start)
        added.append((seconds[1] - seconds[0]) / _TIMES)
    return max(statistics.median(added), 1e-7)


_ONE: Tensor = torch.ones(())
