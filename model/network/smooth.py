"""A small residual convolution over predicted fields, which can even out what patches predicted side by side.

Contract: it starts as the identity. Fields are periodic in longitude and repeat their last row at the poles.

Letters: B batch, V predicted channels, H/W grid.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn


class Smooth(nn.Module):
    """x + project(gelu(mix(depthwise(x)))): each channel's neighbourhood, then channels mixed in every cell.

    Args:
        channels: V.
    """

    REACH: ClassVar[int] = 2
    """Cells to each side that a cell sees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 2 * self.REACH + 1, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x_BVHW: Tensor) -> Tensor:
        """(B, V, H, W) to (B, V, H, W)."""
        reach = self.REACH
        around = F.pad(F.pad(x_BVHW, (reach, reach, 0, 0), mode="circular"), (0, 0, reach, reach), mode="replicate")
        out: Tensor = x_BVHW + self.project(F.gelu(self.mix(self.depthwise(around))))
        return out
