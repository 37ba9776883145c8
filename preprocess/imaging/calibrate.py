"""From what files hold to reflectance, and which values count.

Contract: reflectance is value x scale, or (value - dark) / (white - dark) x the panel's reflectance where references
are given: the mean over the lines of each reference, column by column, as a line scanner needs it. A value is not valid
where it is no number, the file's value for no data, saturated, or where the references leave nothing to divide by; it
is then NaN, never filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.sections import ImageWords, References
from preprocess.imaging.readers.opening import read_file
from preprocess.imaging.readers.raw_image import RawImage

Line = NDArray[np.float64]
"""(band, column)."""
_LINES = 64
"""Lines of a reference read at once."""


@dataclass(frozen=True)
class Panel:
    """Dark and white reference of an image; read when they are needed, since every image may have its own.

    Args:
        dark: file of the dark reference.
        white: file of the white reference.
        reflectance: of the panel.
        saturation, ignore, variable: see `ImageWords`.
    """

    dark: Path
    white: Path
    reflectance: float
    saturation: float | None
    ignore: float | None
    variable: str | None

    def lines(self) -> tuple[Line, Line]:
        """Signal without light, and reflectance of one count above it: NaN where it cannot be known.

        Raises:
            ValueError: a file that cannot be read.
        """
        return _lines(self)


@dataclass(frozen=True)
class Calibration:
    """How values of an image become reflectance.

    Attributes:
        scale: factor, where there is no panel.
        ignore: value that means no data.
        ceiling: value from which on a pixel is saturated.
        panel: dark and white reference.
    """

    scale: float = 1.0
    ignore: float | None = None
    ceiling: float | None = None
    panel: Panel | None = None

    def __call__(
        self, raw: NDArray[Any], *, bands: Sequence[int], columns: slice
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance and validity (band, y, x).

        Args:
            raw: values (band, y, x) of the file.
            bands: their positions in the file.
            columns: of the image, which the values are from.
        """
        values = raw.astype(np.float64)
        valid = self.counts(raw)
        if self.panel is None:
            values *= self.scale
        else:
            for factor, apply in zip(self.panel.lines(), (np.subtract, np.multiply), strict=True):
                line = factor[list(bands)]
                apply(values, (line if line.shape[1] == 1 else line[:, columns])[:, None], out=values)
            valid &= np.isfinite(values)
        values[~valid] = np.nan
        return values.astype(np.float32), valid

    def counts(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values of a file are numbers, data, and not saturated."""
        valid = np.isfinite(raw)
        if self.ignore is not None:
            valid &= raw != (raw.dtype.type(self.ignore) if raw.dtype.kind == "f" else self.ignore)
        if self.ceiling is not None:
            valid &= raw < self.ceiling
        return np.asarray(valid)


def calibration(raw: RawImage, source: ImageWords) -> Calibration:
    """The calibration of an image.

    Raises:
        ValueError: references of another size or of an image that is reflectance already.
    """
    ignore = raw.ignore if source.ignore is None else source.ignore
    ceiling = _ceiling(raw, source.saturation)
    given = source.references
    if given is None:
        return Calibration(source.scale or raw.scale or 1.0, ignore, ceiling)
    if raw.scale is not None:
        raise ValueError(
            f"source.references must be absent for images of reflectance, got a reflectance scale factor in {raw.path}"
        )
    dark, white = reference_paths(raw.path, given)
    for path in (dark, white):
        _require_size(raw, path, source)
    panel = Panel(dark, white, given.white_reflectance, source.saturation, source.ignore, source.variable)
    return Calibration(1.0, ignore, ceiling, panel)


def _ceiling(raw: RawImage, saturation: float | None) -> float | None:
    """The value from which on a pixel is saturated: the largest of an integer type if nothing else is known."""
    if saturation is not None:
        return saturation
    return float(np.iinfo(raw.dtype).max) if raw.dtype.kind in "iu" else None


def reference_paths(path: Path, references: References) -> tuple[Path, Path]:
    """Files of the dark and the white reference of an image: their names may hold {folder} and {name}, the image's."""
    dark, white = (
        Path(name.replace("{folder}", str(path.parent)).replace("{name}", path.stem)).expanduser()
        for name in (references.dark, references.white)
    )
    return dark, white


def _require_size(raw: RawImage, path: Path, source: ImageWords) -> None:
    """Refuse a reference of another scanner or binning."""
    if not path.exists():
        raise ValueError(f"source.references must name files that exist, got nothing at {path} for {raw.path}")
    bands, columns = _size(path, source.variable)
    if bands != raw.bands or columns not in (1, raw.columns):
        raise ValueError(
            f"reference {path} must have the columns and bands of {raw.path}, {raw.columns} x {raw.bands}, got "
            f"{columns} x {bands}; use the references of the same scanner, settings and binning"
        )


@lru_cache(maxsize=8)
def _size(path: Path, variable: str | None) -> tuple[int, int]:
    raw = read_file(path, ImageWords(variable=variable))
    return raw.bands, raw.columns


@lru_cache(maxsize=8)
def _lines(panel: Panel) -> tuple[Line, Line]:
    """See `Panel.lines`; images that share references share the arrays."""
    dark, white = (_mean_line(path, panel) for path in (panel.dark, panel.white))
    with np.errstate(divide="ignore", invalid="ignore"):
        return dark, np.where(white > dark, panel.reflectance / (white - dark), np.nan)


def _mean_line(path: Path, panel: Panel) -> Line:
    """(band, column) mean over the lines of a reference that count; NaN where none does."""
    raw = read_file(path, ImageWords(variable=panel.variable))
    ignore = raw.ignore if panel.ignore is None else panel.ignore
    counts = Calibration(ignore=ignore, ceiling=_ceiling(raw, panel.saturation)).counts
    total, number = np.zeros((raw.bands, raw.columns)), np.zeros((raw.bands, raw.columns))
    for first in range(0, raw.rows, _LINES):
        values = raw.window(slice(first, min(first + _LINES, raw.rows)), slice(0, raw.columns), range(raw.bands))
        good = counts(values)
        total += np.where(good, values, 0).sum(axis=1, dtype=np.float64)
        number += good.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / number)
