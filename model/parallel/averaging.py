"""Data parallelism: gradients averaged over ranks while the backward pass still computes others.

Contract: works on any mix of plain and DTensor parameters, whose types and names stay (torch's DistributedDataParallel
would turn DTensors into plain tensors and prefix the names). As there, gradients travel in buckets; only so many are
under way at once, so that their copies take little memory.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.parallel.collectives import local_tensor

BUCKET_BYTES = 25 * 2**20
"""Gradients that are sent together, torch's default for DistributedDataParallel."""
UNDER_WAY = 4
"""Buckets sent and not yet waited for, at most."""


class GradientAverage:
    """Averages the gradients of a module over ranks, one all-reduce a bucket, in every backward.

    forward: nothing. backward: gradients partial over the group -> replicated, their mean.

    Args:
        module: its parameters get hooks. Every rank must compute their gradients in the same order.
        group: ranks of the data axis.
        bucket_bytes: see `BUCKET_BYTES`.
    """

    def __init__(self, module: nn.Module, *, group: dist.ProcessGroup, bucket_bytes: int = BUCKET_BYTES) -> None:
        self.group, self.bucket_bytes = group, bucket_bytes
        self._bucket: list[Tensor] = []
        self._sent: list[tuple[Any, Tensor, list[Tensor]]] = []
        self._in_backward = False
        if dist.get_world_size(group) == 1:
            return
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._take)  # type: ignore[no-untyped-call]

    def _take(self, parameter: nn.Parameter) -> None:
        """A gradient is there."""
        assert parameter.grad is not None
        if not self._in_backward:
            self._in_backward = True
            torch.autograd.Variable._execution_engine.queue_callback(self._finish)
        gradient = local_tensor(parameter.grad)
        if self._bucket and self._bucket[0].dtype != gradient.dtype:
            self._send()
        self._bucket.append(gradient)
        if sum(each.nbytes for each in self._bucket) >= self.bucket_bytes:
            self._send()

    def _send(self) -> None:
        if len(self._sent) == UNDER_WAY:
            self._receive()
        flat = torch.cat([gradient.reshape(-1) for gradient in self._bucket])
        self._sent.append((dist.all_reduce(flat, group=self.group, async_op=True), flat, self._bucket))
        self._bucket = []

    def _receive(self) -> None:
        """Wait for the oldest bucket."""
        work, flat, gradients = self._sent.pop(0)
        work.wait()
        flat /= dist.get_world_size(self.group)
        means = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _finish(self) -> None:
        """The backward is over."""
        if self._bucket:
            self._send()
        while self._sent:
            self._receive()
        self._in_backward = False
