"""The configuration sections for atmospheric data: where they come from and what the training store holds.

Contract: as in `pipeline.sections`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from pipeline.grid import Grid
from pipeline.sections import Positive, Section
from pipeline.weather import variables as catalogue


def _expand_range(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"start", "stop", "step"} or any(not isinstance(v, int) or v <= 0 for v in value.values()):
        raise ValueError(f"a range of leads must be {{start, stop, step}} in whole positive hours, got {dict(value)}")
    return list(range(value["start"], value["stop"] + 1, value["step"]))


_RANGE_SCHEMA = {
    "type": "object",
    "properties": {key: {"type": "integer", "exclusiveMinimum": 0} for key in ("start", "stop", "step")},
    "required": ["start", "stop", "step"],
    "additionalProperties": False,
}
_LIST_SCHEMA = {"type": "array", "items": {"type": "integer", "exclusiveMinimum": 0}, "minItems": 1}
LeadHours = Annotated[
    list[Positive],
    Field(min_length=1),
    BeforeValidator(_expand_range),
    WithJsonSchema({"anyOf": [_LIST_SCHEMA, _RANGE_SCHEMA]}),
]
"""Leads [h], as a list or {start, stop, step} with both ends included."""


class Period(Section):
    """A span of time, both ends included. UTC."""

    start: dt.datetime
    """First time, e.g. 2001-01-01 or 2001-01-01T12:00."""
    end: dt.datetime
    """Last time; a bare date means its last hour."""

    @field_validator("start", "end", mode="before")
    @classmethod
    def _read(cls, value: Any, info: Any) -> Any:
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            value = value.isoformat()
        if isinstance(value, str) and len(value) == 10:
            return f"{value}T00:00" if info.field_name == "start" else f"{value}T23:00"
        return value

    @model_validator(mode="after")
    def _ordered(self) -> Period:
        if self.start.tzinfo is not None or self.end.tzinfo is not None:
            raise ValueError("times must be written without a zone; they are UTC")
        if self.end < self.start:
            raise ValueError(f"end must not precede start, got {self.start} .. {self.end}")
        return self

    def contains(self, other: Period) -> bool:
        """Whether `other` lies inside."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Period) -> bool:
        """Whether the two share a time."""
        return self.start <= other.end and other.start <= self.end


class SimulationSource(Section):
    """The embedded default: a primitive-equation core under seasonal Held-Suarez forcing."""

    kind: Literal["simulation"] = "simulation"
    truncation: Literal[21, 31, 42, 63, 85, 106] = 21
    """Triangular spectral truncation."""
    levels: Positive = 15
    """Number of sigma levels of the core."""
    resolution: float = 5.0
    """Spacing of the output grid in degrees, with rows at the poles; 0.25 gives 721 x 1440."""
    spinup_days: Positive = 120
    """Days integrated and discarded before the first output."""
    time_step_minutes: Positive | None = None
    """Time step of the core; must divide the output step. None takes the longest stable one."""
    seed: int = 0


class FileWords(Section):
    """What the files do not say themselves, or say wrongly."""

    names: dict[str, str] = {}
    """What the files call a variable, by short name, e.g. {z: MYZ}; no other field is then taken for it."""
    units: dict[str, str] = {}
    """Units by short name, e.g. {z: m}; they override what the files say."""
    member: int | str | None = None
    """The ensemble member to read, by its number or name in the files."""

    @model_validator(mode="after")
    def _understood(self) -> FileWords:
        for short in self.names:
            catalogue.variable(short)
        if self.units:
            from pipeline.weather.units import conversion

            for short, unit in self.units.items():
                conversion(catalogue.variable(short), unit, name=short, origin="source.units", remedy="name another")
        return self


class FilesSource(FileWords):
    """NetCDF, GRIB or Zarr files, one or many."""

    ADDED = frozenset({"names", "units", "member"})

    kind: Literal["files"]
    paths: list[str] = Field(min_length=1)
    """Files, folders or glob patterns, relative to the working directory."""
    label: str = "ERA5"
    """Name of the data in every store, figure and table."""
    constants: list[str] = []
    """Files with static fields only (their times are ignored)."""


class RemoteSource(Section):
    """Retries, timeouts and parallel requests of sources read over a network. None of these changes a value."""

    FREE = frozenset({"retries", "timeout_s", "parallel_requests"})

    retries: Annotated[int, Field(ge=0)] = 6
    """How often a request is retried after a transient failure; waits are random, below a limit that doubles from
    0.5 s to 60 s."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait for a connection, and for more data during a transfer, seconds."""
    parallel_requests: Positive = 8
    """Most requests open at once."""


class ArcoSource(RemoteSource):
    """ARCO-ERA5 on Google Cloud Storage (0.25 degrees, hourly, 37 levels), read anonymously."""

    kind: Literal["arco"]
    url: str = "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3"
    """gs://, http(s):// or a local path."""
    label: str = "ERA5"
    preliminary: bool = False
    """Also use ERA5T, the preliminary release, which ECMWF may correct for about three months."""


