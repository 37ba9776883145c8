"""From any file's spelling to the catalogue's: names, units, dimensions.

Contract: fields are renamed and converted here and nowhere else, by the rules of `pipeline.weather.units` that the
survey looked up. `canonical` turns a surveyed raw
dataset into one whose variables have catalogue short names and canonical units, with dims (time, level,
latitude, longitude), (time, latitude, longitude) or, for static fields, (latitude, longitude); levels
are whole hPa in the order asked for; latitude keeps the file's order and longitude increases within one
turn. `checked` refuses, when the values are read, what is missing or not plausible. `align` puts equal
cells in another order. Everything is lazy where its input is.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import dask.array
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import variables as catalogue
from preprocess.decode.survey import FINAL, RawField, Survey, version_names

DIMS = ("time", "level", "latitude", "longitude")


def canonical(
    raw: xr.Dataset, survey: Survey, *, select: Mapping[str, Sequence[int]], static: bool = False
) -> xr.Dataset:
    """Rename, convert and order a raw dataset. Lazy where `raw` is.

    Args:
        raw: the surveyed dataset, or a selection of its times.
        survey: of the whole dataset.
        select: short names wanted, each with its levels in hPa (empty for a variable without levels).
        static: drop the time axis, keeping the first time (see `preprocess.sources.archive`).

    Returns:
        See the module's contract. Variables are in the order of `select`.

    """
    order = DIMS[2:] if static else DIMS
    variables = {}
    for short, levels in select.items():
        field = survey.fields[short]
        array = raw[field.name]
        array = array.isel({d: i for d, i in survey.picked.items() if d in array.dims}, drop=True)
        if survey.columns is not None:
            array = array.isel({survey.names["longitude"]: survey.columns})
        array = _one_version(array, survey.names)
        array = _pick_levels(array, field, levels)
        array = _rename(array, survey, field)
        if static:
            array = array.isel(time=0, drop=True) if "time" in array.dims else array.drop_vars("time", errors="ignore")
        elif "time" not in array.dims:
            array = array.expand_dims("time")
        assert field.to_canonical is not None, "a field without a unit is settled before it is read"
        array = field.to_canonical(array.squeeze([d for d in array.dims if d not in order], drop=True))
        spec = catalogue.BY_SHORT[short]
        variables[short] = array.transpose(*order, missing_dims="ignore").assign_attrs(
            {"units": spec.unit, "long_name": spec.label}
        )
    ds = xr.Dataset(variables)
    if survey.grid is not None:
        ds = ds.assign_coords(latitude=survey.grid.latitude, longitude=survey.grid.longitude)
    return ds


def checked(array: xr.DataArray, *, short: str, origin: str) -> xr.DataArray:
    """The same field, which raises when it is computed if a value is missing or not plausible.

    Args:
        array: canonical field with dims (time, [level,] latitude, longitude) or (latitude, longitude).
        short: catalogue short name.
        origin: file or address, for messages.

    Raises:
        ValueError: (when computed) naming variable, level, time, value and range.
    """
    levels = [None] if "level" not in array.dims else [int(p) for p in array["level"].values]
    array = array.transpose(*DIMS, missing_dims="ignore")

    def look(block: NDArray[Any], when: NDArray[np.datetime64]) -> NDArray[Any]:
        if block.size == 0:
            return block
        stack = block.reshape(when.size, len(levels), -1)
        for i, j in _suspects(stack, short, levels):
            _refuse(stack[i, j], short=short, level=levels[j], time=when.ravel()[i], origin=origin)
        return block

    times = array["time"].values if "time" in array.dims else np.array(["NaT"], "datetime64[ns]")
    if array.chunks is None:
        look(array.values, times)
        return array
    array = array.chunk({d: -1 for d in array.dims if d != "time"})
    # Block by block: apply_ufunc would copy every block to join it with its (absent) neighbours.
    blocks = array.data.chunks[0] if "time" in array.dims else (1,)
    when = dask.array.from_array(times, chunks=(blocks,))[(..., *[None] * (array.ndim - 1))]
    return array.copy(data=dask.array.map_blocks(look, array.data, when, dtype=array.dtype, meta=array.data._meta))


def alignment(grid: Grid, other: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Rows and columns of `grid` in the order of `other`, or None if the cells are not the same.

    Grids that differ in latitude order or longitude origin only have the same cells; centres agree to
    1e-4 degrees, as float32 coordinates do.

    Returns:
        (rows, columns), so that field[..., rows, :][..., columns] lies on `other`.
    """
    if grid.shape != other.shape:
        return None
    orders = []
    for mine, theirs, turn in ((grid.latitude, other.latitude, None), (grid.longitude, other.longitude, 360.0)):
        # Wrapping at -0.01 degrees keeps a meridian stored as 359.99999 beside one stored as 0.
        a, b = (mine, theirs) if turn is None else ((mine + 0.01) % turn, (theirs + 0.01) % turn)
        order, rank = np.argsort(a), np.argsort(np.argsort(b))
        if not np.allclose(a[order], np.sort(b), rtol=0, atol=1e-4):
            return None
        orders.append(order[rank])
    return orders[0], orders[1]


