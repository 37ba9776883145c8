"""Smooth random fields that can be asked for at any point, so that a finer image shows the same scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ripples:
    """A sum of plane waves with mean 0 and, over a large area, standard deviation 1.

    Attributes:
        waves: (wave, 3): wave number in x and y in radians per unit of length, phase in radians.
    """

    waves: Array

    def at(self, x: Array, y: Array) -> Array:
        """The field at points of one shape."""
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
        for kx, ky, phase in self.waves:
            total += np.cos(kx * x + ky * y + phase)
        total *= np.sqrt(2 / len(self.waves))
        return total


def ripples(rng: np.random.Generator, *, length: float, waves: int = 12) -> Ripples:
    """A random field whose waves are between one and two times `length` long, in all directions."""
    number = 2 * np.pi / (length * rng.uniform(1, 2, waves))
    direction = rng.uniform(0, 2 * np.pi, waves)
    phase = rng.uniform(0, 2 * np.pi, waves)
    return Ripples(np.stack([number * np.cos(direction), number * np.sin(direction), phase], axis=1))
