"""One raw dataset of an archive, and the units of fields that name none.

Contract: opening a piece reads no field, except one time of a field without a unit: its plausible range must settle the
unit, or the field is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from pipeline.weather import units
from pipeline.weather.variables import BY_SHORT, Channel, plausible_range
from preprocess.decode.canonical import canonical
from preprocess.decode.identify import Request
from preprocess.decode.survey import Survey, survey


@dataclass(frozen=True)
class Piece:
    """One raw dataset, opened without Dask, and what it holds."""

    raw: xr.Dataset
    survey: Survey

    @classmethod
    def of(cls, raw: xr.Dataset, *, origin: str, request: Request | None = None) -> Piece:
        """Survey a raw dataset.

        Args:
            raw: as it was opened.
            origin: file or address.
            request: what is wanted; all of the catalogue for None.

        Raises:
            ValueError: see `preprocess.decode.survey.survey`.
        """
        found = survey(raw, origin=origin, request=request)
        if found.times is not None and raw[found.names["time"]].dtype == object:  # dates of cftime
            name = found.names["time"]
            raw = raw.assign_coords({name: (raw[name].dims, found.times.reshape(raw[name].shape))})
        return cls(raw, found)

    @classmethod
    def of_names(cls, names: Sequence[str], *, origin: str) -> Piece:
        """Fields of which only the names are known, for messages."""
        unknown = {name: "" for name in names if units.variable_named(name) is None}
        unasked = tuple(name for name in names if name not in unknown)
        return cls(xr.Dataset(), Survey(origin, {}, unknown, {}, None, unasked=unasked))

    @property
    def time_dim(self) -> str | None:
        """Raw name of the time dimension, None for a scalar time or no time."""
        name = self.survey.names.get("time")
        return str(self.raw[name].dims[0]) if name is not None and self.raw[name].dims else None

    def mentions(self, name: str) -> bool:
        """Whether it holds a field that the file calls so."""
        return name in self.raw.data_vars or name in self.survey.unknown or name in self.survey.unasked

    def with_unit(self, short: str, unit: str, conversion: units.Conversion) -> Piece:
        """The same with a unit for a field that names none."""
        held = replace(self.survey.fields[short], unit=unit, to_canonical=conversion)
        return replace(self, survey=replace(self.survey, fields={**self.survey.fields, short: held}))


def settle_units(pieces: Sequence[Piece], wanted: Mapping[str, Sequence[int]]) -> tuple[list[Piece], list[str]]:
    """Give a unit to the fields that name none: the one of the usual units in which the values are plausible.

    The first piece that lacks a variable's unit decides for all: every value is checked when it is read.

    Args:
        pieces: all of them.
        wanted: short names, each with its levels in hPa.

    Returns:
        (the pieces, a line for the user about each variable concerned).

    Raises:
        ValueError: the values fit several units, or none; all such variables in one message.
    """
    settled, lines, faults, example = list(pieces), [], [], ""
    for short, levels in wanted.items():
        held = {i: p.survey.fields[short] for i, p in enumerate(settled) if short in p.survey.fields}
        lacking = [i for i, f in held.items() if not f.unit and (not levels or set(levels) & set(f.levels))]
        if not lacking:
            continue
        first = settled[lacking[0]]
        spans = _spans(first, short, levels)
        usual = units.usual_conversions(BY_SHORT[short])
        fitting = [unit for unit, conversion in usual.items() if _plausible(spans, short, conversion)]
        low, high = min(low for low, _ in spans.values()), max(high for _, high in spans.values())
        found = f"{short} ({held[lacking[0]].name!r} in {first.survey.origin}, {low:g} .. {high:g})"
        if len({usual[unit] for unit in fitting}) == 1:
            for i in lacking:
                settled[i] = settled[i].with_unit(short, fitting[0], usual[fitting[0]])
            lines.append(f"{found} names no unit; only {fitting[0]} is plausible, and taken")
        else:
            faults.append(f"{found} fits {' and '.join(fitting) or f'neither {_list(usual)}'}")
            example = example or f"{short}: {(fitting or list(usual))[0]}"
    if faults:
        raise ValueError(
            f"fields must have a unit, got none for: {'; '.join(faults)}; "
            f"say what it is, e.g. source.units: {{{example}}}"
        )
    return settled, lines


def _spans(piece: Piece, short: str, levels: Sequence[int]) -> dict[int | None, tuple[float, float]]:
    """Smallest and largest value of the first time, by level, as the file has them."""
    held = piece.survey.fields[short]
    there = [p for p in levels if p in held.levels]
    as_it_is = piece.with_unit(short, "", units.Conversion()).survey
    raw, dim = piece.raw[[held.name]], piece.time_dim
    raw = raw.isel({dim: slice(0, 1)}) if dim in raw.dims else raw
    array = canonical(raw, as_it_is, select={short: there})[short]
    parts = [(p, array.sel(level=p)) for p in there] if there else [(None, array)]
    return {p: (float(np.nanmin(part.values)), float(np.nanmax(part.values))) for p, part in parts}


def _plausible(spans: Mapping[int | None, tuple[float, float]], short: str, conversion: units.Conversion) -> bool:
    for level, span in spans.items():
        low, high = plausible_range(Channel(short, level))
        if not all(low <= conversion(value) <= high for value in span):
            return False
    return True


def _list(names: Iterable[str]) -> str:
    return " nor ".join(names)
