"""DCHAG: channel stage, final cross-attention over groups, transformer trunk, head.

Contract: `DCHAG(config)(x_BCHW, lead_hours_B) -> y_BVHW`. Inputs are normalised; the output is the anomaly,
in units of the channel's standard deviation, from the climatology at the valid time, and exactly zero before
training. Flat ClimaX, distributed tokenisation alone, hierarchical aggregation alone, D-CHAG-C and D-CHAG-L
are settings of the one class:

    flat ClimaX                       groups="all", tree="Tree0", unit="C"   (or tree="none")
    distributed tokenisation alone    groups=R, tree="none"
    hierarchical aggregation / D-CHAG groups=G, tree="Tree0" .. "Tree8", unit "C" or "L", on one or R ranks

A single group needs no final cross-attention and has none. Every parameter starts from a stream of its own,
seeded by its name (and by the channel or unit for rows of the channel stage): the start depends neither on
the ranks nor on which channels one of them holds.

Letters: B batch, C channels of all ranks, K channels of this rank, V predicted channels, H/W grid, L patches,
P pixels of a patch, D width, G groups, N = B * L.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.aggregate import CrossAttentionUnits, UnitRows, at_least_float32
from model.network.channel_stage import ChannelStage, TreeIndex
from model.network.groups import GroupSpec, Tree, TreeSpec, build_tree
from model.network.head import Head, unpatchify
from model.network.initialise import initialise, sincos_2d
from model.network.tokenise import Rows
from model.network.trunk import Trunk

LEAD_UNIT_HOURS = 100.0
"""The lead time enters in units of 100 hours (ClimaX)."""


@dataclass(frozen=True)
class DCHAGConfig:
    """Everything that defines the function; nothing about ranks.

    Args:
        channels: input channels by short name ("z500", ..., statics too), in input order.
        out_channels: predicted channels, in output order.
        image: (H, W) of the grid trained on [cells]; other images that the patch divides run with
            interpolated position embeddings.
        patch: side of a patch [cells].
        width: D.
        depth: trunk blocks.
        heads: attention heads, in the trunk and in the aggregation.
        mlp_ratio: hidden features of the trunk's MLPs over D.
        decoder_depth: hidden layers of the head.
        dropout: after the position embedding and inside the trunk blocks.
        groups: see `model.network.groups.build_tree`.
        tree: see `model.network.groups.build_tree`.
        unit: "C" (cross-attention) or "L" (linear), for all units of the tree.
        channel_stage: "fused" or "reference": the same function, computed without or with tokens.

    Raises:
        ValueError: a value that breaks a rule, named with the rule.
    """

    channels: tuple[str, ...]
    out_channels: tuple[str, ...]
    image: tuple[int, int]
    patch: int = 2
    width: int = 1024
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    decoder_depth: int = 2
    dropout: float = 0.1
    groups: GroupSpec = "all"
    tree: TreeSpec = "Tree0"
    unit: str = "C"
    channel_stage: str = "fused"

    def __post_init__(self) -> None:
        for name in ("channels", "out_channels", "image"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.groups, str | int):
            object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        if not isinstance(self.tree, str):
            object.__setattr__(self, "tree", tuple(self.tree))
        _check_config(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back, also after a trip through JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DCHAGConfig:
        """The config of `to_dict`."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"model config must have known keys only, got {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True)
class CutRows:
    """Rows of a parameter: `total` in the whole model along the first dim, and which of them row i here is."""

    total: int
    rows: tuple[int, ...]


