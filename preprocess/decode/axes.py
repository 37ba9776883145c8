"""The axes of a raw dataset: where its coordinates are, its levels, grid, times and ensemble members.

Contract: an axis that cannot be used is refused with the name of the file and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import units

_MEMBER_NAMES = ("number", "realization", "realisation", "member", "member_id", "ensemble", "ensemble_member", "ens")
_HEIGHT_NAMES = ("height", "height_above_ground", "heightaboveground")
_NO_LEAP = ("noleap", "365_day")
_STANDARD = ("standard", "gregorian", "proleptic_gregorian")


def coordinates(raw: xr.Dataset) -> dict[str, str]:
    """Raw names of the coordinates that are there ("time", "latitude", "longitude", "expver"), by canonical name."""
    every = [str(name) for name in raw.variables]
    names: dict[str, str] = {}
    for key in ("latitude", "longitude", "time", "expver"):
        named = [name for spelling in units.COORDINATE_NAMES[key] for name in every if name.lower() == spelling]
        angles = units.ANGLE_UNITS.get(key, ())
        named += [n for n in every if str(raw[n].attrs.get("units", "")).lower() in angles and raw[n].dims == (n,)]
        if named:
            names[key] = named[0]
    return names


def require_rectilinear(raw: xr.Dataset, names: Mapping[str, str], *, origin: str) -> None:
    """Refuse latitudes or longitudes that are not axes.

    Raises:
        ValueError: naming the axis.
    """
    for axis in ("latitude", "longitude"):
        if raw[names[axis]].ndim != 1:
            raise ValueError(
                f"{axis} must be one-dimensional (a rectilinear grid), got {raw[names[axis]].dims} in {origin}; "
                "regrid it to latitude and longitude first"
            )


def level_coordinate(array: xr.DataArray, names: Mapping[str, str]) -> str | None:
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


def whole_levels(coordinate: xr.DataArray, *, origin: str) -> tuple[int, ...]:
    """Levels in whole hPa, in the file's order; 0 stands for one that is no whole number.

    Raises:
        ValueError: they are no pressures.
    """
    kind = str(coordinate.attrs.get("standard_name", ""))
    if "formula_terms" in coordinate.attrs or "sigma" in kind or "hybrid" in kind:
        raise ValueError(
            f"levels must be pressures, got {coordinate.name!r} ({kind or 'with formula_terms'}) in {origin}; "
            "interpolate to pressure levels first"
        )
    pressures = units.pressure_levels(coordinate, origin=origin)
    return tuple(int(p) if abs(p - x) < 1e-3 else 0 for p, x in zip(np.rint(pressures), pressures, strict=True))


def horizontal_grid(raw: xr.Dataset, names: Mapping[str, str], *, origin: str) -> tuple[Grid, NDArray[np.int64] | None]:
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


def height_above_ground(array: xr.DataArray) -> float | None:
    """The only height of a field [m], or None.

    xarray gives a scalar coordinate to every field of a file; the field's own list of coordinates says whose it is.
    """
    own = str(array.encoding.get("coordinates", "")).split()
    for name in map(str, array.coords):
        if own and name not in own:
            continue
        coordinate = array[name]
        is_height = name.lower() in _HEIGHT_NAMES or coordinate.attrs.get("standard_name") == "height"
        if is_height and coordinate.size == 1 and str(coordinate.attrs.get("units", "m")).lower() in ("m", "meters"):
            return float(coordinate.values.ravel()[0])
    return None


@dataclass(frozen=True)
class Members:
    """The ensemble members of a raw dataset.

    Args:
        dim: name of the dimension, or of the scalar coordinate.
        labels: what they are numbered or called, in the file's order.
    """

    dim: str
    labels: tuple[str, ...]

    def __str__(self) -> str:
        return spell_members(self.labels)


def members(raw: xr.Dataset) -> Members | None:
    """The ensemble members of a raw dataset; None for one that is no ensemble."""
    scalars = [str(name) for name, coordinate in raw.coords.items() if coordinate.ndim == 0]
    for name in [*map(str, raw.dims), *scalars]:
        attrs = raw[name].attrs if name in raw.coords else {}
        if name.lower() in _MEMBER_NAMES or attrs.get("standard_name") == "realization":
            values = np.atleast_1d(raw[name].values) if name in raw.coords else np.arange(raw.sizes[name])
            return Members(name, tuple(_label(value) for value in values))
    return None


def spell_members(labels: Sequence[str]) -> str:
    """Members as messages print them, e.g. "10 (0 .. 9)"."""
    return f"{len(labels)} ({labels[0]} .. {labels[-1]})" if len(labels) > 1 else labels[0]


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode()
    return str(int(value)) if isinstance(value, np.floating) and value == int(value) else str(value).strip()


@dataclass(frozen=True)
class TimeAxis:
    """The times of a raw dataset.

    Args:
        times: datetime64[ns].
        lead_hours: hours from the analysis to each time; 0 for analyses.
        no_leap_days: whether they come from a calendar without 29 February.
    """

    times: NDArray[np.datetime64]
    lead_hours: NDArray[np.float64]
    no_leap_days: bool = False


def time_axis(raw: xr.Dataset, names: Mapping[str, str], *, origin: str) -> TimeAxis | None:
    """The time axis, or None without one.

    Raises:
        ValueError: of another calendar, no single axis, or not increasing.
    """
    if "time" not in names:
        return None
    coordinate = raw[names["time"]]
    if coordinate.ndim > 1:
        raise ValueError(
            f"time must be one axis, got {coordinate.name!r} along {coordinate.dims} in {origin}; "
            "select one forecast step per file"
        )
    times, no_leap_days = _dates(coordinate, origin=origin)
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
    return TimeAxis(times, lead, no_leap_days)


def _dates(coordinate: xr.DataArray, *, origin: str) -> tuple[NDArray[np.datetime64], bool]:
    """Times as datetime64[ns], and whether their calendar lacks 29 February.

    Raises:
        ValueError: they are no dates, or not ones of the standard calendar.
    """
    values = np.atleast_1d(coordinate.values)
    if np.issubdtype(values.dtype, np.datetime64):
        return values.astype("datetime64[ns]"), False
    calendar = getattr(values[0], "calendar", None) if values.dtype == object and values.size else None
    if calendar is None:
        raise ValueError(
            f"time must be dates of the standard calendar, got {coordinate.dtype} for {coordinate.name!r} in {origin}; "
            "give it units such as 'hours since 1900-01-01'"
        )
    if calendar not in (*_NO_LEAP, *_STANDARD):
        raise ValueError(
            f"time must be dates of the standard calendar, got calendar {calendar!r} for {coordinate.name!r} in "
            f"{origin}; convert it, e.g. with xarray's convert_calendar"
        )
    dates = np.array([date.isoformat() for date in values], "datetime64[us]")
    low, high = np.datetime64("1678-01-01"), np.datetime64("2262-01-01")
    if dates.min() < low or dates.max() >= high:
        raise ValueError(
            f"times must lie within the years 1678 .. 2261, got {values.min()} .. {values.max()} in {origin}; "
            "shift them"
        )
    return dates.astype("datetime64[ns]"), calendar in _NO_LEAP
