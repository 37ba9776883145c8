"""What a raw dataset holds, in the catalogue's terms: variables, units, levels, grid and times.

Contract: a survey reads coordinates and attributes, never a field. What cannot be recognised is listed,
not guessed; what cannot be used (two spellings of one variable, an unknown unit, a time axis that does
not increase) is refused with the name of the file, unless nobody asked for it: then it is only named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.grid import Grid
from pipeline.weather import units
from pipeline.weather.variables import BY_SHORT
from preprocess.decode import axes
from preprocess.decode.identify import Request, standard_name

FINAL, PRELIMINARY = "0001", "0005"
"""ECMWF's experiment versions of ERA5 and of ERA5T, its first release."""


@dataclass(frozen=True)
class RawField:
    """One catalogue variable as a raw dataset holds it.

    Args:
        name: its name there.
        to_canonical: converts its values to the catalogue's unit; None where no unit is named.
        unit: the unit it claims or the user gives it, or "" for none.
        level_dim: its pressure dimension or scalar coordinate, None for a variable without levels.
        levels: hPa, in the file's order; empty without levels.
    """

    name: str
    to_canonical: units.Conversion | None
    unit: str
    level_dim: str | None = None
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a raw dataset holds, known without reading a field.

    Args:
        origin: file or address, for messages.
        fields: by catalogue short name.
        unknown: names of fields on latitude and longitude that the catalogue does not have, each with its CF
            standard name or "".
        unasked: names of fields that nobody asked for.
        names: raw names of the coordinates "time", "latitude", "longitude", "expver" that exist.
        grid: grid of the fields in the order of the file, or None without any field.
        columns: order that makes longitude increase within one turn; None when the file's order does.
        times: time axis, datetime64[ns], or None.
        lead_hours: hours from the analysis to each time; 0 for analyses. Same length as `times`.
        versions: ECMWF experiment versions of the times, where the file says so (`FINAL`, `PRELIMINARY`).
        no_leap_days: whether its calendar has no 29 February.
        members: what the ensemble's members are called; empty for what is no ensemble.
        picked: by dimension, the position of the one member that is read.
    """

    origin: str
    fields: Mapping[str, RawField]
    unknown: Mapping[str, str]
    names: Mapping[str, str]
    grid: Grid | None
    columns: NDArray[np.int64] | None = None
    times: NDArray[np.datetime64] | None = None
    lead_hours: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    versions: tuple[str, ...] = ()
    no_leap_days: bool = False
    members: tuple[str, ...] = ()
    picked: Mapping[str, int] = field(default_factory=dict)
    unasked: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """What it holds, one phrase per variable."""
        lines = []
        for short, held in self.fields.items():
            alias = f" (as {held.name!r})" if held.name != short else ""
            lines.append(f"{short}{alias}" + (f" at {spell_levels(held.levels)}" if held.levels else ""))
        for name, standard in self.unknown.items():
            lines.append(f"{name!r} ({f'{standard}, ' if standard else ''}not in the catalogue)")
        return lines + [f"{name!r}" for name in self.unasked]


def spell_levels(levels: Iterable[int]) -> str:
    """Levels as messages print them."""
    ordered = sorted(levels)
    if len(ordered) <= 20:
        return f"{', '.join(map(str, ordered))} hPa"
    return f"{len(ordered)} levels, {', '.join(map(str, ordered[:3]))} .. {ordered[-1]} hPa"


def survey(raw: xr.Dataset, *, origin: str, request: Request | None = None) -> Survey:
    """Find out what a raw dataset holds.

    Args:
        raw: as xarray opened it, with times and packing decoded lazily.
        origin: file or address, for messages.
        request: what is wanted; all of the catalogue for None.

    Raises:
        ValueError: of what is wanted, two fields are the same variable, a unit is not known, a coordinate is not
            usable, or there are several members of an ensemble and none is chosen.
    """
    request = request or Request()
    names = axes.coordinates(raw)
    found, unknown, unasked = _recognised(raw, names, request, origin=origin)
    others: dict[str, Any] = {"unasked": tuple(unasked)}
    if not found:
        return Survey(origin, {}, unknown, names, None, **others)
    axes.require_rectilinear(raw, names, origin=origin)
    picked: dict[str, int] = {}
    ensemble = axes.members(raw[[held.name for held in found.values()]])
    if ensemble is not None:
        others["members"] = ensemble.labels
        position = _member(ensemble, request, origin=origin)
        if position is None:  # all of it belongs to another member
            return Survey(origin, {}, unknown, names, None, **others)
        picked = {ensemble.dim: position}
    _require_no_further_axes(raw, found, names, picked, origin=origin)
    grid, columns = axes.horizontal_grid(raw, names, origin=origin)
    time = axes.time_axis(raw, names, origin=origin)
    if time is not None:
        others |= {"times": time.times, "lead_hours": time.lead_hours, "no_leap_days": time.no_leap_days}
    if "expver" in names:
        others["versions"] = tuple(sorted(set(version_names(raw[names["expver"]].values)) - {""}))
    return Survey(origin, found, unknown, names, grid, columns, picked=picked, **others)


def _recognised(
    raw: xr.Dataset, names: Mapping[str, str], request: Request, *, origin: str
) -> tuple[dict[str, RawField], dict[str, str], list[str]]:
    """(fields that are wanted, by short name; unknown ones with their standard names; those nobody asked for)."""
    found: dict[str, RawField] = {}
    unknown: dict[str, str] = {}
    unasked: list[str] = []
    for name, array in ((str(n), a) for n, a in raw.data_vars.items()):
        if not _is_horizontal(raw, array, names):
            continue
        level_dim = axes.level_coordinate(array, names)
        height = axes.height_above_ground(array)
        short = request.identify(name, array.attrs, on_levels=level_dim is not None, height=height)
        if short is None:
            unknown[name] = standard_name(array.attrs)
        elif not request.wants(short):
            unasked.append(name)
        elif short in found and (derived := _derived(raw, short, found[short].name, name)):
            unknown[derived] = standard_name(raw[derived].attrs)
            if derived != name:
                found[short] = _raw_field(array, short, level_dim, request, origin=origin)
        elif short in found:
            raise ValueError(
                f"variable {short!r} must be there once, got {found[short].name!r} and {name!r} in {origin}; drop one, "
                f"or say which one it is, e.g. source.names: {{{short}: {name}}}"
            )
        else:
            found[short] = _raw_field(array, short, level_dim, request, origin=origin)
    return found, unknown, unasked


def _is_horizontal(raw: xr.Dataset, array: xr.DataArray, names: Mapping[str, str]) -> bool:
    """Whether a field lies on latitudes and longitudes, be they axes or not."""
    if not {"latitude", "longitude"} <= names.keys():
        return False
    return {str(d) for axis in ("latitude", "longitude") for d in raw[names[axis]].dims} <= set(array.dims)


def _derived(raw: xr.Dataset, short: str, *names: str) -> str | None:
    """Of two fields that seem one variable, the one that bears its standard name only: made from the other."""
    strange = [name for name in names if units.variable_named(name) is not BY_SHORT[short]]
    return strange[0] if len(strange) == 1 and standard_name(raw[strange[0]].attrs) else None


def _raw_field(array: xr.DataArray, short: str, level_dim: str | None, request: Request, *, origin: str) -> RawField:
    name = str(array.name)
    levels = () if level_dim is None else axes.whole_levels(array[level_dim], origin=origin)
    stated = str(array.attrs.get("units", array.attrs.get("GRIB_units", ""))).strip()
    unit = request.units.get(short, stated)
    remedy = f"convert it, or say what its unit is, e.g. source.units: {{{short}: {BY_SHORT[short].unit}}}"
    conversion = units.conversion(BY_SHORT[short], unit, name=name, origin=origin, remedy=remedy) if unit else None
    return RawField(name, conversion, unit, level_dim, levels)


def _member(ensemble: axes.Members, request: Request, *, origin: str) -> int | None:
    """The position of the member to read; None where the file holds another one only.

    Raises:
        ValueError: there are several, and none of them is chosen.
    """
    if request.member is not None and str(request.member) in ensemble.labels:
        return ensemble.labels.index(str(request.member))
    if len(ensemble.labels) == 1:
        return 0 if request.member is None else None
    if request.member is None:
        raise ValueError(several_members(ensemble.labels, origin))
    raise ValueError(f"source.member must be one of the ensemble's, got {request.member}; {origin} holds {ensemble}")


def several_members(labels: Sequence[str], origin: str) -> str:
    """The message on an ensemble of which no member is chosen."""
    return (
        f"source must hold one member of an ensemble, got {axes.spell_members(labels)} in {origin}; choose one, e.g. "
        f"source.member: {labels[0]}"
    )


def _require_no_further_axes(
    raw: xr.Dataset, fields: Mapping[str, RawField], names: Mapping[str, str], picked: Mapping[str, int], *, origin: str
) -> None:
    """Refuse a field that depends on more than time, level, latitude and longitude.

    Raises:
        ValueError: naming the dimension.
    """
    known = {str(d) for name in names.values() for d in raw[name].dims} | set(names.values()) | picked.keys()
    for short, held in fields.items():
        for dim in (str(d) for d in raw[held.name].dims):
            if dim not in known and dim != held.level_dim and raw.sizes[dim] > 1:
                raise ValueError(
                    f"variable {short!r} must depend on time, level, latitude, longitude only, got dimension {dim!r} "
                    f"of length {raw.sizes[dim]} in {origin}; select one first"
                )


def version_names(values: Any) -> list[str]:
    """ECMWF's experiment versions as four digits, "" where there is none."""
    return [text and text.zfill(4) for text in (str(value).strip() for value in np.ravel(values))]
