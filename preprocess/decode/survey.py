"""What a raw dataset holds, in the catalogue's terms: variables, units, levels, grid and times.

Contract: a survey reads coordinates and attributes, never a field. What cannot be recognised is listed,
not guessed; what cannot be used (two spellings of one variable, an unknown unit, a time axis that does
not increase) is refused with the name of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import units
from pipeline.weather.variables import BY_SHORT, CATALOGUE

FINAL, PRELIMINARY = "0001", "0005"
"""ECMWF's experiment versions of ERA5 and of ERA5T, its first release."""


@dataclass(frozen=True)
class RawField:
    """One catalogue variable as a raw dataset holds it.

    Args:
        name: its name there.
        to_canonical: converts its values to the catalogue's unit.
        unit: the unit it claims, or "" for none.
        level_dim: its pressure dimension or scalar coordinate, None for a variable without levels.
        levels: hPa, in the file's order; empty without levels.
    """

    name: str
    to_canonical: units.Conversion
    unit: str
    level_dim: str | None = None
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a raw dataset holds, known without reading a field.

    Args:
        origin: file or address, for messages.
        fields: by catalogue short name.
        unknown: names of fields on latitude and longitude that the catalogue does not have.
        names: raw names of the coordinates "time", "latitude", "longitude", "expver" that exist.
        grid: grid of the fields in the order of the file, or None without any field.
        columns: order that makes longitude increase within one turn; None when the file's order does.
        times: time axis, datetime64[ns], or None.
        lead_hours: hours from the analysis to each time; 0 for analyses. Same length as `times`.
        versions: ECMWF experiment versions of the times, where the file says so (`FINAL`, `PRELIMINARY`).
    """

    origin: str
    fields: Mapping[str, RawField]
    unknown: tuple[str, ...]
    names: Mapping[str, str]
    grid: Grid | None
    columns: NDArray[np.int64] | None = None
    times: NDArray[np.datetime64] | None = None
    lead_hours: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    versions: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """What it holds, one phrase per variable."""
        lines = []
        for short, held in self.fields.items():
            alias = f" (as {held.name!r})" if held.name != short else ""
            lines.append(f"{short}{alias}" + (f" at {spell_levels(held.levels)}" if held.levels else ""))
        return lines + [f"{name!r} (not in the catalogue)" for name in self.unknown]


def spell_levels(levels: Iterable[int]) -> str:
    """Levels as messages print them."""
    ordered = sorted(levels)
    if len(ordered) <= 20:
        return f"{', '.join(map(str, ordered))} hPa"
    return f"{len(ordered)} levels, {', '.join(map(str, ordered[:3]))} .. {ordered[-1]} hPa"


def survey(raw: xr.Dataset, *, origin: str) -> Survey:
    """Find out what a raw dataset holds.

    Args:
        raw: as xarray opened it, with times and packing decoded lazily.
        origin: file or address, for messages.

    Raises:
        ValueError: two fields are the same variable, a unit is not known, or a coordinate is not usable.
    """
    names = _coordinates(raw, origin=origin)
    horizontal = {names[axis] for axis in ("latitude", "longitude") if axis in names}
    fields: dict[str, RawField] = {}
    unknown = []
    for name, array in ((str(n), a) for n, a in raw.data_vars.items()):
        if len(horizontal) < 2 or not horizontal <= set(array.dims):
            continue
        level_dim = _level_coordinate(array, names)
        short = identify(name, array.attrs, on_levels=level_dim is not None)
        if short is None:
            unknown.append(name)
            continue
        if short in fields:
            raise ValueError(
                f"variable {short!r} must be there once, got {fields[short].name!r} and {name!r} in {origin}; drop one"
            )
        levels = () if level_dim is None else _whole_levels(raw[level_dim], origin=origin)
        unit = str(array.attrs.get("units", array.attrs.get("GRIB_units", "")))
        to_canonical = units.conversion(BY_SHORT[short], unit, name=name, origin=origin)
        fields[short] = RawField(name, to_canonical, unit, level_dim, levels)
    if not fields:
        return Survey(origin, {}, tuple(unknown), names, None)
    grid, columns = _grid(raw, names, origin=origin)
    times, lead_hours = _times(raw, names, origin=origin)
    versions = set(version_names(raw[names["expver"]].values)) - {""} if "expver" in names else set()
    return Survey(origin, fields, tuple(unknown), names, grid, columns, times, lead_hours, tuple(sorted(versions)))


def identify(name: str, attrs: Mapping[str, Any], *, on_levels: bool) -> str | None:
    """The catalogue short name of a field, or None.

    Its name decides, then ECMWF's parameter number, then a short name among its attributes, then, for
    fields on pressure levels, the CF standard name. Geopotential without levels is that of the surface.

    Args:
        name: name in the file.
        attrs: its attributes.
        on_levels: whether it lies on pressure levels.
    """
    by_name, *by_attribute = (
        units.variable_named(str(alias))
        for alias in (name, attrs.get("GRIB_shortName", ""), attrs.get("short_name", ""))
    )
    by_number = [v for v in CATALOGUE if str(v.param_id) == str(attrs.get("GRIB_paramId", ""))]
    for variable in (by_name, *by_number, *by_attribute):
        if variable is not None and variable.levels == on_levels:
            return variable.short
    if not on_levels:
        z = BY_SHORT["z"]  # heights ("gh") without levels may be those of the tropopause or of 0 degrees C
        return "orog" if name.lower() in (z.short, z.long) else None
    return next((v.short for v in CATALOGUE if v.levels and v.standard_name == attrs.get("standard_name")), None)


def _coordinates(raw: xr.Dataset, *, origin: str) -> dict[str, str]:
    """Raw names of the coordinates that are there, by canonical name."""
    every = [str(name) for name in raw.variables]
    names: dict[str, str] = {}
    for key in ("latitude", "longitude", "time", "expver"):
        named = [name for spelling in units.COORDINATE_NAMES[key] for name in every if name.lower() == spelling]
        angles = units.ANGLE_UNITS.get(key, ())
        named += [n for n in every if str(raw[n].attrs.get("units", "")).lower() in angles and raw[n].dims == (n,)]
        if named:
            names[key] = named[0]
        if named and angles and raw[named[0]].ndim != 1:
            raise ValueError(
                f"{key} must be one-dimensional (a rectilinear grid), got {raw[named[0]].dims} in {origin}; "
                "regrid it to latitude and longitude first"
            )
    return names


def _level_coordinate(array: xr.DataArray, names: Mapping[str, str]) -> str | None:
    """The pressure dimension of a field, or its scalar pressure coordinate, or None."""
    taken = set(names.values())
    for name in [*map(str, array.dims), *(str(c) for c in array.coords if array[c].ndim == 0)]:
        if name in taken or name not in array.coords:
            continue
        attrs = array[name].attrs
        is_pressure = (
            attrs.get("standard_name") == "air_pressure" or str(attrs.get("units", "")).lower() in units.HECTOPASCALS
        )
        if name.lower() in units.COORDINATE_NAMES["level"] or is_pressure:
            return name
    return None


def _whole_levels(coordinate: xr.DataArray, *, origin: str) -> tuple[int, ...]:
    """Levels in whole hPa, in the file's order; 0 stands for one that is no whole number."""
    pressures = units.pressure_levels(coordinate, origin=origin)
    return tuple(int(p) if abs(p - x) < 1e-3 else 0 for p, x in zip(np.rint(pressures), pressures, strict=True))


