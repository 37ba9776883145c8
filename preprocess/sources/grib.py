"""GRIB 1 and 2 files as lazy raw datasets, read message by message.

Contract: the headers decide everything, file names nothing: valid time is validityDate and
validityTime, the lead is counted from dataDate and dataTime. A file is scanned once for its headers; a field is
decoded when it is read. Nothing is written beside the user's files; an index of headers may be kept elsewhere and is
valid for a file of the same path, length and date of change. Messages of one variable, kind of level,
lead and grid make one raw dataset, split further where times lack levels, so that every raw dataset is
a full block of times and levels.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import eccodes
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from pipeline import files
from preprocess.decode.survey import identify

DECODING = threading.Lock()
"""Held around every use of ecCodes, which is not built for threads everywhere."""

_LAYOUT = 1
"""Of the index; an index of another layout is rebuilt."""

_PRESSURE = {"isobaricInhPa": 1.0, "isobaricInPa": 0.01}
_GRIDS = ("regular_ll", "regular_gg")

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Latitudes and longitudes."""


@dataclass(frozen=True)
class Message:
    """Header of one message.

    Args:
        offset, length: where its bytes are in the file.
        name: ecCodes short name, e.g. "10u"; with the step type added for averages and sums, e.g. "2t_avg".
        param: ECMWF's parameter number, 0 where there is none or the field is an average or sum.
        unit: as ecCodes knows it.
        level: hPa, or None off pressure levels.
        surface: kind of level, e.g. "heightAboveGround 10".
        time: valid time.
        lead: hours from the reference time.
        member: ensemble member, or None.
        grid: digest of the grid section.
        version: ECMWF experiment version, "" elsewhere.
    """

    offset: int
    length: int
    name: str
    param: int
    unit: str
    level: float | None
    surface: str
    time: np.datetime64
    lead: float
    member: int | None
    grid: str
    version: str


def open_grib(path: Path, *, index: Path | None = None) -> list[xr.Dataset]:
    """Every variable of a GRIB file as lazy raw datasets.

    Args:
        path: the file.
        index: folder where headers are kept, so that a file is scanned once; None keeps none.

    Returns:
        Datasets of one variable with dims (time, [level,] latitude, longitude), in CF spelling with
        ecCodes' short name, as `preprocess.decode.survey.survey` reads them.

    Raises:
        ValueError: not GRIB, cut short, a grid that is not rectilinear, or one field twice.
    """
    cubes: dict[tuple[Any, ...], list[Message]] = {}
    for message in headers(path, index=index):
        key = (message.name, message.param, message.surface, message.lead, message.grid, message.member)
        cubes.setdefault(key, []).append(message)
    members = sorted({m.member for group in cubes.values() for m in group if m.member is not None})
    if len(members) > 1:
        raise ValueError(
            f"GRIB file must hold one member of an ensemble, got {len(members)} ({members[0]} .. {members[-1]}) in "
            f"{path}; select one, e.g. with grib_copy -w number={members[0]}"
        )
    grids = {message.grid: message for message in (group[0] for group in cubes.values())}
    axes = {digest: _grid(path, message) for digest, message in grids.items()}
    return [
        _dataset(path, block, axes[group[0].grid]) for group in cubes.values() for block in _full_blocks(group, path)
    ]


def headers(path: Path, *, index: Path | None) -> list[Message]:
    """Headers of all messages of a file, from the index if it has them.

    Raises:
        ValueError: see `scan`.
    """
    if index is None:
        return list(scan(path))
    full, stat = str(path.resolve()), path.stat()
    mark = [full, stat.st_size, stat.st_mtime_ns, str(eccodes.codes_get_api_version()), _LAYOUT]
    kept = index / f"{hashlib.sha256(full.encode()).hexdigest()[:16]}.json"
    try:
        content = json.loads(kept.read_text())
        if content["of"] == mark:
            return [Message(**row | {"time": np.datetime64(row["time"], "ns")}) for row in content["messages"]]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no index, or one that is damaged: rebuilt below
    messages = list(scan(path))
    rows = [asdict(m) | {"time": int(m.time.astype(np.int64))} for m in messages]
    files.write_json(kept, {"of": mark, "messages": rows})
    return messages


