"""ENVI images: a text header and a file of binary numbers, read through the `spectral` package.

Contract: any interleave, data type and byte order that ENVI has and that are real numbers. Nothing stays open between
two windows, so that hundreds of images can be at hand. The header's lists `wavelength`, `fwhm` and `bbl` (1 for a good
band, 0 for a bad one), `reflectance scale factor` (values are reflectance times it) and `data ignore value` are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.readers.raw_image import RawImage, nanometres

_BAD = "marked as bad in the header (bbl)"


def open_envi(path: Path) -> RawImage:
    """Open an ENVI image by its header.

    Raises:
        ValueError: no header of ENVI, no data file, a data file shorter than the header says, or a field that cannot be
            read.
    """
    image = _open(path)
    header: Mapping[str, Any] = image.metadata
    rows, columns, bands = (int(size) for size in image.shape)
    dtype, needed = np.dtype(image.dtype), image.offset + rows * columns * bands * image.sample_size
    data = Path(image.filename)
    _require_plain(path, header, dtype)
    if (found := data.stat().st_size) < needed:
        raise ValueError(
            f"data file {data} must hold what {path.name} says, {rows} lines x {columns} samples x {bands} bands in "
            f"{needed} bytes, got {found} bytes; copy it again, or correct the header"
        )
    unit = header.get("wavelength units")
    wavelengths, widths = (_numbers(path, header, key, count=bands) for key in ("wavelength", "fwhm"))
    good, factor = _numbers(path, header, "bbl", count=bands), _number(path, header, "reflectance scale factor")
    if factor is not None and not factor > 0:
        raise ValueError(f"reflectance scale factor of {path} must be above 0, got {factor:g}; correct the header")
    in_nm = None if wavelengths is None else nanometres(wavelengths, unit, origin=str(path))
    factor_nm = 1.0 if wavelengths is None or in_nm is None else float(in_nm[0] / wavelengths[0])
    return RawImage(
        path=path,
        rows=rows,
        columns=columns,
        bands=bands,
        dtype=dtype,
        window=_Window(path),
        wavelengths=in_nm,
        fwhm=None if widths is None else widths * factor_nm,
        bad={} if good is None else {int(i): _BAD for i in np.flatnonzero(good == 0)},
        scale=None if factor is None else 1.0 / factor,
        ignore=_number(path, header, "data ignore value"),
    )


class _Window:
    """Reads pieces of an image, which is opened for each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, rows: slice, columns: slice, bands: Sequence[int]) -> NDArray[Any]:
        cube = _open(self.path).open_memmap(interleave="bsq")
        return np.array(cube[:, rows, columns][_span(bands)])


def _span(bands: Sequence[int]) -> slice | list[int]:
    """A slice where the bands follow one another, which is read without a copy of what lies between."""
    first, last = bands[0], bands[-1]
    return slice(first, last + 1) if last - first + 1 == len(bands) else list(bands)


def _open(path: Path) -> Any:
    """The library's image, which has read the header and found the data file."""
    from spectral.io import envi

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are not lower case
            _require_image(path, envi.read_envi_header(str(path)))
            return envi.open(str(path.absolute()))
    except _NotAnImageError as error:
        raise ValueError(str(error)) from None
    except envi.EnviDataFileNotFoundError:
        raise ValueError(
            f"header {path} must have its data file beside it, under the same name with .img, .dat, .raw, .bin, "
            ".hyspex, its interleave or nothing in place of .hdr; got none"
        ) from None
    except (envi.EnviException, ValueError, KeyError, OverflowError) as error:
        reason = " ".join((str(error) or type(error).__name__).split())
        raise ValueError(f"{path} must be the header of an ENVI image, got a fault: {reason}") from None


class _NotAnImageError(Exception):
    """A header of something else, or of a layout that there is not, which the library takes for another one."""


def _require_image(path: Path, header: Mapping[str, Any]) -> None:
    if "library" in str(header.get("file type", "")).lower():
        raise _NotAnImageError(f"{path} must be an image, got a spectral library")
    interleave = str(header.get("interleave", "bsq"))
    if interleave.lower() not in ("bil", "bip", "bsq"):
        raise _NotAnImageError(f"interleave of {path} must be bil, bip or bsq, got {interleave!r}")


def _require_plain(path: Path, header: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
    if dtype.kind == "c":
        raise ValueError(f"values of {path} must be real, got data type {header['data type']} ({dtype})")
    if str(header.get("file compression", "0")).strip() not in ("", "0"):
        raise ValueError(f"{path} must not be compressed, got file compression {header['file compression']}")


def _numbers(path: Path, header: Mapping[str, Any], key: str, *, count: int) -> NDArray[np.float64] | None:
    """A list of the header, one number for each band."""
    if key not in header:
        return None
    given = header[key]
    listed = [given] if isinstance(given, str) else list(given)
    try:
        values = np.array([float(item) for item in listed if str(item).strip()])
    except ValueError:
        raise ValueError(f"{key} of {path} must be numbers, got {str(given)[:80]}; correct the header") from None
    if values.size != count:
        raise ValueError(f"{key} of {path} must have one number for each of {count} bands, got {values.size}")
    return values


def _number(path: Path, header: Mapping[str, Any], key: str) -> float | None:
    try:
        return float(header[key]) if key in header else None
    except (TypeError, ValueError):
        raise ValueError(f"{key} of {path} must be a number, got {header[key]!r}; correct the header") from None