class DCHAG(nn.Module):
    """The model, or the part of it that a rank of the channel axis holds.

    Args:
        config: the function.
        groups: indices of the groups held here, None for all. A rank that holds some sets `gather`.
        seed: of the initial parameters; None leaves them uninitialised.

    Attributes:
        gather: called with the tokens of the groups held, (T, N, D), must return those of all groups in group
            order. The identity unless a wrapper sets it: the only thing that crosses ranks.
    """

    gather: Callable[[Tensor], Tensor]

    def __init__(self, config: DCHAGConfig, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.tree = build_tree(config.channels, groups=config.groups, tree=config.tree)
        self.held_tree = self.tree if groups is None else _held(self.tree, groups)
        width, pixels = config.width, config.patch**2
        self.stage = ChannelStage(
            self.held_tree, patch=config.patch, width=width, heads=config.heads, unit=config.unit,
            form=config.channel_stage,
        )  # fmt: skip
        self.merge = CrossAttentionUnits(num_units=1, width=width, heads=config.heads) if self._needs_merge else None
        self.grid = (config.image[0] // config.patch, config.image[1] // config.patch)
        self.position = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], width))
        self.lead = nn.Linear(1, width)
        self.drop = nn.Dropout(config.dropout)
        self.trunk = Trunk(
            width=width, depth=config.depth, heads=config.heads, hidden=int(width * config.mlp_ratio),
            dropout=config.dropout,
        )  # fmt: skip
        self.head = Head(width=width, depth=config.decoder_depth, pixels=pixels, channels=len(config.out_channels))
        self.gather = _identity
        self._subsets: dict[tuple[str, ...], tuple[TreeIndex, list[int]]] = {}
        if seed is not None:
            self.reset_parameters(seed=seed)

    @property
    def channels_held(self) -> tuple[str, ...]:
        """Names of the channels that `forward` expects here, in order."""
        return self.held_tree.channels

    def forward(self, x_BKHW: Tensor, lead_hours_B: Tensor, *, channels: Sequence[str] | None = None) -> Tensor:
        """Forecast anomalies.

        Args:
            x_BKHW: normalised fields of `channels_held` (of all channels on one rank), in that order; of
                `channels` where given.
            lead_hours_B: lead time of each sample [h].
            channels: a subset of the channels held, in the order of `x_BKHW`: the others are absent, not
                zero. Cross-attention spreads over those present; a linear unit drops the terms of the absent.

        Returns:
            (B, V, H, W): anomalies at the lead time, normalised.

        Raises:
            ValueError: shapes or channels that do not fit the model.
        """
        index, x_BKHW = self._present(x_BKHW, channels)
        self._check_input(x_BKHW, lead_hours_B, index)
        grid = (x_BKHW.shape[-2] // self.config.patch, x_BKHW.shape[-1] // self.config.patch)
        aggregated_BLD = self._aggregate(x_BKHW, index).view(x_BKHW.shape[0], grid[0] * grid[1], -1)
        lead_BD = self.lead(lead_hours_B.to(self.lead.weight.dtype).unsqueeze(1) / LEAD_UNIT_HOURS)
        tokens_BLD = self.drop(aggregated_BLD + self._position(grid) + lead_BD.unsqueeze(1))
        return unpatchify(self.head(self.trunk(tokens_BLD)), patch=self.config.patch, grid=grid)

    def reset_parameters(self, *, seed: int) -> None:
        """Sets every parameter to its start: a function of the seed and of the parameter's name alone."""
        initialise(self, seed=seed)
        with torch.no_grad():
            self.position.copy_(sincos_2d(self.grid, self.config.width))

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of the channel stage and of every trunk block: less memory, more work."""
        self.stage.recompute = on
        self.trunk.set_recompute(on)

    def cut_rows(self) -> dict[str, CutRows]:
        """Parameters of which this model holds some rows, by name: which rows of those of the whole model.

        All others are held whole, by every rank. A model that holds all groups holds all rows.
        """
        kept = self.tree.keep(self.channels_held)[1]
        num_channels, width = len(self.tree.channels), self.config.width
        rows = {
            f"stage.tokeniser.{name}": CutRows(num_channels, kept.channels) for name in ("weight", "bias", "channel")
        }
        totals = [num_channels, *(len(members) for members in self.tree.levels)]
        inputs = [kept.channels, *kept.levels]
        for level, units in enumerate(self.stage.levels):
            held = kept.levels[level]
            for name, _ in units.named_parameters():
                if isinstance(units, CrossAttentionUnits):
                    each = tuple(u * width + i for u in held for i in range(width))
                    cut = CutRows(totals[level + 1] * width, each)
                else:
                    cut = (
                        CutRows(totals[level], inputs[level]) if name == "weight" else CutRows(totals[level + 1], held)
                    )
                rows[f"stage.levels.{level}.{name}"] = cut
        return rows

    @property
    def _needs_merge(self) -> bool:
        return self.tree.num_outputs > 1 or not self.tree.levels

    def _aggregate(self, x_BKHW: Tensor, index: TreeIndex | None) -> Tensor:
        """Everything from pixels to one token per patch, (1, N, D)."""
        merge, stage = self.merge, self.stage
        fused = self.config.channel_stage == "fused"
        if merge is not None and not self.tree.levels and fused and self.gather is _identity:
            return stage.flat(x_BKHW, merge, index)
        tokens_TND = self.gather(stage(x_BKHW, index))
        if merge is None:
            return tokens_TND
        run = merge.absorbed if fused else merge  # through its hooks: merge may be cut
        one = Rows((0,), total=1)
        return run(tokens_TND.unsqueeze(0), UnitRows(one, one))

    def _position(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return self.position
        return interpolate_position(self.position, source=self.grid, target=grid)

    def _present(self, x_BKHW: Tensor, channels: Sequence[str] | None) -> tuple[TreeIndex | None, Tensor]:
        if channels is None or tuple(channels) == self.channels_held:
            return None, x_BKHW
        if x_BKHW.shape[1] != len(channels):
            raise ValueError(f"input must have the {len(channels)} channels named, got {x_BKHW.shape[1]}")
        names = tuple(channels)
        if names not in self._subsets:
            small, kept = self.held_tree.keep(names)
            self._subsets[names] = (
                TreeIndex(small, kept, held=self.held_tree),
                [names.index(name) for name in small.channels],
            )
        index, order = self._subsets[names]
        return index.to(x_BKHW.device), x_BKHW[:, order]

    def _check_input(self, x_BKHW: Tensor, lead_hours_B: Tensor, index: TreeIndex | None) -> None:
        B, K, H, W = x_BKHW.shape
        expected = len(self.channels_held) if index is None else index.channels.count
        if expected != K:
            raise ValueError(
                f"input must have the {expected} channels held, got {K}; name the ones present with channels=..."
            )
        if H % self.config.patch or W % self.config.patch:
            raise ValueError(f"image must be divisible by the patch of {self.config.patch}, got {H} x {W}")
        if lead_hours_B.shape != (B,):
            raise ValueError(f"lead_hours must have one value per sample ({B}), got shape {tuple(lead_hours_B.shape)}")


def interpolate_position(position_LD: Tensor, *, source: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Position embeddings of another grid of patches, bicubic: (L, D) of `source` to (L', D) of `target`."""
    image = at_least_float32(position_LD).view(1, *source, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=target, mode="bicubic", align_corners=False)
    return resized.permute(0, 2, 3, 1).reshape(target[0] * target[1], -1).to(position_LD.dtype)


def _identity(tokens_TND: Tensor) -> Tensor:
    return tokens_TND


def _held(tree: Tree, groups: Sequence[int]) -> Tree:
    if not groups or not set(groups) <= set(range(len(tree.groups))):
        raise ValueError(f"groups held must be among the {len(tree.groups)} groups, got {tuple(groups)}")
    return tree.keep(tree.channels[c] for g in groups for c in tree.groups[g])[0]


def _check_config(config: DCHAGConfig) -> None:
    """Raises ValueError naming every rule that the config breaks."""
    problems: list[str] = []
    for name in ("patch", "width", "heads"):
        if getattr(config, name) < 1:
            problems.append(f"{name} must be positive, got {getattr(config, name)}")
    for name in ("depth", "decoder_depth"):
        if getattr(config, name) < 0:
            problems.append(f"{name} must not be negative, got {getattr(config, name)}")
    if not problems:
        if config.width % config.heads:
            problems.append(f"width must be a multiple of heads, got {config.width} and {config.heads}")
        if config.width % 4:
            problems.append(f"width must be a multiple of 4 for the position embedding, got {config.width}")
        if len(config.image) != 2 or any(n < 1 or n % config.patch for n in config.image):
            problems.append(f"image must be two sizes divisible by the patch of {config.patch}, got {config.image}")
    if config.mlp_ratio <= 0:
        problems.append(f"mlp_ratio must be positive, got {config.mlp_ratio}")
    if not 0.0 <= config.dropout < 1.0:
        problems.append(f"dropout must lie in [0, 1), got {config.dropout}")
    if not config.out_channels or len(set(config.out_channels)) != len(config.out_channels):
        problems.append("out_channels must be unique and at least one")
    if config.unit not in ("C", "L"):
        problems.append(f"unit must be 'C' or 'L', got {config.unit!r}")
    if config.channel_stage not in ("fused", "reference"):
        problems.append(f"channel_stage must be 'fused' or 'reference', got {config.channel_stage!r}")
    try:
        build_tree(config.channels, groups=config.groups, tree=config.tree)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("model config: " + "; ".join(problems))
