"""The masked autoencoder: the shared encoder over visible patches, a light decoder over all, an output row per band.

Contract: `Autoencoder(config)(x_BKHW, visible_BM)` predicts the pixels of every patch in every band held, in normalised
units, zero before training. A patch that is not visible is neither tokenised nor seen. Each rank of the channel axis
reads, tokenises and predicts its own bands: it holds the rows of the output layer that belong to them, and the gradient
that enters the decoder is the sum over ranks (`Network.spread`). Source: He et al. 2022, arXiv 2111.06377.

Letters: B batch, K bands of this rank, H/W pixels of a tile, L patches, M visible, Q predicted, P pixels of a patch, D
width of the encoder, E width of the decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.imaging.interpolation import bridged, interpolated
from model.network.cut import CutRows, Stack, Unit
from model.network.encoder import Encoder, EncoderConfig, interpolate_position
from model.network.initialise import draw_layers, draw_normal, sincos_2d
from model.network.trunk import Trunk

_MASK = 0.02
"""Standard deviation of the mask token before training."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(EncoderConfig):
    """Everything that defines the function; nothing about ranks.

    Args:
        decoder_width: E.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        starts_from: what predictions are added to: "mean", the zero that is the mean of the band; "interpolation" of
            what is visible (`model.imaging.interpolation`).

    See `EncoderConfig` for the others; channels are bands.
    """

    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    starts_from: str = "mean"

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> Autoencoder:
        """The network, or the part with some groups; a seed of None leaves parameters uninitialised."""
        return Autoencoder(self, groups=groups, seed=seed)

    def stack_sizes(self) -> dict[str, int]:
        """What the channel ranks must divide where the trunks are cut."""
        hidden = int(self.decoder_width * self.mlp_ratio)
        decoder = {"decoder heads": self.decoder_heads, "hidden features of the decoder": hidden}
        return {**super().stack_sizes(), **(decoder if self.decoder_depth else {})}

    def problems(self) -> list[str]:
        """Every rule that the values break."""
        problems = super().problems()
        if min(self.decoder_width, self.decoder_heads) < 1 or self.decoder_depth < 0:
            problems.append(
                "decoder_width and decoder_heads must be positive and decoder_depth not negative, got "
                f"{self.decoder_width}, {self.decoder_heads} and {self.decoder_depth}"
            )
        elif self.decoder_width % self.decoder_heads or self.decoder_width % 4:
            problems.append(
                f"decoder_width must be a multiple of 4 and of decoder_heads, got {self.decoder_width} and "
                f"{self.decoder_heads}"
            )
        if self.starts_from not in ("mean", "interpolation"):
            problems.append(f"starts_from must be 'mean' or 'interpolation', got {self.starts_from!r}")
        return problems


