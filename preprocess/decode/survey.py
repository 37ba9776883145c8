"""What a raw dataset holds, in the catalogue's terms: variables, units, levels, grid and times.

Contract: a survey reads coordinates and attributes, never a field. What cannot be recognised is listed,
not guessed; what cannot be used (two spellings of one variable, an unknown unit, a time axis that does
not increase) is refused with the name of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import variables as catalogue

TIME_NAMES = ("valid_time", "time")
LEVEL_NAMES = ("level", "pressure_level", "isobaricinhpa", "isobaricinpa", "plev", "lev", "pressure", "levels")
LATITUDE_NAMES = ("latitude", "lat", "nav_lat", "g0_lat_1")
LONGITUDE_NAMES = ("longitude", "lon", "nav_lon", "g0_lon_2")
VERSION_NAMES = ("expver", "experimentversionnumber")

_HPA = {"hpa": 1.0, "mb": 1.0, "mbar": 1.0, "millibar": 1.0, "millibars": 1.0, "pa": 0.01, "pascal": 0.01}


@dataclass(frozen=True)
class Found:
    """One catalogue variable as a raw dataset holds it.

    Args:
        raw: its name there.
        scale, offset: canonical = scale * raw + offset.
        unit: the unit it claims, or "" for none.
        level_dim: its pressure dimension or scalar coordinate, None for a variable without levels.
        levels: hPa, in the file's order; empty without levels.
    """

    raw: str
    scale: float
    offset: float
    unit: str
    level_dim: str | None = None
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Survey:
    """What a raw dataset holds, found without reading a field.

    Args:
        origin: file or address, for messages.
        found: by catalogue short name.
        unknown: names of fields on latitude and longitude that the catalogue does not have.
        names: raw names of the coordinates "time", "latitude", "longitude", "expver" that exist.
        grid: grid of the fields in the order of the file, or None without any field.
        columns: order that makes longitude increase within one turn; None when the file's order does.
        times: time axis, datetime64[ns], or None.
        lead_hours: hours from the analysis to each time; 0 for analyses. Same length as `times`.
        versions: ECMWF experiment versions of the times, where the file tells them ("0001" ERA5, "0005" ERA5T).
    """

    origin: str
    found: Mapping[str, Found]
    unknown: tuple[str, ...]
    names: Mapping[str, str]
    grid: Grid | None
    columns: NDArray[np.int64] | None = None
    times: NDArray[np.datetime64] | None = None
    lead_hours: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    versions: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """What it holds, one phrase a variable."""
        lines = []
        for short, item in self.found.items():
            levels = f" at {spell_levels(item.levels)}" if item.levels else ""
            lines.append(f"{short} (as {item.raw!r}){levels}" if item.raw != short else f"{short}{levels}")
        return lines + [f"{name!r} (not in the catalogue)" for name in self.unknown]


def spell_levels(levels: Sequence[int]) -> str:
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
    horizontal = [names[k] for k in ("latitude", "longitude") if k in names]
    found: dict[str, Found] = {}
    unknown = []
    for name, array in raw.data_vars.items():
        if len(horizontal) < 2 or not set(horizontal) <= set(array.dims):
            continue
        level_dim = _level_coordinate(array, names)
        short = identify(str(name), array.attrs, on_levels=level_dim is not None)
        if short is None:
            unknown.append(str(name))
            continue
        if short in found:
            raise ValueError(
                f"variable {short!r} must be there once, got {found[short].raw!r} and {name!r} in {origin}; drop one"
            )
        levels = () if level_dim is None else _pressures(raw[level_dim], origin=origin)
        unit = str(array.attrs.get("units", array.attrs.get("GRIB_units", "")))
        scale, offset = conversion(short, unit, raw=str(name), origin=origin)
        found[short] = Found(str(name), scale, offset, unit, level_dim, levels)
    if not found:
        return Survey(origin, {}, tuple(unknown), names, None)
    grid, columns = _grid(raw, names, origin=origin)
    times, lead_hours = _times(raw, names, origin=origin)
    return Survey(origin, found, tuple(unknown), names, grid, columns, times, lead_hours, _versions(raw, names))


def identify(name: str, attrs: Mapping[str, Any], *, on_levels: bool) -> str | None:
    """The catalogue short name of a field, or None.

    Its name decides, then ECMWF's parameter number, then a short name among its attributes, then, for
    fields on pressure levels, the CF standard name. Geopotential without levels is that of the surface.

    Args:
        name: name in the file.
        attrs: its attributes.
        on_levels: whether it lies on pressure levels.
    """
    fitting = [v for v in catalogue.CATALOGUE if v.levels == on_levels]
    aliases = [name, str(attrs.get("GRIB_shortName", "")), str(attrs.get("short_name", ""))]
    for alias in aliases[:1]:
        for v in fitting:
            if alias.lower() in {n.lower() for n in v.names}:
                return v.short
    for v in fitting:
        if str(attrs.get("GRIB_paramId", "")) == str(v.param_id):
            return v.short
    for alias in aliases[1:]:
        for v in fitting:
            if alias and alias.lower() in {n.lower() for n in v.names}:
                return v.short
    if not on_levels:
        z = catalogue.BY_SHORT["z"]  # heights ("gh") without levels may be those of the tropopause or of 0 degrees C
        return "orog" if name.lower() in (z.short, z.long) else None
    for v in fitting:
        if attrs.get("standard_name") == v.standard_name:
            return v.short
    return None


def conversion(short: str, unit: str, *, raw: str, origin: str) -> tuple[float, float]:
    """(scale, offset) to the canonical unit.

    A field that names no unit is taken as canonical; its range is checked when it is read.

    Raises:
        ValueError: the unit is not one the catalogue can convert.
    """
    wanted = catalogue.BY_SHORT[short].unit
    given = unit.strip()
    spellings = {wanted.lower(), *catalogue.UNIT_SPELLINGS.get(wanted, ())}
    if not given or given.lower() in spellings:
        return 1.0, 0.0
    if (given.lower(), wanted) in catalogue.CONVERSIONS:
        return catalogue.CONVERSIONS[given.lower(), wanted]
    known = sorted({u for u, target in catalogue.CONVERSIONS if target == wanted})
    raise ValueError(
        f"variable {short!r} must be in {wanted}{' or ' + ', '.join(known) if known else ''}, got {unit!r} for {raw!r} "
        f"in {origin}; convert it, or add the unit to CONVERSIONS in pipeline/weather/variables.py"
    )


def _coordinates(raw: xr.Dataset, *, origin: str) -> dict[str, str]:
    """Raw names of the coordinates that are there, by canonical name."""
    names: dict[str, str] = {}
    every = [str(n) for n in raw.variables]
    for key, spellings, units in (
        ("latitude", LATITUDE_NAMES, {"degrees_north", "degree_north", "degrees north", "degreen"}),
        ("longitude", LONGITUDE_NAMES, {"degrees_east", "degree_east", "degrees east", "degreee"}),
    ):
        named = [n for s in spellings for n in every if n.lower() == s]
        by_unit = [n for n in every if str(raw[n].attrs.get("units", "")).lower() in units and raw[n].dims == (n,)]
        if not named and not by_unit:
            continue
        names[key] = (named or by_unit)[0]
        if raw[names[key]].ndim != 1:
            raise ValueError(
                f"{key} must be one-dimensional (a rectilinear grid), got {raw[names[key]].dims} in {origin}; "
                "regrid it to latitude and longitude first"
            )
    for key, other in (("time", TIME_NAMES), ("expver", VERSION_NAMES)):
        named = [n for s in other for n in every if n.lower() == s]
        if named:
            names[key] = named[0]
    return names


def _level_coordinate(array: xr.DataArray, names: Mapping[str, str]) -> str | None:
    """The pressure dimension of a field, or its scalar pressure coordinate, or None."""
    taken = set(names.values())
    for name in [*map(str, array.dims), *(str(c) for c in array.coords if array[c].ndim == 0)]:
        if name in taken or name not in array.coords:
            continue
        attrs = array[name].attrs
        is_pressure = attrs.get("standard_name") == "air_pressure" or str(attrs.get("units", "")).lower() in _HPA
        if name.lower() in LEVEL_NAMES or is_pressure:
            return name
    return None


def _pressures(coordinate: xr.DataArray, *, origin: str) -> tuple[int, ...]:
    """Levels in whole hPa, in the file's order; 0 stands for one that is no whole number."""
    values = np.atleast_1d(coordinate.values).astype(np.float64)
    unit = str(coordinate.attrs.get("units", "")).lower()
    in_pascal = "inpa" in str(coordinate.name).lower() or (not unit and values.max() > 2000)
    factor = _HPA.get(unit, 0.01 if in_pascal else 1.0)
    if unit not in _HPA and unit not in ("", "1"):
        raise ValueError(
            f"levels must be pressures in hPa or Pa, got unit {unit!r} for {coordinate.name!r} in {origin}; "
            "interpolate to pressure levels first"
        )
    pressures = values * factor
    whole = np.rint(pressures)
    return tuple(int(p) if abs(p - x) < 1e-3 else 0 for p, x in zip(whole, pressures, strict=True))


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
            "select one forecast step a file"
        )
    times = np.atleast_1d(coordinate.values).astype("datetime64[ns]")
    if np.isnat(times).any():
        raise ValueError(f"time must have no missing values, got {np.count_nonzero(np.isnat(times))} in {origin}")
    step = np.diff(times)
    if (step <= np.timedelta64(0)).any():
        at = int(np.flatnonzero(step <= np.timedelta64(0))[0]) + 1
        kind = "twice" if times[at] in times[:at] else f"after {stamp(times[at - 1])}"
        raise ValueError(
            f"times of a file must increase and be there once, got {stamp(times[at])} {kind} in {origin}; "
            "sort them and drop the duplicates"
        )
    lead = np.zeros(times.size)
    if (
        "step" in raw.variables
        and np.issubdtype(raw["step"].dtype, np.timedelta64)
        and raw["step"].size in (1, lead.size)
    ):
        lead[:] = np.ravel(raw["step"].values) / np.timedelta64(1, "h")
    return times, lead


def _versions(raw: xr.Dataset, names: Mapping[str, str]) -> tuple[str, ...]:
    if "expver" not in names:
        return ()
    values = np.unique(np.ravel(raw[names["expver"]].values))
    return tuple(str(v).strip().zfill(4) for v in values if str(v).strip())
