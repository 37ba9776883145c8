"""Many raw datasets seen as one archive: which piece holds which variable, level and time.

Contract: opening an archive reads no field (but see `preprocess.sources.piece` on units). `Archive.times` are those at
which every wanted channel is there; times with only some of them are listed in `facts`, never completed. For a time
that several pieces hold, the one with the shortest forecast lead is taken; several of the same lead must
hold equal values, which is checked when they are read. `Archive.dataset` builds the lazy canonical
dataset of some times only, so that the graph of forty years never exists at once.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, NotRequired, TypedDict

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import variables as catalogue
from pipeline.weather.sections import Channels
from pipeline.weather.times import Times
from pipeline.words import counted, spanned
from preprocess.decode.axes import spell_members
from preprocess.decode.canonical import align, alignment, as_slice, canonical, checked
from preprocess.decode.survey import Survey, several_members, spell_levels
from preprocess.sources.piece import Piece, settle_units
from preprocess.sources.timetable import Run, Table, runs, tabulate

_BLOCK_BYTES = 64 << 20
"""Size of the source block that one task reads, unless one time is larger."""


class Facts(TypedDict):
    """What is worth knowing about an archive besides its channels and times; JSON, kept in receipts."""

    pieces: int
    times_with_some_channels_only: list[str]
    times_held_more_than_once: int
    longer_leads_dropped: int
    converted_units: list[str]
    units_by_range: NotRequired[list[str]]
    experiment_versions: NotRequired[list[str]]


@dataclass(eq=False)
class Archive:
    """The channels of one experiment in some pieces.

    Args:
        pieces: raw datasets, in any order.
        channels: what is wanted.
        label: what the data are called in every store, figure and table.
        description: JSON-ready account of the source for the contract.
        constants: further raw datasets of which only the static fields are used; they win over `pieces`.

    Raises:
        ValueError: variables or levels are not there (all of them in one message), no time has all
            of them, or a grid does not cover the globe.
    """

    pieces: Sequence[Piece]
    _: KW_ONLY
    channels: Channels
    label: str
    description: Mapping[str, Any]
    constants: Sequence[Piece] = ()

    def __post_init__(self) -> None:
        wanted: dict[str, list[int]] = {}
        for channel in self.channels.dynamic:
            wanted.setdefault(channel.variable, []).extend([] if channel.level is None else [channel.level])
        static = [c.variable for c in self.channels.static]
        self._require_one_member()
        levels = {**wanted, **{short: [] for short in static}}
        self.pieces, self.units_by_range = settle_units(self.pieces, levels)
        self.constants, more = settle_units(self.constants, {short: [] for short in static})
        self.units_by_range += more
        last_first = [*self.constants, *self.pieces][::-1]
        self._statics = {s: p for s in static for p in last_first if s in p.survey.fields}  # the first piece stays
        self._require_present(wanted, [short for short in static if short not in self._statics])
        self.grid = self._common_grid(set(wanted))
        self.series = {short: self._series(short, levels) for short, levels in wanted.items()}
        self.times, self._incomplete_times = self._common_times()

    @property
    def _tables(self) -> list[Table]:
        return [table for groups in self.series.values() for _, table in groups]

    @property
    def no_leap_days(self) -> bool:
        """Whether some of its times come from a calendar without 29 February."""
        return any(self.pieces[i].survey.no_leap_days for table in self._tables for i in np.unique(table.piece))

    @property
    def facts(self) -> Facts:
        """What a reader should know."""
        facts: Facts = {
            "pieces": len(self.pieces),
            "times_with_some_channels_only": [stamp(t) for t in self._incomplete_times],
            "times_held_more_than_once": max(len(t.duplicates) for t in self._tables),
            "longer_leads_dropped": max(t.dropped for t in self._tables),
            "converted_units": sorted(
                {
                    f"{short}: {field.unit} to {catalogue.BY_SHORT[short].unit}"
                    for piece in (*self.pieces, *self.constants)
                    for short, field in piece.survey.fields.items()
                    if (short in self.series or short in self._statics)
                    and field.to_canonical is not None
                    and field.to_canonical.changes
                }
            ),
        }
        if self.units_by_range:
            facts["units_by_range"] = self.units_by_range
        versions = sorted({v for piece in self.pieces for v in piece.survey.versions})
        if versions:
            facts["experiment_versions"] = versions
        return facts

    def dataset(self, times: Times | None = None) -> xr.Dataset:
        """The canonical dataset of some times, on Dask, its values checked as they are computed.

        Args:
            times: a subset of `self.times`; all for None.

        Returns:
            Variables by catalogue short name, dims (time, level, latitude, longitude) or (time, latitude, longitude).

        Raises:
            ValueError: a time that the archive does not have.
        """
        times = self.times if times is None else times
        return xr.Dataset({short: self._variable(short, times) for short in self.series}, attrs={"label": self.label})

    def lead_hours(self, times: Times) -> NDArray[np.float64]:
        """The longest lead among the channels at each time, hours; 0 for analyses."""
        leads = [table.lead[np.searchsorted(table.times, times)] for table in self._tables]
        return np.asarray(np.max(leads, axis=0))

    def statics(self) -> dict[str, xr.DataArray]:
        """Static fields by short name, read and checked, each (latitude, longitude) on its own grid.

        Raises:
            ValueError: a value missing or not plausible, or a field that changes with time.
        """
        fields = {}
        for short, piece in self._statics.items():
            raw, survey = piece.raw, piece.survey
            field = canonical(raw, survey, select={short: []}, static=True)[short].load()
            dim = piece.time_dim
            if dim in raw[survey.fields[short].name].dims and raw.sizes[dim] > 1:
                last = canonical(raw.isel({dim: slice(-1, None)}), survey, select={short: []}, static=True)[short]
                if not np.array_equal(field.values, last.values, equal_nan=True):
                    raise ValueError(
                        f"static variable {short!r} must not change with time, got other values at the first and "
                        f"the last of {raw.sizes[dim]} times in {survey.origin}; give it in source.constants"
                    )
            fields[short] = checked(field, short=short, origin=survey.origin)
        return fields

    def _require_one_member(self) -> None:
        """Files of one ensemble member each must all be of the same."""
        one_each = {
            p.survey.members[0]: p.survey.origin for p in self.pieces if p.survey.fields and len(p.survey.members) == 1
        }
        if len(one_each) > 1:
            labels = sorted(one_each, key=lambda label: (len(label), label))
            others = " and others" if len(set(one_each.values())) > 1 else ""
            raise ValueError(several_members(labels, one_each[labels[0]] + others))
        known = {label: None for p in self.pieces for label in p.survey.members}
        if self.pieces and known and not any(p.survey.fields for p in self.pieces):
            raise ValueError(
                f"source.member must be one of the ensemble's, got {self.description.get('member')}; the files hold "
                f"{spell_members(list(known))}"
            )

    def _require_present(self, wanted: Mapping[str, Sequence[int]], absent_statics: Sequence[str]) -> None:
        faults = []
        for short, levels in wanted.items():
            holding = [p.survey.fields[short] for p in self.pieces if short in p.survey.fields]
            known = {level for field in holding for level in field.levels}
            absent = [level for level in levels if level not in known]
            if not holding:
                faults.append(f"variable {short!r} ({catalogue.BY_SHORT[short].long})")
            elif absent:
                faults.append(f"{short!r} at {spell_levels(absent)} (it has {spell_levels(known - {0})})")
        faults += [f"static variable {short!r} ({catalogue.BY_SHORT[short].long})" for short in absent_statics]
        if faults:
            raise ValueError(
                f"source must hold every channel of data.channels, got none of: {'; '.join(faults)}.\n"
                f"  {self._holdings()}\n"
                "  name other files, say what they call a variable (source.names), or leave these channels out of "
                "data.channels"
            )

    def _holdings(self) -> str:
        """What all pieces hold, one line for each different set of fields."""
        origins: dict[str, list[str]] = {}
        for piece in [*self.pieces, *self.constants]:
            origins.setdefault(", ".join(piece.survey.describe()) or "no field", []).append(piece.survey.origin)
        return "\n  ".join(
            f"{first}{f' and {len(others)} more' if others else ''} holds {fields}"
            for fields, (first, *others) in origins.items()
        )

    def _common_grid(self, wanted: Set[str]) -> Grid:
        """The one grid of all pieces that hold a wanted variable; global."""
        pieces = [p for p in self.pieces if wanted & p.survey.fields.keys()]
        for piece in (*pieces, *self._statics.values()):
            _require_global(piece)
        first = pieces[0].survey
        assert first.grid is not None
        for other in (p.survey for p in pieces):
            if other.grid is None or alignment(other.grid, first.grid) is None:
                raise ValueError(
                    f"fields that change with time must share one grid, got {first.grid} in {first.origin} and "
                    f"{other.grid} in {other.origin}; make a store of each"
                )
        return first.grid

    def _series(self, short: str, levels: Sequence[int]) -> list[tuple[list[int], Table]]:
        """Groups of levels that lie in the same pieces, each with its table of times."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for level in levels or [0]:
            holding = tuple(
                i
                for i, piece in enumerate(self.pieces)
                if (field := piece.survey.fields.get(short)) and (not levels or level in field.levels)
            )
            groups.setdefault(holding, []).append(level)
        return [
            (group if levels else [], tabulate({i: self.pieces[i].survey for i in holding}))
            for holding, group in groups.items()
        ]

    def _common_times(self) -> tuple[Times, Times]:
        """(times with every channel, times with only some)."""
        axes = [table.times for table in self._tables]
        common = functools.reduce(functools.partial(np.intersect1d, assume_unique=True), axes)
        if not common.size:
            firsts = {short: groups[0][1].times for short, groups in self.series.items()}
            spans = "; ".join(
                f"{s}: {spanned(stamp(a[0]), stamp(a[-1]))} ({counted(a.size, 'time')})" for s, a in firsts.items()
            )
            raise ValueError(
                f"source must have times at which every channel is there, got none ({spans}); "
                "name files that cover the same times"
            )
        return common, np.setdiff1d(np.unique(np.concatenate(axes)), common)

    def _variable(self, short: str, times: Times) -> xr.DataArray:
        parts = []
        for levels, table in self.series[short]:
            read = [self._run(short, levels, run) for run in runs(table, times)]
            parts.append(read[0] if len(read) == 1 else xr.concat(read, dim="time", join="exact", coords="minimal"))
        if len(parts) == 1:
            return parts[0]
        return xr.concat(parts, dim="level", join="exact", coords="minimal").sortby("level")

    def _run(self, short: str, levels: Sequence[int], run: Run) -> xr.DataArray:
        array = self._read(short, levels, run.piece, run.positions)
        origin = self.pieces[run.piece].survey.origin
        for piece, position in run.duplicates:
            other = self._read(short, levels, piece, (position,))
            array = _same(array, other, short=short, origins=(origin, self.pieces[piece].survey.origin))
        return array

    def _read(self, short: str, levels: Sequence[int], number: int, positions: Sequence[int]) -> xr.DataArray:
        piece = self.pieces[number]
        assert piece.survey.grid is not None
        raw, survey = _with_levels(piece, short, levels)
        dim = piece.time_dim
        if dim is not None:
            raw = raw.isel({dim: as_slice(positions)})
        array = raw[survey.fields[short].name]
        raw = raw.chunk({d: _block(array, dim) if d == dim else -1 for d in array.dims}, token=uuid.uuid4().hex)
        field = canonical(raw, survey, select={short: levels})[short]
        field = field.chunk({d: -1 for d in field.dims if d != "time"})
        field = align(field, grid=piece.survey.grid, other=self.grid)
        return checked(field, short=short, origin=piece.survey.origin)


