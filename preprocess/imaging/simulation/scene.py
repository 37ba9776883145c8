"""One simulated image from the settings and its index.

Contract: `simulate_image` is a pure function; its bits depend on the settings and the index alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TRAITS = {
    "chlorophyll": "ug cm-2",
    "carotenoids": "ug cm-2",
    "anthocyanins": "ug cm-2",
    "water": "cm",
    "dry_matter": "g cm-2",
    "structure": "1",
    "brown": "1",
}
"""Names and units of the leaf traits in the order of `SimulatedImage.traits`."""


@dataclass(frozen=True)
class SimulatedImage:
    """An image and what is true of it; y is the direction of travel of the scanner, x runs along its line.

    Attributes:
        wavelengths: (band,) nm.
        reflectance: (band, y, x) relative to the white reference; noise can make it slightly negative.
        traits: (trait, y, x) in the order and units of `TRAITS`; NaN where a leaf blade covers less than half the pixel.
    """

    wavelengths: NDArray[np.float64]
    reflectance: NDArray[np.float32]
    traits: NDArray[np.float32]
