"""Tensor parallelism alone, the baseline that the D-CHAG paper compares with, as a network that can be cut over ranks.

Contract: the function is that of the flat network (one cross-attention over all channels, no partial aggregation).
Every rank reads and tokenises all channels; the cross-attention over them is cut by heads as the trunk is, with one
all-reduce forward (of its output) and one backward (of the gradient of all tokens). With `distributed` a rank reads and
tokenises its own channels and tokens are gathered before the same cross-attention: distributed tokenisation alone.
`FlatOnEveryRank` instead has the fused stage over all channels on every rank, and nothing but the trunk is cut.

Letters: B batch, C channels, K channels of this rank, H/W grid, N = B * patches, D width, A heads held, E = D / heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.dchag import DCHAG, DCHAGConfig
from model.network.aggregate import CrossAttentionUnits
from model.network.cut import CutRows, Stack, Unit
from model.network.present import Present


@dataclass(frozen=True, kw_only=True)
class TensorAloneConfig(DCHAGConfig):
    """A flat network as tensor parallelism cuts it; `groups` is any number that the ranks divide.

    Args:
        distributed: ranks tokenise their own channels only.

    See `DCHAGConfig` for the others.
    """

    tree: str = "none"
    channel_stage: str = "reference"
    distributed: bool = False

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> TensorAlone:
        """The network: all of it, or with `distributed` the tokeniser of some groups."""
        return TensorAlone(self, groups=groups if self.distributed else None, seed=seed)


class CutCrossAttention(nn.Module):
    """`CrossAttentionUnits.forward` of one unit, with layers that can be cut by heads.

    Keys and values are rows of one layer, those of a head one after the other, so that the gradient of the tokens is
    summed over ranks once.
    """

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.query = nn.Parameter(torch.empty(width))
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens_CND: Tensor) -> Tensor:
        """(C, N, D) to (1, N, D)."""
        C, N, D = tokens_CND.shape
        E = D // self.heads
        kv_CNA2E = self.kv(tokens_CND).view(C, N, -1, 2, E)
        k, v = kv_CNA2E.permute(3, 1, 2, 0, 4).unbind(0)
        q = self.q(self.query).view(1, -1, 1, E).to(k.dtype).expand(N, -1, 1, E)
        out_NAE = F.scaled_dot_product_attention(q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)).squeeze(3)
        out: Tensor = self.out(out_NAE.reshape(1, N, -1))
        return out

    @torch.no_grad()
    def copy_from(self, unit: CrossAttentionUnits) -> None:
        """Take the parameters of one unit; keys have no bias there."""
        D = self.width
        split = (self.heads, D // self.heads, D)
        kv = torch.stack([unit.k_weight.view(split), unit.v_weight.view(split)], dim=1)
        bias = torch.stack([torch.zeros_like(unit.v_bias).view(split[:2]), unit.v_bias.view(split[:2])], dim=1)
        for own, value in (
            (self.query, unit.query), (self.q.weight, unit.q_weight), (self.q.bias, unit.q_bias),
            (self.kv.weight, kv.view(-1, D)), (self.kv.bias, bias.flatten()),
            (self.out.weight, unit.out_weight), (self.out.bias, unit.out_bias),
        ):  # fmt: skip
            own.copy_(value)


class TensorAlone(DCHAG):
    """The network, or the part of it that a rank holds; it starts as the flat `DCHAG` of the same seed."""

    config: TensorAloneConfig

    def build_head(self) -> None:
        """The head, and the cross-attention in a form that can be cut."""
        super().build_head()
        self.cut_merge = CutCrossAttention(width=self.config.width, heads=self.config.heads)
        self.merge = None
        self.recompute = False

    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter to its start: that of the flat network."""
        self.merge = CrossAttentionUnits(num_units=1, width=self.config.width, heads=self.config.heads)
        super().reset_parameters(seed=seed)
        self.cut_merge.copy_from(self.merge)
        self.merge = None

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of tokens and cross-attention together, and of every trunk block."""
        self.recompute = on
        self.trunk.set_recompute(on)

    def cut_rows(self) -> dict[str, CutRows]:
        """Rows of the tokeniser where it is distributed."""
        return super().cut_rows() if self.config.distributed else {}

    def stacks(self) -> tuple[Stack, ...]:
        """The trunk and the cross-attention."""
        merge = Stack(self.cut_merge, (self.cut_merge,), columns=("q", "kv"), rows=("out",), norms=(), last=())
        return (*super().stacks(), merge)

    def units(self) -> tuple[Unit, ...]:
        """Those of the encoder and the cross-attention."""
        return (*super().units(), Unit(self.cut_merge))

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """Those of the network and the cross-attention."""
        return (*super().parts(), ("aggregation", self.cut_merge))

    def _aggregate(self, x_BKHW: Tensor, present: Present, patches_BM: Tensor | None) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            out_1ND: Tensor = checkpoint(self._tokens, x_BKHW, present, patches_BM, use_reentrant=False)
            return out_1ND
        return self._tokens(x_BKHW, present, patches_BM)

    def _tokens(self, x_BKHW: Tensor, present: Present, patches_BM: Tensor | None) -> Tensor:
        tokens_KND = self.stage(x_BKHW, present.index, patches_BM)
        out_1ND: Tensor = self.cut_merge(self.gather(tokens_KND) if self.config.distributed else tokens_KND)
        return out_1ND


@dataclass(frozen=True, kw_only=True)
class FlatOnEveryRankConfig(DCHAGConfig):
    """A flat network whose fused channel stage every rank computes whole; `groups` is any number that ranks divide."""

    tree: str = "none"

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> FlatOnEveryRank:  # noqa: ARG002
        """The network."""
        return FlatOnEveryRank(self, seed=seed)


class FlatOnEveryRank(DCHAG):
    """The network: all channels on every rank."""

    def cut_rows(self) -> dict[str, CutRows]:
        """None."""
        return {}

    def _aggregate(self, x_BKHW: Tensor, present: Present, patches_BM: Tensor | None) -> Tensor:
        assert self.merge is not None
        return self.stage.flat(x_BKHW, self.merge, present.index, patches_BM)
