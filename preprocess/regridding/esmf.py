"""Regridding weights computed by ESMF through xESMF, where the conda environment has them.

Contract: `esmf_weights` gives the same matrix shape, cell order and row sums as
`preprocess.regridding.weights`, and refuses the same grid pairs. xESMF is imported on the first call only;
importing this module never fails. ESMF cannot be installed from PyPI: see environment.yml.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import xarray as xr

from pipeline.grid import Grid
from preprocess.regridding.weights import METHODS, Method, Weights, canonical, check_coverage

_NAMES = {"bilinear": "bilinear", "conservative": "conservative", "nearest": "nearest_s2d"}
_NOISE = 1e-12
"""Weights below this are rounding in ESMF's solver (up to 7e-15 seen); kept, they would carry NaNs further."""


def is_available() -> bool:
    """Whether xESMF and the ESMF library beneath it can be imported."""
    try:
        importlib.import_module("xesmf")
    except ImportError:
        return False
    return True


def require() -> None:
    """Refuse to continue without xESMF.

    Raises:
        ValueError: it cannot be imported; the message says where to get it.
    """
    if not is_available():
        raise ValueError(
            "regrid engine 'xesmf' must have xESMF installed, got an environment without it; "
            "create the conda environment from environment.yml, or choose engine: builtin"
        )


def version() -> str:
    """Versions of xESMF and of ESMF's Python interface, for contracts and cache keys."""
    parts = []
    for name in ("xesmf", "esmpy"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        parts.append(f"{name} {getattr(module, '__version__', 'unknown')}")
    return ", ".join(parts)


def esmf_weights(source: Grid, target: Grid, *, method: Method) -> Weights:
    """Weights of one method as ESMF computes them.

    Columns that close the circle are declared periodic, so ESMF interpolates across the seam and
    makes an artificial pole (the mean of the last row) above a source without rows on the poles.
    For conservative weights xESMF ignores `periodic` and needs the cell edges; ESMF then joins cell
    corners by great circles, which is why these weights differ from the built-in ones.

    Args:
        source: grid of the field read.
        target: grid of the result.
        method: "bilinear", "conservative" or "nearest" (ESMF's nearest_s2d).

    Returns:
        Matrix of shape (target.size, source.size), float64, cells row-major (latitude, longitude).

    Raises:
        ValueError: xESMF is not installed, the method is unknown, the source does not cover the
            target, or ESMF left target cells without a full set of weights.
    """
    if method not in _NAMES:
        raise ValueError(f"regrid method must be one of {', '.join(METHODS)}, got {method!r}")
    require()
    check_coverage(source, target, method=method)
    xesmf = importlib.import_module("xesmf")
    edges = method == "conservative"
    regridder = xesmf.Regridder(
        _coordinates(source, edges=edges),
        _coordinates(target, edges=edges),
        _NAMES[method],
        periodic=source.is_periodic and not edges,
    )
    return _extract(regridder.weights, source=source, target=target)


def _coordinates(grid: Grid, *, edges: bool) -> xr.Dataset:
    """A grid as xESMF reads it: lat and lon, and for conservative weights lat_b and lon_b."""
    coords: dict[str, Any] = {"lat": ("lat", grid.latitude), "lon": ("lon", grid.longitude)}
    if edges:
        coords |= {"lat_b": ("lat_b", grid.latitude_edges), "lon_b": ("lon_b", grid.longitude_edges)}
    return xr.Dataset(coords=coords)


def _extract(weights: Any, *, source: Grid, target: Grid) -> Weights:
    """CSR from xESMF's weights: a DataArray (out_dim, in_dim) around a `sparse.COO`.

    xESMF hands ESMF the transposed (Fortran-ordered) coordinates, so its flat cell numbers are
    already row-major (latitude, longitude) in the order given.
    """
    entries = weights.data
    row, column = np.asarray(entries.coords)
    value = np.asarray(entries.data, dtype=np.float64)
    keep = np.abs(value) > _NOISE
    shape = (target.size, source.size)
    if tuple(entries.shape) != shape:
        raise ValueError(f"xESMF weights must have shape {shape}, got {tuple(entries.shape)}; check xESMF's version")
    out = canonical(Weights((value[keep], (row[keep], column[keep])), shape=shape))
    wrong = np.flatnonzero(np.abs(out.sum(axis=1) - 1.0) > 1e-9)
    if wrong.size:
        i, j = divmod(int(wrong[0]), target.longitude.size)
        raise ValueError(
            f"every target cell must get weights that sum to 1 from ESMF, got {wrong.size} of {target.size} that do "
            f"not (first at latitude {target.latitude[i]:g}, longitude {target.longitude[j]:g}); use engine: builtin"
        )
    return out
