"""Starting values of every parameter, independent of how the model is cut over ranks.

Contract: a parameter's values are drawn from a generator seeded by a hash of (seed, its name); those of the
channel stage row by row, from (seed, name, channel or unit). Draws are made on the CPU in float32 and then
converted, so the device and type do not matter either. The scales keep the variance of tokens about 1 from the
pixels to the trunk: patch weights 1/sqrt(P), values of a unit of M members times sqrt(M), linear units
1/sqrt(M), all other matrices 0.64/sqrt(inputs) (0.02 at width 1024, as ClimaX).

Letters: P pixels of a patch, D width, M members of a unit.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor, nn

from model.network.aggregate import CrossAttentionUnits, LinearUnits
from model.network.channel_stage import ChannelStage

_MATRIX = 0.64
_SMALL = 0.02


def draw_channel_stage(stage: ChannelStage, *, patch: int, seed: int) -> None:
    """Sets the tokeniser and the units of every level, row by row."""
    tree, tokeniser = stage.tree, stage.tokeniser
    for row, channel in enumerate(tree.channels):
        name = f"tokeniser/{channel}"
        tokeniser.weight[row] = draw_normal(tokeniser.weight[row], seed, f"{name}/weight") / patch
        tokeniser.bias[row].zero_()
        tokeniser.channel[row] = draw_normal(tokeniser.channel[row], seed, f"{name}/channel") * _SMALL
    for level, (units, members, names) in enumerate(zip(stage.levels, tree.levels, tree.unit_names, strict=True)):
        if isinstance(units, CrossAttentionUnits):
            for row, (unit, unit_members) in enumerate(zip(names, members, strict=True)):
                draw_cross_attention(units, row, members=len(unit_members), seed=seed, name=f"level{level}/{unit}")
        elif isinstance(units, LinearUnits):
            for unit_members in members:
                units.weight[list(unit_members)] = len(unit_members) ** -0.5
            units.bias.zero_()


def draw_cross_attention(units: CrossAttentionUnits, row: int, *, members: int, seed: int, name: str) -> None:
    """Sets one of the units held.

    Args:
        units: of one level.
        row: which of them.
        members: M, tokens that it attends to.
        seed: of all parameters.
        name: of the unit, the same on every rank.
    """
    rows = slice(row * units.width, (row + 1) * units.width)
    units.query[rows] = draw_normal(units.query[rows], seed, f"{name}/query") * _SMALL
    for parameter in ("q_weight", "k_weight", "v_weight", "out_weight"):
        gain = math.sqrt(members) if parameter == "v_weight" else 1.0
        matrix = getattr(units, parameter)[rows]
        matrix.copy_(draw_normal(matrix, seed, f"{name}/{parameter}") * (gain * units.width**-0.5))
    for bias in (units.q_bias, units.v_bias, units.out_bias):
        bias[rows] = 0.0


def draw_layers(module: nn.Module, *, seed: int, name: str) -> None:
    """Sets every linear layer, convolution and norm inside a module; `name` goes before the names of its parts."""
    for part, layer in module.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            inputs = layer.weight[0].numel()
            layer.weight.copy_(draw_normal(layer.weight, seed, f"{name}/{part}") * (_MATRIX * inputs**-0.5))
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.LayerNorm):
            layer.weight.fill_(1.0)
            layer.bias.zero_()


def draw_normal(like: Tensor, seed: int, name: str) -> Tensor:
    """Standard normal values in the shape, type and place of a tensor, from the stream of a name."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32, device="cpu").to(like)


def sincos_2d(grid: tuple[int, int], width: int) -> Tensor:
    """Sine-cosine position embedding of a grid of patches.

    Args:
        grid: patches along latitude and longitude.
        width: D, a multiple of 4: sine and cosine of the longitude index at D/4 frequencies from 1 down to
            1/10,000 radians per patch, then the same of the latitude index.

    Returns:
        (L, D) float32, patches row by row.
    """
    frequency = 10000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    angles = [index.reshape(-1, 1) * frequency for index in (columns, rows)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1).float()
