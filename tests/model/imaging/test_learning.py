"""A training in memory that has to learn where patches lie and what their spectra are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from model.imaging.masks import Hiding, visible_patches
from model.imaging.task import Autoencoding
from model.imaging.tiles import Tiles
from model.parallel.launch import process_group
from model.parallel.mesh import build_mesh
from model.training.learner import assemble
from model.training.step import training_step
from tests.model.imaging.cases import BANDS, imaging_config, tiles_of_step

STEPS = 160
pytestmark = pytest.mark.slow


def field(step: int) -> torch.Tensor:
    """Four tiles: a wave that is the same in all, and a spectrum times a number that only the tile knows."""
    amplitude = np.random.default_rng([7, step]).standard_normal((4, 1, 1, 1))
    spectrum = np.linspace(0.5, 1.5, len(BANDS))[None, :, None, None]
    y, x = np.mgrid[:8, :8]
    return torch.from_numpy(0.5 * amplitude * spectrum + np.cos(2 * np.pi * (x / 8 + y / 16)))


def samples(step: int) -> Tiles:
    """A batch of them."""
    batch = tiles_of_step(step, channels=BANDS, rows=slice(4), hidden=set())
    return replace(batch, x=field(step) * batch.valid)


def test_hidden_patches_are_learned_where_they_are() -> None:
    """Catches predictions, targets and positions that belong to different patches, and spectra that are not learned.

    Truth is cut here by plain slices: a training whose targets are those of other patches has a loss as small as this.
    """
    config = imaging_config(training={"steps": STEPS, "learning_rate": 0.01, "weight_decay": 0.0})
    with process_group(world_size=1):
        task, mesh = Autoencoding.planned(config), build_mesh()
        learner = assemble(task.network, config.training, mesh=mesh, device=torch.device("cpu"), seed=1)
        for step in range(STEPS):
            training_step(learner, task, samples(step), step=step)
        truth = field(STEPS)
        visible, hidden = visible_patches(Hiding(0.75), np.arange(4), patches=16)
        with torch.no_grad():
            found = learner.network(truth, torch.from_numpy(visible))
    squares, variances = [], []
    for b, places in enumerate(hidden):
        for place in places:
            y, x = 2 * (place // 4), 2 * (place % 4)
            patch = truth[b, :, y : y + 2, x : x + 2].flatten(1)
            squares.append(float((found[b, place] - patch).square().mean()))
            variances.append(float((patch - truth.mean()).square().mean()))
    assert np.mean(squares) < 0.1 * np.mean(variances)
