"""The channel stage written the obvious way, sharing no code with the model.

One nn.Conv2d per channel, nn.MultiheadAttention or nn.Linear per unit, lists and loops.

Letters: B batch, C channels, H/W grid, L patches, D width, M members of a unit, G groups.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from model.dchag import DCHAG


class Query(nn.Module):
    """A learned query that attends over tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, tokens_BLMD: Tensor) -> Tensor:
        B, L, M, D = tokens_BLMD.shape
        keys = tokens_BLMD.reshape(B * L, M, D)
        out, _ = self.attention(self.query.expand(B * L, 1, D), keys, keys, need_weights=False)
        return out.view(B, L, D)


class Mix(nn.Module):
    """A linear map over the tokens."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.linear = nn.Linear(members, 1)

    def forward(self, tokens_BLMD: Tensor) -> Tensor:
        return self.linear(tokens_BLMD.transpose(2, 3)).squeeze(3)


class NaiveStage(nn.Module):
    """Tokens of every channel, reduced group by group, level by level, then over groups: (B, L, D).

    Args:
        groups: channel numbers per group.
        widths: units per group on every level but the last; None for no partial aggregation.
    """

    def __init__(
        self, groups: list[list[int]], widths: list[int] | None, *, unit: str, patch: int, width: int, heads: int
    ) -> None:
        super().__init__()
        num_channels = sum(len(group) for group in groups)
        self.groups = groups
        self.embed = nn.ModuleList(nn.Conv2d(1, width, patch, stride=patch) for _ in range(num_channels))
        self.channel = nn.Parameter(torch.zeros(num_channels, width))
        self.units = nn.ModuleList()  # per group, per level, per unit
        self.parts: list[list[list[list[int]]]] = []
        for group in groups:
            levels, parts, below = nn.ModuleList(), [], len(group)
            for number in [] if widths is None else [*widths, 1]:
                split = [list(part) for part in np.array_split(np.arange(below), min(number, below))]
                make = [Query(width, heads) if unit == "C" else Mix(len(part)) for part in split]
                levels.append(nn.ModuleList(make))
                parts.append(split)
                below = len(split)
            self.units.append(levels)
            self.parts.append(parts)
        self.merge = Query(width, heads) if widths is None or len(groups) > 1 else None

    def forward(self, x_BCHW: Tensor, present: list[int] | None = None) -> Tensor:
        present = list(range(x_BCHW.shape[1])) if present is None else present
        tokens = {}
        for c in present:
            embedded = self.embed[c](x_BCHW[:, [c]]).flatten(2).transpose(1, 2)
            tokens[c] = embedded + self.channel[c]
        outputs = []
        for group, levels, parts in zip(self.groups, self.units, self.parts, strict=True):
            current = [tokens.get(c) for c in group]
            for units, split in zip(levels, parts, strict=True):
                current = [self._unit(unit, part, current) for unit, part in zip(units, split, strict=True)]
            outputs += [token for token in current if token is not None]
        if self.merge is None:
            return outputs[0]
        return self.merge(torch.stack(outputs, dim=2))

    @staticmethod
    def _unit(unit: nn.Module, part: list[int], tokens: list[Tensor | None]) -> Tensor | None:
        there = [(i, tokens[m]) for i, m in enumerate(part) if tokens[m] is not None]
        if not there:
            return None
        stacked = torch.stack([token for _, token in there], dim=2)
        if isinstance(unit, Mix):  # absent terms are dropped
            weight = unit.linear.weight[:, [i for i, _ in there]]
            return nn.functional.linear(stacked.transpose(2, 3), weight, unit.linear.bias).squeeze(3)
        return unit(stacked)


def naive_twin(model: DCHAG, groups: list[list[int]], widths: list[int] | None) -> NaiveStage:
    """The naive stage with the weights of a model, whose units come group after group on each level."""
    config = model.config
    twin = NaiveStage(
        groups, widths, unit=config.unit, patch=config.patch, width=config.width, heads=config.heads
    ).double()
    with torch.no_grad():
        for of_twin, of_model in pairs(twin, model, lambda p: p.data):
            of_twin.copy_(of_model)
    return twin


def pairs(twin: NaiveStage, model: DCHAG, of) -> list[tuple[Tensor, Tensor]]:
    """Every tensor of the naive stage with its counterpart in the model; key biases have none."""
    tokeniser, D, patch = model.stage.tokeniser, model.config.width, model.config.patch
    found = [(of(twin.channel), of(tokeniser.channel))]
    for c, conv in enumerate(twin.embed):
        found.append((of(conv.weight), of(tokeniser.weight)[c].T.reshape(D, 1, patch, patch)))
        found.append((of(conv.bias), of(tokeniser.bias)[c]))
    for number, units in enumerate(model.stage.levels):
        row = 0
        mixed = [0] * len(twin.groups)
        for g, levels in enumerate(twin.units):
            for u, unit in enumerate(levels[number]):
                if isinstance(unit, Query):
                    found += _of_query(unit, units, slice(row * D, (row + 1) * D), of)
                else:
                    inputs = twin.parts[g][number][u]
                    below = twin.groups if number == 0 else None
                    if below is not None:
                        rows = [below[g][i] for i in inputs]
                    else:
                        before = sum(len(other[number - 1]) for other in list(twin.units)[:g])
                        rows = [before + i for i in inputs]
                    found.append((of(unit.linear.weight)[0], of(units.weight)[rows]))
                    found.append((of(unit.linear.bias)[0], of(units.bias)[row]))
                row += 1
                mixed[g] += 1
    if twin.merge is not None:
        found += _of_query(twin.merge, model.merge, slice(0, D), of)
    return found


def _of_query(unit: Query, units: nn.Module, rows: slice, of) -> list[tuple[Tensor, Tensor]]:
    D = unit.query.numel()
    in_weight, in_bias = of(unit.attention.in_proj_weight), of(unit.attention.in_proj_bias)
    return [
        (of(unit.query), of(units.query)[rows]),
        (in_weight[:D], of(units.q_weight)[rows]),
        (in_weight[D : 2 * D], of(units.k_weight)[rows]),
        (in_weight[2 * D :], of(units.v_weight)[rows]),
        (in_bias[:D], of(units.q_bias)[rows]),
        (in_bias[2 * D :], of(units.v_bias)[rows]),
        (of(unit.attention.out_proj.weight), of(units.out_weight)[rows]),
        (of(unit.attention.out_proj.bias), of(units.out_bias)[rows]),
    ]
