"""Regridding of labelled data: one matrix of weights per grid pair, applied lazily block by block.

Contract: `regrid_weights` gives the matrix by either engine; `regrid` applies it to every variable
that has both latitude and longitude and passes the others through. The sum of each target cell is
taken in float64, one field at a time and in a fixed order, so a result depends neither on chunks
nor on workers. Wind components are interpolated as scalars, as the paper does.

A NaN in the source makes NaN of exactly those target cells that read it: nothing is filled.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from pipeline.grid import Grid
from preprocess.regridding import esmf
from preprocess.regridding.weights import METHODS, Method, Weights, builtin_weights
from preprocess.regridding.weights_file import content_digest, load_weights, write_weights

Engine = Literal["auto", "builtin", "xesmf"]

_HORIZONTAL = ("latitude", "longitude")
_FORMULAS = 1
"""Version of the built-in formulas: raise it when a weight changes, so that stored weights are computed again."""


def resolve_engine(engine: Engine) -> Literal["builtin", "xesmf"]:
    """The engine that "auto" stands for here: xESMF where it can be imported, else the built-in weights.

    Raises:
        ValueError: the engine is unknown, or xESMF was asked for and is not installed.
    """
    if engine not in ("auto", "builtin", "xesmf"):
        raise ValueError(f"regrid engine must be auto, builtin or xesmf, got {engine!r}")
    if engine == "xesmf":
        esmf.require()
    return "xesmf" if engine == "xesmf" or (engine == "auto" and esmf.is_available()) else "builtin"


def regrid_weights(source: Grid, target: Grid, *, method: Method, engine: Engine = "auto") -> Weights:
    """The regridding matrix W of a grid pair: y = W x for fields flattened row-major.

    Args:
        source: grid of x, in any latitude order and from any longitude on.
        target: grid of y, likewise.
        method: "bilinear" (the paper's), "conservative" (WeatherBench 2's) or "nearest".
        engine: "builtin" (preprocess.regridding.weights), "xesmf" (ESMF's own) or "auto".

    Returns:
        Matrix of shape (target.size, source.size), float64. Rows sum to 1; no weight is negative.

    Raises:
        ValueError: unknown method or engine, xESMF not installed, or a source that does not cover
            the target.
    """
    compute = esmf.esmf_weights if resolve_engine(engine) == "xesmf" else builtin_weights
    return compute(source, target, method=method)


def regrid(
    ds: xr.Dataset,
    *,
    target: Grid,
    method: Method,
    engine: Engine = "auto",
    weights_directory: Path | None = None,
) -> xr.Dataset:
    """Put every field of a dataset on another grid.

    Args:
        ds: dataset with one-dimensional coordinates latitude and longitude in degrees. Variables on
            Dask arrays stay lazy; blocks are joined along latitude and longitude if they are split.
        target: grid of the result.
        method: "bilinear", "conservative" or "nearest".
        engine: "auto", "builtin" or "xesmf".
        weights_directory: where to keep the weights by content (see `cached_weights`); workers then
            read them by path, and the graph carries no matrix.

    Returns:
        Dataset with the same variables, order, attributes and remaining coordinates, latitude and
        longitude being the last two dimensions of each field. Bilinear and conservative give
        float32 for bool, 8- and 16-bit integers and floats up to 32 bits, float64 for the rest;
        nearest copies values and keeps the dtype.

    Raises:
        ValueError: no latitude or longitude, a source that does not cover the target, or a variable
            that is not numeric or has only one of the two dimensions.
    """
    source = Grid.from_dataset(ds)
    _check_variables(ds, method=method)
    if weights_directory is None:
        stored: Weights | Path = regrid_weights(source, target, method=method, engine=engine)
    else:
        stored = cached_weights(source, target, method=method, engine=engine, directory=weights_directory)
    apply = Apply(stored, target=target, copy=method == "nearest")

    # Variables that pass through bring no horizontal coordinate of their own.
    variables = {
        name: apply.to_array(v) if set(_HORIZONTAL) <= set(v.dims) else v.drop_vars(_HORIZONTAL, errors="ignore")
        for name, v in ds.data_vars.items()
    }
    coords = {name: coord for name, coord in ds.coords.items() if name not in _HORIZONTAL}
    for name, values in zip(_HORIZONTAL, (target.latitude, target.longitude), strict=True):
        coords[name] = xr.DataArray(values, dims=name, attrs=ds[name].attrs)
    return xr.Dataset(variables, coords=coords, attrs=ds.attrs)


class Apply:
    """The product of one matrix with blocks of fields; safe to pickle, to share and to hash.

    Args:
        weights: the matrix, or the path of a file written by `cached_weights`.
        target: grid of the result.
        copy: take values by index instead of summing, which keeps any dtype (nearest).
    """

    def __init__(self, weights: Weights | Path, *, target: Grid, copy: bool) -> None:
        self.shape = target.shape
        self.copy = copy
        self._path = None if isinstance(weights, Weights) else str(weights)
        self._compact = _compact(weights) if isinstance(weights, Weights) else None
        identity = self._path if isinstance(weights, Path) else content_digest(weights)
        self._token = (identity, self.shape, copy)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("chagcast-regrid", *self._token)

    def __call__(self, block: NDArray[Any]) -> NDArray[Any]:
        """Fields (..., latitude, longitude) on the source grid -> (..., latitude, longitude) on the target grid."""
        columns, matrix = self._compact or _compact_from_file(str(self._path))
        lead = block.shape[:-2]
        out = np.empty((*lead, matrix.shape[0]), dtype=block.dtype if self.copy else weighted_dtype(block.dtype))
        for index in np.ndindex(lead):
            field = block[index].reshape(-1)
            needed = field if columns is None else field[columns]
            out[index] = needed[matrix.indices] if self.copy else matrix @ needed.astype(np.float64)
        return out.reshape(*lead, *self.shape)

    def to_array(self, array: xr.DataArray) -> xr.DataArray:
        """Apply to one variable, lazily if it is on Dask."""
        array = array.transpose(..., *_HORIZONTAL)
        if array.chunks is None:
            data: Any = self(array.values)
        else:
            array = array.chunk(dict.fromkeys(_HORIZONTAL, -1))
            # Block by block: apply_ufunc would copy every block to join it with its (absent) neighbours.
            data = array.data.map_blocks(
                self,
                dtype=array.dtype if self.copy else weighted_dtype(array.dtype),
                chunks=(*array.data.chunks[:-2], *((n,) for n in self.shape)),
                meta=np.empty((0,) * array.ndim, array.dtype if self.copy else weighted_dtype(array.dtype)),
            )
        coords = {name: c for name, c in array.coords.items() if not set(_HORIZONTAL) & set(c.dims)}
        return xr.DataArray(data, coords=coords, dims=array.dims, name=array.name, attrs=array.attrs)


def weighted_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Result type of a weighted sum: float32 where the source values fit into it exactly, else float64."""
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    fits = kind == "b" or (kind in "iu" and size <= 2) or (kind == "f" and size <= 4)
    return np.dtype(np.float32 if fits else np.float64)


def cached_weights(source: Grid, target: Grid, *, method: Method, engine: Engine = "auto", directory: Path) -> Path:
    """The file that holds the weights of a grid pair, computed on the first call and reused after.

    The name holds a hash of both grids, the method, the engine and its version, so a change of any
    of them makes another file, of the same format for both engines (`preprocess.regridding.weights_file`). A
    damaged file is replaced, with a warning.

    Args:
        source: grid read.
        target: grid of the result.
        method: "bilinear", "conservative" or "nearest".
        engine: "auto", "builtin" or "xesmf".
        directory: created if absent.

    Returns:
        Path of the file.

    Raises:
        ValueError: as `regrid_weights`.
    """
    used = resolve_engine(engine)
    about = {
        "formulas": _FORMULAS,
        "method": method,
        "engine": used,
        "version": esmf.version() if used == "xesmf" else "builtin",
        "source": source.digest,
        "target": target.digest,
    }
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(directory) / f"weights-{method}-{used}-{key}.npz"
    if path.exists():
        try:
            load_weights(path)
        except ValueError as error:
            warnings.warn(f"{error}; it is computed again", RuntimeWarning, stacklevel=2)
        else:
            return path
    weights = regrid_weights(source, target, method=method, engine=used)
    write_weights(path, weights, source=source, target=target, about=about)
    return path


def _compact(weights: Weights) -> tuple[NDArray[Any] | None, Weights]:
    """The matrix with only the columns it reads, and their numbers (None: it reads most of them)."""
    columns, position = np.unique(weights.indices, return_inverse=True)
    if columns.size > weights.shape[1] // 2:
        return None, weights
    entries = (weights.data, position.astype(np.int32), weights.indptr)
    return columns, Weights(entries, shape=(weights.shape[0], columns.size))


@lru_cache(maxsize=8)
def _compact_from_file(path: str) -> tuple[NDArray[Any] | None, Weights]:
    return _compact(load_weights(Path(path)))


def _check_variables(ds: xr.Dataset, *, method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"regrid method must be one of {', '.join(METHODS)}, got {method!r}")
    for axis in _HORIZONTAL:
        if ds[axis].dims != (axis,):
            raise ValueError(f"coordinate {axis!r} must be a dimension of the dataset, got it along {ds[axis].dims}")
    for name, variable in ds.variables.items():
        if name in _HORIZONTAL:
            continue
        present = [d for d in _HORIZONTAL if d in variable.dims]
        if present and name in ds.coords:
            raise ValueError(f"coordinate {name!r} must not depend on {present[0]} to be regridded; drop or reset it")
        if len(present) == 1:
            raise ValueError(
                f"variable {name!r} must have both latitude and longitude or neither, got {variable.dims}; drop it"
            )
        if present and method != "nearest" and variable.dtype.kind not in "biuf":
            raise ValueError(
                f"variable {name!r} must be numeric for {method} regridding, got {variable.dtype}; "
                "drop it or use method: nearest"
            )
