"""A hyperspectral image as its file holds it, and the units in which files give wavelengths.

Contract: a reader gives geometry, wavelengths in nanometres and what the header says about values; pixels are read
window by window, so that an image may be larger than memory. No value is changed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Window = Callable[[slice, slice, Sequence[int]], NDArray[Any]]
"""(rows, columns, positions of bands) -> values (band, y, x) in the type of the file; slices may have steps."""

_NANOMETRES = {
    "nm": 1.0, "nanometer": 1.0, "nanometers": 1.0, "nanometre": 1.0, "nanometres": 1.0,
    "um": 1e3, "micrometer": 1e3, "micrometers": 1e3, "micrometre": 1e3, "micrometres": 1e3, "micron": 1e3,
    "microns": 1e3, "angstrom": 0.1, "angstroms": 0.1, "m": 1e9, "meter": 1e9, "metre": 1e9,
}  # fmt: skip
"""Unit of a wavelength -> nanometres."""
_MICROMETRES_BELOW = 100.0
"""Wavelengths without a unit that all lie below are micrometres: 0.4 to 14 of optical sensors, against 400 to 14000."""


@dataclass(frozen=True, eq=False)
class RawImage:
    """An image before calibration.

    Attributes:
        path: of the file that was named: header, .mat, .nc or .zarr.
        rows: lines of the scan.
        columns: samples of a line.
        bands: number of bands.
        dtype: of the values.
        window: reads a piece.
        wavelengths: of the bands [nm]; None where the file has none.
        fwhm: widths of the bands [nm]; None where the file has none.
        bad: position of a band -> why it is not to be used.
        scale: factor to reflectance; None where the file does not say.
        ignore: value that means no data; None where the file does not say.
    """

    path: Path
    rows: int
    columns: int
    bands: int
    dtype: np.dtype[Any]
    window: Window
    wavelengths: NDArray[np.float64] | None = None
    fwhm: NDArray[np.float64] | None = None
    bad: Mapping[int, str] = field(default_factory=dict)
    scale: float | None = None
    ignore: float | None = None


def nanometres(values: Sequence[float] | NDArray[Any], unit: str | None, *, origin: str) -> NDArray[np.float64]:
    """Wavelengths or widths in nanometres.

    Args:
        values: as the file has them.
        unit: as the file has it; None or "unknown" takes micrometres for small numbers.
        origin: what messages call the file.

    Raises:
        ValueError: a unit that is none of length.
    """
    numbers = np.asarray(values, np.float64)
    name = (unit or "").strip().lower().replace("µ", "u").replace("μ", "u")
    if name in ("", "unknown"):
        return numbers * (1e3 if numbers.size and numbers.max() < _MICROMETRES_BELOW else 1.0)
    if name not in _NANOMETRES:
        raise ValueError(
            f"unit of the wavelengths of {origin} must be nm, um, angstrom or m, got {unit!r}; correct the file"
        )
    return numbers * _NANOMETRES[name]
