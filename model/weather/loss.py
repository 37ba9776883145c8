"""Squared error weighted by cell area and by channel.

Contract: loss = mean over batch, channels and cells of w_v * w_area * (y - target)^2, with both weights
scaled to mean 1, so that the value does not depend on their units and equal weights give the plain MSE. The
mean over a global batch is the mean of the losses of its equal parts: it does not depend on the topology.

Letters: B batch, V predicted channels, H/W grid.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mse(
    y_BVHW: Tensor,
    target_BVHW: Tensor,
    *,
    area_HW: Tensor,
    channel_V: Tensor | None = None,
    unit_BV: Tensor | None = None,
) -> Tensor:
    """Mean squared error, weighted by cell area and channel.

    Args:
        y_BVHW: prediction, any float type.
        target_BVHW: what it should be, same shape.
        area_HW: cell areas in any unit (`pipeline.grid.Grid.cell_area`), positive.
        channel_V: channel weights in any unit, not negative, None for equal weights.
        unit_BV: in which unit errors of each sample and channel are measured, None for that of the prediction.

    Returns:
        Scalar, in float32 at least.

    Raises:
        ValueError: shapes that do not fit. (Broadcasting would hide them.)
    """
    mse_BV = sample_mse(y_BVHW, target_BVHW, area_HW=area_HW)
    if unit_BV is not None:
        mse_BV = mse_BV / unit_BV.to(mse_BV.dtype).square()
    return mse_BV.mul(_mean_one(channel_V, y_BVHW)).mean()


def channel_mse(y_BVHW: Tensor, target_BVHW: Tensor, *, area_HW: Tensor) -> Tensor:
    """Area-weighted mean squared error per channel (V,); arguments as for `weighted_mse`."""
    return sample_mse(y_BVHW, target_BVHW, area_HW=area_HW).mean(dim=0)


def sample_mse(y_BVHW: Tensor, target_BVHW: Tensor, *, area_HW: Tensor) -> Tensor:
    """Area-weighted mean squared error per sample and channel (B, V); arguments as for `weighted_mse`."""
    if y_BVHW.shape != target_BVHW.shape:
        raise ValueError(
            f"target must have the prediction's shape {tuple(y_BVHW.shape)}, got {tuple(target_BVHW.shape)}"
        )
    if area_HW.shape != y_BVHW.shape[-2:]:
        raise ValueError(f"area must have the grid's shape {tuple(y_BVHW.shape[-2:])}, got {tuple(area_HW.shape)}")
    dtype = torch.promote_types(y_BVHW.dtype, torch.float32)
    area = area_HW.to(device=y_BVHW.device, dtype=dtype)
    error_BVHW = y_BVHW.to(dtype) - target_BVHW.to(dtype)
    return torch.mv(error_BVHW.square().flatten(0, 1).flatten(1), (area / area.sum()).flatten()).view(y_BVHW.shape[:2])


def _mean_one(channel_V: Tensor | None, y_BVHW: Tensor) -> Tensor:
    num = y_BVHW.shape[1]
    dtype = torch.promote_types(y_BVHW.dtype, torch.float32)
    if channel_V is None:
        return y_BVHW.new_ones(num, dtype=dtype)
    if channel_V.shape != (num,):
        raise ValueError(f"channel weights must have shape ({num},), got {tuple(channel_V.shape)}")
    weights = channel_V.to(device=y_BVHW.device, dtype=dtype)
    return weights / weights.mean()
