"""Archives laid out as the real ones: ARCO-ERA5 and WeatherBench 2, small or at full size.

Zarr 2 with consolidated metadata, Blosc-LZ4 and fill value NaN. ARCO: one time and all levels a chunk, north to
south, times from long before to long after the data, whose chunks do not exist. WeatherBench 2: longitude before
latitude, south to north.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr

from pipeline.weather.variables import BY_SHORT

UNITS = {"m2 s-2": "m**2 s**-2", "m s-1": "m s**-1", "kg kg-1": "kg kg**-1", "1": "(0 - 1)"}
Truth = Callable[[str, int | None, Any, Any, Any], np.ndarray]


def write_archive(
    path: Path,
    *,
    truth: Truth,
    variables: Sequence[str],
    levels: Sequence[int],
    latitude: np.ndarray,
    longitude: np.ndarray,
    times: np.ndarray,
    padding: int = 0,
    chunk_times: int = 1,
    transposed: bool = False,
    statics: Sequence[str] = ("lsm", "orog"),
    attrs: dict[str, Any] | None = None,
) -> Path:
    """Write an archive.

    Args:
        path: of the store.
        truth: (short, level, times, latitude, longitude) -> (time, latitude, longitude).
        variables: short names of fields that change with time.
        levels: hPa.
        latitude, longitude: axes, degrees.
        times: those that have data.
        padding: allocated steps without chunks, before and after.
        chunk_times: times in a chunk.
        transposed: longitude before latitude.
        statics: short names of fields without time.
        attrs: of the archive.
    """
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.attrs.update(attrs or {})
    step = times[1] - times[0] if times.size > 1 else np.timedelta64(1, "h")
    before = times[0] - step * np.arange(padding, 0, -1)
    after = times[-1] + step * np.arange(1, padding + 1)
    axis = np.concatenate([before, times, after]).astype("datetime64[h]")
    hours = (axis - np.datetime64("1900-01-01T00")) // np.timedelta64(1, "h")
    _axis(group, "time", hours.astype(np.int64), units="hours since 1900-01-01", calendar="proleptic_gregorian")
    _axis(group, "level", np.array(levels, np.int64))
    _axis(group, "latitude", latitude.astype(np.float32), units="degrees_north")
    _axis(group, "longitude", longitude.astype(np.float32), units="degrees_east")
    plane = ("longitude", "latitude") if transposed else ("latitude", "longitude")
    shape = (longitude.size, latitude.size) if transposed else (latitude.size, longitude.size)
    for short in [*variables, *statics]:
        spec = BY_SHORT[short]
        dims: tuple[str, ...] = plane
        size: tuple[int, ...] = shape
        if spec.levels:
            dims, size = ("level", *dims), (len(levels), *size)
        if not spec.static:
            dims, size = ("time", *dims), (axis.size, *size)
        array = group.create_array(
            spec.long,
            shape=size,
            chunks=size if spec.static else (chunk_times, *size[1:]),
            dtype="float32",
            compressors=numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE),
            fill_value=np.nan,
        )
        array.attrs.update(
            {"_ARRAY_DIMENSIONS": dims, "units": UNITS.get(spec.unit, spec.unit), "long_name": spec.label}
        )
        if spec.static:
            field = truth(short, None, times[:1], latitude, longitude)[0]
            array[:] = field.T if transposed else field
            continue
        for start in range(0, times.size, chunk_times):
            some = times[start : start + chunk_times]
            if spec.levels:
                values = np.stack([truth(short, p, some, latitude, longitude) for p in levels], axis=1)
            else:
                values = truth(short, None, some, latitude, longitude)
            array[padding + start : padding + start + some.size] = values.swapaxes(-1, -2) if transposed else values
    zarr.consolidate_metadata(path, zarr_format=2)
    return path


def edit_attributes(path: Path, **attrs: Any) -> None:
    """Change attributes of an archive, in its consolidated metadata too."""
    for name, within in ((".zattrs", None), (".zmetadata", "metadata")):
        content = json.loads((path / name).read_text())
        (content if within is None else content[within][".zattrs"]).update(attrs)
        (path / name).write_text(json.dumps(content))


def _axis(group: zarr.Group, name: str, values: np.ndarray, **attrs: str) -> None:
    array = group.create_array(name, shape=values.shape, chunks=values.shape, dtype=values.dtype, fill_value=None)
    array.attrs.update({"_ARRAY_DIMENSIONS": [name], **attrs})
    array[:] = values
