"""The device mesh, built once and passed down.

Contract: two axes, ("data", "channel"), channel innermost, so that the ranks of a channel group are
neighbours. An axis of size one takes the same code path as any other.
"""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh as DeviceMesh
from torch.distributed.device_mesh import init_device_mesh

DATA, CHANNEL = "data", "channel"


def build_mesh(*, channel: int = 1, device_type: str = "cpu") -> DeviceMesh:
    """The mesh over all ranks of the default process group, which must be initialised.

    Args:
        channel: ranks that share the channels of one sample; divides the number of ranks.
        device_type: "cpu" or "cuda".

    Raises:
        ValueError: `channel` does not divide the number of ranks.
    """
    world = dist.get_world_size()
    if channel < 1 or world % channel:
        raise ValueError(
            f"channel ranks must divide the {world} ranks, got {channel}; start a multiple of {channel} processes"
        )
    return init_device_mesh(device_type, (world // channel, channel), mesh_dim_names=(DATA, CHANNEL))


def data_rank(mesh: DeviceMesh) -> int:
    """Position on the data axis: what the samples of a rank depend on, and nothing else of the topology."""
    return mesh.get_local_rank(DATA)


def channel_rank(mesh: DeviceMesh) -> int:
    """Position on the channel axis: what the channels of a rank depend on."""
    return mesh.get_local_rank(CHANNEL)


def axis_size(mesh: DeviceMesh, axis: str) -> int:
    """Number of ranks along an axis."""
    return mesh.size(mesh.mesh_dim_names.index(axis)) if mesh.mesh_dim_names else 1
