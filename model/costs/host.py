"""What torch itself takes for an operation, beside doing it: measured on networks so small that they do nothing else.

Contract: collectives go through a process group that talks to nobody, so that no rank waits in what is measured here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from model.costs.clock import least_seconds
from model.parallel.allocations import Allocations
from model.parallel.pretend import pretended_mesh

_LAYERS, _SHARDED = 20, 4
"""Linear layers of the network, and how many of them FSDP gathers together."""
_OPERATIONS = 6 * _LAYERS + 4
"""Of the layers and a sum, forward and backward."""
_GATHERS = 2 * _LAYERS // _SHARDED
"""FSDP gathers each of its units for the forward and for the backward pass."""


def measure_host(device: torch.device, *, idle: bool = False) -> tuple[float, float, float]:
    """Seconds of an operation, of one on DTensors beside it, and of a gather of FSDP's with all that belongs to it.

    Args:
        device: of the tensors.
        idle: measure nothing, as a rank without a core of its own; all ranks of a group must come here.
    """
    with pretended_mesh(device.type) as mesh:
        if idle:
            return 0.0, 0.0, 0.0
        plain = _seconds(_network(device), device)
        cut = _network(device)
        parallelize_module(cut, mesh, {str(i): (ColwiseParallel, RowwiseParallel)[i % 2]() for i in range(_LAYERS)})
        with Allocations(device.type) as count:
            _step(cut, device)
        wrapped = _seconds(cut, device) - plain
        sharded = _network(device)
        for first in range(0, _LAYERS, _SHARDED):
            fully_shard([sharded[i] for i in range(first, first + _SHARDED)], mesh=mesh)
        fully_shard(sharded, mesh=mesh)
        gathered = _seconds(sharded, device) - plain
    return plain / _OPERATIONS, max(0.0, wrapped / count.wrapped), max(0.0, gathered / _GATHERS)


def _network(device: torch.device) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(8, 8) for _ in range(_LAYERS))).to(device)


def _step(network: nn.Module, device: torch.device) -> None:
    network(torch.ones(8, 8, device=device)).sum().backward()


def _seconds(network: nn.Module, device: torch.device) -> float:
    return least_seconds(lambda: _step(network, device), device)