def scan(path: Path) -> Iterator[Message]:
    """Headers of all messages of a file, in its order.

    Raises:
        ValueError: not GRIB, or cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        count = 0
        while True:
            cut = f"GRIB file must be whole, got {path}, which ends inside message {count + 1}; fetch it again"
            with DECODING:
                try:
                    handle = eccodes.codes_grib_new_from_file(file, headers_only=True)
                except eccodes.CodesInternalError as error:
                    raise ValueError(f"{cut} ({error})") from None
                if handle is None:
                    break
                try:
                    message = _header(handle)
                finally:
                    eccodes.codes_release(handle)
            if message.offset + message.length > size:
                raise ValueError(cut)
            count += 1
            yield message
    if not count:
        raise ValueError(f"GRIB file must hold messages, got none in {path}; fetch it again")


def _header(handle: int) -> Message:
    def get(key: str, kind: type) -> Any:
        return eccodes.codes_get(handle, key, ktype=kind)

    def maybe(key: str, kind: type, default: Any = None) -> Any:
        return get(key, kind) if eccodes.codes_is_defined(handle, key) else default

    level_kind = get("typeOfLevel", str)
    level = get("level", float)
    time = _moment(handle, "validity")
    # The span of time decides: ECMWF's GRIB 1 calls plain analyses of the CDS "avgua", an average of one.
    instant = get("startStep", int) == get("endStep", int)
    return Message(
        offset=get("offset", int),
        length=get("totalLength", int),
        name=get("shortName", str) if instant else f"{get('shortName', str)}_{get('stepType', str)}",
        param=get("paramId", int) if instant else 0,
        unit=get("units", str),
        level=level * _PRESSURE[level_kind] if level_kind in _PRESSURE else None,
        surface="pressure" if level_kind in _PRESSURE else f"{level_kind} {level:g}",
        time=np.datetime64(time, "ns"),
        lead=(time - _moment(handle, "data")).total_seconds() / 3600.0,
        member=maybe("perturbationNumber", int, maybe("number", int)),
        grid=get("md5GridSection", str),
        version=str(maybe("experimentVersionNumber", str) or ""),
    )


def _moment(handle: int, which: Literal["data", "validity"]) -> dt.datetime:
    """The reference time of a message ("data"), or its valid time."""
    date, clock = (eccodes.codes_get(handle, f"{which}{part}", ktype=int) for part in ("Date", "Time"))
    return dt.datetime(date // 10000, date // 100 % 100, date % 100, clock // 100, clock % 100)


def attributes(message: Message) -> dict[str, Any]:
    """Attributes by which `preprocess.decode.survey.identify` knows a field."""
    return {"units": message.unit, "GRIB_paramId": message.param, "GRIB_shortName": message.name}


def _full_blocks(messages: Sequence[Message], path: Path) -> list[list[list[Message]]]:
    """Messages of one variable as full (time, level) tables; one table for each set of levels."""
    table: dict[np.datetime64, dict[float | None, Message]] = {}
    for message in messages:
        row = table.setdefault(message.time, {})
        if message.level in row and identify(message.name, attributes(message), on_levels=message.level is not None):
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
    versions = [row[0].version for row in block]
    if all(versions):
        coords["expver"] = ("time", np.array(versions))
    return xr.Dataset({first.name: (dims, data, attributes(first))}, coords=coords)


class _Field(BackendArray):
    """A table of messages as an array (time, level, latitude, longitude), decoded when indexed."""

    def __init__(self, path: Path, block: Sequence[Sequence[Message]], *, shape: tuple[int, int]) -> None:
        self.path = path
        self.places = np.array([[(m.offset, m.length) for m in row] for row in block], dtype=np.int64)
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
                    offset, length = (int(n) for n in self.places[row, column])
                    file.seek(offset)
                    out[i, j] = _decode(file.read(length), self.path).reshape(self.shape[2:])
        result: Any = out
        for axis in (3, 2):
            result = result[(slice(None),) * axis + (key[axis],)]
        for axis in (1, 0):
            if isinstance(key[axis], int | np.integer):
                result = result.take(0, axis=axis)
        return np.asarray(result)


@contextmanager
def _loaded(body: bytes, path: Path) -> Iterator[int]:
    """The handle that ecCodes gives a message; errors name the file.

    Raises:
        ValueError: the message cannot be read.
    """
    with DECODING:
        try:
            handle = eccodes.codes_new_from_message(body)
            try:
                yield handle
            finally:
                eccodes.codes_release(handle)
        except eccodes.CodesInternalError as error:
            raise ValueError(f"GRIB message must be readable, got {error} in {path}; fetch the file again") from None


def _decode(body: bytes, path: Path) -> NDArray[np.float32]:
    """Values of one message in the order of its grid; missing ones are NaN."""
    with _loaded(body, path) as handle:
        if eccodes.codes_get(handle, "bitmapPresent", ktype=int):
            eccodes.codes_set(handle, "missingValue", 9e33)
        values = np.asarray(eccodes.codes_get_values(handle), dtype=np.float64)
    return np.where(values > 8e33, np.nan, values).astype(np.float32)


def _grid(path: Path, message: Message) -> Axes:
    """Latitudes and longitudes in the order of the values."""
    with path.open("rb") as file:
        file.seek(message.offset)
        body = file.read(message.length)
    with _loaded(body, path) as handle:
        kind = eccodes.codes_get(handle, "gridType", ktype=str)
        by_columns = any(
            eccodes.codes_get(handle, key, ktype=int)
            for key in ("jPointsAreConsecutive", "alternativeRowScanning")
            if eccodes.codes_is_defined(handle, key)
        )
        if kind not in _GRIDS or by_columns:
            raise ValueError(
                f"GRIB grid must be a regular or full Gaussian latitude-longitude grid scanned by rows, got {kind} in "
                f"{path}; convert it, e.g. with cdo -setgridtype,regular"
            )
        shape = tuple(eccodes.codes_get(handle, key, ktype=int) for key in ("Nj", "Ni"))
        lat, lon = (
            np.asarray(eccodes.codes_get_array(handle, key), dtype=np.float64).reshape(shape)
            for key in ("latitudes", "longitudes")
        )
    return lat[:, 0].copy(), lon[0].copy()
