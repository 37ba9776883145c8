"""Vision transformer trunk: pre-norm blocks over the patch tokens, then a norm.

Contract: shapes are read from the tensors, never from the config, so that the same code runs when a wrapper
has cut the heads, the hidden features or the patches over ranks. `qkv` holds q, k, v of one head after the
other: a contiguous cut of its rows is a set of whole heads.

Letters: B batch, L patches, D width, A attention heads, E = D / A, F hidden features of the MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.network.cut import Stack


class Attention(nn.Module):
    """Multi-head self-attention over the patches.

    Args:
        width: D.
        heads: A, divides D.
        dropout: probability of dropping an element of the output.
    """

    def __init__(self, *, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.head_width = width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        qkv = self.qkv(x_BLD)
        B, L, _ = qkv.shape
        q, k, v = qkv.view(B, L, -1, 3, self.head_width).permute(3, 0, 2, 1, 4).unbind(0)
        out_BALE = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.drop(self.proj(out_BALE.transpose(1, 2).reshape(B, L, -1)))
        return out


class Mlp(nn.Module):
    """Two linear layers with GELU between.

    Args:
        width: D.
        hidden: F.
        dropout: probability of dropping an element, after each layer.
    """

    def __init__(self, *, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        out: Tensor = self.drop(self.fc2(self.drop(F.gelu(self.fc1(x_BLD)))))
        return out


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `recompute` only its input is kept for backward."""

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width=width, heads=heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width=width, hidden=hidden, dropout=dropout)
        self.recompute = False

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._run, x_BLD, use_reentrant=False)
            return out
        return self._run(x_BLD)

    def _run(self, x_BLD: Tensor) -> Tensor:
        x_BLD = x_BLD + self.attn(self.norm1(x_BLD))
        out: Tensor = x_BLD + self.mlp(self.norm2(x_BLD))
        return out


class Trunk(nn.Module):
    """Blocks and the final norm: (B, L, D) to (B, L, D).

    Args:
        width: D.
        depth: number of blocks.
        heads: A.
        hidden: F.
        dropout: as for `Block`.
    """

    def __init__(self, *, width: int, depth: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, hidden=hidden, dropout=dropout) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of every block."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.recompute = on

    def stack(self) -> Stack:
        """How the trunk may be cut: by heads and hidden features."""
        return Stack(
            self,
            tuple(self.blocks),
            columns=("attn.qkv", "mlp.fc1"),
            rows=("attn.proj", "mlp.fc2"),
            norms=("norm1", "norm2"),
            last=("norm",),
        )

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        for block in self.blocks:
            x_BLD = block(x_BLD)
        out: Tensor = self.norm(x_BLD)
        return out
