"""Published ClimaX weights into the flat setting of DCHAG, so that training starts from them.

Contract: with `groups="all", tree="Tree0", unit="C"` (or `tree="none"`) and the weights of a ClimaX state
dict, DCHAG computes ClimaX's function of the channels both have. Read are the released layout (keys under
"state_dict", prefix "net.", "channel_" in names) and the later one ("var_", stacked token embeddings). The bias of
keys drops out of the softmax and is dropped here. Whatever is not copied, on either side, is listed in the
`ClimaxImport` returned. ClimaX was trained on inputs normalised with its own means and standard deviations.

Letters: C channels, P pixels of a patch, D width, L patches, A attention heads, E = D / A, V predicted channels.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.dchag import DCHAG
from model.network.aggregate import CrossAttentionUnits
from model.network.encoder import interpolate_position

LEVELS = (50, 250, 500, 600, 700, 850, 925)
CLIMAX_CHANNELS = (
    "lsm", "orog", "lat", "t2m", "u10", "v10", *(f"{variable}{level}" for variable in "zuvtrq" for level in LEVELS)
)  # fmt: skip
"""The 48 channels of the published 5.625 deg model in its order: lat is latitude [degrees], r relative humidity."""
CLIMAX_IMAGE = (32, 64)

_PREFIX = "net."
_RENAMED = {"channel_embed": "var_embed", "channel_query": "var_query", "channel_agg": "var_agg"}


@dataclass(frozen=True)
class ClimaxImport:
    """What was copied and what was not.

    Attributes:
        channels: input channels that have ClimaX's weights.
        initialised: input channels the file lacks, which keep their start.
        unused: channels of the file that the model does not have.
        out_channels: predicted channels that have ClimaX's weights.
        out_initialised: predicted channels the file lacks, which keep their start (zero).
        parts: parameters that ClimaX has no counterpart of, which keep their start.
        interpolated: whether position embeddings were interpolated to another grid.
        unused_keys: keys of the file that nothing here corresponds to.
    """

    channels: tuple[str, ...]
    initialised: tuple[str, ...]
    unused: tuple[str, ...]
    out_channels: tuple[str, ...]
    out_initialised: tuple[str, ...]
    parts: tuple[str, ...]
    interpolated: bool
    unused_keys: tuple[str, ...]


def read_climax(path: Path) -> dict[str, Tensor]:
    """Tensors of a ClimaX checkpoint file, without running any code that the file may hold.

    Raises:
        ValueError: the file needs more than tensors and plain values to be read, or holds no tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"ClimaX checkpoint must hold tensors and plain values only, got other objects in {path}; "
            "save its state_dict alone where you trust the file"
        ) from error
    tensors = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(tensors, dict) or not any(isinstance(value, Tensor) for value in tensors.values()):
        raise ValueError(f"ClimaX checkpoint must hold a state dict, got none in {path}")
    return {name: value for name, value in tensors.items() if isinstance(value, Tensor)}


