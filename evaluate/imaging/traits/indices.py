"""Vegetation indices: what is read from leaves without any training.

Contract: an index needs bands near its wavelengths; an instrument that lacks one does not get it, and the reason is
said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOLERANCE = 6.0
"""Largest distance of a band from the wavelength of an index [nm]."""


@dataclass(frozen=True)
class Index:
    """A vegetation index.

    Args:
        title: for people.
        wavelengths: that it reads [nm].
        formula: of the reflectance there, in their order.
        text: the formula in words.
    """

    title: str
    wavelengths: tuple[float, ...]
    formula: Callable[..., Array]
    text: str


INDICES = {
    "ci_re": Index("CI red edge", (780.0, 710.0), lambda a, b: a / b - 1.0, "R780 / R710 - 1 (Gitelson et al. 2003)"),
    "ndvi": Index(
        "NDVI", (800.0, 670.0), lambda a, b: (a - b) / (a + b), "(R800 - R670) / (R800 + R670) (Rouse et al. 1974)"
    ),
    "pri": Index(
        "PRI", (531.0, 570.0), lambda a, b: (a - b) / (a + b), "(R531 - R570) / (R531 + R570) (Gamon et al. 1992)"
    ),
    "water_index": Index("Water index", (900.0, 970.0), lambda a, b: a / b, "R900 / R970 (Penuelas et al. 1993)"),
}


def index_values(name: str, spectra: NDArray[np.floating], wavelengths: Array) -> Array:
    """An index of some spectra; NaN where the denominator is not positive.

    Args:
        name: key of INDICES.
        spectra: shape (N, band).
        wavelengths: of the bands [nm].
    """
    index = INDICES[name]
    at = [spectra[:, int(np.argmin(np.abs(wavelengths - w)))].astype(np.float64) for w in index.wavelengths]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = index.formula(*at)
    return np.asarray(np.where(np.isfinite(found), found, np.nan))


def missing(name: str, wavelengths: Array) -> str:
    """Why an instrument does not get an index; "" where it does."""
    absent = [w for w in INDICES[name].wavelengths if np.abs(wavelengths - w).min() > TOLERANCE]
    if not absent:
        return ""
    listed = " and ".join(f"{w:.0f}" for w in absent)
    return f"needs {listed} nm, and the bands are {wavelengths[0]:.0f} to {wavelengths[-1]:.0f} nm"
