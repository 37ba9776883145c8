"""The usual way to embed and aggregate channels, as baseline: a loop over channels, then nn.MultiheadAttention.

Letters: B batch, C channels, H/W grid, L patches, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LoopStage(nn.Module):
    """Per-channel convolutions in a loop, stacked, and one learned query over all channels: (B, L, D)."""

    def __init__(self, *, channels: int, patch: int, width: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.ModuleList(nn.Conv2d(1, width, patch, stride=patch) for _ in range(channels))
        self.channel = nn.Parameter(torch.randn(channels, width) * 0.02)
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        tokens = [embed(x_BCHW[:, c : c + 1]).flatten(2).transpose(1, 2) for c, embed in enumerate(self.embed)]
        tokens_BLCD = torch.stack(tokens, dim=2) + self.channel
        B, L, C, D = tokens_BLCD.shape
        keys = tokens_BLCD.view(B * L, C, D)
        out, _ = self.attention(self.query.expand(B * L, 1, D), keys, keys)
        return out.view(B, L, D)
