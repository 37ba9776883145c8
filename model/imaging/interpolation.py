"""Hidden patches interpolated from the visible ones: what an autoencoder may start from.

Contract: simple kriging, band by band, of means over small blocks of the visible patches: the linear interpolation of
least expected squared error where the covariance of two places falls as exp(-distance / reach) and blocks have a little
noise of their own. Far from everything visible it is zero, the mean of the band. Nothing is learned. An invalid value
is the zero that stands for it. Source: Cressie 1993, Statistics for Spatial Data, section 3.2.

Letters: B batch, K bands, H/W pixels of a tile, M visible patches, Q patches wanted, P pixels of a patch, S blocks of
all visible patches, T pixels of all patches wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

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
def interpolated(
    x_BKHW: Tensor, visible_BM: Tensor, wanted_BQ: Tensor, *, patch: int, absent: Sequence[int] = ()
) -> Tensor:
    """Pixels of some patches from those that are visible, float32 at least: (B, Q, K, P).

    Args:
        x_BKHW: normalised reflectance, zero where invalid.
        visible_BM: positions of the patches that may be used, row by row.
        wanted_BQ: positions of the patches wanted.
        patch: side of a patch [pixels].
        absent: bands that are not read: zero everywhere.
    """
    side = patch // BLOCKS if patch % BLOCKS == 0 else 1
    columns, B = x_BKHW.shape[3] // patch, len(x_BKHW)
    with torch.autocast(x_BKHW.device.type, enabled=False):
        means_BSK = _block_means(at_least_float32(x_BKHW), visible_BM, patch=patch, side=side)
        means_BSK[:, :, list(absent)] = 0.0
        place = {"columns": columns, "patch": patch, "like": means_BSK}
        source_BS2, target_BT2 = (
            _centres(positions, side=size, **place) for positions, size in ((visible_BM, side), (wanted_BQ, 1))
        )
        own_BSS = _covariance(source_BS2, source_BS2, reach=REACH * patch)
        own_BSS = own_BSS + NOISE * torch.eye(own_BSS.shape[1], dtype=own_BSS.dtype, device=own_BSS.device)
        weights_BSK = torch.cholesky_solve(means_BSK, torch.linalg.cholesky(own_BSS))
        fields_BTK = _covariance(target_BT2, source_BS2, reach=REACH * patch) @ weights_BSK
    return fields_BTK.view(B, wanted_BQ.shape[1], patch**2, -1).transpose(2, 3)


def _block_means(x_BKHW: Tensor, visible_BM: Tensor, *, patch: int, side: int) -> Tensor:
    """(B, S, K): blocks row by row inside a patch, patch after patch."""
    cut_BMKP = cut_patches(x_BKHW, patch=patch, wanted_BQ=visible_BM)
    many = patch // side
    blocks = cut_BMKP.unflatten(3, (many, side, many, side)).mean(dim=(4, 6))
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
