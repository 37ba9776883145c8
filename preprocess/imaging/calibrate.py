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

from pipeline.imaging.sections import ImageWords
from preprocess.imaging.readers.opening import read_file
from preprocess.imaging.readers.raw_image import RawImage

Line = NDArray[np.float64]
"""(band, column)."""
_LINES = 64
"""Lines of a reference read at once."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """How values of an image become reflectance.

    Attributes:
        scale: factor, where there are no references.
        ignore: value that means no data.
        ceiling: value from which on a pixel is saturated.
        dark: (band, column) signal without light.
        gain: (band, column) reflectance of one count above it; NaN where it cannot be known.
    """

    scale: float = 1.0
    ignore: float | None = None
    ceiling: float | None = None
    dark: Line | None = None
    gain: Line | None = None

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
        if self.dark is None or self.gain is None:
            values *= self.scale
        else:
            chosen = list(bands)
            values -= self.dark[chosen][:, None, columns]
            values *= self.gain[chosen][:, None, columns]
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
    plain = Calibration(
        scale=source.scale or raw.scale or 1.0,
        ignore=raw.ignore if source.ignore is None else source.ignore,
        ceiling=_ceiling(raw, source),
    )
    if source.references is None:
        return plain
    if raw.scale is not None:
        raise ValueError(
            f"source.references must be absent for images of reflectance, got a reflectance scale factor in {raw.path}"
        )
    dark, white = (_reference(raw, name, source) for name in (source.references.dark, source.references.white))
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(white > dark, source.references.white_reflectance / (white - dark), np.nan)
    return Calibration(ignore=plain.ignore, ceiling=plain.ceiling, dark=dark, gain=gain)


def _ceiling(raw: RawImage, source: ImageWords) -> float | None:
    """The value from which on a pixel is saturated: the largest of an integer type if nothing else is known."""
    if source.saturation is not None:
        return source.saturation
    return float(np.iinfo(raw.dtype).max) if raw.dtype.kind in "iu" else None


def reference_path(raw: RawImage, name: str) -> Path:
    """The file of a reference: its name may hold {folder} and {name}, those of the image."""
    return Path(name.replace("{folder}", str(raw.path.parent)).replace("{name}", raw.path.stem)).expanduser()


def _reference(raw: RawImage, name: str, source: ImageWords) -> Line:
    """(band, column) mean over the lines of a reference."""
    path = reference_path(raw, name)
    if not path.exists():
        raise ValueError(f"source.references must name files that exist, got nothing at {path} for {raw.path}")
    mean = _mean_line(path, source.saturation, source.ignore, source.variable)
    bands, columns = mean.shape
    if bands != raw.bands or columns not in (1, raw.columns):
        raise ValueError(
            f"reference {path} must have the columns and bands of {raw.path}, {raw.columns} x {raw.bands}, got "
            f"{columns} x {bands}; use the references of the same scanner, settings and binning"
        )
    return np.broadcast_to(mean, (raw.bands, raw.columns))


@lru_cache(maxsize=8)
def _mean_line(path: Path, saturation: float | None, ignore: float | None, variable: str | None) -> Line:
    """The same for every image that has this reference; NaN where no line counts."""
    words = ImageWords(variable=variable, saturation=saturation, ignore=ignore)
    raw = read_file(path, words)
    counts = Calibration(ignore=raw.ignore if ignore is None else ignore, ceiling=_ceiling(raw, words)).counts
    total, number = np.zeros((raw.bands, raw.columns)), np.zeros((raw.bands, raw.columns))
    for first in range(0, raw.rows, _LINES):
        values = raw.window(slice(first, min(first + _LINES, raw.rows)), slice(0, raw.columns), range(raw.bands))
        good = counts(values)
        total += np.where(good, values, 0).sum(axis=1, dtype=np.float64)
        number += good.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(total / number)
