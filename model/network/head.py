"""Prediction head: an MLP from each patch token to the pixels of every predicted channel.

Contract: the last layer starts at zero, so an untrained model predicts a zero anomaly everywhere.

Letters: B batch, H/W grid, L patches, P pixels of a patch, D width, V predicted channels.
"""

from __future__ import annotations

from torch import Tensor, nn


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


def unpatchify(y: Tensor, *, patch: int, grid: tuple[int, int]) -> Tensor:
    """Patches back to fields.

    Args:
        y: (B, L, P * V), pixel-major.
        patch: side of a patch [cells].
        grid: patches along latitude and longitude.

    Returns:
        (B, V, H, W).
    """
    B = y.shape[0]
    h, w = grid
    fields = y.view(B, h, w, patch, patch, -1).permute(0, 5, 1, 3, 2, 4)
    return fields.reshape(B, -1, h * patch, w * patch)