def _grid(raw: xr.Dataset, names: Mapping[str, str], *, origin: str) -> tuple[Grid, NDArray[np.int64] | None]:
    """The grid, and the order of columns that gives it."""
    lat = raw[names["latitude"]].values.astype(np.float64)
    lon = raw[names["longitude"]].values.astype(np.float64)
    columns = None
    if lon.size > 1 and not (np.all(np.diff(lon) > 0) and lon[-1] - lon[0] < 360.0 - 1e-6):
        turned = np.round(lon % 360.0, 9) % 360.0
        columns = np.unique(turned, return_index=True)[1]  # also drops a repeated meridian
        lon = turned[columns]
    try:
        return Grid(lat, lon), columns
    except ValueError as error:
        raise ValueError(f"{error} (in {origin})") from None


def _times(
    raw: xr.Dataset, names: Mapping[str, str], *, origin: str
) -> tuple[NDArray[np.datetime64] | None, NDArray[np.float64]]:
    """The time axis and the lead of each time; (None, empty) without one."""
    if "time" not in names:
        return None, np.zeros(0)
    coordinate = raw[names["time"]]
    if not np.issubdtype(coordinate.dtype, np.datetime64):
        raise ValueError(
            f"time must be dates of the standard calendar, got {coordinate.dtype} for {coordinate.name!r} in {origin}; "
            "give it units such as 'hours since 1900-01-01'"
        )
    if coordinate.ndim > 1:
        raise ValueError(
            f"time must be one axis, got {coordinate.name!r} along {coordinate.dims} in {origin}; "
            "select one forecast step per file"
        )
    times = np.atleast_1d(coordinate.values).astype("datetime64[ns]")
    if np.isnat(times).any():
        raise ValueError(f"time must have no missing values, got {np.count_nonzero(np.isnat(times))} in {origin}")
    back = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if back.size:
        at = int(back[0]) + 1
        kind = "twice" if times[at] in times[:at] else f"after {stamp(times[at - 1])}"
        raise ValueError(
            f"times of a file must increase and be there once, got {stamp(times[at])} {kind} in {origin}; "
            "sort them and drop the duplicates"
        )
    lead, step = np.zeros(times.size), raw.variables.get("step")
    if step is not None and np.issubdtype(step.dtype, np.timedelta64) and step.size in (1, lead.size):
        lead[:] = np.ravel(step.values) / np.timedelta64(1, "h")
    return times, lead


def version_names(values: Any) -> list[str]:
    """ECMWF's experiment versions as four digits, "" where there is none."""
    return [text and text.zfill(4) for text in (str(value).strip() for value in np.ravel(values))]
