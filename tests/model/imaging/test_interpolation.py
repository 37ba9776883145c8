"""Kriging of the hidden patches: blocks of larger patches, and what may be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.imaging.interpolation import bridged, interpolated
from model.imaging.tiles import cut_patches

VISIBLE, WANTED = torch.tensor([[1, 3]]), torch.tensor([[0, 2, 4, 5]])


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
    got = interpolated(x, VISIBLE, WANTED, patch=8, some_visible=False)[0]
    for q, patch in enumerate(WANTED[0].tolist()):
        for pixel in (0, 7, 37, 63):
            place = (8 * (patch // 3) + pixel // 8, 8 * (patch % 3) + pixel % 8)
            near = np.array([np.exp(-np.hypot(*np.subtract(place, p)) / 6) for p in centres])
            np.testing.assert_allclose(got[q, :, pixel].numpy(), near @ weights, atol=1e-11)


def test_what_is_hidden_is_not_read() -> None:
    """Catches the answer among the sources: another hidden patch must change nothing, and a visible one is itself."""
    x, other = tile(), tile()
    other[:, :, :8, :8] = 99.0  # patch 0
    every = torch.arange(6).unsqueeze(0)
    a, b = (interpolated(values, VISIBLE, every, patch=8) for values in (x, other))
    assert torch.equal(a, b)
    assert torch.equal(a[:, 3], cut_patches(x, patch=8, wanted_BQ=torch.tensor([[3]]))[:, 0])


@pytest.mark.parametrize(
    ("hidden", "wanted"),
    [
        ({"b2", "b3"}, [0, 1, 6, 11, 16, 25]),
        ({"b0"}, [1, 1, 4, 9, 16, 25]),
        ({"b5"}, [0, 1, 4, 9, 16, 16]),
    ],
)
def test_hidden_bands_lie_on_straight_lines(hidden: set[str], wanted: list[float]) -> None:
    """Catches lines to other bands, and hidden values that are read; on two ranks that hold three bands each."""
    channels, x = [f"b{i}" for i in range(6)], torch.arange(6.0).square().view(1, 6, 1, 1)
    parts: list[torch.Tensor] = []

    def note(part: torch.Tensor) -> torch.Tensor:
        parts.append(part)
        return part

    def of_both(_part: torch.Tensor) -> torch.Tensor:
        return parts[0] + parts[1]

    found = []
    for total in (note, of_both):
        halves = (slice(0, 3), slice(3, 6))
        found = [bridged(x[:, h], hidden, held=channels[h], channels=channels, total=total) for h in halves]
    assert torch.cat(found, dim=1).flatten().tolist() == pytest.approx(wanted)