class WeatherBench2Source(RemoteSource):
    """WeatherBench 2's ERA5 on Google Cloud Storage, read anonymously: 0.25 degrees, or files on coarser grids."""

    kind: Literal["weatherbench2"]
    url: str = "gs://weatherbench2/datasets/era5/1959-2023_01_10-wb13-6h-1440x721_with_derived_variables.zarr"
    """gs://, http(s):// or a local path."""
    label: str = "ERA5"


class CdsSource(RemoteSource):
    """ERA5 from the Copernicus Climate Data Store: `python -m pipeline fetch` downloads it in monthly requests."""

    FREE = RemoteSource.FREE | {"url", "folder", "data_format", "max_fields", "poll_s"}

    kind: Literal["cds"]
    url: str | None = None
    """Address of the API; None takes it from CDSAPI_URL or ~/.cdsapirc, where the key also is."""
    label: str = "ERA5"
    folder: str | None = None
    """Where downloads are kept; None keeps them in data/downloads of the results folder."""
    data_format: Literal["grib", "netcdf"] = "grib"
    """grib is ERA5's native format; netcdf is converted by the CDS, which allows less of it per request."""
    max_fields: Positive = 60000
    """Most fields (variable x level x time) per request; a month with more is split by days."""
    parallel_requests: Positive = 4
    """Most requests queued at the CDS at once."""
    poll_s: Annotated[float, Field(gt=0)] = 60.0
    """Longest wait between status checks of a queued request, seconds."""
    preliminary: bool = False
    """Also use ERA5T, the preliminary release, which ECMWF may correct for about three months."""


Source = Annotated[
    SimulationSource | FilesSource | ArcoSource | WeatherBench2Source | CdsSource, Field(discriminator="kind")
]


class Channels(Section):
    """Which channels the store holds, in catalogue order."""

    variables: list[str] = list(catalogue.DEFAULT_VARIABLES)
    levels: list[int] = list(catalogue.LEVELS)
    """Pressure levels, hPa."""
    statics: list[str] = list(catalogue.DEFAULT_STATICS)

    @model_validator(mode="after")
    def _known(self) -> Channels:
        catalogue.channels(self.variables, self.levels, self.statics)
        return self

    @property
    def dynamic(self) -> tuple[catalogue.Channel, ...]:
        """Channels that depend on time, in catalogue order."""
        return catalogue.channels(self.variables, self.levels, self.statics)[0]

    @property
    def static(self) -> tuple[catalogue.Channel, ...]:
        """Channels that do not depend on time, in catalogue order."""
        return catalogue.channels(self.variables, self.levels, self.statics)[1]


class Regrid(Section):
    """How fields are regridded."""

    resolution: float = 5.625
    """Spacing of the cell-centred global target grid in degrees; 5.625 gives 32 x 64."""
    method: Literal["bilinear", "conservative", "nearest"] = "bilinear"
    """bilinear is the D-CHAG paper's choice; conservative matches WeatherBench 2's coarse files."""
    engine: Literal["auto", "builtin", "xesmf"] = "auto"

    @field_validator("resolution")
    @classmethod
    def _divides(cls, value: float) -> float:
        Grid.regular(value)
        return value

    @property
    def grid(self) -> Grid:
        """The target grid."""
        return Grid.regular(self.resolution)


class Splits(Section):
    """Disjoint periods for training, validation and test."""

    train: list[Period] = Field(min_length=1)
    validation: list[Period] = []
    test: Period

    @field_validator("train", "validation", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _disjoint(self) -> Splits:
        named = [(f"train[{i}]", p) for i, p in enumerate(self.train)]
        named += [(f"validation[{i}]", p) for i, p in enumerate(self.validation)] + [("test", self.test)]
        for i, (a, p) in enumerate(named):
            for b, q in named[i + 1 :]:
                if p.overlaps(q):
                    raise ValueError(f"splits must not overlap, got {a} and {b} sharing {max(p.start, q.start)}")
        return self


class Normals(Section):
    """Means, standard deviations and the climatology, all from the training periods only."""

    FREE = frozenset({"keep_sums"})

    window_days: Annotated[int, Field(ge=1, le=183)] = 61
    """Width of the smoothing window of the day-of-year x hour climatology, days."""
    keep_sums: bool = True
    """Keep the sums of the training years beside the normals, about twice their size, so that adding a year reads only
    that year."""


class Data(Section):
    """What the training store holds."""

    channels: Channels = Channels()
    period: Period | None = None
    """Times of the store; None takes all times in the files."""
    step_hours: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 6
    """Spacing of the store's times, hours."""
    regrid: Regrid = Regrid()
    slab_times: Positive = 64
    """Number of times written together as one shard."""
    splits: Splits | None = None
    """Needed by normals and all later stages; without splits an experiment ends with the store, e.g. of an analysis."""
    normals: Normals = Normals()

    @model_validator(mode="after")
    def _inside(self) -> Data:
        if self.splits is None or self.period is None:
            return self
        for name in ("train", "validation"):
            for p in getattr(self.splits, name):
                if not self.period.contains(p):
                    raise ValueError(f"splits.{name} must lie inside data.period, got {p.start} .. {p.end}")
        if not self.period.contains(self.splits.test):
            raise ValueError(
                f"splits.test must lie inside data.period, got {self.splits.test.start} .. {self.splits.test.end}"
            )
        return self
