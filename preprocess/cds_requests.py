"""What an experiment asks of the Copernicus Climate Data Store, and which of it is there; light to load.

Contract: a request is one variable on all its levels, or all variables without levels, for the days of one month
that have the same hours, and never more than `source.max_fields` fields; static fields are one more. Its file
name carries a hash of what is asked, so experiments that share a folder share downloads. A download counts when
the folder's manifest records it and the file has the recorded length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files
from pipeline.console import stamp
from pipeline.weather import variables as catalogue
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import CdsSource
from pipeline.weather.times import Times, wanted_span
from pipeline.words import counted

PRESSURE, SINGLE = "reanalysis-era5-pressure-levels", "reanalysis-era5-single-levels"
NAMES = {"orog": "geopotential"}
"""CDS names that differ from ERA5's long name; without levels, geopotential is that of the surface."""
BYTES_OF_FIELD = {"grib": 2 * 721 * 1440, "netcdf": 4 * 721 * 1440}
"""At most: GRIB packs 16 bits a value."""


@dataclass(frozen=True)
class Request:
    """One request to the CDS and the file it fills.

    Args:
        title: what messages and the file call it, e.g. "z_2001-01".
        variables: short names.
        levels: hPa; empty for a request without levels.
        times: all times asked for.
        data_format: "grib" or "netcdf".
    """

    title: str
    variables: tuple[str, ...]
    levels: tuple[int, ...]
    times: tuple[np.datetime64, ...]
    data_format: str

    @property
    def dataset(self) -> str:
        """The CDS's name of the collection."""
        return PRESSURE if self.levels else SINGLE

    @property
    def fields(self) -> int:
        """What the CDS counts."""
        return len(self.variables) * max(len(self.levels), 1) * len(self.times)

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """The request as the CDS reads it."""
        texts = [str(t.astype("datetime64[m]")) for t in self.times]
        inputs: dict[str, Any] = {
            "product_type": ["reanalysis"],
            "variable": [NAMES.get(v, catalogue.BY_SHORT[v].long) for v in self.variables],
            "year": sorted({t[:4] for t in texts}),
            "month": sorted({t[5:7] for t in texts}),
            "day": sorted({t[8:10] for t in texts}),
            "time": sorted({t[11:16] for t in texts}),
            "data_format": self.data_format,
            "download_format": "unarchived",
        }
        if self.levels:
            inputs["pressure_level"] = [str(p) for p in self.levels]
        return inputs

    @cached_property
    def file(self) -> str:
        """Name of its file."""
        digest = hashlib.sha256(json.dumps([self.dataset, self.inputs], sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.title}-{digest}.{'grib' if self.data_format == 'grib' else 'nc'}"

    def __str__(self) -> str:
        span = stamp(self.times[0]) + (f" .. {stamp(self.times[-1])}" if len(self.times) > 1 else "")
        return f"{', '.join(self.variables)} at {span}"


def needed_requests(config: WeatherConfig) -> list[Request]:
    """Every request an experiment needs, static fields first, then by month.

    Raises:
        ValueError: one day of one variable has more fields than a request may have.
    """
    source, data = config.source, config.data
    assert isinstance(source, CdsSource)
    first, last = wanted_span(data)
    step = np.timedelta64(data.step_hours, "h")
    times = np.arange(first, last + np.timedelta64(1, "ns"), step.astype("timedelta64[ns]"))
    groups: dict[str, tuple[dict[str, None], list[int]]] = {}
    for channel in data.channels.dynamic:
        variables, levels = groups.setdefault("single" if channel.level is None else channel.variable, ({}, []))
        variables[channel.variable] = None
        levels += [] if channel.level is None else [channel.level]
    requests = []
    if data.channels.static:
        static = tuple(c.variable for c in data.channels.static)
        requests.append(Request("constants", static, (), (times[0],), source.data_format))
    months = times.astype("datetime64[M]")
    for month in np.unique(months):
        for name, (variables, levels) in groups.items():
            per_time = len(variables) * max(len(levels), 1)
            for part in _split(times[months == month], per_time=per_time, most=source.max_fields):
                title = f"{name}_{month}"
                requests.append(Request(title, tuple(variables), tuple(levels), tuple(part), source.data_format))
    return requests


def _split(times: Times, *, per_time: int, most: int) -> Iterator[Times]:
    """Times of one month in as few blocks of days as may be asked at once: equal hours, and not too many fields."""
    days = times.astype("datetime64[D]")
    by_hours: dict[tuple[str, ...], list[Times]] = {}
    for within in (times[days == day] for day in np.unique(days)):
        by_hours.setdefault(tuple(str(t)[11:16] for t in within), []).append(within)
    for hours, same in by_hours.items():
        count = most // (per_time * len(hours))
        if not count:
            raise ValueError(
                f"source.max_fields must allow one day of one variable, got {most} for {per_time * len(hours)} fields; "
                "raise it, or take fewer levels or a longer data.step_hours"
            )
        yield from map(np.ravel, np.array_split(same, -(-len(same) // count)))


class Folder:
    """The downloads and the record of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest = path / "manifest.json"

    @classmethod
    def of(cls, config: WeatherConfig) -> Folder:
        """The folder of an experiment."""
        assert isinstance(config.source, CdsSource)
        given = config.source.folder
        return cls(config.paths.downloads if given is None else Path(given).expanduser())

    def recorded(self) -> dict[str, Any]:
        """What was downloaded, by file name."""
        return dict(files.read_json(self.manifest)) if self.manifest.exists() else {}

    def missing(self, requests: Sequence[Request]) -> list[Request]:
        """Requests whose file is not there, or not as long as it was when it was recorded."""
        recorded = self.recorded()

        def size(path: Path) -> int:
            return path.stat().st_size if path.exists() else -1

        return [r for r in requests if recorded.get(r.file, {}).get("bytes") != size(self.path / r.file)]

    def summary(self, requests: Sequence[Request]) -> str:
        """What to say of complete downloads."""
        total = sum(self.recorded()[r.file]["bytes"] for r in requests)
        return f"fetch: complete, {counted(len(requests), 'file')}, {total / 1e9:.2f} GB in {self.path}"
