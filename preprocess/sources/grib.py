"""GRIB 1 and 2 files as lazy raw datasets.

Contract: the headers decide everything, file names nothing: valid time is validityDate and
validityTime, the lead is counted from dataDate and dataTime. Messages of one variable, kind of level,
lead, member and grid make one raw dataset, split further where times lack levels, so that every raw dataset is
a full block of times and levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from preprocess.decode.identify import Request
from preprocess.sources.grib_messages import Axes, Message, decode, headers, read_grid


def open_grib(
    path: Path, *, index: Path | None = None, request: Request | None = None
) -> tuple[list[xr.Dataset], list[str]]:
    """The variables of a GRIB file that are wanted, as lazy raw datasets.

    Args:
        path: the file.
        index: folder where headers are kept, so that a file is scanned once; None keeps none.
        request: what is wanted; all of the catalogue for None.

    Returns:
        (Datasets of one variable and ensemble member with dims (time, [level,] latitude, longitude), in CF spelling
        with ecCodes' short name, as `preprocess.decode.survey.survey` reads them; names of the other fields).

    Raises:
        ValueError: not GRIB or cut short; of what is wanted, a grid that is not rectilinear, or one field twice.
    """
    request = request or Request()
    cubes: dict[tuple[Any, ...], list[Message]] = {}
    others: dict[str, None] = {}
    wanted: dict[tuple[str, int, bool], bool] = {}
    for message in headers(path, index=index):
        kind = (message.name, message.param, message.level is not None)
        if kind not in wanted:
            short = request.identify(message.name, attributes(message), on_levels=kind[2])
            wanted[kind] = short is not None and request.wants(short)
        if not wanted[kind]:
            others[message.name] = None
            continue
        key = (message.name, message.param, message.surface, message.lead, message.grid, message.member)
        cubes.setdefault(key, []).append(message)
    grids = {message.grid: message for message in (group[0] for group in cubes.values())}
    axes = {digest: read_grid(path, message) for digest, message in grids.items()}
    return [
        _dataset(path, block, axes[group[0].grid]) for group in cubes.values() for block in _full_blocks(group, path)
    ], list(others)


def attributes(message: Message) -> dict[str, Any]:
    """Attributes by which `preprocess.decode.survey.identify` knows a field."""
    return {"units": message.unit, "GRIB_paramId": message.param, "GRIB_shortName": message.name}


def _full_blocks(messages: Sequence[Message], path: Path) -> list[list[list[Message]]]:
    """Messages of one variable as full (time, level) tables; one table for each set of levels."""
    table: dict[np.datetime64, dict[float | None, Message]] = {}
    for message in messages:
        row = table.setdefault(message.time, {})
        if message.level in row:
            raise ValueError(
                f"GRIB file must hold a field once, got {message.name!r} at {message.time} twice "
                f"({message.surface}, level {message.level}) in {path}; drop one"
            )
        row[message.level] = message
    blocks: dict[tuple[float | None, ...], list[list[Message]]] = {}
    for time in sorted(table):
        levels = tuple(sorted(table[time], key=lambda p: -1.0 if p is None else p))
        blocks.setdefault(levels, []).append([table[time][p] for p in levels])
    return list(blocks.values())


def _dataset(path: Path, block: Sequence[Sequence[Message]], grid: Axes) -> xr.Dataset:
    first = block[0][0]
    field = _Field(path, block, shape=(grid[0].size, grid[1].size))
    data: Any = indexing.LazilyIndexedArray(field)
    dims: tuple[str, ...] = ("time", "level", "latitude", "longitude")
    if first.level is None:
        data = data[indexing.BasicIndexer((slice(None), 0, slice(None), slice(None)))]
        dims = ("time", "latitude", "longitude")
    coords: dict[str, Any] = {
        "time": [row[0].time for row in block],
        "step": np.timedelta64(round(first.lead * 3600), "s"),
        "latitude": ("latitude", grid[0], {"units": "degrees_north"}),
        "longitude": ("longitude", grid[1], {"units": "degrees_east"}),
    }
    if first.level is not None:
        coords["level"] = ("level", np.array([m.level for m in block[0]]), {"units": "hPa"})
    if first.member is not None:
        coords["number"] = first.member
    versions = [row[0].version for row in block]
    if all(versions):
        coords["expver"] = ("time", np.array(versions))
    return xr.Dataset({first.name: (dims, data, attributes(first))}, coords=coords)


class _Field(BackendArray):
    """A table of messages as an array (time, level, latitude, longitude), decoded when indexed."""

    def __init__(self, path: Path, block: Sequence[Sequence[Message]], *, shape: tuple[int, int]) -> None:
        self.path = path
        self.places = np.array([[(m.offset, m.length, m.part) for m in row] for row in block], dtype=np.int64)
        self.shape = (*self.places.shape[:2], *shape)
        self.dtype = np.dtype(np.float32)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return ("chagcast-grib", str(self.path), self.path.stat().st_mtime_ns, self.places.tobytes(), self.shape)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> NDArray[np.float32]:
        rows, columns = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape[:2], key[:2], strict=True))
        out = np.empty((rows.size, columns.size, *self.shape[2:]), np.float32)
        with self.path.open("rb") as file:
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    offset, length, part = (int(n) for n in self.places[row, column])
                    file.seek(offset)
                    out[i, j] = decode(file.read(length), self.path, part=part).reshape(self.shape[2:])
        result: Any = out
        for axis in (3, 2):
            result = result[(slice(None),) * axis + (key[axis],)]
        for axis in (1, 0):
            if isinstance(key[axis], int | np.integer):
                result = result.take(0, axis=axis)
        return np.asarray(result)
