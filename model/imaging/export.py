"""A trained autoencoder as one plain file, with the wavelengths of its bands.

Contract: a safetensors file as `model.training.plain_tensors` writes it, with the weights that reconstructions use, and
of every band, float64 in the order of the network's channels: `bands.wavelength` [nm], `bands.mean` and `bands.std` of
reflectance over the training pixels, by which inputs are normalised. It is read without running anything from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model.imaging.autoencoder import Autoencoder, AutoencoderConfig
from model.imaging.task import open_images
from model.training import checkpoint
from model.training.learner import weights_of
from model.training.plain_tensors import read_tensors, refuse, take_weights, write_tensors
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.normals import ImageNormals

FORMAT = "chagcast autoencoder 1"
"""First entry of the text; another is refused."""
_SCALES = ("wavelength", "mean", "std")


@dataclass(frozen=True)
class PlainAutoencoder:
    """What a plain file holds.

    Attributes:
        model: in evaluation mode, on the CPU.
        scales: by name, (C,) float64: wavelength [nm], mean and std of reflectance.
        about: contract of the training store, digest of its normals, masking, targets, training steps done.
    """

    model: Autoencoder
    scales: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the network's input."""
        return self.model.config.channels


def run_export(config: ImagingConfig) -> None:
    """Write the model that reconstructions use to <training folder>/<name>.safetensors.

    Raises:
        ValueError: nothing has been trained.
    """
    found = checkpoint.to_use(config.paths.checkpoints)
    _, normals = open_images(config)
    target = write_plain(found, config.paths.train / f"{config.name}.safetensors", normals=normals)
    Console(stderr=True).print(f"export: {found.name} in {target}", soft_wrap=True)


def write_plain(source: Path, target: Path, *, normals: ImageNormals) -> Path:
    """Write a checkpoint as one file.

    Args:
        source: a checkpoint's folder, written on any number of ranks.
        target: the file, replaced if it exists.
        normals: those it was trained with.

    Returns:
        `target`.

    Raises:
        ValueError: the checkpoint is incomplete or belongs to other normals.
    """
    description = checkpoint.describe(source)
    weights = weights_of(AutoencoderConfig.from_dict(description["model"]).build(seed=None))
    wanted = {f"{description['weights']}.{name}": p for name, p in weights.items()}
    checkpoint.load(source, wanted, expected={"normals": normals.digest})
    scales = {f"bands.{name}": torch.from_numpy(getattr(normals, name)).double() for name in _SCALES}
    about = {key: description[key] for key in ("model", "contract", "normals", "masking", "targets", "step")}
    return write_tensors(target, weights, scales, kind=FORMAT, about=about)


def read_plain(path: Path) -> PlainAutoencoder:
    """Read the file of `write_plain`; nothing in it is run.

    Raises:
        ValueError: not such a file, cut short, or not this version's tensors, every difference listed.
    """
    tensors, about = read_tensors(path, kind=FORMAT)
    model = AutoencoderConfig.from_dict(about.pop("model")).build(seed=None)
    lines = take_weights(model, tensors)
    scales = {name: tensors.pop(f"bands.{name}", None) for name in _SCALES}
    lines += [f"  bands.{name}: absent" for name, found in scales.items() if found is None]
    lines += [f"  {name}: unknown" for name in tensors]
    refuse(path, lines)
    return PlainAutoencoder(model.eval(), {name: found for name, found in scales.items() if found is not None}, about)
