"""A process group of which only one rank exists: it talks to nobody, so that a layout can be tried on any machine.

Contract: shapes and memory are those of the rank; values are meaningless, since collectives give back what is there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
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


@contextmanager
def pretended_mesh(device_type: str) -> Iterator[DeviceMesh]:
    """A mesh whose ranks talk to nobody: two, or beside a real group as many, all of which must then ask for it.

    Args:
        device_type: of the tensors.
    """
    if not dist.is_initialized():
        with pretended_ranks(rank=0, world_size=2):
            yield init_device_mesh(device_type, (2,))
        return
    yield _mesh_beside(dist.group.WORLD, device_type)


@functools.cache
def _mesh_beside(_world: dist.ProcessGroup | None, device_type: str) -> DeviceMesh:
    """One for each real group: DTensor keeps what it has worked out for a mesh, and the mesh with it."""
    return DeviceMesh.from_group(dist.new_group(backend="fake"), device_type)
