"""A process group of which only one rank exists: it talks to nobody, so that a layout can be tried on any machine.

Contract: shapes and memory are those of the rank; values are meaningless, since collectives give back what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


@contextmanager
def pretended_ranks(*, rank: int, world_size: int) -> Iterator[None]:
    """Be one rank of a group that is not there.

    Args:
        rank: which.
        world_size: size of the group.

    Raises:
        ValueError: this process belongs to a real group.
    """
    if dist.is_initialized():
        raise ValueError("ranks must be pretended in a process of its own, got one that belongs to a process group")
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    try:
        yield
    finally:
        dist.destroy_process_group()