class Autoencoder(Encoder):
    """The network, or the part of it that a rank of the channel axis holds; arguments as for `Encoder`."""

    config: AutoencoderConfig

    def build_head(self) -> None:
        """The decoder and the output layer."""
        config = self.config
        self.decoder = Decoder(config, patches=self.grid[0] * self.grid[1])
        bands = len(self.held_tree.channels)
        self.output = BandOutput(bands=bands, pixels=config.patch**2, width=config.decoder_width)

    def forward(
        self,
        x_BKHW: Tensor,
        visible_BM: Tensor,
        *,
        predicted_BQ: Tensor | None = None,
        hidden: Collection[str] = (),
    ) -> Tensor:
        """Predict pixels from the visible patches.

        Args:
            x_BKHW: normalised reflectance of `channels_held` (of all bands on one rank), zero where invalid.
            visible_BM: the patches read, by position row by row.
            predicted_BQ: the patches predicted, no visible ones unless bands are hidden; None for all.
            hidden: bands of all ranks that are not read, see `Encoder.encode`; they are predicted like the others.

        Returns:
            (B, Q, K, P): pixels row by row, of each band held, of each patch predicted; normalised units.

        Raises:
            ValueError: shapes or bands that do not fit the network.
        """
        tokens_BMD = self.encode(x_BKHW, patches_BM=visible_BM, hidden=hidden)
        patch = self.config.patch
        grid = (x_BKHW.shape[2] // patch, x_BKHW.shape[3] // patch)
        tokens_BQE = self.decoder(tokens_BMD, visible_BM, grid=grid, trained=self.grid, predicted_BQ=predicted_BQ)
        out_BQKP: Tensor = self.output(self.spread(tokens_BQE))
        if self.config.starts_from == "mean":
            return out_BQKP
        if hidden:
            names = {"held": self.channels_held, "channels": self.tree.channels}
            x_BKHW = bridged(x_BKHW, hidden, **names, total=self.total)
        some_visible = bool(hidden) or predicted_BQ is None
        if predicted_BQ is None:
            predicted_BQ = torch.arange(grid[0] * grid[1], device=x_BKHW.device).expand(len(x_BKHW), -1)
        return out_BQKP + interpolated(x_BKHW, visible_BM, predicted_BQ, patch=patch, some_visible=some_visible)

    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter to its start: a function of the seed and of the parameter's name alone."""
        super().reset_parameters(seed=seed)
        decoder = self.decoder
        with torch.no_grad():
            draw_layers(decoder.embed, seed=seed, name="decoder/embed")
            draw_layers(decoder.trunk, seed=seed, name="decoder/trunk")
            decoder.query.copy_(draw_normal(decoder.query, seed, "decoder/query") * _MASK)
            decoder.position.copy_(sincos_2d(self.grid, self.config.decoder_width))
            self.output.weight.zero_()
            self.output.bias.zero_()

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing of the encoder and of every block of the decoder."""
        super().set_recompute(on)
        self.decoder.trunk.set_recompute(on)

    def cut_rows(self) -> dict[str, CutRows]:
        """Rows of the channel stage and of the output layer: those of the bands and units held."""
        kept = self.tree.keep(self.channels_held)[1].channels
        rows = {f"output.{name}": CutRows(len(self.tree.channels), kept) for name in ("weight", "bias")}
        return {**super().cut_rows(), **rows}

    def stacks(self) -> tuple[Stack, ...]:
        """The trunks of encoder and decoder."""
        return (*super().stacks(), self.decoder.trunk.stack())

    def units(self) -> tuple[Unit, ...]:
        """Those of the encoder, the decoder's blocks and the output layer."""
        return (*super().units(), *map(Unit, self.decoder.trunk.blocks), Unit(self.output))

    def parts(self) -> tuple[tuple[str, nn.Module], ...]:
        """Those of the encoder; decoder and output layer are the head."""
        return (*super().parts(), ("head", self.decoder), ("head", self.output))


class Decoder(nn.Module):
    """Tokens of visible patches, and one shared token for the others, to tokens of the patches predicted.

    Args:
        config: of the autoencoder.
        patches: L.
    """

    def __init__(self, config: AutoencoderConfig, *, patches: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.embed = nn.Linear(config.width, width)
        self.query = nn.Parameter(torch.empty(width))
        self.position = nn.Parameter(torch.empty(patches, width))
        hidden = int(width * config.mlp_ratio)
        heads, depth = config.decoder_heads, config.decoder_depth
        self.trunk = Trunk(width=width, depth=depth, heads=heads, hidden=hidden, dropout=config.dropout)

    def forward(
        self,
        tokens_BMD: Tensor,
        visible_BM: Tensor,
        *,
        grid: tuple[int, int],
        trained: tuple[int, int],
        predicted_BQ: Tensor | None,
    ) -> Tensor:
        """(B, M, D) of the visible patches to (B, Q, E).

        Args:
            tokens_BMD: of the encoder.
            visible_BM: which patches they are.
            grid: patches along the tile's sides.
            trained: those that the positions are of.
            predicted_BQ: the patches wanted; None for all.
        """
        embedded_BME = self.embed(tokens_BMD)
        B, _, E = embedded_BME.shape
        hidden_BLE = self.query.to(embedded_BME.dtype).expand(B, grid[0] * grid[1], E)
        all_BLE = hidden_BLE.scatter(1, visible_BM.unsqueeze(2).expand(-1, -1, E), embedded_BME)
        position_LE: Tensor = self.position
        if grid != trained:
            position_LE = interpolate_position(position_LE, source=trained, target=grid)
        tokens_BLE: Tensor = self.trunk(all_BLE + position_LE)
        if predicted_BQ is None:
            return tokens_BLE
        return tokens_BLE.gather(1, predicted_BQ.unsqueeze(2).expand(-1, -1, E))


class BandOutput(nn.Module):
    """One linear map from a token to the P pixels of every band held: a row of parameters per band.

    Args:
        bands: K.
        pixels: P.
        width: E.
    """

    def __init__(self, *, bands: int, pixels: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(bands, pixels, width))
        self.bias = nn.Parameter(torch.empty(bands, pixels))

    def forward(self, tokens_BQE: Tensor) -> Tensor:
        """(B, Q, E) to (B, Q, K, P)."""
        flat = F.linear(tokens_BQE, self.weight.flatten(0, 1))
        return flat.view(*flat.shape[:2], *self.bias.shape) + self.bias
