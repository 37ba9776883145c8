"""Many raw datasets seen as one archive: which piece holds which variable, level and time.

Contract: opening an archive reads no field. `Archive.times` are those at which every wanted channel is
there; what is at hand for only some of them is told in `facts`, never completed. For a time that
several pieces hold, the one with the shortest forecast lead is taken; several of the same lead must
hold equal values, which is checked when they are read. `Archive.dataset` builds the lazy canonical
dataset of some times only, so that the graph of forty years never exists at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import variables as catalogue
from pipeline.weather.sections import Channels
from preprocess.decode.canonical import align, alignment, as_slice, canonical, checked
from preprocess.decode.survey import Survey, spell_levels, survey
from preprocess.sources.timetable import Run, Table, Times, runs, tabulate

_BLOCK_BYTES = 64 << 20
"""Size of the source block that one task reads, unless one time is larger."""


@dataclass(frozen=True)
class Piece:
    """One raw dataset, opened without Dask, and what it holds."""

    raw: xr.Dataset
    survey: Survey

    @classmethod
    def of(cls, raw: xr.Dataset, *, origin: str) -> Piece:
        """Survey a raw dataset.

        Raises:
            ValueError: see `preprocess.decode.survey.survey`.
        """
        return cls(raw, survey(raw, origin=origin))


class Archive:
    """The channels of one experiment in some pieces."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        *,
        channels: Channels,
        label: str,
        description: Mapping[str, Any],
        constants: Sequence[Piece] = (),
    ) -> None:
        """Find every channel.

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
        self.pieces = list(pieces)
        self.constants = list(constants)
        self.channels = channels
        self.label = label
        self.description = dict(description)
        wanted: dict[str, list[int]] = {}
        for channel in channels.dynamic:
            wanted.setdefault(channel.variable, []).extend([] if channel.level is None else [channel.level])
        self._static_at = {c.variable: self._find_static(c.variable) for c in channels.static}
        self._require_present(wanted)
        self.grid = self._common_grid(list(wanted))
        self.series = {short: self._series(short, levels) for short, levels in wanted.items()}
        self.times, self.partial = self._common_times()

    @property
    def facts(self) -> dict[str, Any]:
        """What a reader should know: JSON-ready."""
        tables = [table for groups in self.series.values() for _, table in groups]
        facts: dict[str, Any] = {
            "pieces": len(self.pieces),
            "times_with_some_channels_only": [stamp(t) for t in self.partial],
            "times_held_more_than_once": max(len(t.twins) for t in tables),
            "longer_leads_dropped": max(t.dropped for t in tables),
            "converted_units": sorted(
                {
                    f"{short}: {item.unit} to {catalogue.BY_SHORT[short].unit}"
                    for piece in self.pieces + self.constants
                    for short, item in piece.survey.found.items()
                    if (short in self.series or short in self._static_at) and (item.scale, item.offset) != (1.0, 0.0)
                }
            ),
        }
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
        variables = {short: self._variable(short, times) for short in self.series}
        ds = xr.Dataset(variables)
        ds.attrs["label"] = self.label
        return ds

    def lead_hours(self, times: Times) -> NDArray[np.float64]:
        """The longest lead among the channels at each time, hours; 0 for analyses."""
        tables = [table for groups in self.series.values() for _, table in groups]
        leads = [table.lead[np.searchsorted(table.times, times)] for table in tables]
        return np.asarray(np.max(leads, axis=0))

    def statics(self) -> dict[str, xr.DataArray]:
        """Static fields by short name, read and checked, each (latitude, longitude) on its own grid.

        Raises:
            ValueError: a value missing or not plausible, or a field that changes with time.
        """
        fields = {}
        for short, piece in self._static_at.items():
            assert piece is not None
            raw, found = piece.raw, piece.survey
            field = canonical(raw, found, select={short: []}, static=True)[short].load()
            item = raw[found.found[short].raw]
            dims = [d for d in item.dims if d == _time_dim(piece)]
            if dims and item.sizes[dims[0]] > 1:
                last = canonical(raw.isel({dims[0]: slice(-1, None)}), found, select={short: []}, static=True)[short]
                if not np.array_equal(field.values, last.values, equal_nan=True):
                    raise ValueError(
                        f"static variable {short!r} must not change with time, got other values at the first and "
                        f"the last of {item.sizes[dims[0]]} times in {found.origin}; give it in source.constants"
                    )
            fields[short] = checked(field, short=short, origin=found.origin)
        return fields

    def _find_static(self, short: str) -> Piece | None:
        for piece in [*self.constants, *self.pieces]:
            if short in piece.survey.found:
                return piece
        return None

    def _require_present(self, wanted: Mapping[str, Sequence[int]]) -> None:
        faults = []
        for short, levels in wanted.items():
            holding = [p.survey.found[short] for p in self.pieces if short in p.survey.found]
            spec = catalogue.BY_SHORT[short]
            if not holding:
                faults.append(f"variable {short!r} ({spec.long})")
                continue
            absent = [p for p in levels if not any(p in item.levels for item in holding)]
            if absent:
                has = sorted({p for item in holding for p in item.levels if p})
                faults.append(f"{short!r} at {spell_levels(absent)} (it has {spell_levels(has)})")
        faults += [
            f"static variable {short!r} ({catalogue.BY_SHORT[short].long})"
            for short, piece in self._static_at.items()
            if piece is None
        ]
        if faults:
            raise ValueError(
                f"source must hold every channel of data.channels, got none of: {'; '.join(faults)}.\n"
                f"  {self._holdings()}\n"
                "  name other files, or leave these channels out of data.channels"
            )

    def _holdings(self) -> str:
        """What all pieces hold together, one line a different set of fields."""
        seen: dict[str, list[str]] = {}
        for piece in [*self.pieces, *self.constants]:
            seen.setdefault(", ".join(piece.survey.describe()) or "no field", []).append(piece.survey.origin)
        lines = []
        for what, origins in seen.items():
            more = f" and {len(origins) - 1} more" if len(origins) > 1 else ""
            lines.append(f"{origins[0]}{more} holds {what}")
        return "\n  ".join(lines)

    def _common_grid(self, wanted: Sequence[str]) -> Grid:
        """The one grid of all pieces that matter; global."""
        grid, first = None, ""
        for piece in self.pieces:
            if not set(wanted) & set(piece.survey.found):
                continue
            _require_global(piece)
            if grid is None:
                grid, first = piece.survey.grid, piece.survey.origin
            elif piece.survey.grid is None or alignment(piece.survey.grid, grid) is None:
                raise ValueError(
                    f"fields that change with time must share one grid, got {grid} in {first} and "
                    f"{piece.survey.grid} in {piece.survey.origin}; make a store of each"
                )
        for static in self._static_at.values():
            if static is not None:
                _require_global(static)
        assert grid is not None
        return grid

    def _series(self, short: str, levels: Sequence[int]) -> list[tuple[list[int], Table]]:
        """Groups of levels that lie in the same pieces, each with its table of times."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for level in levels or [0]:
            holding = tuple(
                i
                for i, piece in enumerate(self.pieces)
                if short in piece.survey.found and (not levels or level in piece.survey.found[short].levels)
            )
            groups.setdefault(holding, []).append(level)
        return [
            (group if levels else [], tabulate({i: self.pieces[i].survey for i in holding}))
            for holding, group in groups.items()
        ]

    def _common_times(self) -> tuple[Times, Times]:
        """(times with every channel, times with only some)."""
        axes = {short: [t.times for _, t in groups] for short, groups in self.series.items()}
        flat = [axis for group in axes.values() for axis in group]
        common = flat[0]
        for axis in flat[1:]:
            common = np.intersect1d(common, axis, assume_unique=True)
        if not common.size:
            spans = "; ".join(f"{s}: {stamp(a[0])} .. {stamp(a[-1])} ({a.size} times)" for s, (a, *_) in axes.items())
            raise ValueError(
                f"source must have times at which every channel is there, got none ({spans}); "
                "name files that cover the same times"
            )
        return common, np.setdiff1d(np.unique(np.concatenate(flat)), common)

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
        for piece, position in run.twins:
            other = self._read(short, levels, piece, (position,))
            array = _same(array, other, short=short, origins=(origin, self.pieces[piece].survey.origin))
        return array

    def _read(self, short: str, levels: Sequence[int], number: int, positions: Sequence[int]) -> xr.DataArray:
        piece = self.pieces[number]
        item = piece.survey.found[short]
        raw, found = _with_levels(piece, short, levels)
        dim = _time_dim(piece)
        if dim is not None:
            raw = raw.isel({dim: as_slice(positions)})
        blocks = {d: _block(raw[item.raw], dim) if d == dim else -1 for d in raw[item.raw].dims}
        raw = raw.chunk(blocks, token=uuid.uuid4().hex)
        assert piece.survey.grid is not None
        field = canonical(raw, found, select={short: levels})[short]
        field = field.chunk({d: -1 for d in field.dims if d != "time"})
        field = align(field, grid=piece.survey.grid, other=self.grid)
        return checked(field, short=short, origin=piece.survey.origin)


