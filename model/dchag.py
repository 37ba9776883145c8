"""DCHAG: the forecasting network, an encoder conditioned on the lead time with a head for every predicted channel.

Contract: `DCHAG(config)(x_BCHW, lead_hours_B) -> y_BVHW`. Inputs are normalised; the output is the anomaly,
in units of the channel's standard deviation, from the climatology at the valid time, and exactly zero before
training. One class on one rank and on many, with the fused or the reference channel stage (`model.network.encoder`).

Letters: B batch, C channels of all ranks, K channels of this rank, V predicted channels, H/W grid, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from model.network.encoder import Encoder, EncoderConfig
from model.network.groups import Tree, build_tree
from model.network.head import Head, unpatchify
from model.network.initialise import draw_layers, draw_normal
from model.network.lead import in_lead_units
from model.network.smooth import Smooth
from model.weather.names import variable_and_level

_LEAD_SCALE = 0.1
OUTPUTS = ("patches", "overlap", "smooth")


@dataclass(frozen=True, kw_only=True)
class DCHAGConfig(EncoderConfig):
    """Everything that defines the function; nothing about ranks.

    Args:
        out_channels: predicted channels, in output order.
        decoder_depth: hidden layers of the head.
        output: "patches": a token predicts the cells of its patch; "overlap": those of a window larger than the patch,
            and windows are summed smoothly (`model.network.head.join`); "smooth": patches, then a small residual
            convolution over the fields (`model.network.smooth`).
        output_margin: by how much a window of "overlap" reaches over each edge of its patch [cells]; 0: half a patch.
        groups: as for the encoder, or "variable" or "level", by the names of channels ("z500", "t2m", "z500-12h").

    See `EncoderConfig` for the others.
    """

    out_channels: tuple[str, ...]
    decoder_depth: int = 2
    output: str = "patches"
    output_margin: int = 0

    ADDED: ClassVar[frozenset[str]] = EncoderConfig.ADDED | {"output", "output_margin"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "out_channels", tuple(self.out_channels))
        super().__post_init__()

    def channel_tree(self) -> Tree:
        """Channels, their groups and the units that reduce these."""
        if self.groups not in ("variable", "level"):
            if isinstance(self.groups, str) and self.groups != "all":
                raise ValueError(f"groups must be 'all', 'variable', 'level', a number or lists, got {self.groups!r}")
            return super().channel_tree()
        members: dict[str | int | None, list[str]] = {}
        for name in self.channels:
            members.setdefault(variable_and_level(name)[self.groups == "level"], []).append(name)
        return build_tree(self.channels, groups=tuple(map(tuple, members.values())), tree=self.tree)

    @property
    def margin(self) -> int:
        """Cells by which what a token predicts reaches over each edge of its patch."""
        return (self.output_margin or self.patch // 2) if self.output == "overlap" else 0

    @property
    def window(self) -> int:
        """Side of what a token predicts [cells]."""
        return self.patch + 2 * self.margin

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> DCHAG:
        """The network, or the part with some groups; a seed of None leaves parameters uninitialised."""
        return DCHAG(self, groups=groups, seed=seed)

    def problems(self) -> list[str]:
        """Every rule that the values break."""
        problems = super().problems()
        if self.decoder_depth < 0:
            problems.append(f"decoder_depth must not be negative, got {self.decoder_depth}")
        if not self.out_channels or len(set(self.out_channels)) != len(self.out_channels):
            problems.append("out_channels must be unique and at least one")
        if self.output not in OUTPUTS:
            problems.append(f"output must be one of {', '.join(OUTPUTS)}, got {self.output!r}")
        if self.output == "overlap" and not 1 <= self.margin <= self.patch // 2:
            problems.append(
                "output 'overlap' needs a patch of at least 2 cells and an output_margin of at most half of it, got "
                f"{self.patch} and {self.output_margin}"
            )
        if self.output != "overlap" and self.output_margin:
            problems.append(f"output_margin is for output 'overlap', got {self.output_margin} with {self.output!r}")
        return problems


class DCHAG(Encoder):
    """The forecasting network, or the part of it that a rank of the channel axis holds; arguments as for `Encoder`."""

    config: DCHAGConfig

    def build_head(self) -> None:
        """The embedding of the lead time and the head."""
        config = self.config
        self.lead = nn.Linear(1, config.width)
        outputs = len(config.out_channels)
        self.head = Head(width=config.width, depth=config.decoder_depth, pixels=config.window**2, channels=outputs)
        self.smooth = Smooth(outputs) if config.output == "smooth" else None

    def forward(self, x_BKHW: Tensor, lead_hours_B: Tensor, *, channels: Sequence[str] | None = None) -> Tensor:
        """Forecast anomalies.

        Args:
            x_BKHW: normalised fields of `channels_held` (of all channels on one rank), in that order; of
                `channels` where given.
            lead_hours_B: lead time of each sample [h].
            channels: a subset of the channels held, see `Encoder.encode`.

        Returns:
            (B, V, H, W): anomalies at the lead time, normalised.

        Raises:
            ValueError: shapes or channels that do not fit the model.
        """
        B, _, H, W = x_BKHW.shape
        if lead_hours_B.shape != (B,):
            raise ValueError(f"lead_hours must have one value per sample ({B}), got shape {tuple(lead_hours_B.shape)}")
        lead_BD = self.lead(in_lead_units(lead_hours_B, like=self.lead.weight).unsqueeze(1))
        tokens_BLD = self.encode(x_BKHW, channels=channels, condition_BD=lead_BD)
        patch, margin = self.config.patch, self.config.margin
        y_BVHW = unpatchify(self.head(tokens_BLD), patch=patch, grid=(H // patch, W // patch), margin=margin)
        return y_BVHW if self.smooth is None else self.smooth(y_BVHW)

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """Those of the encoder and the head."""
        smooth = () if self.smooth is None else (("head", self.smooth),)
        return (*super().parts(), ("head", self.head), *smooth)

    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter to its start: a function of the seed and of the parameter's name alone."""
        super().reset_parameters(seed=seed)
        last = self.head[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            self.lead.weight.copy_(draw_normal(self.lead.weight, seed, "lead") * _LEAD_SCALE)
            self.lead.bias.zero_()
            draw_layers(self.head, seed=seed, name="head")
            last.weight.zero_()
            if self.smooth is not None:
                draw_layers(self.smooth, seed=seed, name="smooth")
                self.smooth.project.weight.zero_()
