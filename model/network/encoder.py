"""The encoder that workloads share: channel stage, gather, merge, position, trunk.

Contract: `Encoder.encode(x_BKHW)` gives one token per patch. Flat ClimaX, distributed tokenisation alone, hierarchical
aggregation alone, D-CHAG-C and D-CHAG-L are settings of the one class:

    flat ClimaX                       groups="all", tree="Tree0", unit="C"   (or tree="none")
    distributed tokenisation alone    groups=R, tree="none"
    hierarchical aggregation / D-CHAG groups=G, tree="Tree0" .. "Tree8", unit "C" or "L", on one or R ranks

A single group needs no final cross-attention and has none. A workload's network is an encoder with a head: a subclass,
so that parameters keep their names whatever the head. Every parameter starts from a stream of its own, seeded by its
name (and by the channel or unit for rows of the channel stage): the start depends neither on the ranks nor on which
channels one of them holds.

Letters: B batch, C channels of all ranks, K channels of this rank, H/W grid, L patches, M patches read, P pixels of a
patch, D width, G groups, N = B * M.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.aggregate import CrossAttentionUnits, UnitRows, at_least_float32
from model.network.channel_stage import ChannelStage
from model.network.cut import CutRows, Network, Stack, Unit
from model.network.groups import GroupSpec, Tree, TreeSpec, build_tree
from model.network.initialise import draw_channel_stage, draw_cross_attention, draw_layers, sincos_2d
from model.network.present import Present, of_named, without
from model.network.tokenise import Rows
from model.network.trunk import Trunk


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Everything that defines the encoder; nothing about ranks.

    Args:
        channels: input channels by name, in input order.
        image: (H, W) of the grid trained on [cells]; other images that the patch divides run with
            interpolated position embeddings.
        patch: side of a patch [cells].
        width: D.
        depth: trunk blocks.
        heads: attention heads, in the trunk and in the aggregation.
        mlp_ratio: hidden features of the trunk's MLPs over D.
        dropout: after the position embedding and inside the trunk blocks.
        groups: see `model.network.groups.build_tree`.
        tree: see `model.network.groups.build_tree`.
        unit: "C" (cross-attention) or "L" (linear), for all units of the tree.
        channel_stage: "fused" or "reference": the same function, computed without or with tokens.
        conditioning: "token": the condition is added to every token; "adaptive_norm": it also shifts and scales what
            the norms of every trunk block give, and weighs what the block's two branches add.

    Raises:
        ValueError: every rule that the values break, in one message.
    """

    channels: tuple[str, ...]
    image: tuple[int, int]
    patch: int = 2
    width: int = 1024
    depth: int = 8
    heads: int = 16
    mlp_ratio: float = 4.0
    dropout: float = 0.1
    groups: GroupSpec = "all"
    tree: TreeSpec = "Tree0"
    unit: str = "C"
    channel_stage: str = "fused"
    conditioning: str = "token"

    ADDED: ClassVar[frozenset[str]] = frozenset({"conditioning"})
    """Fields that came later: at their default they are no part of `to_dict`, so older checkpoints still agree."""

    def __post_init__(self) -> None:
        for name in ("channels", "image"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not isinstance(self.groups, str | int):
            object.__setattr__(self, "groups", tuple(tuple(group) for group in self.groups))
        if not isinstance(self.tree, str):
            object.__setattr__(self, "tree", tuple(self.tree))
        if problems := self.problems():
            raise ValueError("model config: " + "; ".join(problems))

    def channel_tree(self) -> Tree:
        """Channels, their groups and the units that reduce these."""
        return build_tree(self.channels, groups=self.groups, tree=self.tree)

    def stack_sizes(self) -> dict[str, int]:
        """What the channel ranks must divide where the trunk is cut."""
        return {"heads": self.heads, "hidden features": int(self.width * self.mlp_ratio)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `from_dict` reads back, also after a trip through JSON."""
        defaults = {field.name: field.default for field in fields(self) if field.name in self.ADDED}
        return {key: value for key, value in asdict(self).items() if key not in defaults or value != defaults[key]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The config of `to_dict`."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"model config must have known keys only, got {', '.join(unknown)}")
        return cls(**values)

    def problems(self) -> list[str]:
        """Every rule that the values break."""
        problems = [
            f"{name} must be positive, got {getattr(self, name)}"
            for name in ("patch", "width", "heads", "mlp_ratio")
            if getattr(self, name) <= 0
        ]
        if self.depth < 0:
            problems.append(f"depth must not be negative, got {self.depth}")
        if not problems:
            if self.width % self.heads:
                problems.append(f"width must be a multiple of heads, got {self.width} and {self.heads}")
            if self.width % 4:
                problems.append(f"width must be a multiple of 4 for the position embedding, got {self.width}")
            if len(self.image) != 2 or any(n < 1 or n % self.patch for n in self.image):
                problems.append(f"image must be two sizes divisible by the patch of {self.patch}, got {self.image}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout must lie in [0, 1), got {self.dropout}")
        if self.unit not in ("C", "L"):
            problems.append(f"unit must be 'C' or 'L', got {self.unit!r}")
        if self.channel_stage not in ("fused", "reference"):
            problems.append(f"channel_stage must be 'fused' or 'reference', got {self.channel_stage!r}")
        if self.conditioning not in ("token", "adaptive_norm"):
            problems.append(f"conditioning must be 'token' or 'adaptive_norm', got {self.conditioning!r}")
        try:
            self.channel_tree()
        except ValueError as error:
            problems.append(str(error))
        return problems


class Encoder(Network):
    """The encoder, or the part of it that a rank of the channel axis holds.

    Args:
        config: the function.
        groups: indices of the groups held here, None for all. A rank that holds some sets `gather`.
        seed: of the initial parameters; None leaves them uninitialised.
    """

    config: EncoderConfig
    gather: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    total: Callable[[Tensor], Tensor]

    def __init__(self, config: EncoderConfig, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.tree = config.channel_tree()
        self.held_tree = self.tree if groups is None else _held(self.tree, groups)
        width = config.width
        self.stage = ChannelStage(
            self.held_tree,
            patch=config.patch,
            width=width,
            heads=config.heads,
            unit=config.unit,
            form=config.channel_stage,
        )
        needs_merge = self.tree.num_outputs > 1 or not self.tree.levels
        self.merge = CrossAttentionUnits(num_units=1, width=width, heads=config.heads) if needs_merge else None
        self.grid = (config.image[0] // config.patch, config.image[1] // config.patch)
        self.position = nn.Parameter(torch.empty(self.grid[0] * self.grid[1], width))
        self.drop = nn.Dropout(config.dropout)
        hidden = int(width * config.mlp_ratio)
        self.trunk = Trunk(
            width=width,
            depth=config.depth,
            heads=config.heads,
            hidden=hidden,
            dropout=config.dropout,
            modulated=config.conditioning == "adaptive_norm",
        )
        self.gather = _identity
        self.spread = self.total = _identity
        self._subsets: dict[object, Present] = {}
        self.build_head()
        if seed is not None:
            self.reset_parameters(seed=seed)

    def build_head(self) -> None:
        """Add the modules of a subclass; called once, before parameters are set."""

    @property
    def channels_held(self) -> tuple[str, ...]:
        """Names of the channels that `encode` expects here, in order."""
        return self.held_tree.channels

    def encode(
        self,
        x_BKHW: Tensor,
        *,
        channels: Sequence[str] | None = None,
        condition_BD: Tensor | None = None,
        patches_BM: Tensor | None = None,
        hidden: Collection[str] = (),
    ) -> Tensor:
        """One token per patch.

        Args:
            x_BKHW: normalised fields of `channels_held` (of all channels on one rank), in that order; of
                `channels` where given.
            channels: a subset of the channels held, in the order of `x_BKHW`: the others are absent, not
                zero. Cross-attention spreads over those present; a linear unit drops the terms of the absent.
            condition_BD: of each sample, e.g. the embedding of a lead time: added to its tokens before the trunk, and
                with `conditioning` "adaptive_norm" what modulates the trunk's blocks.
            patches_BM: the patches read, by position row by row, as many of each sample; the others are neither
                tokenised nor seen. None reads all.
            hidden: channels of all ranks that are absent although `x_BKHW` holds those of this rank; the same on every
                rank. Groups that are hidden whole send nothing into the merge.

        Returns:
            (B, L, D), or (B, M, D) of the patches read.

        Raises:
            ValueError: shapes or channels that do not fit, or no condition where blocks are modulated.
        """
        modulated = self.config.conditioning == "adaptive_norm"
        if modulated and condition_BD is None:
            raise ValueError("conditioning 'adaptive_norm' needs a condition for every sample, got none")
        present = self._present(channels, hidden)
        self._check_input(x_BKHW, present, what="held" if channels is None else "named")
        x_BKHW = present.take(x_BKHW)
        B = x_BKHW.shape[0]
        grid = (x_BKHW.shape[-2] // self.config.patch, x_BKHW.shape[-1] // self.config.patch)
        tokens_BMD = self._aggregate(x_BKHW, present, patches_BM).view(B, -1, self.config.width)
        position_LD = self._position(grid)
        tokens_BMD = tokens_BMD + (position_LD if patches_BM is None else position_LD[patches_BM])
        if condition_BD is not None:
            tokens_BMD = tokens_BMD + condition_BD.unsqueeze(1)
        out_BMD: Tensor = self.trunk(self.drop(tokens_BMD), condition_BD=condition_BD if modulated else None)
        return out_BMD

    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter of the encoder to its start: a function of the seed and of the parameter's name."""
        with torch.no_grad():
            draw_channel_stage(self.stage, patch=self.config.patch, seed=seed)
            if self.merge is not None:
                draw_cross_attention(self.merge, 0, members=self.tree.num_outputs, seed=seed, name="merge")
            self.position.copy_(sincos_2d(self.grid, self.config.width))
            draw_layers(self.trunk, seed=seed, name="trunk")
            self.trunk.zero_modulation()

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of the channel stage and of every trunk block."""
        self.stage.recompute = on
        self.trunk.set_recompute(on)

    def cut_rows(self) -> dict[str, CutRows]:
        """Rows of the channel stage: those of the channels and units held."""
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
                elif name == "weight":
                    cut = CutRows(totals[level], inputs[level])
                else:
                    cut = CutRows(totals[level + 1], held)
                rows[f"stage.levels.{level}.{name}"] = cut
        return rows

    def stacks(self) -> tuple[Stack, ...]:
        """The trunk."""
        return (self.trunk.stack(),)

    def units(self) -> tuple[Unit, ...]:
        """The trunk's blocks, the channel stage and the merge."""
        merge = () if self.merge is None else (Unit(self.merge, methods=("absorbed", "folded")),)
        return (*map(Unit, self.trunk.blocks), Unit(self.stage, methods=("flat",)), *merge)

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """The channel stage and in it the tokeniser, the merge, the trunk. Fused, aggregation makes the tokens too."""
        merge = () if self.merge is None else (("merge", self.merge),)
        stage = (("aggregation", self.stage), ("tokenisation", self.stage.tokeniser))
        return (*stage, *merge, ("trunk", self.trunk))

    def _aggregate(self, x_BKHW: Tensor, present: Present, patches_BM: Tensor | None) -> Tensor:
        """Everything from pixels to one token per patch, (1, N, D)."""
        merge, stage = self.merge, self.stage
        fused = self.config.channel_stage == "fused"
        if merge is not None and not self.tree.levels and fused and self.gather is _identity:
            return stage.flat(x_BKHW, merge, present.index, patches_BM)
        tokens_TND = self.gather(stage(x_BKHW, present.index, patches_BM))
        if present.tokens is not None:
            tokens_TND = present.tokens.take(tokens_TND)
        if merge is None:
            return tokens_TND
        run = merge.absorbed if fused else merge  # through its hooks: merge may be cut
        one = Rows((0,), total=1)
        return run(tokens_TND.unsqueeze(0), UnitRows(one, one))

    def _position(self, grid: tuple[int, int]) -> Tensor:
        if grid == self.grid:
            return self.position
        return interpolate_position(self.position, source=self.grid, target=grid)

    def _present(self, channels: Sequence[str] | None, hidden: Collection[str]) -> Present:
        if channels is not None and hidden:
            raise ValueError("channels are either named or hidden, got both; name those present with channels=...")
        key = frozenset(hidden) if channels is None else tuple(channels)
        if key not in self._subsets:
            if channels is None:
                found = without(self.tree, self.held_tree, hidden, alone=self.gather is _identity)
            else:
                found = of_named(self.held_tree, channels)
            self._subsets[key] = found
        found = self._subsets[key]
        device = self.position.device
        for rows in (found.index, found.tokens):
            if rows is not None:
                rows.to(device)
        return found

    def _check_input(self, x_BKHW: Tensor, present: Present, *, what: str) -> None:
        _, K, H, W = x_BKHW.shape
        if present.count != K:
            raise ValueError(
                f"input must have the {present.count} channels {what}, got {K}; name the ones present with channels=..."
            )
        if H % self.config.patch or W % self.config.patch:
            raise ValueError(f"image must be divisible by the patch of {self.config.patch}, got {H} x {W}")


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
