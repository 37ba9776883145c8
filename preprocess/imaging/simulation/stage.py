"""What the plants stand on: black cloth or soil.

Source: the soils are the dry and the wet one of PROSAIL, in coefficients.csv.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.simulation.prospect import at_wavelengths
from preprocess.imaging.simulation.texture import ripples

Array = NDArray[np.float64]


def stage_reflectance(kind: str, *, x: Array, y: Array, wavelengths: Array, rng: np.random.Generator) -> Array:
    """Reflectance of the bare stage.

    Args:
        kind: `dark` or `soil`.
        x: (point,) positions in mm.
        y: (point,) positions in mm.
        wavelengths: (band,) nm.
        rng: of this image's stage.

    Returns:
        (point, band)
    """
    if kind == "soil":
        dry, wet = (at_wavelengths(name, wavelengths=wavelengths) for name in ("soil_dry", "soil_wet"))
        wetness, brightness = rng.uniform(0.35, 0.85), rng.uniform(0.7, 1.0)
        moist = wetness + 0.08 * ripples(rng, length=60.0).at(x, y)
        crumbs = 0.1 * ripples(rng, length=9.0).at(x, y) + 0.1 * ripples(rng, length=4.0).at(x, y)
        stones = 0.08 * rng.standard_normal(x.shape)
        share = np.clip(moist, 0, 1)[:, None]
        bright = brightness * np.exp(crumbs + stones)
        return np.asarray(bright[:, None] * (share * wet + (1 - share) * dry))
    cloth = 0.022 + 0.02 * (1 - np.exp(-(wavelengths - 400) / 400))
    brightness = rng.uniform(0.8, 1.3)
    weave = np.exp(0.1 * ripples(rng, length=30.0).at(x, y) + 0.04 * rng.standard_normal(x.shape))
    return np.asarray(brightness * weave[:, None] * cloth)