def _with_levels(piece: Piece, short: str, levels: Sequence[int]) -> tuple[xr.Dataset, Survey]:
    """One variable with the levels wanted only, chosen before Dask, so that a backend need not read the others."""
    field = piece.survey.fields[short]
    raw = piece.raw[[field.name]]
    if field.level_dim is None or field.level_dim not in raw[field.name].dims:
        return raw, piece.survey
    raw = raw.isel({field.level_dim: as_slice([field.levels.index(p) for p in levels])})
    return raw, replace(piece.survey, fields={**piece.survey.fields, short: replace(field, levels=tuple(levels))})


def _require_global(piece: Piece) -> None:
    grid = piece.survey.grid
    if grid is None or not grid.is_global:
        raise ValueError(
            f"source grid must cover the globe, got {grid} in {piece.survey.origin}; "
            "fetch the whole globe (leave out the area of the request)"
        )


def _block(array: xr.DataArray, dim: str | None) -> int:
    """Number of times one task reads: whole chunks of the file, about `_BLOCK_BYTES` of float32."""
    one = 4 * int(np.prod([size for d, size in array.sizes.items() if d != dim], dtype=np.int64))
    native = int(array.encoding.get("preferred_chunks", {}).get(dim, 1))
    return max(native, _BLOCK_BYTES // max(one, 1) // native * native, 1)


def _same(array: xr.DataArray, other: xr.DataArray, *, short: str, origins: tuple[str, str]) -> xr.DataArray:
    """The first field, which raises when it is computed if the second differs."""
    when = stamp(array["time"].values[0])

    def compare(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        if not np.array_equal(a, b):
            raise ValueError(
                f"variable {short!r} must have one value at {when}, got up to {np.abs(a - b).max():g} between "
                f"{origins[0]} and {origins[1]}; leave one of the two out"
            )
        return a

    options: dict[str, Any] = {"dask": "parallelized", "output_dtypes": [array.dtype], "keep_attrs": True}
    result: xr.DataArray = xr.apply_ufunc(compare, array, other, **options)
    return result