@torch.no_grad()
def load_climax(
    model: DCHAG,
    state: Mapping[str, Tensor],
    *,
    channels: Sequence[str] = CLIMAX_CHANNELS,
    image: tuple[int, int] = CLIMAX_IMAGE,
) -> ClimaxImport:
    """Copies ClimaX's weights into a flat model, in place.

    Args:
        model: flat, before any layout is applied; what the file lacks keeps its value.
        state: from `read_climax`.
        channels: names of the file's channels in its order; the file carries none.
        image: (H, W) of the grid the file was trained on.

    Raises:
        ValueError: a model that is not flat, a missing key or a shape that does not fit, named.
    """
    theirs = _Reader(_plain(state))
    unit = _flat_unit(model)
    patch, width = model.config.patch, model.config.width
    num = len(channels)
    weight_CPD, bias_CD = _token_embeds(theirs.tensors)
    if len(weight_CPD) != num:
        raise ValueError(
            f"channels must name the {len(weight_CPD)} of the ClimaX file in its order, got {num}; list them in "
            "training.climax_channels"
        )
    tokeniser = model.stage.tokeniser
    ours = model.channels_held
    both = [(row, channels.index(name)) for row, name in enumerate(ours) if name in channels]
    embed_CD = theirs.take("var_embed", (1, num, width))[0]
    for row, their_row in both:
        _fill(tokeniser.weight[row], weight_CPD[their_row], "token_embeds")
        tokeniser.bias[row] = bias_CD[their_row]
        tokeniser.channel[row] = embed_CD[their_row]
    theirs.used |= {name for name in theirs.tensors if name.startswith("token_embeds.")}

    unit.query.copy_(theirs.take("var_query", (1, 1, width)).view(-1))
    _copy_attention(unit, theirs)
    _copy_position(model, theirs, (image[0] // patch, image[1] // patch))
    for name in ("weight", "bias"):
        parameter = getattr(model.lead, name)
        parameter.copy_(theirs.take(f"lead_time_embed.{name}", tuple(parameter.shape)))
    _copy_trunk(model, theirs)
    out_both = _copy_head(model, theirs, channels)

    wanted = model.config.out_channels
    out_channels = tuple(wanted[row] for row, _ in out_both)
    return ClimaxImport(
        channels=tuple(ours[row] for row, _ in both),
        initialised=tuple(name for name in ours if name not in channels),
        unused=tuple(name for name in channels if name not in ours),
        out_channels=out_channels,
        out_initialised=tuple(name for name in wanted if name not in out_channels),
        parts=tuple(name for name, _ in model.named_parameters() if _ours_alone(name)),
        interpolated=(image[0] // patch, image[1] // patch) != model.grid,
        unused_keys=tuple(name for name in theirs.tensors if name not in theirs.used),
    )


class _Reader:
    """Tensors by name, noting which were used, refusing those of another shape."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.used: set[str] = set()

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"ClimaX state dict must hold {name}, got {len(self.tensors)} keys without it")
        if tuple(self.tensors[name].shape) != shape:
            raise ValueError(
                f"ClimaX {name} must have shape {shape} for this model, got {tuple(self.tensors[name].shape)}; "
                "the file's sizes are needed (model.width, depth, patch, mlp_ratio, decoder_depth)"
            )
        self.used.add(name)
        return self.tensors[name]


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of both layouts under the later names, without the prefix."""
    plain = {}
    for name, value in state.items():
        short = name.removeprefix(_PREFIX)
        first, dot, rest = short.partition(".")
        plain[_RENAMED.get(first, first) + dot + rest] = value
    return plain


def _count(tensors: Mapping[str, Tensor], first: str, last: str) -> int:
    pattern = re.compile(rf"^{first}\.\d+\.{re.escape(last)}$")
    return sum(pattern.match(name) is not None for name in tensors)


def _token_embeds(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Patch embeddings of both layouts as (C, P, D) weights and (C, D) biases."""
    if "token_embeds.proj_weights" in tensors:
        weight, bias_CD = tensors["token_embeds.proj_weights"], tensors["token_embeds.proj_biases"]
    else:
        num = _count(tensors, "token_embeds", "proj.weight")
        if num == 0:
            raise ValueError("ClimaX state dict must hold token_embeds, got none; is it a ClimaX checkpoint?")
        weight = torch.stack([tensors[f"token_embeds.{i}.proj.weight"] for i in range(num)])
        bias_CD = torch.stack([tensors[f"token_embeds.{i}.proj.bias"] for i in range(num)])
    return weight.flatten(2).transpose(1, 2), bias_CD


def _flat_unit(model: DCHAG) -> CrossAttentionUnits:
    """The one cross-attention of a flat model."""
    unit = model.stage.levels[0] if len(model.stage.levels) == 1 and model.merge is None else model.merge
    if len(model.stage.levels) > 1 or (model.stage.levels and model.merge is not None):
        unit = None
    if not isinstance(unit, CrossAttentionUnits):
        raise ValueError(
            "ClimaX weights need a flat model (groups='all', tree='Tree0', unit='C', or tree='none'), "
            f"got groups={model.config.groups!r}, tree={model.config.tree!r}, unit={model.config.unit!r}"
        )
    return unit


def _copy_attention(unit: CrossAttentionUnits, theirs: _Reader) -> None:
    D = unit.width
    q, k, v = theirs.take("var_agg.in_proj_weight", (3 * D, D)).chunk(3)
    q_bias, _, v_bias = theirs.take("var_agg.in_proj_bias", (3 * D,)).chunk(3)
    out = theirs.take("var_agg.out_proj.weight", (D, D))
    out_bias = theirs.take("var_agg.out_proj.bias", (D,))
    weights = {"q_weight": q, "k_weight": k, "v_weight": v, "out_weight": out}
    biases = {"q_bias": q_bias, "v_bias": v_bias, "out_bias": out_bias}
    for name, value in (weights | biases).items():
        getattr(unit, name).copy_(value)


def _copy_position(model: DCHAG, theirs: _Reader, grid: tuple[int, int]) -> None:
    position_LD = theirs.take("pos_embed", (1, grid[0] * grid[1], model.config.width))[0]
    if grid != model.grid:
        position_LD = interpolate_position(position_LD, source=grid, target=model.grid)
    model.position.copy_(position_LD)


def _copy_trunk(model: DCHAG, theirs: _Reader) -> None:
    heads = model.config.heads
    for name, parameter in model.trunk.named_parameters():
        if _ours_alone(name):
            continue
        value = theirs.take(name, tuple(parameter.shape))
        if ".attn.qkv." in name:  # theirs: all q, all k, all v; ours: q, k, v of one head after the other
            value = value.view(3, heads, -1, *value.shape[1:]).transpose(0, 1).reshape(value.shape)
        parameter.copy_(value)


def _ours_alone(name: str) -> bool:
    """Whether a parameter belongs to a part that ClimaX does not have."""
    return name.startswith("smooth.") or ".modulation." in name


def _copy_head(model: DCHAG, theirs: _Reader, channels: Sequence[str]) -> list[tuple[int, int]]:
    """Copies the head; of the last layer the rows of the channels both predict: (our row, their row)."""
    wanted = model.config.out_channels
    both = [(row, channels.index(name)) for row, name in enumerate(wanted) if name in channels]
    both = [] if model.config.margin else both  # ClimaX predicts patches: its rows are not those of a larger window
    last = f"{len(model.head) - 1}."
    pixels = model.config.patch**2
    for name, parameter in model.head.named_parameters():
        if not name.startswith(last):
            parameter.copy_(theirs.take(f"head.{name}", tuple(parameter.shape)))
            continue
        if model.config.margin:
            continue
        value = theirs.take(f"head.{name}", (pixels * len(channels), *parameter.shape[1:]))
        their_rows = value.view(pixels, len(channels), *value.shape[1:])
        our_rows = parameter.view(pixels, len(wanted), *parameter.shape[1:])
        for row, their_row in both:
            our_rows[:, row] = their_rows[:, their_row]
    return both


def _fill(parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise ValueError(f"ClimaX {name} must have shape {tuple(parameter.shape)}, got {tuple(value.shape)}")
    parameter.copy_(value)
