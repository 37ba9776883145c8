"""Single-query attention over channels, computed from pixels: the core of the fused channel stage.

Contract: with logits_ham = x_m . a_hm and values x_m . v_hm, gives sum_m softmax_m(logits_ham) x_m . v_hm.
What is kept for backward is its inputs: attention weights and weighted pixels are made a second time there,
a slab of patches at a time, so that memory does not grow with channels x heads x patches. Logits and softmax run
in the type of the tables (float32 at least), the products with values in `dtype`, sums of gradients over
patches in the type of the tables.

Letters: U units, M members (channels) of a unit, Q pixels of a patch plus the pixel of ones, N patches of the
batch, S patches of a slab, A heads, E width of a head, D = A * E.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SLAB_BYTES = 4 * 2**20
"""Weighted pixels of one slab: what decides the transient memory. On a GPU slabs are 128 times as large."""
_GPU_TIMES = 128


@contextmanager
def slabs_as_on_gpu() -> Iterator[None]:
    """Let slabs on the CPU be as large as on a GPU, to rehearse one."""
    global SLAB_BYTES
    before = SLAB_BYTES
    SLAB_BYTES = before * _GPU_TIMES
    try:
        yield
    finally:
        SLAB_BYTES = before


def pixel_attention(patches_UMQN: Tensor, logit_UMQA: Tensor, value_UMQD: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Attends over members with weights and values that are linear in their pixels.

    Args:
        patches_UMQN: pixels; N patches last.
        logit_UMQA: a: what pixels are multiplied with to give logits, in float32 or float64.
        value_UMQD: v: what pixels are multiplied with to give values, same type.
        dtype: of the products with values, and of the result.

    Returns:
        (U, D, N).
    """
    out: Tensor = _PixelAttention.apply(patches_UMQN, logit_UMQA, value_UMQD, dtype)  # type: ignore[no-untyped-call]
    return out


class _PixelAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: Tensor, logit: Tensor, value: Tensor, dtype: torch.dtype) -> Tensor:
        U, N = patches.shape[0], patches.shape[3]
        A, D = logit.shape[3], value.shape[3]
        ctx.save_for_backward(patches, logit, value)
        ctx.dtype = dtype
        value_XET = _by_head(value, A, dtype).mT
        out_XEN = patches.new_empty(U * A, D // A, N, dtype=dtype)
        for slab in _slabs(patches, A):
            pixels = patches[..., slab].to(logit.dtype)
            out_XEN[..., slab] = torch.bmm(value_XET, _weighted(_weights(pixels, logit), pixels, dtype))
        return out_XEN.view(U, D, N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        patches, logit, value = ctx.saved_tensors
        U, M, Q, N = patches.shape
        A, D = logit.shape[3], value.shape[3]
        out_gradient_XEN = gradients[0].to(ctx.dtype).reshape(U * A, D // A, N)
        value_XTE = _by_head(value, A, ctx.dtype)
        value_gradient_XTE = torch.zeros(U * A, M * Q, D // A, dtype=value.dtype, device=value.device)
        logit_gradient = torch.zeros_like(logit)
        patch_gradient = torch.empty_like(patches) if ctx.needs_input_grad[0] else None
        for slab in _slabs(patches, A):
            pixels = patches[..., slab].to(logit.dtype)
            alpha_UAMS = _weights(pixels, logit)
            gradient_XES = out_gradient_XEN[..., slab]
            weighted_XTS = _weighted(alpha_UAMS, pixels, ctx.dtype)
            if ctx.dtype == value.dtype:
                value_gradient_XTE.baddbmm_(weighted_XTS, gradient_XES.mT)
            else:
                value_gradient_XTE += torch.bmm(weighted_XTS, gradient_XES.mT)
            weighted_gradient = torch.bmm(value_XTE, gradient_XES).view(U, A, M, Q, -1).to(logit.dtype)
            del weighted_XTS
            if patch_gradient is not None:
                patch_gradient[..., slab] = (weighted_gradient * alpha_UAMS.unsqueeze(3)).sum(dim=1)
            alpha_gradient_UAMS = weighted_gradient.mul_(pixels.unsqueeze(1)).sum(dim=3)
            del weighted_gradient
            scaled = alpha_UAMS * alpha_gradient_UAMS
            logits_gradient_UAMS = scaled - alpha_UAMS * scaled.sum(dim=2, keepdim=True)
            logit_gradient += pixels @ logits_gradient_UAMS.permute(0, 2, 3, 1)
            if patch_gradient is not None:
                patch_gradient[..., slab] += logit @ logits_gradient_UAMS.transpose(1, 2)
        value_gradient = value_gradient_XTE.view(U, A, M, Q, -1).permute(0, 2, 3, 1, 4).reshape(value.shape)
        return patch_gradient, logit_gradient, value_gradient, None


def _slabs(patches_UMQN: Tensor, heads: int) -> Iterator[slice]:
    U, M, Q, N = patches_UMQN.shape
    budget = SLAB_BYTES * (1 if patches_UMQN.device.type == "cpu" else _GPU_TIMES)
    size = max(1, budget // (U * M * Q * heads * 4))
    count = -(-N // size)
    size = -(-N // count)
    return (slice(start, min(start + size, N)) for start in range(0, N, size))


def _weights(pixels_UMQS: Tensor, logit_UMQA: Tensor) -> Tensor:
    """Attention weights (U, A, M, S)."""
    return (logit_UMQA.mT @ pixels_UMQS).transpose(1, 2).softmax(dim=2)


def _weighted(alpha_UAMS: Tensor, pixels_UMQS: Tensor, dtype: torch.dtype) -> Tensor:
    """Pixels times attention weights, one matrix (T, S), T = M * Q, per unit and head X."""
    U, A, S = alpha_UAMS.shape[0], alpha_UAMS.shape[1], alpha_UAMS.shape[3]
    weighted_UAMQS = alpha_UAMS.unsqueeze(3) * pixels_UMQS.unsqueeze(1)
    return weighted_UAMQS.to(dtype).reshape(U * A, -1, S)


def _by_head(value_UMQD: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """Values as one matrix (T, E), T = M * Q, per unit and head X."""
    U, M, Q, D = value_UMQD.shape
    value_UAMQE = value_UMQD.to(dtype).view(U, M, Q, heads, D // heads).permute(0, 3, 1, 2, 4)
    return value_UAMQE.reshape(U * heads, M * Q, D // heads)
