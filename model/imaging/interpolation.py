"""What is hidden, interpolated from what is visible: what an autoencoder may start from.

Contract: hidden bands of visible patches lie on straight lines, band by band of the store, between the bands beside the
gap. Hidden patches come by simple kriging, band by band, of means over small blocks of the visible ones: the linear
interpolation of least expected squared error where the covariance of two places falls as exp(-distance / reach) and
blocks have a little noise of their own; far from everything visible it is zero, the mean of the band. Nothing is
learned. An invalid value is the zero that stands for it. Source of kriging: Cressie 1993, Statistics for Spatial Data,
section 3.2.

Letters: B batch, K bands, H/W pixels of a tile, M visible patches, Q patches wanted, P pixels of a patch, S blocks of
all visible patches, T pixels of all patches wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from model.imaging.tiles import cut_patches
from model.network.aggregate import at_least_float32

BLOCKS = 4
"""Blocks along the side of a patch, where it has as many pixels."""
REACH = 0.75
"""Over which the covariance falls to 1/e, in patches."""
NOISE = 0.05
"""Variance of a block's own noise, over the variance of the field."""


@torch.no_grad()
def bridged(
    x_BKHW: Tensor,
    hidden: Collection[str],
    *,
    held: Sequence[str],
    channels: Sequence[str],
    total: Callable[[Tensor], Tensor],
) -> Tensor:
    """Reflectance with the hidden bands on straight lines between those beside them; at an end, as the last visible.

    Args:
        x_BKHW: of the bands held; hidden ones are not read.
        hidden: names of bands of all ranks, not all of them.
        held: names of the bands held, in order.
        channels: of all ranks, in order.
        total: sums over the ranks, each of which knows some of the bands beside the gaps.
    """
    seen = [i for i, name in enumerate(channels) if name not in hidden]
    sides = [
        (max((s for s in seen if s < i), default=seen[0]), i, min((s for s in seen if s > i), default=seen[-1]))
        for i, name in enumerate(channels)
        if name in hidden
    ]
    edges = sorted({edge for low, _, high in sides for edge in (low, high)})
    row = {name: i for i, name in enumerate(held)}
    known = x_BKHW.new_zeros(len(x_BKHW), len(edges), *x_BKHW.shape[2:])
    for i, edge in enumerate(edges):
        if channels[edge] in row:
            known[:, i] = x_BKHW[:, row[channels[edge]]]
    known = total(known)
    filled = x_BKHW.clone()
    for low, band, high in sides:
        if channels[band] in row:
            share = (band - low) / (high - low) if high > low else 0.0
            ends = known[:, edges.index(low)], known[:, edges.index(high)]
            filled[:, row[channels[band]]] = (1 - share) * ends[0] + share * ends[1]
    return filled


@torch.no_grad()
def interpolated(
    x_BKHW: Tensor, visible_BM: Tensor, wanted_BQ: Tensor, *, patch: int, some_visible: bool = True
) -> Tensor:
    """Pixels of some patches from those that are visible, float32 at least: (B, Q, K, P); of a visible one, itself.

    Args:
        x_BKHW: normalised reflectance, zero where invalid, hidden bands filled.
        visible_BM: positions of the patches that may be used, row by row.
        wanted_BQ: positions of the patches wanted.
        patch: side of a patch [pixels].
        some_visible: whether visible patches may be wanted.
    """
    x_BKHW = at_least_float32(x_BKHW)
    side = patch // BLOCKS if patch % BLOCKS == 0 else 1
    columns, B = x_BKHW.shape[3] // patch, len(x_BKHW)
    with torch.autocast(x_BKHW.device.type, enabled=False):
        means_BSK = _block_means(x_BKHW, visible_BM, patch=patch, side=side)
        source_BS2 = _centres(visible_BM, columns=columns, patch=patch, side=side, like=means_BSK)
        target_BT2 = _centres(wanted_BQ, columns=columns, patch=patch, side=1, like=means_BSK)
        own_BSS = _covariance(source_BS2, source_BS2, reach=REACH * patch)
        own_BSS = own_BSS + NOISE * torch.eye(own_BSS.shape[1], dtype=own_BSS.dtype, device=own_BSS.device)
        weights_BSK = torch.cholesky_solve(means_BSK, torch.linalg.cholesky(own_BSS))
        fields_BTK = _covariance(target_BT2, source_BS2, reach=REACH * patch) @ weights_BSK
    out_BQKP = fields_BTK.view(B, wanted_BQ.shape[1], patch**2, -1).transpose(2, 3)
    if not some_visible:
        return out_BQKP
    there_BQ = (wanted_BQ.unsqueeze(2) == visible_BM.unsqueeze(1)).any(dim=2)
    own_BQKP = cut_patches(x_BKHW, patch=patch, wanted_BQ=wanted_BQ)
    return torch.where(there_BQ[:, :, None, None], own_BQKP, out_BQKP)


def _block_means(x_BKHW: Tensor, visible_BM: Tensor, *, patch: int, side: int) -> Tensor:
    """(B, S, K): blocks row by row inside a patch, patch after patch."""
    cut_BMKP = cut_patches(x_BKHW, patch=patch, wanted_BQ=visible_BM)
    many = patch // side
    blocks = cut_BMKP.view(*cut_BMKP.shape[:3], many, side, many, side).mean(dim=(4, 6))
    return blocks.flatten(3).transpose(2, 3).flatten(1, 2)


def _centres(positions_BQ: Tensor, *, columns: int, patch: int, side: int, like: Tensor) -> Tensor:
    """Row and column [pixels] of the centres of the blocks of some patches: (B, Q * blocks, 2)."""
    inside = torch.arange(patch // side, dtype=like.dtype, device=like.device) * side + (side - 1) / 2
    offsets = torch.cartesian_prod(inside, inside).view(-1, 2)
    corner = torch.stack([positions_BQ // columns, positions_BQ % columns], dim=2).to(like.dtype) * patch
    return (corner.unsqueeze(2) + offsets).flatten(1, 2)


def _covariance(one: Tensor, other: Tensor, *, reach: float) -> Tensor:
    exact = "donot_use_mm_for_euclid_dist"
    return torch.exp(-torch.cdist(one, other, compute_mode=exact) / reach)