def align(array: xr.DataArray, *, grid: Grid, other: Grid) -> xr.DataArray:
    """A field on `grid` with its rows and columns in the order of `other`, which has the same cells."""
    orders = alignment(grid, other)
    assert orders is not None, "align called with different cells"
    for dim, order in zip(("latitude", "longitude"), orders, strict=True):
        if not np.array_equal(order, np.arange(order.size)):
            array = array.isel({dim: order})
    return array.assign_coords(latitude=other.latitude, longitude=other.longitude)


def _suspects(stack: NDArray[Any], short: str, levels: Sequence[int | None]) -> list[tuple[int, int]]:
    """(time, level) positions whose extremes are outside the plausible range or NaN."""
    if stack.size == 0:
        return []
    bounds = np.array([catalogue.plausible_range(catalogue.Channel(short, level)) for level in levels])
    inside = (stack.min(axis=2) >= bounds[:, 0]) & (stack.max(axis=2) <= bounds[:, 1])
    return [(int(i), int(j)) for i, j in np.argwhere(~inside)]


def _refuse(values: NDArray[Any], *, short: str, level: int | None, time: np.datetime64, origin: str) -> None:
    spec = catalogue.BY_SHORT[short]
    where = f"variable {short!r} ({spec.long})" + ("" if level is None else f" at {level} hPa")
    when = "" if np.isnat(time) else f" at {stamp(time)}"
    missing = int(np.count_nonzero(~np.isfinite(values)))
    if missing:
        raise ValueError(
            f"{where} must have no missing values, got {missing} of {values.size}{when} in {origin}; "
            "leave the time or the variable out, or fetch the file again"
        )
    low, high = catalogue.plausible_range(catalogue.Channel(short, level))
    worst = values.min() if values.min() < low else values.max()
    raise ValueError(
        f"{where} must lie within {low:g} .. {high:g} {spec.unit}, got {worst:g}{when} in {origin}; "
        "check its unit and the file"
    )


def _one_version(array: xr.DataArray, names: Mapping[str, str]) -> xr.DataArray:
    """ERA5 where it is there, else ERA5T, for files that hold both along a dimension."""
    dim = names.get("expver")
    if dim is None or dim not in array.dims:
        return array
    versions = version_names(array[dim].values)
    order = sorted(range(len(versions)), key=lambda i: (versions[i] != FINAL, versions[i]))
    return functools.reduce(xr.DataArray.fillna, (array.isel({dim: i}, drop=True) for i in order))


def _pick_levels(array: xr.DataArray, field: RawField, levels: Sequence[int]) -> xr.DataArray:
    if field.level_dim is None:
        return array
    if field.level_dim not in array.dims:
        array = array.expand_dims(field.level_dim)
    positions = [field.levels.index(p) for p in levels]
    return array.isel({field.level_dim: as_slice(positions)}).assign_coords({field.level_dim: list(levels)})


def as_slice(positions: Sequence[int]) -> slice | list[int]:
    """Evenly spaced increasing positions as a slice, which backends read faster."""
    steps = set(np.diff(positions).tolist())
    if len(positions) == 1:
        return slice(positions[0], positions[0] + 1)
    if len(steps) == 1 and (step := steps.pop()) > 0:
        return slice(positions[0], positions[-1] + 1, step)
    return list(positions)


def _rename(array: xr.DataArray, survey: Survey, field: RawField) -> xr.DataArray:
    """Canonical dimension names; every other coordinate is dropped."""
    names = {survey.names[axis]: axis for axis in ("latitude", "longitude")}
    if field.level_dim is not None:
        names[field.level_dim] = "level"
    time = survey.names.get("time")
    if time is not None and time in array.coords:
        dims, values = array[time].dims, np.array(array[time].values)
        old = str(dims[0]) if dims else time
        names[old] = "time"
        array = array.drop_vars(time).assign_coords({old: (dims, values)})
    array = array.drop_vars([c for c in array.coords if c not in names])
    present = {*array.dims, *array.coords}
    return array.rename({old: new for old, new in names.items() if old != new and old in present})
