"""Kriging of the hidden patches: blocks of larger patches, and what may be read."""

from __future__ import annotations

import numpy as np
import torch

from model.imaging.interpolation import interpolated
from model.imaging.tiles import cut_patches

VISIBLE, WANTED = torch.tensor([[1, 3]]), torch.tensor([[0, 2, 3, 4, 5]])


def tile() -> torch.Tensor:
    """Two bands of 16 x 24 pixels: six patches of 8 x 8."""
    return torch.from_numpy(np.random.default_rng(3).standard_normal((1, 2, 16, 24)))


def test_a_patch_of_eight_pixels_is_read_in_blocks_of_two() -> None:
    """Catches centres of blocks that are off by half a pixel, and rows that are taken for columns."""
    x = tile()
    means, centres = [], []
    for patch in VISIBLE[0].tolist():
        for row in range(8 * (patch // 3), 8 * (patch // 3) + 8, 2):
            for column in range(8 * (patch % 3), 8 * (patch % 3) + 8, 2):
                means.append(x[0, :, row : row + 2, column : column + 2].mean(dim=(1, 2)).numpy())
                centres.append((row + 0.5, column + 0.5))
    own = np.array([[np.exp(-np.hypot(*np.subtract(p, q)) / 6) for q in centres] for p in centres])
    weights = np.linalg.solve(own + 0.05 * np.eye(len(centres)), np.array(means))
    got = interpolated(x, VISIBLE, WANTED, patch=8)[0]
    for q, patch in enumerate(WANTED[0].tolist()):
        for pixel in (0, 7, 37, 63):
            place = (8 * (patch // 3) + pixel // 8, 8 * (patch % 3) + pixel % 8)
            near = np.array([np.exp(-np.hypot(*np.subtract(place, p)) / 6) for p in centres])
            np.testing.assert_allclose(got[q, :, pixel].numpy(), near @ weights, atol=1e-11)


def test_what_is_hidden_is_not_read() -> None:
    """Catches the answer among the sources: another hidden patch or band must change nothing."""
    x, other = tile(), tile()
    other[:, :, :8, :8] = 99.0  # patch 0
    other[:, 1] = -5.0
    a, b = (interpolated(values, VISIBLE, WANTED, patch=8, absent=[1]) for values in (x, other))
    assert torch.equal(a, b)
    assert (a[:, :, 1] == 0).all()


def test_it_comes_near_to_what_it_was_made_from() -> None:
    """Catches weights of other blocks: where a smooth field is visible, it is found again."""
    row, column = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    x = torch.sin(row / 9 + column / 7).expand(1, 2, -1, -1).double()
    found = interpolated(x, VISIBLE, VISIBLE, patch=8)
    assert (found - cut_patches(x, patch=8, wanted_BQ=VISIBLE)).abs().max() < 0.2
