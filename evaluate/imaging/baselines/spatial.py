"""From visible pixels to hidden ones: inverse distance weighting (Shepard 1968).

Contract: a hidden pixel gets the mean of all visible ones, weighted by distance to the power of -p: a large p takes the
nearest, a small one the mean of the tile. Pure; distances in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

POWERS = (1, 2, 3, 4, 6)
"""Candidates for p, from nearly the mean to nearly the nearest."""
_PAIRS = 2**23
"""Of hidden and visible pixels at once, so that a large tile needs no large matrix."""


def positions(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Row and column of the pixels of a mask, shape (pixel, 2)."""
    return np.argwhere(mask).astype(np.float32)


def spread(
    values: NDArray[np.floating], *, known: NDArray[np.float32], wanted: NDArray[np.float32], powers: Sequence[int]
) -> NDArray[np.float32]:
    """Weighted means of known values at other positions.

    Args:
        values: shape (known, column).
        known: positions, shape (known, 2), at least one.
        wanted: positions, none of them known, shape (wanted, 2).
        powers: p of each result, increasing.

    Returns:
        Shape (power, wanted, column).
    """
    given = values.astype(np.float32)
    found = np.empty((len(powers), len(wanted), given.shape[1]), np.float32)
    step = max(1, _PAIRS // len(known))
    for first in range(0, len(wanted), step):
        rows = slice(first, first + step)
        nearness = 1 / np.hypot(*(wanted[rows, None, axis] - known[None, :, axis] for axis in (0, 1)))
        weights, reached = np.ones_like(nearness), 0
        for i, power in enumerate(powers):
            for _ in range(power - reached):
                weights *= nearness
            reached = power
            found[i, rows] = (weights @ given) / weights.sum(axis=1, keepdims=True)
    return found
