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
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.network.aggregate import CrossAttentionUnits, LinearUnits

if TYPE_CHECKING:
    from model.dchag import DCHAG

_MATRIX = 0.64
_SMALL = 0.02
_LEAD = 0.1


@torch.no_grad()
def initialise(model: DCHAG, *, seed: int) -> None:
    """Sets every parameter of the model but the position embedding."""
    tree = model.held_tree
    tokeniser = model.stage.tokeniser
    for row, channel in enumerate(tree.channels):
        name = f"tokeniser/{channel}"
        tokeniser.weight[row] = _normal(tokeniser.weight[row], seed, f"{name}/weight") / model.config.patch
        tokeniser.bias[row].zero_()
        tokeniser.channel[row] = _normal(tokeniser.channel[row], seed, f"{name}/channel") * _SMALL
    for level, (units, members, names) in enumerate(zip(model.stage.levels, tree.levels, tree.unit_names, strict=True)):
        sizes = [len(unit_members) for unit_members in members]
        if isinstance(units, CrossAttentionUnits):
            for row, (unit, size) in enumerate(zip(names, sizes, strict=True)):
                _cross_attention(units, row, size, seed, f"level{level}/{unit}")
        elif isinstance(units, LinearUnits):
            for unit_members in members:
                units.weight[list(unit_members)] = len(unit_members) ** -0.5
            units.bias.zero_()
    if model.merge is not None:
        _cross_attention(model.merge, 0, model.tree.num_outputs, seed, "merge")
    model.lead.weight.copy_(_normal(model.lead.weight, seed, "lead") * _LEAD)
    assert model.lead.bias is not None
    model.lead.bias.zero_()
    for part, module in (("trunk", model.trunk), ("head", model.head)):
        for name, layer in module.named_modules():
            _layer(layer, seed, f"{part}/{name}")
    last = model.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight.zero_()


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


def _cross_attention(units: CrossAttentionUnits, row: int, members: int, seed: int, name: str) -> None:
    rows = slice(row * units.width, (row + 1) * units.width)
    units.query[rows] = _normal(units.query[rows], seed, f"{name}/query") * _SMALL
    for parameter, gain in (
        ("q_weight", 1.0),
        ("k_weight", 1.0),
        ("v_weight", math.sqrt(members)),
        ("out_weight", 1.0),
    ):
        matrix = getattr(units, parameter)[rows]
        matrix.copy_(_normal(matrix, seed, f"{name}/{parameter}") * (gain * units.width**-0.5))
    for bias in (units.q_bias, units.v_bias, units.out_bias):
        bias[rows] = 0.0


def _layer(layer: nn.Module, seed: int, name: str) -> None:
    if isinstance(layer, nn.Linear):
        layer.weight.copy_(_normal(layer.weight, seed, name) * (_MATRIX * layer.in_features**-0.5))
        if layer.bias is not None:
            layer.bias.zero_()
    elif isinstance(layer, nn.LayerNorm):
        layer.weight.fill_(1.0)
        layer.bias.zero_()


def _normal(like: Tensor, seed: int, name: str) -> Tensor:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:4], "little"))
    return torch.randn(like.shape, generator=generator, dtype=torch.float32, device="cpu").to(like)
