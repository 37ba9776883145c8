"""Vision transformer trunk: pre-norm blocks over the patch tokens, then a norm.

Contract: shapes are read from the tensors, never from the config, so that the same code runs when a wrapper
has cut the heads, the hidden features or the patches over ranks. `qkv` holds q, k, v of one head after the
other: a contiguous cut of its rows is a set of whole heads. With `modulated` blocks a condition of each sample shifts
and scales what their norms give and weighs what their two branches add (adaptive layer norm: DiT, arXiv 2212.09748);
it starts without effect.

Letters: B batch, L patches, D width, A attention heads, E = D / A, F hidden features of the MLP.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from model.network.cut import Stack

FEW_PATCHES = 512
"""Up to so many patches a CPU may hold their attention weights."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention, (B, A, L, E) each.

    On a CPU with matrix products in bfloat16 torch's blockwise form takes eight times as long as in float32
    (torch 2.13, 16 x 8 x 32 x 64: 23 against 2.8 ms, forward and backward); plain products take 4.5 ms.
    """
    plain = q.device.type == "cpu" and torch.get_float32_matmul_precision() == "medium" and q.shape[2] <= FEW_PATCHES
    if not plain:
        return F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v)


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
        out_BALE = attention(q, k, v)
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
    """x + attention(norm(x)), then x + mlp(norm(x)); with `recompute` only its input is kept for backward.

    Modulated: x + (1 + gate) attention((1 + scale) norm(x) + shift), and so the second; shift, scale and gate of both
    are a linear layer of the condition, which starts at zero.
    """

    def __init__(self, *, width: int, heads: int, hidden: int, dropout: float, modulated: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width=width, heads=heads, dropout=dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width=width, hidden=hidden, dropout=dropout)
        self.modulation = nn.Linear(width, 6 * width) if modulated else None
        self.recompute = False

    def forward(self, x_BLD: Tensor, condition_BD: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D); the condition is needed where the block is modulated."""
        if self.recompute and torch.is_grad_enabled():
            out: Tensor = checkpoint(self._run, x_BLD, condition_BD, use_reentrant=False)
            return out
        return self._run(x_BLD, condition_BD)

    def _run(self, x_BLD: Tensor, condition_BD: Tensor | None) -> Tensor:
        if self.modulation is None:
            x_BLD = x_BLD + self.attn(self.norm1(x_BLD))
            out: Tensor = x_BLD + self.mlp(self.norm2(x_BLD))
            return out
        assert condition_BD is not None, "a modulated block needs a condition"
        six = self.modulation(F.silu(condition_BD)).unsqueeze(1).chunk(6, dim=2)
        shift1, scale1, gate1, shift2, scale2, gate2 = six
        x_BLD = x_BLD + (1 + gate1) * self.attn((1 + scale1) * self.norm1(x_BLD) + shift1)
        out = x_BLD + (1 + gate2) * self.mlp((1 + scale2) * self.norm2(x_BLD) + shift2)
        return out


class Trunk(nn.Module):
    """Blocks and the final norm: (B, L, D) to (B, L, D).

    Args:
        width: D.
        depth: number of blocks.
        heads: A.
        hidden: F.
        dropout: as for `Block`.
        modulated: whether blocks take a condition.
    """

    def __init__(
        self, *, width: int, depth: int, heads: int, hidden: int, dropout: float, modulated: bool = False
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, hidden=hidden, dropout=dropout, modulated=modulated) for _ in range(depth)
        )
        self.modulated = modulated
        self.norm = nn.LayerNorm(width)

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of every block."""
        for block in self.blocks:
            assert isinstance(block, Block)
            block.recompute = on

    def zero_modulation(self) -> None:
        """Let conditions have no effect: where modulation starts."""
        for block in self.blocks:
            assert isinstance(block, Block)
            if block.modulation is not None:
                block.modulation.weight.zero_()
                block.modulation.bias.zero_()

    def stack(self) -> Stack:
        """How the trunk may be cut: by heads and hidden features."""
        return Stack(
            self,
            tuple(self.blocks),
            columns=("attn.qkv", "mlp.fc1"),
            rows=("attn.proj", "mlp.fc2"),
            norms=("norm1", "norm2"),
            last=("norm",),
            modulations=("modulation",) if self.modulated else (),
        )

    def forward(self, x_BLD: Tensor, *, condition_BD: Tensor | None = None) -> Tensor:
        """(B, L, D) to (B, L, D); the condition is needed where blocks are modulated."""
        for block in self.blocks:
            x_BLD = block(x_BLD, condition_BD)
        out: Tensor = self.norm(x_BLD)
        return out
