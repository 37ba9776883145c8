"""The messages of GRIB 1 and 2 files: their headers, and the values of each field.

Contract: a file is scanned once for its headers; a field is decoded when it is read. Nothing is written beside the
user's files; an index of headers may be kept elsewhere and is valid for a file of the same path, length and date of
change. A GRIB 2 message may hold several fields (NCEP puts u and v into one); each has a `Message` of its own, and
ecCodes takes them apart.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import eccodes
import numpy as np
from numpy.typing import NDArray

from pipeline import files

DECODING = threading.Lock()
"""Held around every use of ecCodes, which is not built for threads everywhere."""

_LAYOUT = 2
"""Of the index; an index of another layout is rebuilt."""

_UNREADABLE = "GRIB message must be readable, got {error} in {path}; fetch the file again"
_GRIDS = ("regular_ll", "regular_gg")
_PRESSURE = {"isobaricInhPa": 1.0, "isobaricInPa": 0.01}

Axes = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Latitudes and longitudes."""


@dataclass(frozen=True)
class Message:
    """Header of one field.

    Args:
        offset, length: where the bytes of its message are in the file.
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
        part: its place among the fields of its message.
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
    part: int = 0


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
    """Headers of all fields of a file, in its order.

    Raises:
        ValueError: not GRIB, or cut short.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        count = 0
        while True:
            cut = f"GRIB file must be whole, got {path}, which ends inside message {count + 1}; fetch it again"
            with DECODING:
                eccodes.codes_grib_multi_support_off()  # other code of this process may have left it on
                try:
                    handle = eccodes.codes_grib_new_from_file(file, headers_only=True)
                except eccodes.CodesInternalError as error:
                    raise ValueError(f"{cut} ({error})") from None
                if handle is None:
                    break
                try:
                    message, several = _header(handle), _holds_several(handle)
                finally:
                    eccodes.codes_release(handle)
            if message.offset + message.length > size:
                raise ValueError(cut)
            count += 1
            yield from _each_field(path, message) if several else [message]
    if not count:
        raise ValueError(f"GRIB file must hold messages, got none in {path}; fetch it again")


def _holds_several(handle: int) -> bool:
    """Whether a message goes on after its first field, the only one that ecCodes shows by default."""
    lengths = [f"section{number}Length" for number in range(9)]
    known = sum(eccodes.codes_get(handle, key, ktype=int) for key in lengths if eccodes.codes_is_defined(handle, key))
    edition, total = (int(eccodes.codes_get(handle, key, ktype=int)) for key in ("edition", "totalLength"))
    return edition == 2 and known < total


def _each_field(path: Path, message: Message) -> Iterator[Message]:
    """Headers of all fields of one message."""
    for part, body in enumerate(_split(message_bytes(path, message), path)):
        with _loaded(body, path) as handle:
            header = _header(handle)
        yield replace(header, offset=message.offset, length=message.length, part=part)


def _split(body: bytes, path: Path) -> list[bytes]:
    """The fields of a message as messages of their own.

    ecCodes does this for files only, and keeps what it has not given out yet: so the file holds one message and is
    read to its end.

    Raises:
        ValueError: the message cannot be read.
    """
    fields = []
    with tempfile.TemporaryFile() as file, DECODING:
        file.write(body)
        file.seek(0)
        eccodes.codes_grib_multi_support_on()
        try:
            while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
                fields.append(eccodes.codes_get_message(handle))
                eccodes.codes_release(handle)
        except eccodes.CodesInternalError as error:
            raise ValueError(_UNREADABLE.format(error=error, path=path)) from None
        finally:
            eccodes.codes_grib_multi_support_off()
    return fields


def _one_field(body: bytes, path: Path, part: int) -> bytes:
    return _split(body, path)[part] if part else body  # ecCodes reads the first one of a message by default


def message_bytes(path: Path, message: Message) -> bytes:
    """The whole message that holds a field."""
    with path.open("rb") as file:
        file.seek(message.offset)
        return file.read(message.length)


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
            raise ValueError(_UNREADABLE.format(error=error, path=path)) from None


def decode(body: bytes, path: Path, *, part: int) -> NDArray[np.float32]:
    """Values of one field of a message in the order of its grid; missing ones are NaN."""
    with _loaded(_one_field(body, path, part), path) as handle:
        if eccodes.codes_get(handle, "bitmapPresent", ktype=int):
            eccodes.codes_set(handle, "missingValue", 9e33)
        values = np.asarray(eccodes.codes_get_values(handle), dtype=np.float64)
    return np.where(values > 8e33, np.nan, values).astype(np.float32)


def read_grid(path: Path, message: Message) -> Axes:
    """Latitudes and longitudes in the order of the values.

    Raises:
        ValueError: the grid is not rectilinear, or not scanned by rows.
    """
    with _loaded(_one_field(message_bytes(path, message), path, message.part), path) as handle:
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
