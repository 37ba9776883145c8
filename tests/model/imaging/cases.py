"""Batches of made-up tiles, and a few steps of training on them on any ranks: no store, no trainer.

Bands 430 and 460 nm are groups of their own, so on four channel ranks hiding one leaves a rank nothing to read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model.imaging.masks import Hiding, visible_patches
from model.imaging.task import Autoencoding
from model.imaging.tiles import Tiles
from model.parallel.mesh import CHANNEL, DATA, axis_size, build_mesh, channel_rank, data_rank
from model.parallel.wrap import plan_for
from model.training.learner import assemble
from model.training.step import training_step
from pipeline.config import parse
from pipeline.imaging.config import ImagingConfig

BANDS = ("b0400.0", "b0410.0", "b0420.0", "b0430.0", "b0440.0", "b0450.0", "b0460.0")
GROUPS = [[*BANDS[:3]], [BANDS[3]], [*BANDS[4:6]], [BANDS[6]]]
HIDDEN: list[set[str]] = [set(), {BANDS[3]}, {BANDS[5], BANDS[6]}, set()]
"""Bands hidden in each step."""


def imaging_config(*, model: dict[str, Any] | None = None, training: dict[str, Any] | None = None) -> ImagingConfig:
    """An experiment with seven simulated bands, tiles of 8 x 8 pixels, patches of 2 x 2."""
    raw = {
        "name": "few-bands", "task": "reconstruct",
        "source": {"kind": "simulation", "images": 4, "size": 8, "bands": {"start": 400, "stop": 460, "step": 10}},
        "data": {"tile": 8},
        "model": {
            "patch": 2, "width": 16, "depth": 1, "heads": 4, "decoder": {"width": 8, "depth": 1, "heads": 4},
            "groups": {"by": "list", "listed": GROUPS}, **(model or {}),
        },
        "masking": {"patches": 0.75, "bands": {"share": 0.5, "nanometres": 15}},
        "training": {
            "steps": 10, "batch_size": 4, "warmup_steps": 0, "learning_rate": 0.01, "precision": "float64",
            "tensorboard": False, **(training or {}),
        },
    }  # fmt: skip
    found = parse(raw)
    assert isinstance(found, ImagingConfig)
    return found


def tiles_of_step(step: int, *, channels: tuple[str, ...], rows: slice, hidden: set[str]) -> Tiles:
    """A part of a made-up batch of four tiles; some values are not valid."""
    random = np.random.default_rng(step)
    x = torch.from_numpy(random.standard_normal((4, len(BANDS), 8, 8)))
    valid = torch.from_numpy(random.random(x.shape) > 0.2)
    held = [BANDS.index(name) for name in channels]
    visible, masked = visible_patches(Hiding(0.75), np.arange(4) + 4 * step, patches=16)
    predicted = np.tile(np.arange(16), (4, 1)) if hidden else masked
    hides = torch.tensor([[place in masked[b] for place in predicted[b]] for b in range(4)])
    return Tiles(
        x=(x * valid)[rows][:, held],
        valid=valid[rows][:, held],
        visible=torch.from_numpy(visible)[rows],
        predicted=torch.from_numpy(predicted)[rows],
        hides=hides[rows],
        band_hidden=torch.tensor([name in hidden for name in channels]),
        hidden=frozenset(hidden),
    )


def few_steps(cases: list[dict[str, Any]]) -> list[list[tuple[float, float]]]:
    """Loss and norm of the gradient in each step, of several trainings after one another; called on every rank.

    Args:
        cases: blocks "model" and "training" of the configuration.
    """
    found = []
    for case in cases:
        config = imaging_config(**case)
        task, options = Autoencoding.planned(config), config.training
        mesh = build_mesh(channel=options.layout.channel)
        learner = assemble(task.network, options, mesh=mesh, device=torch.device("cpu"), seed=1)
        channels = plan_for(task.network, ranks=axis_size(mesh, CHANNEL)).channels[channel_rank(mesh)]
        part = options.batch_size // axis_size(mesh, DATA)
        rows = slice(data_rank(mesh) * part, (data_rank(mesh) + 1) * part)
        results = []
        for step, hidden in enumerate(HIDDEN):
            batch = tiles_of_step(step, channels=channels, rows=rows, hidden=hidden)
            done = training_step(learner, task, batch, step=step)
            results.append((done.loss, done.gradient_norm))
        found.append(results)
    return found
