"""The loss: squared errors of what is hidden and valid.

Contract: of each sample, the sum over the bands of all ranks divided by the number of values that are hidden and
predicted, valid or not; then the mean over samples. An invalid value adds nothing. So no rank needs to know how many
values of the others are valid, and the loss of a batch is the same however samples and bands are divided. What is
hidden: all bands of a hidden patch, and the hidden bands of a visible one.

Letters: B batch, K bands of this rank, C of all ranks, Q patches predicted, P pixels of a patch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.imaging.tiles import Tiles, cut_patches
from model.parallel.collectives import ProcessGroup, sum_forward_keep_backward

FLOOR = 1e-3
"""Added to the variance inside a patch before it divides, in squared standard deviations of the band."""


def hidden_loss(
    y_BQKP: Tensor,
    batch: Tiles,
    *,
    patch: int,
    bands: int,
    weight_K: Tensor | None,
    by_patch: bool,
    band_weight: float = 1.0,
    group: ProcessGroup,
) -> Tensor:
    """Mean squared error of what is hidden from a batch, over the bands of all ranks; float32 at least.

    Args:
        y_BQKP: predictions.
        batch: targets, and what is hidden.
        patch: side of a patch [pixels].
        bands: C.
        weight_K: of this rank's bands; None for ones.
        by_patch: compare with targets normalised by mean and standard deviation of each patch, band by band.
        band_weight: of squared errors in hidden bands of visible patches.
        group: ranks of the channel axis.
    """
    target_BQKP, counts_BQKP = targets_of(batch, patch=patch, by_patch=by_patch)
    squares_BQKP = (y_BQKP.to(target_BQKP.dtype) - target_BQKP).square() * counts_BQKP
    if weight_K is not None:
        squares_BQKP = squares_BQKP * weight_K.unsqueeze(1)
    if batch.hidden and band_weight != 1.0:
        squares_BQKP = squares_BQKP * torch.where(batch.hides, 1.0, band_weight)[:, :, None, None]
    count_B = hidden_values(batch, patch=patch, bands=bands)
    return sum_forward_keep_backward((squares_BQKP.sum(dim=(1, 2, 3)) / count_B).mean(), group=group)


def targets_of(batch: Tiles, *, patch: int, by_patch: bool) -> tuple[Tensor, Tensor]:
    """Targets and whether each counts, (B, Q, K, P).

    Args:
        batch: samples.
        patch: side of a patch [pixels].
        by_patch: as for `hidden_loss`.
    """
    target_BQKP = cut_patches(batch.x, patch=patch, wanted_BQ=batch.predicted)
    valid_BQKP = cut_patches(batch.valid, patch=patch, wanted_BQ=batch.predicted)
    if by_patch:
        count_BQK1 = valid_BQKP.sum(dim=3, keepdim=True).clamp(min=1)
        mean_BQK1 = target_BQKP.sum(dim=3, keepdim=True) / count_BQK1  # invalid values are zero
        deviation_BQKP = (target_BQKP - mean_BQK1) * valid_BQKP
        variance_BQK1 = deviation_BQKP.square().sum(dim=3, keepdim=True) / count_BQK1
        target_BQKP = deviation_BQKP / (variance_BQK1 + FLOOR).sqrt()
    if batch.hidden:
        valid_BQKP = valid_BQKP & (batch.hides[:, :, None, None] | batch.band_hidden[:, None])
    return target_BQKP, valid_BQKP


def hidden_values(batch: Tiles, *, patch: int, bands: int) -> Tensor:
    """How many values are hidden from each sample of a batch and predicted, in all bands of all ranks; (B,)."""
    hidden_B = batch.hides.sum(dim=1)
    return (hidden_B * bands + (batch.hides.shape[1] - hidden_B) * len(batch.hidden)) * patch**2
