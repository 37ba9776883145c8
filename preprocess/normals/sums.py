"""Sums of the training fields that are kept, so that a further year is added without reading the others.

Contract: a sums store lies beside the normals computed from it (`<normals>.sums.zarr`): for each hour of day and day of
year the sum and the number of fields, and for each year its moments, all float64. It says which times of which
store went into each year; it serves as a start wherever all its years are wanted and hold the same times. Merging is
adding, so the result is that of one pass, to rounding. A contract says how fields were made, not what they hold, so
three fields of each year are compared as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from pipeline.shards import Reader
from pipeline.store import consolidate
from preprocess.normals.moments import DailySums, Moments, yearly_arrays

SCHEMA = 1
_DIMS = {
    "count": ("hour", "dayofyear"),
    "year_count": ("year",),
    "year_mean": ("year", "channel"),
    "year_m2": ("year", "channel"),
}


def sums_path(normals: Path) -> Path:
    """Where the sums of some normals lie."""
    return normals.with_name(f"{normals.stem}.sums.zarr")


def years_of(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Calendar year of each time."""
    return np.asarray(times.astype("datetime64[Y]").astype(np.int64) + 1970)


def about(
    store_digest: str,
    state: Reader,
    times: NDArray[np.datetime64],
    chosen: NDArray[np.int64],
    *,
    hours: NDArray[np.int64],
) -> dict[str, Any]:
    """What goes into some sums, JSON-ready: for each year a digest of its times and of three of its fields.

    Args:
        store_digest: digest of the training store's contract.
        state: its fields, of which the first, the middle and the last of each year are read.
        times: its time axis.
        chosen: indices of the training times.
        hours: hours of day on the axis.
    """
    digests = {}
    for year in np.unique(years_of(times[chosen])):
        inside = chosen[years_of(times[chosen]) == year]
        digest = hashlib.sha256(times[inside].astype("datetime64[s]").astype("<i8").tobytes())
        for index in (inside[0], inside[inside.size // 2], inside[-1]):
            digest.update(state.read(slice(int(index), int(index) + 1)).tobytes())
        digests[str(year)] = digest.hexdigest()[:16]
    return {"schema": SCHEMA, "store": store_digest, "hours": [int(h) for h in hours], "years": digests}


@dataclass(frozen=True, eq=False)
class Sums:
    """Kept sums, read block by block.

    Args:
        path: folder of the store.
        years: years that it holds.
    """

    path: Path
    years: tuple[int, ...]

    @classmethod
    def best(cls, folder: Path, wanted: Mapping[str, Any]) -> Sums | None:
        """The sums in a folder that hold most of the wanted years and nothing else; None if there are none."""
        usable = (sums for sums in cls._usable(folder, wanted) if sums.years)
        return max(usable, key=lambda sums: len(sums.years), default=None)

    @classmethod
    def _usable(cls, folder: Path, wanted: Mapping[str, Any]) -> Iterator[Sums]:
        for path in sorted(folder.glob("*.sums.zarr")):
            try:
                held: Any = zarr.open_group(path, mode="r").attrs["about"]
            except (KeyError, OSError, ValueError):
                continue
            same = all(held[key] == wanted[key] for key in ("schema", "store", "hours"))
            if same and held["years"].items() <= wanted["years"].items():
                yield cls(path, tuple(int(year) for year in held["years"]))

    def block(self, columns: range) -> tuple[DailySums, dict[int, Moments]]:
        """Sums and yearly moments of some channels."""
        group: Any = zarr.open_group(self.path, mode="r")
        span = slice(columns.start, columns.stop)
        sums = DailySums(np.array(group["total"][:, :, span]), np.array(group["count"][:]))
        rows = zip(group["year_count"][:], group["year_mean"][:, span], group["year_m2"][:, span], strict=True)
        return sums, {year: Moments(int(n), mean, m2) for year, (n, mean, m2) in zip(self.years, rows, strict=True)}


class SumsWriter:
    """Writes the sums of one run.

    Args:
        path: a new folder, which becomes the store when all is written.
        shape: (hours, days of year, channels, cells).
        content: see `about`.
    """

    def __init__(self, path: Path, *, shape: tuple[int, int, int, int], content: dict[str, Any]) -> None:
        self.path = path
        self._group: Any = zarr.open_group(path, mode="w", zarr_format=3)
        self._total = self._group.create_array(
            "total",
            shape=shape,
            dtype="float64",
            chunks=(1, shape[1], 1, shape[3]),
            compressors=zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=8),
            dimension_names=("hour", "dayofyear", "channel", "cell"),
        )
        self._group.attrs["about"] = content
        self._count = np.zeros(shape[:2], np.int64)

    def write(self, columns: range, sums: DailySums) -> None:
        """One block of channels."""
        self._total[:, :, columns.start : columns.stop] = sums.total
        self._count = sums.count

    def finish(self, yearly: Mapping[int, Moments]) -> None:
        """Add the moments of each year."""
        for name, values in {"count": self._count, **yearly_arrays(yearly)}.items():
            self._group.create_array(name, data=values, dimension_names=_DIMS[name])
        consolidate(self.path)
