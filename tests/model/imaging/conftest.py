"""A small experiment with a real store: smooth spectra of seven bands, images larger and smaller than a tile."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageSize
from pipeline.store import Slab
from preprocess.imaging.normals import run_normals
from preprocess.imaging.writing import Content, fill, image_writer
from tests.model.imaging.cases import imaging_config

torch.set_num_threads(1)

SIZES = [(8, 8)] * 9 + [(8, 13), (6, 8)]
"""Rows and columns of the images: twelve tiles of 8 x 8, three of which are padded."""


def reflectance() -> np.ndarray:
    """(12, 7, 8, 8): a spectrum that depends on the image, times a slope over the tile; NaN where nothing is."""
    random = np.random.default_rng(5)
    level = random.uniform(0.1, 0.6, size=(12, 1, 1, 1))
    bend = random.uniform(-0.3, 0.3, size=(12, 1, 1, 1))
    band = np.linspace(0, 1, 7).reshape(1, 7, 1, 1)
    slope = 1 + 0.3 * np.linspace(-1, 1, 8).reshape(1, 1, 8, 1) * random.uniform(-1, 1, size=(12, 1, 1, 1))
    values = (level + bend * band**2) * slope + 0.01 * random.standard_normal((12, 7, 8, 8))
    values[10, :, :, 5:] = np.nan  # right of the image of 13 columns
    values[11, :, 6:] = np.nan
    values[2, 4, 1, 3] = np.nan  # one pixel of one band
    return values.astype(np.float32)


def make_store(config: ImagingConfig) -> None:
    """Write the store of an experiment and its normals."""
    values = reflectance()
    images = [ImageSize(f"leaf{i:02d}", *size) for i, size in enumerate(SIZES)]
    content = Content(images, np.arange(400.0, 461.0, 10.0), {"label": "made up"})
    writer = image_writer(config, content, command="python -m pipeline simulate")

    def make(slab: Slab) -> dict[str, Any]:
        return {"reflectance": values[slab.slice], "valid": np.isfinite(values[slab.slice])}

    with writer.held():
        fill(writer, make, stage="simulate", facts={}, workers=1)
    run_normals(config)


def in_folder(folder: Path, **blocks: Any) -> ImagingConfig:
    """The small experiment in a folder; blocks as for `imaging_config`."""
    return imaging_config(**blocks).model_copy(update={"directory": folder})


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an experiment with store and normals; tests copy it."""
    folder = tmp_path_factory.mktemp("imaging")
    make_store(in_folder(folder))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of the experiment's folder for one test."""
    shutil.copytree(made / "data", tmp_path / "data")
    return tmp_path
