"""Prediction head: an MLP from each patch token to the pixels of every predicted channel, and patches back to fields.

Contract: the last layer starts at zero, so an untrained model predicts a zero anomaly everywhere. A token may predict a
window larger than its patch; windows are then summed with weights that add up to one in every cell, so that fields are
continuous across the edges of patches.

Letters: B batch, H/W grid, L patches, P pixels of a window, D width, V predicted channels, h/w patches along H/W.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.network.aggregate import at_least_float32


class Head(nn.Sequential):
    """`depth` hidden layers with GELU after each, then a linear layer to P * V values.

    Args:
        width: D.
        depth: hidden layers.
        pixels: P.
        channels: V. The output is pixel-major: value v of pixel p at p * V + v.
    """

    def __init__(self, *, width: int, depth: int, pixels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Linear(width, width), nn.GELU()]
        super().__init__(*layers, nn.Linear(width, pixels * channels))


def unpatchify(y: Tensor, *, patch: int, grid: tuple[int, int], margin: int = 0) -> Tensor:
    """Patches, or windows that overlap, back to fields.

    Args:
        y: (B, L, P * V), pixel-major, of windows of patch + 2 margin cells a side.
        patch: side of a patch [cells].
        grid: patches along latitude and longitude.
        margin: by how much a window reaches over each edge of its patch [cells], at most half a patch; see `join`.

    Returns:
        (B, V, H, W), at least float32 where windows are summed.
    """
    B = y.shape[0]
    h, w = grid
    side = patch + 2 * margin
    windows = y.view(B, h, w, side, side, -1)
    patches = join(windows, margin=margin) if margin else windows
    return patches.permute(0, 5, 1, 3, 2, 4).reshape(B, -1, h * patch, w * patch)


def join(windows: Tensor, *, margin: int) -> Tensor:
    """Sums windows where they overlap.

    Along an axis two windows share the 2 margin cells about an edge of patches; there the weight of one falls from
    one to zero as a raised cosine and that of the other rises likewise. Longitude is periodic. At the poles windows
    are cut off, and the weights left add up to one again.

    Args:
        windows: (B, h, w, side, side, V), side = patch + 2 margin.
        margin: cells.

    Returns:
        (B, h, w, patch, patch, V), at least float32.
    """
    dtype = at_least_float32(windows[:0]).dtype
    h, side = windows.shape[1], windows.shape[3]
    weight = taper(side, margin=margin, dtype=dtype, device=windows.device)
    rows = weight.repeat(h, 1)
    at_pole = weight.new_tensor([0.0, 1.0]).repeat_interleave(margin)
    rows[0, : 2 * margin] = at_pole
    rows[-1, -2 * margin :] = at_pole.flip(0)
    joined = windows * (rows[:, None, :, None, None] * weight[:, None])
    for patches, cells in ((1, 3), (2, 4)):
        before, own, after = torch.split(joined, [margin, side - 2 * margin, margin], dim=cells)
        between = list(own.shape)
        between[cells] -= 2 * margin
        others = [after.roll(1, dims=patches), own.new_zeros(between), before.roll(-1, dims=patches)]
        joined = own + torch.cat(others, dim=cells)
    return joined


def taper(side: int, *, margin: int, dtype: torch.dtype, device: torch.device | None = None) -> Tensor:
    """Weights of the cells of a window along one axis, (side,): with the neighbouring windows' they add up to one."""
    angle = (torch.arange(2 * margin, dtype=torch.float64, device=device) + 0.5) * (torch.pi / (4 * margin))
    rising = angle.sin().square()
    ones = rising.new_ones(side - 4 * margin)
    return torch.cat([rising, ones, rising.flip(0)]).to(dtype)
