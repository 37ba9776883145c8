"""One image, or one block of a scene, read as reflectance in the bands of the store.

Contract: windows are read when they are asked for; nothing is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.bands import Resampling
from pipeline.imaging.image_store import ImageSize
from preprocess.imaging.calibrate import Calibration
from preprocess.imaging.readers.raw_image import RawImage

_SAMPLE_BANDS = 8
_SAMPLE_PIXELS = 16
"""Rows, and columns, of a sample."""
_SEARCH_ROWS = 64
"""Rows read at once where a sample has nothing."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of the store before it is read.

    Attributes:
        name: unique among all.
        raw: the file.
        calibrate: what makes reflectance of it.
        resample: how its bands become those of the store.
        row, column: where in the file it begins, pixels.
        rows, columns: its size, pixels.
    """

    name: str
    raw: RawImage
    calibrate: Calibration
    resample: Resampling
    row: int
    column: int
    rows: int
    columns: int

    @property
    def size(self) -> ImageSize:
        """For the store."""
        return ImageSize(self.name, self.rows, self.columns)

    def read(self, rows: slice, columns: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance and validity (band, y, x) of a piece, in the bands of the store.

        Args:
            rows: of the image, not beyond its end.
            columns: the same.
        """
        return self.resample(*self._raw(rows, columns, self.resample.used))

    def tile(self, row: int, column: int, *, size: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """A tile (band, size, size), padded with pixels that are not valid where the image ends."""
        bands = self.resample.wavelengths.size
        values, valid = np.full((bands, size, size), np.nan, np.float32), np.zeros((bands, size, size), np.bool_)
        rows, columns = slice(row, min(row + size, self.rows)), slice(column, min(column + size, self.columns))
        place = (slice(None), slice(0, rows.stop - row), slice(0, columns.stop - column))
        values[place], valid[place] = self.read(rows, columns)
        return values, valid

    def sample(self) -> NDArray[np.float32]:
        """Some valid values from all over the image in some bands of the file; empty only where no value is valid."""
        used = self.resample.used
        bands = [used[i] for i in np.unique(np.linspace(0, len(used) - 1, _SAMPLE_BANDS).astype(int))]
        steps = (max(1, self.rows // _SAMPLE_PIXELS), max(1, self.columns // _SAMPLE_PIXELS))
        values, valid = self._raw(slice(0, self.rows, steps[0]), slice(0, self.columns, steps[1]), bands)
        if valid.any():
            return values[valid]
        for first in range(0, self.rows, _SEARCH_ROWS):
            values, valid = self.read(slice(first, min(first + _SEARCH_ROWS, self.rows)), slice(0, self.columns))
            if valid.any():
                return values[valid]
        return np.empty(0, np.float32)

    def _raw(
        self, rows: slice, columns: slice, bands: tuple[int, ...] | list[int]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Reflectance and validity in bands of the file."""
        y = slice(self.row + rows.start, self.row + rows.stop, rows.step)
        x = slice(self.column + columns.start, self.column + columns.stop, columns.step)
        return self.calibrate(self.raw.window(y, x, bands), bands=bands, columns=x)
