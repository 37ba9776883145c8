"""Collectives of a rank: what they are, what the backend allocates for them, how long they take.

Contract: `collective_of` recognises an operation that talks to other ranks (torch's own table of them). Bytes are those
of the whole tensor: what an all-gather gives, what a reduce-scatter takes, what is reduced. A ring moves, over n ranks
and b bytes, (n - 1) / n x b in n - 1 messages for an all-gather or a reduce-scatter, and twice that for an all-reduce.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed._tools.fake_collectives import CollectiveOp, collective_ops, sync_ops

from model.parallel.allocations import tensors_of

ALL_GATHER, REDUCE_SCATTER, ALL_REDUCE = "all-gather", "reduce-scatter", "all-reduce"


@dataclass(frozen=True)
class Collective:
    """One collective of this rank.

    Attributes:
        kind: "all-gather", "reduce-scatter" or "all-reduce"; anything else counts as the last.
        ranks: of the group, as numbers of the whole run.
        group: its name.
        nbytes: of the whole tensor.
    """

    kind: str
    ranks: tuple[int, ...]
    group: str
    nbytes: int

    @property
    def staging(self) -> int:
        """Bytes that gloo allocates for it and frees when it is done.

        It gathers into a tensor of its own, and reduces a copy before it gives a rank its part.
        """
        return 0 if self.kind == ALL_REDUCE else self.nbytes


def collective_of(func: Any, args: Any, result: Any) -> Collective | None:
    """The collective that an operation is, None for any other operation and in a group of one rank."""
    if func not in collective_ops or func in sync_ops:
        return None
    group = CollectiveOp.get_process_group(func, args)
    if group.size() == 1:
        return None
    name = str(func)
    sizes = [t.numel() * t.element_size() for t in tensors_of((args, result))]
    kind = ALL_GATHER if "gather" in name else REDUCE_SCATTER if "scatter" in name else ALL_REDUCE
    return Collective(kind, tuple(dist.get_process_group_ranks(group)), group.group_name, max(sizes, default=0))


def buffers(collective: Collective, args: Any, result: Any) -> list[Tensor]:
    """The whole tensor of a collective, where it is there for the collective alone."""
    if collective.kind == ALL_REDUCE:
        return []
    return [t for t in tensors_of((args, result)) if t.numel() * t.element_size() == collective.nbytes]


def ring(collective: Collective, *, bandwidth: float, latency: float) -> float:
    """Seconds of a ring.

    Args:
        collective: of n ranks.
        bandwidth: of the slowest link that it crosses [bytes/s].
        latency: of a message [s].
    """
    n = len(collective.ranks)
    once = (n - 1) / n * collective.nbytes / bandwidth + (n - 1) * latency
    return 2 * once if collective.kind == ALL_REDUCE else once


def tree(collective: Collective, *, bandwidth: float, latency: float) -> float:
    """Seconds of an all-reduce up and down two complementary binary trees; arguments as for `ring`.

    Whole bandwidth, and a latency that grows with the logarithm of the ranks: what NCCL has had for many ranks since
    2.4 (Jeaugey 2019, "Massively Scale Your Deep Learning Training with NCCL 2.4").
    """
    return 2 * (collective.nbytes / bandwidth + math.ceil(math.log2(len(collective.ranks))) * latency)
