"""What the line scanner adds to the light that reaches it: noise, and on request smile and stripes.

Contract: the white reference has been applied, so the image is reflectance; a line runs along x, the scanner moves
along y. The lamp is a halogen lamp, the detector silicon: few photons are counted at both ends of the range, and
dividing by the white reference makes noise of that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spectra = NDArray[np.floating[Any]]

LAMP_TEMPERATURE = 2900.0
"""K; filament of a halogen lamp, taken as a black body."""
READING = 0.05
"""Noise that is there without light, over the noise of a white target at the best wavelength."""


def response(wavelengths: Array) -> Array:
    """Photons counted from a white target by wavelength, over those at the best wavelength from 400 to 900 nm.

    Planck's law in photons times a detector that is best at 610 nm and falls to a tenth at 290 nm from there;
    never below 0.001.
    """

    def counts(nm: Array) -> Array:
        planck = 1 / (nm**4 * np.expm1(1.43878e7 / (nm * LAMP_TEMPERATURE)))
        return np.asarray(planck * 10.0 ** -(((nm - 610) / 290) ** 2))

    best = counts(np.arange(400.0, 901.0)).max()
    return np.asarray(np.maximum(counts(wavelengths) / best, 1e-3))


def add_smile(image: Spectra, *, wavelengths: Array, smile: float) -> Spectra:
    """The image with every column's bands shifted, by `smile` nm at both edges and by the square of x between.

    Args:
        image: (band, y, x)
        wavelengths: (band,) nm, at least two.
        smile: nm; a band at the edge then sees what is `smile` nm above its nominal wavelength.
    """
    position = np.linspace(-1, 1, image.shape[2])
    shifted = np.empty_like(image)
    last = len(wavelengths) - 2
    for column, shift in enumerate(smile * position**2):
        wanted = wavelengths + shift
        below = np.clip(np.searchsorted(wavelengths, wanted, side="right") - 1, 0, last)
        share = np.clip((wanted - wavelengths[below]) / (wavelengths[below + 1] - wavelengths[below]), 0, 1)[:, None]
        lines = image[:, :, column]
        shifted[:, :, column] = (1 - share) * lines[below] + share * lines[below + 1]
    return shifted


def column_gains(columns: int, *, wavelengths: Array, stripes: float, rng: np.random.Generator) -> Array:
    """Gain of every detector column, (band, x): one part for all bands and one that tilts along them."""
    gain, tilt = rng.standard_normal((2, columns))
    slope = (wavelengths - wavelengths.mean()) / 250.0
    return np.asarray(1 + stripes * (0.9 * gain + 0.45 * tilt * slope[:, None]))


def add_noise(image: Spectra, *, wavelengths: Array, noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """The image as measured: photon noise, which grows with the root of the signal, and the noise of reading.

    Args:
        image: (band, y, x) reflectance.
        wavelengths: (band,) nm.
        noise: standard deviation for a white target at the best wavelength.
        rng: of this image's noise.
    """
    measured = image.astype(np.float32)
    for band, counted in enumerate(response(wavelengths)):  # band by band, so that an image needs no third copy
        spread = noise * np.sqrt(np.maximum(image[band], 0) / counted + (READING / counted) ** 2)
        measured[band] += (spread * rng.standard_normal(spread.shape, dtype=np.float32)).astype(np.float32)
    return measured
