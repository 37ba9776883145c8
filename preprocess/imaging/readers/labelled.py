"""Images in NetCDF and Zarr, with named dimensions, and in MATLAB 7.3 files: HDF5 with the dimensions reversed.

Contract: an image is an array of three dimensions. In NetCDF and Zarr one of them has a coordinate of wavelengths; the
other two are rows and columns in the order of the array, unless they are called x and y or the like. Packed values and
fill values are unpacked as CF says.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from preprocess.imaging.readers.raw_image import RawImage, nanometres

_WAVELENGTHS = ("wavelength", "wavelengths", "wl", "lambda", "wave", "band_wavelength", "sensor_band_wavelength")
"""What a coordinate of wavelengths may be called."""
_WIDTHS = ("fwhm", "sensor_band_fwhm", "bandwidth")
_COLUMNS = ("x", "column", "columns", "col", "sample", "samples", "longitude", "lon", "easting")
_GOOD = ("good_wavelengths", "bbl", "sensor_band_good")
"""What an array of 1 for good and 0 for bad bands may be called."""

_NETCDF = threading.Lock()  # the NetCDF library may be used by one thread only


def open_labelled(path: Path, *, variable: str | None) -> RawImage:
    """Open an image in NetCDF or Zarr.

    Args:
        path: file or folder.
        variable: name of the array; None takes the only one that can be an image.

    Raises:
        ValueError: it cannot be opened, or no array in it can be the image.
    """
    with _opened(path) as ds:
        cube = ds[_image_name(ds, variable, path=path)]
        band_dim, found = _wavelengths(ds, cube, path=path)
        rows, columns = [dim for dim in cube.dims if dim != band_dim]
        if str(rows).lower() in _COLUMNS:
            rows, columns = columns, rows
        widths = _beside(ds, _WIDTHS, band_dim)
        good = _beside(ds, _GOOD, band_dim)
        unit = str(found.attrs.get("units", "")) if found is not None else ""
        return RawImage(
            path=path,
            rows=cube.sizes[rows],
            columns=cube.sizes[columns],
            bands=cube.sizes[band_dim],
            dtype=cube.dtype,
            window=_Window(path, str(cube.name), (str(band_dim), str(rows), str(columns))),
            wavelengths=None if found is None else nanometres(found.values, unit, origin=str(path)),
            fwhm=None
            if widths is None
            else nanometres(widths.values, widths.attrs.get("units", unit), origin=str(path)),
            bad={}
            if good is None
            else {int(i): f"marked as bad in {good.name}" for i in np.flatnonzero(good.values == 0)},
            scale=_scale(cube),
            ignore=None,
        )


def open_matlab_hdf5(path: Path, *, variable: str | None) -> RawImage:
    """Open an image in a MATLAB 7.3 file, rows x columns x bands in MATLAB's order."""
    with _opened(path) as ds:
        cube = ds[_image_name(ds, variable, path=path)]
        bands, columns, rows = (str(dim) for dim in cube.dims)
        vectors = {str(name): np.squeeze(ds[name].values) for name in ds.variables if ds[name].size == cube.shape[0]}
        named = [vectors[name] for name in vectors if name.lower() in _WAVELENGTHS]
        return RawImage(
            path=path,
            rows=cube.sizes[rows],
            columns=cube.sizes[columns],
            bands=cube.sizes[bands],
            dtype=cube.dtype,
            window=_Window(path, str(cube.name), (bands, rows, columns)),
            wavelengths=nanometres(named[0], None, origin=str(path)) if named else None,
        )


class _Window:
    """Reads pieces of an array."""

    def __init__(self, path: Path, name: str, dims: tuple[str, str, str]) -> None:
        self.path, self.name, self.dims = path, name, dims

    def __call__(self, rows: slice, columns: slice, bands: Sequence[int]) -> NDArray[Any]:
        band, y, x = self.dims
        with _opened(self.path) as ds:
            piece = ds[self.name].isel({y: rows, x: columns, band: slice(bands[0], bands[-1] + 1)})
            values = piece.transpose(band, y, x).values
        return np.asarray(values[[i - bands[0] for i in bands]])


class _opened:  # noqa: N801 - used as a function
    """A dataset, open for a while; NetCDF files by one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> xr.Dataset:
        _NETCDF.acquire()
        try:
            if self.path.is_dir():
                self.ds: xr.Dataset = xr.open_zarr(self.path, chunks=None)
            else:
                self.ds = xr.open_dataset(self.path, engine="netcdf4", chunks=None, decode_times=False)
        except Exception as error:  # any complaint of any reader
            _NETCDF.release()
            raise ValueError(
                f"{self.path} must be a readable image, got {type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from None
        return self.ds

    def __exit__(self, *exc: object) -> None:
        self.ds.close()
        _NETCDF.release()


def _image_name(ds: xr.Dataset, variable: str | None, *, path: Path) -> str:
    """The array that is the image."""
    cubes = [str(name) for name, array in ds.data_vars.items() if array.ndim == 3 and array.dtype.kind in "iuf"]
    if variable is not None and variable in cubes:
        return variable
    listed = ", ".join(cubes) or "none"
    if variable is not None:
        raise ValueError(
            f"source.variable must name an array of three dimensions in {path}, got {variable!r}; it has {listed}"
        )
    if len(cubes) != 1:
        raise ValueError(
            f"{path} must have one array of three dimensions, got {len(cubes)}: {listed}; name one in source.variable"
        )
    return cubes[0]


def _wavelengths(ds: xr.Dataset, cube: xr.DataArray, *, path: Path) -> tuple[Any, xr.DataArray | None]:
    """The dimension of the bands and their wavelengths."""
    for dim in cube.dims:
        for name in (*_WAVELENGTHS, str(dim)):
            if name in ds.variables and ds[name].dims == (dim,) and (name in _WAVELENGTHS or _is_length(ds[name])):
                return dim, ds[name]
    for dim in cube.dims:
        if str(dim).lower() in (*_WAVELENGTHS, "band", "bands"):
            return dim, None
    raise ValueError(
        f"image {cube.name!r} of {path} must have a dimension with a coordinate 'wavelength', or one called 'band', "
        f"got {', '.join(map(str, cube.dims))}"
    )


def _is_length(array: xr.DataArray) -> bool:
    return str(array.attrs.get("units", "")).lower() in ("nm", "um", "nanometers", "nanometres", "micrometers")


def _beside(ds: xr.Dataset, names: Sequence[str], dim: Any) -> xr.DataArray | None:
    return next((ds[name] for name in names if name in ds.variables and ds[name].dims == (dim,)), None)


def _scale(cube: xr.DataArray) -> float | None:
    """Factor to reflectance that the unit tells: none for 1, a hundredth for per cent."""
    return 0.01 if str(cube.attrs.get("units", "")).strip().lower() in ("%", "percent", "per cent") else None
