"""What a spectrum looks like: reflectance of many bands as the colours of a screen.

Contract: true colour weighs the bands with the CIE 1931 2-degree colour matching functions (the fits of Wyman, Sloan
and Shirley 2013, J. Comput. Graph. Tech. 2(2), eq. 4) under light of equal energy, turned into linear sRGB so that a
surface that reflects everything is white, then the sRGB transfer curve. An instrument that does not cover 450 to 650 nm
gets false colours from three of its bands, and says so. The exposure is one number for all images of an experiment,
taken from the training normals, so that truth and reconstruction can be compared by eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COVERED = (450.0, 650.0)
"""Wavelengths that true colour needs [nm]."""
WIDEST_GAP = 50.0
"""Between neighbouring bands there [nm]."""
BRIGHT = 2.0
"""Standard deviations above the mean of what is as bright as white in a picture."""

# amplitude, centre [nm], width below and above it [nm] of each lobe
_LOBES = (
    ((1.056, 599.8, 37.9, 31.0), (0.362, 442.0, 16.0, 26.7), (-0.065, 501.1, 20.4, 26.2)),
    ((0.821, 568.8, 46.9, 40.5), (0.286, 530.9, 16.3, 31.1)),
    ((1.217, 437.0, 11.8, 36.0), (0.681, 459.0, 26.0, 13.8)),
)  # fmt: skip
_XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


@dataclass(frozen=True, eq=False)
class Rendering:
    """How the bands of an experiment become colours.

    Args:
        weights: of the bands in linear red, green and blue, shape (band, 3).
        exposure: factor of the linear colours.
        true_colour: whether they are what an eye would see.
        title: what pictures are called: "true colour", or "false colour" with its bands.
    """

    weights: Array
    exposure: float
    true_colour: bool
    title: str

    @classmethod
    def of(cls, wavelengths: Array, *, mean: Array, std: Array) -> Rendering:
        """The rendering of an experiment.

        Args:
            wavelengths: increasing [nm], shape (band,).
            mean: reflectance of the training images, shape (band,).
            std: its standard deviation.
        """
        true = covers_the_visible(wavelengths)
        if true:
            weights, title = true_colour_weights(wavelengths), "true colour"
        else:
            chosen = np.linspace(0, len(wavelengths) - 1, 7).round().astype(int)[[5, 3, 1]]
            weights = np.zeros((len(wavelengths), 3))
            weights[chosen, [0, 1, 2]] = 1.0
            title = f"false colour, {', '.join(f'{wavelengths[i]:.0f}' for i in chosen)} nm"
        brightest = float(np.max((np.nan_to_num(mean) + BRIGHT * np.nan_to_num(std)) @ weights))
        return cls(weights, 1.0 / brightest if brightest > 0 else 1.0, true, title)

    def __call__(self, reflectance: NDArray[np.floating]) -> Array:
        """A picture.

        Args:
            reflectance: shape (band, y, x).

        Returns:
            Shape (y, x, 3), sRGB between 0 and 1; NaN where a band that counts is.
        """
        used = np.flatnonzero(np.abs(self.weights).max(axis=1) > 0)
        linear = self.exposure * np.einsum("byx,bc->yxc", reflectance[used], self.weights[used], optimize=True)
        return _encode(linear)


def covers_the_visible(wavelengths: Array) -> bool:
    """Whether bands give true colours."""
    low, high = COVERED
    inside = wavelengths[(wavelengths > low - WIDEST_GAP) & (wavelengths < high + WIDEST_GAP)]
    if inside.size < 3 or inside[0] > low or inside[-1] < high:
        return False
    return bool(np.diff(inside).max() <= WIDEST_GAP)


def matching_functions(wavelengths: Array) -> Array:
    """CIE 1931 2-degree x, y and z, shape (band, 3)."""
    found = np.zeros((len(wavelengths), 3))
    for column, lobes in enumerate(_LOBES):
        for amplitude, centre, below, above in lobes:
            width = np.where(wavelengths < centre, below, above)
            found[:, column] += amplitude * np.exp(-0.5 * ((wavelengths - centre) / width) ** 2)
    return found


def true_colour_weights(wavelengths: Array) -> Array:
    """Share of each band in linear red, green and blue, shape (band, 3); each colour's shares sum to 1."""
    per_band = matching_functions(wavelengths) * np.gradient(wavelengths)[:, None]
    per_band[(wavelengths < 380) | (wavelengths > 780)] = 0.0
    linear = per_band @ _XYZ_TO_RGB.T
    return np.asarray(linear / linear.sum(axis=0))


def _encode(linear: Array) -> Array:
    """Linear colours as sRGB, clipped to what a screen can show."""
    kept = np.clip(linear, 0.0, 1.0)
    return np.asarray(np.where(kept <= 0.0031308, 12.92 * kept, 1.055 * kept ** (1 / 2.4) - 0.055))
