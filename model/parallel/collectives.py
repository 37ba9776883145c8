"""Collectives with the layout before and after, forward and backward.

Contract: a function is named for both directions. Layouts are those of one axis of the mesh: "cut" (every rank
has its part), "replicated" (every rank has all of it, the same), "partial" (the sum over ranks is meant).

Letters: T tokens of all ranks, K tokens or channels of this rank, N = batch * patches, D width, R ranks, B batch,
V channels of all ranks, H/W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup as ProcessGroup
from torch.distributed.tensor import DTensor, Partial, Replicate


def gather_forward_slice_backward(tokens_KND: Tensor, *, sizes: Sequence[int], group: dist.ProcessGroup) -> Tensor:
    """All-gathers along the first dim; the gradient is this rank's slice, and nothing is added.

    forward: cut (K, N, D) -> replicated (T, N, D), one all-gather (padded to the largest part when uneven).
    backward: replicated (T, N, D) -> cut (K, N, D), no communication.

    Right where every rank computes the same thing from the result, so that every rank already has
    the whole gradient: summing over ranks (as torch.distributed.nn.functional.all_gather does) would multiply
    it by R. Wrong where each rank's gradient is a part of the sum.

    Args:
        tokens_KND: this rank's tokens, K = sizes[rank].
        sizes: K of every rank.
        group: ranks of the channel axis.
    """
    out: Tensor = _GatherSlice.apply(tokens_KND, tuple(sizes), group)  # type: ignore[no-untyped-call]
    return out


def slice_forward_sum_backward(states_BVHW: Tensor, *, rows: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Takes this rank's channels of states that every rank holds; gradients of all ranks' channels are summed.

    forward: replicated (B, V, H, W) -> cut (B, K, H, W), no communication.
    backward: cut (B, K, H, W) -> replicated (B, V, H, W), one all-reduce; channels that nobody read get zeros.

    The counterpart of `gather_forward_slice_backward`: right where each rank goes on with its own channels alone.

    Args:
        states_BVHW: the same on every rank.
        rows: (K,) channels of this rank; two ranks may read the same one.
        group: ranks of the channel axis.
    """
    if dist.get_world_size(group) == 1:
        return states_BVHW[:, rows]
    out: Tensor = _SliceSum.apply(states_BVHW, rows, group)  # type: ignore[no-untyped-call]
    return out


def keep_forward_sum_backward(values: Tensor, *, group: dist.ProcessGroup) -> Tensor:
    """Lets every rank go on for its own channels from values that all hold; their gradients are summed.

    forward: replicated -> replicated, no communication.
    backward: partial -> replicated, one all-reduce.

    Right before an output layer that is cut by channels: each rank's gradient is that of its own outputs alone. Wrong
    where every rank computes the same from the values, see `gather_forward_slice_backward`.

    Args:
        values: the same on every rank.
        group: ranks of the channel axis.
    """
    out: Tensor = _KeepSum.apply(values, group)  # type: ignore[no-untyped-call]
    return out


def sum_forward_keep_backward(values: Tensor, *, group: dist.ProcessGroup) -> Tensor:
    """The sum over ranks of parts of a loss, each of which depends on its own rank's outputs.

    forward: partial -> replicated, one all-reduce.
    backward: replicated -> partial, no communication: the whole grows as each part does.

    Args:
        values: this rank's part.
        group: ranks of the channel axis.
    """
    if dist.get_world_size(group) == 1:
        return values
    out: Tensor = _SumKeep.apply(values, group)  # type: ignore[no-untyped-call]
    return out


# renamed in torch 2.13
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _GatherSlice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens_KND: Tensor, sizes: tuple[int, ...], group: dist.ProcessGroup) -> Tensor:
        rank = dist.get_rank(group)
        ctx.start, ctx.size = sum(sizes[:rank]), sizes[rank]
        largest = max(sizes)
        part = tokens_KND.contiguous()
        if len(part) < largest:
            part = torch.cat([part, part.new_zeros(largest - len(part), *part.shape[1:])])
        gathered = part.new_empty(len(sizes) * largest, *part.shape[1:])
        all_gather(gathered, part, group=group)
        if len(set(sizes)) == 1:
            return gathered
        return torch.cat([gathered[r * largest : r * largest + size] for r, size in enumerate(sizes)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_TND,) = gradients
        return gradient_TND.narrow(0, ctx.start, ctx.size), None, None


class _SliceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_BVHW: Tensor, rows: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.rows, ctx.group, ctx.shape = rows, group, states_BVHW.shape
        return states_BVHW[:, rows]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient_BKHW,) = gradients
        whole_BVHW = gradient_BKHW.new_zeros(ctx.shape).index_add_(1, ctx.rows, gradient_BKHW)
        dist.all_reduce(whole_BVHW, group=ctx.group)
        return whole_BVHW, None, None


class _KeepSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed, group=ctx.group)
        return summed, None


class _SumKeep(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor, group: dist.ProcessGroup) -> Tensor:
        summed = values.clone()
        dist.all_reduce(summed, group=group)
        return summed

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


def complete_partial_gradients(module: nn.Module) -> None:
    """Sums gradients that DTensor left partial over their mesh (norms under sequence parallelism).

    backward: partial -> replicated, one all-reduce per such parameter, as soon as it has its gradient.
    """

    def complete(parameter: Tensor) -> None:
        gradient = parameter.grad
        if isinstance(gradient, DTensor) and any(isinstance(p, Partial) for p in gradient.placements):
            placements = [Replicate() if isinstance(p, Partial) else p for p in gradient.placements]
            parameter.grad = gradient.redistribute(placements=placements)

    for parameter in module.parameters():
        if isinstance(parameter, DTensor) and parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(complete)  # type: ignore[no-untyped-call]


def local_tensor(tensor: Tensor) -> Tensor:
    """The local part of a DTensor, or the tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