def _with_levels(piece: Piece, short: str, levels: Sequence[int]) -> tuple[xr.Dataset, Survey]:
    """One variable with the levels wanted only, chosen before Dask, so that a backend need not read the others."""
    item = piece.survey.found[short]
    raw = piece.raw[[item.raw]]
    if item.level_dim is None or item.level_dim not in raw[item.raw].dims:
        return raw, piece.survey
    raw = raw.isel({item.level_dim: as_slice([item.levels.index(p) for p in levels])})
    return raw, replace(piece.survey, found={**piece.survey.found, short: replace(item, levels=tuple(levels))})


def _require_global(piece: Piece) -> None:
    grid = piece.survey.grid
    if grid is None or not grid.is_global:
        raise ValueError(
            f"source grid must cover the globe, got {grid} in {piece.survey.origin}; "
            "fetch the whole globe (leave out the area of the request)"
        )


def _time_dim(piece: Piece) -> str | None:
    """Raw name of the time dimension, None for a scalar time or no time."""
    name = piece.survey.names.get("time")
    if name is None or not piece.raw[name].dims:
        return None
    return str(piece.raw[name].dims[0])


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

    result: xr.DataArray = xr.apply_ufunc(
        compare, array, other, dask="parallelized", output_dtypes=[array.dtype], keep_attrs=True
    )
    return result
