"""Images in MATLAB files: a cube (rows, columns, bands), or a matrix (bands, pixels) whose shape the user gives.

Contract: files of versions 4 to 7.2 are read whole, through SciPy; the last one read stays at hand. Version 7.3 is HDF5
and read window by window. Pixels of a matrix run down the columns of the image, as MATLAB's reshape takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.readers.raw_image import RawImage, nanometres

_HDF5 = b"\x89HDF\r\n\x1a\n"
_WAVELENGTHS = ("wavelength", "wavelengths", "wl", "lambda")


def open_matlab(path: Path, *, variable: str | None, shape: tuple[int, int] | None) -> RawImage:
    """Open an image in a MATLAB file.

    Args:
        path: file.
        variable: name of the array; None takes the only one that can be an image.
        shape: rows and columns of a matrix of bands x pixels; None for a cube.

    Raises:
        ValueError: no file of MATLAB, no such array, or a matrix of another number of pixels.
    """
    if _is_hdf5(path):
        from preprocess.imaging.readers.labelled import open_matlab_hdf5

        return open_matlab_hdf5(path, variable=variable)
    arrays = _arrays(path)
    name = _image_name(arrays, variable, dims=2 if shape else 3, path=path)
    cube = _cube(arrays[name], shape, name=name, path=path)
    vectors = {key.lower(): value.ravel() for key, value in arrays.items() if value.size == cube.shape[0] != value.ndim}
    found = next((vectors[key] for key in _WAVELENGTHS if key in vectors), None)
    return RawImage(
        path=path,
        rows=cube.shape[1],
        columns=cube.shape[2],
        bands=cube.shape[0],
        dtype=cube.dtype,
        window=_Window(path, name, shape),
        wavelengths=None if found is None else nanometres(found, None, origin=str(path)),
    )


class _Window:
    """Reads pieces of a cube."""

    def __init__(self, path: Path, name: str, shape: tuple[int, int] | None) -> None:
        self.path, self.name, self.shape = path, name, shape

    def __call__(self, rows: slice, columns: slice, bands: Sequence[int]) -> NDArray[Any]:
        cube = _cube(_arrays(self.path)[self.name], self.shape, name=self.name, path=self.path)
        return np.array(cube[:, rows, columns][list(bands)])


def _is_hdf5(path: Path) -> bool:
    """Whether the file is HDF5, which in MATLAB's files begins after 512 bytes."""
    with path.open("rb") as file:
        head = file.read(512 + len(_HDF5))
    return head.startswith(_HDF5) or head[512:] == _HDF5


@lru_cache(maxsize=1)
def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of numbers in a file."""
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # any complaint of the reader's
        raise ValueError(f"{path} must be a MATLAB file, got {type(error).__name__}: {error}") from None
    return {k: v for k, v in content.items() if isinstance(v, np.ndarray) and v.dtype.kind in "iuf"}


def _image_name(arrays: dict[str, NDArray[Any]], variable: str | None, *, dims: int, path: Path) -> str:
    fitting = [name for name, value in arrays.items() if value.ndim == dims and min(value.shape) > 1]
    listed = ", ".join(f"{name} {' x '.join(map(str, value.shape))}" for name, value in arrays.items()) or "none"
    what = "a cube (rows, columns, bands)" if dims == 3 else "a matrix (bands, pixels), as source.shape says"
    if variable is not None:
        if variable not in fitting:
            raise ValueError(f"source.variable must name {what} in {path}, got {variable!r}; it has {listed}")
        return variable
    if len(fitting) != 1:
        remedy = "name it in source.variable" if fitting else "for a matrix (bands, pixels) give source.shape"
        raise ValueError(f"{path} must have one array that is {what}, got {len(fitting)} among {listed}; {remedy}")
    return fitting[0]


def _cube(array: NDArray[Any], shape: tuple[int, int] | None, *, name: str, path: Path) -> NDArray[Any]:
    """The array as (band, row, column)."""
    if shape is None:
        return np.moveaxis(array, 2, 0)
    rows, columns = shape
    if array.shape[1] != rows * columns:
        raise ValueError(
            f"source.shape must be rows and columns of {name!r} in {path}, which has {array.shape[1]} pixels, got "
            f"{rows} x {columns}"
        )
    return array.reshape(array.shape[0], columns, rows).transpose(0, 2, 1)
