"""Memory by part, and what collectives allocate beside their tensors."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

from model.costs.collectives import Collective, buffers, collective_of, ring, tree
from model.costs.hardware import HARDWARE
from model.costs.parts import COMMUNICATION, ELSEWHERE, Parts, in_order
from model.costs.roofline import collective_seconds
from model.network.cut import Network
from model.parallel.allocations import Allocations
from model.parallel.pretend import pretended_ranks


class Two(Network):
    """Two layers: x -> inner -> outer, each a part."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 5), nn.Linear(5, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.outer(self.inner(x).exp())
        return y

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        return (("inner", self.inner), ("outer", self.outer))


class Noting(torch.utils._python_dispatch.TorchDispatchMode):
    """The part at work at every matrix product."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts, self.seen = parts, list[str]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func in (torch.ops.aten.addmm.default, torch.ops.aten.mm.default, torch.ops.aten.exp.default):
            self.seen.append(self.parts.now())
        return func(*args, **(kwargs or {}))


def test_forward_and_backward_belong_to_the_same_part() -> None:
    """Catches backward counted for the part that ran last, and a second step that has lost its place."""
    network = Two()
    parts = Parts(network)
    for _ in range(2):
        with Noting(parts) as noting:
            network(torch.ones(2, 3, requires_grad=True)).sum().backward()
        # forward: inner, exp between the parts, outer; backward: weight and input of outer, then of inner
        assert noting.seen[:3] == ["inner", ELSEWHERE, "outer"]
        assert sorted(noting.seen[3:]) == ["inner"] * 2 + ["outer"] * 2
    assert parts.of_parameter("inner.weight") == "inner"
    assert parts.of_parameter("somewhere") == ELSEWHERE


def test_peak_is_split_without_remainder() -> None:
    """Catches storages that belong to nobody, and to two."""
    network = Two()
    parts = Parts(network)
    with Allocations("cpu", owner=parts.now) as count:
        network(torch.ones(2, 3)).sum().backward()
    assert sum(count.at_peak.values()) == count.peak
    assert count.at_peak["inner"] >= 4 * 2 * 5
    assert list(in_order({"optimiser": 1, "trunk": 2, "new": 3})) == ["trunk", "optimiser", "new"]


def test_what_gloo_takes_beside_tensors_counts_at_the_peak() -> None:
    """Catches a gather's staging that is forgotten, or kept after it."""
    with pretended_ranks(rank=0, world_size=4):
        part, whole = torch.ones(10), torch.empty(40)

        def watch(func: object, args: object, _named: object, result: object) -> tuple[int, list[torch.Tensor]]:
            found = collective_of(func, args, result)
            return (found.staging, buffers(found, args, result)) if found else (0, [])

        with Allocations("cpu", watch=watch) as count:
            dist.all_gather_into_tensor(whole, part)
            after = torch.ones(3)
    # part 40 bytes, whole 160, as much again while it is gathered; the three numbers come when that is gone
    assert count.peak == 40 + 160 + 160
    assert count.at_peak == {"": 40, COMMUNICATION: 160 + 160}
    assert len(after) == 3


def test_ring_moves_what_a_ring_moves() -> None:
    """Catches a factor of two between a reduction and a gather, and messages that are not counted."""
    gather = Collective("all-gather", (0, 1, 2, 3), "g", nbytes=4000)
    reduction = Collective("all-reduce", (0, 1, 2, 3), "g", nbytes=4000)
    # three of four parts of 1000 bytes at 100 bytes/s, three messages of 2 s
    assert ring(gather, bandwidth=100.0, latency=2.0) == 36.0
    assert ring(reduction, bandwidth=100.0, latency=2.0) == 72.0
    assert (gather.staging, reduction.staging) == (4000, 0)


def test_trees_pay_for_many_ranks_and_few_bytes() -> None:
    """Catches an all-reduce over a thousand ranks that waits for each of them in turn."""
    small = Collective("all-reduce", tuple(range(1024)), "data", 100)
    assert tree(small, bandwidth=100.0, latency=2.0) == 2 * (1 + 10 * 2.0)
    machine = HARDWARE["mi250x"]
    bandwidth, latency = machine.network, machine.latency[1]
    for nbytes, better in ((1_000, tree), (10**12, ring)):
        sums = Collective("all-reduce", tuple(range(0, 128, 8)), "data", nbytes)
        assert collective_seconds(sums, machine) == better(sums, bandwidth=bandwidth, latency=latency)
