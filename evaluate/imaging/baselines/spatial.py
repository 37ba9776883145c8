"""From visible pixels to hidden ones: inverse distance weighting (Shepard 1968).

Contract: a hidden pixel gets the mean of all visible ones, weighted by distance to the power of -p: a large p takes the
nearest, a small one the mean of the tile. Pure; distances in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

POWERS = (1.0, 2.0, 3.0, 4.0, 6.0)
"""Candidates for p, from nearly the mean to nearly the nearest."""
_ROWS = 4096
"""Hidden pixels at once, so that a large tile needs no large matrix."""


def positions(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Row and column of the pixels of a mask, shape (pixel, 2)."""
    return np.argwhere(mask).astype(np.float32)


def spread(
    values: NDArray[np.floating], *, known: NDArray[np.float32], wanted: NDArray[np.float32], powers: Sequence[float]
) -> NDArray[np.float32]:
    """Weighted means of known values at other positions.

    Args:
        values: shape (known, column).
        known: positions, shape (known, 2), at least one.
        wanted: positions, none of them known, shape (wanted, 2).
        powers: p of each result.

    Returns:
        Shape (power, wanted, column).
    """
    given = values.astype(np.float32)
    found = np.empty((len(powers), len(wanted), given.shape[1]), np.float32)
    for first in range(0, len(wanted), _ROWS):
        rows = slice(first, first + _ROWS)
        squared = ((wanted[rows, None, :] - known[None, :, :]) ** 2).sum(axis=-1)
        for i, power in enumerate(powers):
            weights = squared ** np.float32(-power / 2)
            weights /= weights.sum(axis=1, keepdims=True)
            found[i, rows] = weights @ given
    return found
