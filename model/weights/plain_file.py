"""A trained model as one plain file: what it takes to run it elsewhere, and nothing that is code.

Contract: a safetensors file with the weights that forecasts use (averaged ones where training kept them) under their
names in the network, the means and standard deviations that inputs are normalised with and outputs are in, and, as
text, the architecture and what it was trained on. Where forecasts are calibrated, the factors of their anomalies go
along, once `forecast` has fitted them. It is read without running anything from it, on any number of ranks'
checkpoint alike. Source of the format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from model.network.cut import Network
from model.training import checkpoint
from model.training.learner import weights_of
from model.training.load import weights_digest
from model.training.plain_tensors import read_tensors, refuse, take_weights, write_tensors
from model.weather.architecture import network_from_dict
from model.weather.calibration import Calibration, stored
from model.weather.job import ways
from model.weather.stepping import trained_steps
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig

FORMAT = "chagcast model 1"
"""First entry of the text; another is refused."""
_LABELS = ("lead_hours", "channels", "latitude", "init_times")
"""Of the calibration: those of its tensor's axes, and what it was fitted on."""
_SCALES = ("mean", "std", "anomaly_std", "static_mean", "static_std")


@dataclass(frozen=True)
class PlainModel:
    """What a plain file holds.

    Attributes:
        model: in evaluation mode, on the CPU.
        network_input: "state" or "anomaly": how inputs are normalised, see `model.weather.normalise`.
        predicts: "anomaly" or "change", see `model.weather.stepping`.
        step_hours: lengths of the steps that it was trained on [h]; empty for direct forecasts.
        scales: by name, float64: mean, std and anomaly_std of the dynamic channels, static_mean and static_std of the
            static ones, in canonical units and in the order of the model's channels; for a model of changes also
            change_std (step, channel).
        contract: of the store it was trained on.
        normals: digest of the normals it was trained with; their climatology is not part of the file.
        splits: the periods of training, validation and test.
        step: training steps done.
        calibration: by what to multiply the anomaly from the climatology at each lead, channel and latitude; None where
            forecasts are not calibrated.
    """

    model: Network
    network_input: str
    predicts: str
    step_hours: tuple[int, ...]
    scales: dict[str, Tensor]
    contract: dict[str, Any]
    normals: str
    splits: dict[str, Any]
    step: int
    calibration: Calibration | None = None


def run_export(config: WeatherConfig) -> None:
    """Write the model that forecasts use to <training folder>/<name>.safetensors.

    Raises:
        ValueError: nothing has been trained.
    """
    found = checkpoint.to_use(config.paths.checkpoints)
    normals = Normals.open(config.paths.normals)
    target = write_plain(found, config.paths.train / f"{config.name}.safetensors", normals=normals, config=config)
    lacking = config.calibrates and read_plain(target).calibration is None
    note = ", without calibration: python -m pipeline forecast fits it" if lacking else ""
    Console(stderr=True).print(f"export: {found.name} in {target}{note}", soft_wrap=True)


def write_plain(source: Path, target: Path, *, normals: Normals, config: WeatherConfig | None = None) -> Path:
    """Write a checkpoint as one file.

    Args:
        source: a checkpoint's folder, written on any number of ranks.
        target: the file, replaced if it exists.
        normals: those it was trained with.
        config: the experiment whose forecasts of this model may have been calibrated.

    Returns:
        `target`.

    Raises:
        ValueError: the checkpoint is incomplete or belongs to other normals.
    """
    description = checkpoint.describe(source)
    model = network_from_dict(description["model"]).build(seed=None)
    parameters = weights_of(model)
    wanted = {f"{description['weights']}.{name}": p for name, p in parameters.items()}
    checkpoint.load(source, wanted, expected={"normals": normals.digest})
    scales = {f"normals.{name}": torch.from_numpy(np.array(getattr(normals, name))) for name in _SCALES}
    predicts, steps = trained_steps(description)
    if predicts == "change":
        change = np.stack([normals.change_std(hours) for hours in steps])
        scales["normals.change_std"] = torch.from_numpy(change)
    kept = ("model", "network_input", "stepping", "contract", "normals", "splits", "step")
    about = {key: description[key] for key in kept if key in description}
    if config is not None and config.calibrates:
        ways_used = ways(config, steps, direct=None)
        fitted = stored(config, config.paths.train, model=weights_digest(parameters), steps=ways_used)
        if fitted is not None:
            scales["calibration.factors"] = torch.tensor(fitted.factors, dtype=torch.float64)
            about["calibration"] = {key: getattr(fitted, key) for key in _LABELS}
    return write_tensors(target, parameters, scales, kind=FORMAT, about=about)


def read_plain(path: Path) -> PlainModel:
    """Read the file of `write_plain`; nothing in it is run.

    Raises:
        ValueError: not such a file, cut short, or not this version's tensors, every difference listed.
    """
    tensors, description = read_tensors(path, kind=FORMAT)
    model = network_from_dict(description["model"]).build(seed=None)
    lines = take_weights(model, tensors)
    predicts, steps = trained_steps(description)
    expected = (*_SCALES, "change_std") if predicts == "change" else _SCALES
    scales = {name: tensors.pop(f"normals.{name}", None) for name in expected}
    lines += [f"  normals.{name}: absent" for name, found in scales.items() if found is None]
    calibration = None
    if labels := description.get("calibration"):
        factors = tensors.pop("calibration.factors", None)
        shape = tuple(len(labels[axis]) for axis in ("lead_hours", "channels", "latitude"))
        if factors is None or factors.shape != shape:
            got = "absent" if factors is None else tuple(factors.shape)
            lines.append(f"  calibration.factors: {got}, not {shape}")
        else:
            calibration = Calibration(factors.tolist(), **labels)
    lines += [f"  {name}: unknown" for name in tensors]
    refuse(path, lines)
    return PlainModel(
        model=model.eval(),
        network_input=description["network_input"],
        predicts=predicts,
        step_hours=steps,
        scales={name: found for name, found in scales.items() if found is not None},
        contract=description["contract"],
        normals=description["normals"],
        splits=description["splits"],
        step=description["step"],
        calibration=calibration,
    )
