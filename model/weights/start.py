"""Where a training starts from other than random numbers: a checkpoint of ours, or published ClimaX weights.

Contract: what both models have is copied, matched by the names of channels and of the units that hold them, never by
position; what the file lacks keeps its random start and is listed, and so is what the model does not have. Sizes
that decide the function (width, depth, heads, patch, kind of unit) must agree. Only parameters are taken: the
optimiser, the schedule and the order of samples start from the beginning.

Letters: D width, P pixels of a patch, V predicted channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from model.dchag import DCHAG, DCHAGConfig
from model.network.aggregate import CrossAttentionUnits
from model.network.cut import Network
from model.network.encoder import interpolate_position
from model.network.groups import Tree
from model.training import checkpoint
from model.weather.architecture import ForecastNetwork, network_from_dict
from model.weather.stepping import trained_steps
from model.weights.climax import CLIMAX_CHANNELS, CLIMAX_IMAGE, load_climax, read_climax
from model.weights.plain_file import read_plain
from pipeline.weather.variables import require_names_of_now

_MUST_AGREE = ("patch", "width", "depth", "heads", "mlp_ratio", "decoder_depth", "unit")
_TOKENISER, _LEVEL, _LAST, _SMOOTH = "stage.tokeniser.", "stage.levels.", "head.", "smooth."


@dataclass(frozen=True)
class Taken:
    """What came from a file.

    Attributes:
        source: the file.
        inputs: number of input channels copied.
        outputs: number of predicted channels copied.
        initialised: channels and parts that the file lacks, which keep their random start.
        unused: channels and parts of the file that the model does not have.
    """

    source: Path
    inputs: int
    outputs: int
    initialised: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"starting from {self.source}: {self.inputs} input and {self.outputs} predicted channels copied"
        if self.initialised:
            text += f"; starting from random values: {', '.join(self.initialised)}"
        return text + (f"; not used: {', '.join(self.unused)}" if self.unused else "")


def starting_model(
    config: ForecastNetwork,
    path: Path,
    *,
    seed: int,
    network_input: str,
    predicts: str = "anomaly",
    climax_channels: Sequence[str] = (),
) -> tuple[DCHAG, Taken]:
    """The whole model with the weights of a file.

    Args:
        config: the model wanted.
        path: a checkpoint of ours, a folder of them (then the best, or the last without validation), the folder of a
            training, a model file of ours (.safetensors), or a file with a ClimaX state dict.
        seed: of what the file lacks.
        network_input: what the model will read; a checkpoint of ours must have read the same.
        predicts: what it will predict; likewise.
        climax_channels: the channels of a ClimaX file in its order; empty for those of the published 5.625 deg model.

    Raises:
        ValueError: nothing there, or weights that do not fit the model, named.
    """
    if not isinstance(config, DCHAGConfig):
        raise ValueError(f"training.start_from works with model.architecture: dchag, got {config.architecture}")
    model = DCHAG(config, seed=seed)
    if path.suffix == ".safetensors":
        plain = read_plain(path)
        require_names_of_now(plain.contract.get("channels", ()), origin=path)
        _check_same("network_input", plain.network_input, network_input, path)
        _check_same("predicts", plain.predicts, predicts, path)
        return model, copy_weights(_as_dchag(plain.model, path), model, source=path)
    if path.is_file():
        state = read_climax(path)
        tokens = next((value.shape[1] for name, value in state.items() if name.endswith("pos_embed")), 0)
        image = config.image if tokens == model.grid[0] * model.grid[1] else CLIMAX_IMAGE
        taken = load_climax(model, state, channels=tuple(climax_channels) or CLIMAX_CHANNELS, image=image)
        lacking = (*taken.initialised, *(f"{name} (predicted)" for name in taken.out_initialised), *taken.parts)
        return model, Taken(path, len(taken.channels), len(taken.out_channels), lacking, taken.unused)
    found = _find(path)
    description = checkpoint.describe(found)
    _check_same("network_input", description["network_input"], network_input, found)
    _check_same("predicts", trained_steps(description)[0], predicts, found)
    require_names_of_now(description["contract"].get("channels", ()), origin=found)
    theirs = _as_dchag(network_from_dict(description["model"]).build(seed=None), found)
    prefix = description["weights"]
    checkpoint.load(found, {f"{prefix}.{name}": p.detach() for name, p in theirs.named_parameters()}, expected={})
    return model, copy_weights(theirs, model, source=found)


@torch.no_grad()
def copy_weights(theirs: DCHAG, ours: DCHAG, *, source: Path) -> Taken:
    """Copies what two whole models have in common, in place.

    Args:
        theirs: where from.
        ours: where to; what `theirs` lacks keeps its value.
        source: named in errors.

    Raises:
        ValueError: sizes that must agree and do not, all of them.
    """
    values, wanted = theirs.config.to_dict(), ours.config.to_dict()
    wrong = [f"  {k}: {values[k]} against {wanted[k]}" for k in _MUST_AGREE if values[k] != wanted[k]]
    if len(theirs.tree.levels) != len(ours.tree.levels):
        wrong.append(f"  levels of the tree: {len(theirs.tree.levels)} against {len(ours.tree.levels)}")
    if wrong:
        raise ValueError(
            f"training.start_from must fit the model, got {len(wrong)} difference(s) ({source} against this run):\n"
            + "\n".join(wrong)
        )
    channels = _by_name(theirs.tree.channels, ours.tree.channels)
    same_window = theirs.config.window == ours.config.window
    outputs = _by_name(theirs.config.out_channels if same_window else (), ours.config.out_channels)
    units = _matching_units(theirs.tree, ours.tree)
    lacking = [name for name, row in zip(ours.tree.channels, channels, strict=True) if row is None]
    lacking += [f"{n} (predicted)" for n, row in zip(ours.config.out_channels, outputs, strict=True) if row is None]
    copied, parameters = dict(theirs.named_parameters()), dict(ours.named_parameters())
    last = f"{_LAST}{len(ours.head) - 1}."
    for name, parameter in parameters.items():
        if name not in copied or (name.startswith(_SMOOTH) and copied[name].shape != parameter.shape):
            lacking.append(name)
        elif name.startswith(_TOKENISER):
            _copy_rows(copied[name], parameter, channels)
        elif name.startswith(_LEVEL):
            level = int(name.split(".")[2])
            stage = ours.stage.levels[level]
            if isinstance(stage, CrossAttentionUnits):
                _copy_rows(copied[name], parameter, units[level], each=ours.config.width)
            elif name.endswith(".weight"):
                _copy_rows(copied[name], parameter, units[level - 1] if level else channels)
            else:
                _copy_rows(copied[name], parameter, units[level])
        elif name.startswith(last):
            if not same_window:
                continue
            pixels = ours.config.window**2
            from_PV = copied[name].view(pixels, len(theirs.config.out_channels), *parameter.shape[1:])
            into_PV = parameter.view(pixels, len(outputs), *parameter.shape[1:])
            _copy_rows(from_PV.transpose(0, 1), into_PV.transpose(0, 1), outputs)
        elif name == "position" and theirs.grid != ours.grid:
            parameter.copy_(interpolate_position(copied[name], source=theirs.grid, target=ours.grid))
        else:
            parameter.copy_(copied[name])
    unknown = [name for name in theirs.tree.channels if name not in ours.tree.channels]
    unknown += [name for name in copied if name not in parameters]
    return Taken(source, _count(channels), _count(outputs), tuple(lacking), tuple(unknown))


def _find(path: Path) -> Path:
    for folder in (path, path / "checkpoints"):
        if (folder / "checkpoint.json").exists():
            return folder
        if (found := checkpoint.best_or_last(folder)) is not None:
            return found
    raise ValueError(
        f"training.start_from must be a checkpoint, a folder of them or a ClimaX file, got {path}; "
        "give the path of one, e.g. results/demo/train-.../checkpoints"
    )


def _as_dchag(network: Network, path: Path) -> DCHAG:
    if not isinstance(network, DCHAG):
        raise ValueError(f"training.start_from needs weights of model.architecture: dchag, got others in {path}")
    return network


def _check_same(setting: str, theirs: str, ours: str, path: Path) -> None:
    if theirs != ours:
        raise ValueError(
            f"training.start_from must fit model.{setting}, got a model of {theirs!r} in {path} and {ours!r} here; set "
            f"model.{setting} to the former"
        )


def _by_name(theirs: Sequence[str], ours: Sequence[str]) -> list[int | None]:
    place = {name: row for row, name in enumerate(theirs)}
    return [place.get(name) for name in ours]


def _matching_units(theirs: Tree, ours: Tree) -> list[list[int | None]]:
    """For each unit of each level, the one of the other tree that shares most channels with it; None for none."""
    found: list[list[int | None]] = []
    for mine, yours in zip(_leaves(ours), _leaves(theirs), strict=True):
        row: list[int | None] = []
        for channels in mine:
            shared = [len(channels & other) for other in yours]
            row.append(shared.index(max(shared)) if max(shared) else None)
        found.append(row)
    return found


def _leaves(tree: Tree) -> list[list[frozenset[str]]]:
    """Channels under each unit of each level."""
    below = [frozenset([name]) for name in tree.channels]
    levels = []
    for members in tree.levels:
        below = [frozenset().union(*(below[m] for m in unit)) for unit in members]
        levels.append(below)
    return levels


def _copy_rows(source: Tensor, target: Tensor, rows: Sequence[int | None], *, each: int = 1) -> None:
    """Copies blocks of `each` rows: block i of the target from block rows[i] of the source."""
    for mine, row in enumerate(rows):
        if row is not None:
            target[mine * each : (mine + 1) * each] = source[row * each : (row + 1) * each]


def _count(rows: Sequence[int | None]) -> int:
    return sum(row is not None for row in rows)
