"""From visible bands to hidden ones: straight lines between them, and what training spectra say.

Contract: pure functions of spectra with shape (pixel, band).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COMPONENTS = 20
"""Of the principal components, at most; what training spectra do not need has a small variance and weighs little."""


def bridge(spectra: NDArray[np.floating], wavelengths: Array, *, gap: NDArray[np.bool_]) -> Array:
    """Spectra with hidden bands on the straight line between those beside them; at an end, as the last visible band.

    Args:
        spectra: shape (pixel, band); values in the gap are not read.
        wavelengths: increasing [nm], shape (band,).
        gap: hidden bands, not all, shape (band,).
    """
    filled = np.array(spectra, np.float64)
    seen = np.flatnonzero(~gap)
    right = np.clip(np.searchsorted(seen, np.flatnonzero(gap)), 0, len(seen))
    before, after = seen[np.maximum(right - 1, 0)], seen[np.minimum(right, len(seen) - 1)]
    distance = wavelengths[after] - wavelengths[before]
    share = np.where(distance > 0, (wavelengths[gap] - wavelengths[before]) / np.where(distance > 0, distance, 1), 0.0)
    filled[:, gap] = filled[:, before] + np.clip(share, 0.0, 1.0) * (filled[:, after] - filled[:, before])
    return filled


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components of training spectra, with what they leave over (probabilistic PCA, Tipping and Bishop 1999).

    Args:
        mean: of the spectra, shape (band,).
        axes: unit vectors, shape (component, band).
        variances: of the scores, shape (component,).
        rest: variance that the components leave in each band, shape (band,).
    """

    mean: Array
    axes: Array
    variances: Array
    rest: Array

    @classmethod
    def fit(cls, spectra: NDArray[np.floating], *, components: int = COMPONENTS) -> Components:
        """The components of some spectra.

        Args:
            spectra: finite, shape (pixel, band), at least two.
            components: how many, at most as many as there are bands and pixels.
        """
        given = np.asarray(spectra, np.float64)
        mean = given.mean(axis=0)
        covariance = np.cov(given, rowvar=False, ddof=1).reshape(given.shape[1], -1)
        values, vectors = np.linalg.eigh(covariance)
        count = min(components, given.shape[1], given.shape[0] - 1)
        axes, variances = vectors[:, ::-1][:, :count].T, np.maximum(values[::-1][:count], 0.0)
        rest = np.diag(covariance) - variances @ axes**2
        floor = 1e-6 * max(float(np.trace(covariance)) / len(mean), 1e-12)
        return cls(mean, axes, np.maximum(variances, floor), np.maximum(rest, floor))

    def scores(self, spectra: NDArray[np.floating], *, gap: NDArray[np.bool_]) -> Array:
        """Most likely scores of spectra of which some bands are hidden, shape (pixel, component).

        Args:
            spectra: shape (pixel, band); values in the gap are not read.
            gap: hidden bands, shape (band,).
        """
        seen = ~gap
        weighted = self.axes[:, seen] / self.rest[seen]
        precision = weighted @ self.axes[:, seen].T + np.diag(1.0 / self.variances)
        return np.asarray((spectra[:, seen] - self.mean[seen]) @ np.linalg.solve(precision, weighted).T)

    def spectra(self, scores: NDArray[np.floating]) -> Array:
        """The spectra of some scores, shape (pixel, band)."""
        return np.asarray(self.mean + scores @ self.axes)
