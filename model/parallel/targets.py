"""Targets of all predicted channels on every rank of a channel group, each of which has read only its own.

Letters: B batch, V predicted channels, K predicted channels read by this rank, H/W grid.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from model.parallel.channels import ChannelPlan
from model.parallel.collectives import gather_forward_slice_backward


def whole_target(
    target_BKHW: Tensor, *, plan: ChannelPlan, channels: tuple[str, ...], group: dist.ProcessGroup
) -> Tensor:
    """Targets of all predicted channels from those that each rank of a channel group has read.

    cut (B, K, H, W) -> replicated (B, V, H, W), one all-gather; no gradient flows.
    """
    read = [[name for name in names if name in set(channels)] for names in plan.channels]
    if len(read) == 1:
        return target_BKHW
    B, _, H, W = target_BKHW.shape
    flat = target_BKHW.transpose(0, 1).reshape(-1, B * H, W)
    gathered = gather_forward_slice_backward(flat, sizes=[len(names) for names in read], group=group)
    place = {name: i for i, name in enumerate(name for names in read for name in names)}
    order = torch.tensor([place[name] for name in channels], device=gathered.device)
    return gathered[order].view(-1, B, H, W).transpose(0, 1)
