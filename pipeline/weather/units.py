"""Spellings of names and units: the one place where a file's are read in the catalogue's terms and converted.

Contract: nothing is guessed. Names and units are compared without case; a unit that is neither a spelling of the
canonical one nor convertible to it is refused. The tables list what is accepted, instead of a library that parses
units: pint would take whatever has the right dimension (degrees Fahrenheit; metres for geopotential only with a rule
of ours), reads "c" as the speed of light, does not parse "m2 s-2", and takes a second to load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.weather.variables import CATALOGUE, STANDARD_GRAVITY, Variable

Values = TypeVar("Values", NDArray[np.float32], NDArray[np.float64], xr.DataArray, float)

COORDINATE_NAMES = {
    "time": ("valid_time", "time"),
    "level": ("level", "pressure_level", "isobaricinhpa", "isobaricinpa", "plev", "lev", "pressure", "levels"),
    "latitude": ("latitude", "lat", "nav_lat", "g0_lat_1"),
    "longitude": ("longitude", "lon", "nav_lon", "g0_lon_2"),
    "expver": ("expver", "experimentversionnumber"),
}
"""Spellings of coordinates in lower case, those to prefer first."""

ANGLE_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees north", "degreen"),
    "longitude": ("degrees_east", "degree_east", "degrees east", "degreee"),
}
"""Units by which a horizontal coordinate of another name is recognised."""

HECTOPASCALS = {"hpa": 1.0, "mb": 1.0, "mbar": 1.0, "millibar": 1.0, "millibars": 1.0, "pa": 0.01, "pascal": 0.01}
"""Units of pressure levels, in hPa."""

_SPELLINGS = {
    "m2 s-2": ("m**2 s**-2", "m^2 s^-2", "m2/s2", "m^2/s^2", "m2 s^-2", "m**2/s**2", "gpm m/s2"),
    "K": ("kelvin", "degk"),
    "m s-1": ("m s**-1", "m/s", "m s^-1", "meter second-1", "meters/second"),
    "kg kg-1": ("kg kg**-1", "kg/kg", "kg kg^-1", "1", "dimensionless", "kg kg^{-1}"),
    "%": ("percent",),
    "Pa s-1": ("pa s**-1", "pa/s"),
    "Pa": ("pascal", "pascals"),
    "kg m-2": ("kg m**-2", "kg/m2"),
    "1": ("(0 - 1)", "0-1", "dimensionless", "proportion"),
}
"""Other spellings of each canonical unit, in lower case."""

_CONVERSIONS = {
    "K": {"degc": (1.0, 273.15), "celsius": (1.0, 273.15), "c": (1.0, 273.15)},
    "Pa": {"hpa": (100.0, 0.0), "mb": (100.0, 0.0)},
    "m2 s-2": {"gpm": (STANDARD_GRAVITY, 0.0), "m": (STANDARD_GRAVITY, 0.0)},
    "kg kg-1": {"g kg-1": (1e-3, 0.0), "g kg**-1": (1e-3, 0.0)},
}
"""Canonical unit -> other unit in lower case -> (scale, offset)."""

_BY_NAME = {name.lower(): variable for variable in CATALOGUE for name in variable.names}


@dataclass(frozen=True)
class Conversion:
    """How values become canonical: scale * value + offset."""

    scale: float = 1.0
    offset: float = 0.0

    @property
    def changes(self) -> bool:
        """Whether any value becomes another."""
        return (self.scale, self.offset) != (1.0, 0.0)

    def __call__(self, values: Values) -> Values:
        """Canonical values, of the dtype of `values`; lazy where they are."""
        return values * self.scale + self.offset if self.changes else values


def variable_named(name: str) -> Variable | None:
    """The catalogue entry that a name in a file stands for, or None."""
    return _BY_NAME.get(name.lower())


def conversion(variable: Variable, unit: str, *, name: str, origin: object) -> Conversion:
    """How to convert a field to the catalogue's unit.

    A field that names no unit is taken as canonical; its range is checked when it is read.

    Args:
        variable: what the field is.
        unit: as the file spells it, "" for none.
        name: of the field in the file, for the message.
        origin: file or address, for the message.

    Raises:
        ValueError: the unit is neither the catalogue's nor convertible to it.
    """
    known, given = _CONVERSIONS.get(variable.unit, {}), unit.strip().lower()
    if given in ("", variable.unit.lower(), *_SPELLINGS.get(variable.unit, ())):
        return Conversion()
    if given in known:
        return Conversion(*known[given])
    raise ValueError(
        f"variable {variable.short!r} must be in {' or '.join([variable.unit, *known])}, got {unit!r} for {name!r} in "
        f"{origin}; convert it, or add the unit to pipeline/weather/units.py"
    )


def pressure_levels(coordinate: xr.DataArray, *, origin: object) -> NDArray[np.float64]:
    """A coordinate of pressure levels in hPa, in the file's order.

    Raises:
        ValueError: its unit is not one of pressure.
    """
    values = np.atleast_1d(coordinate.values).astype(np.float64)
    unit = str(coordinate.attrs.get("units", "")).lower()
    if unit not in HECTOPASCALS and unit not in ("", "1"):
        raise ValueError(
            f"levels must be pressures in hPa or Pa, got unit {unit!r} for {coordinate.name!r} in {origin}; "
            "interpolate to pressure levels first"
        )
    in_pascal = "inpa" in str(coordinate.name).lower() or (not unit and values.max() > 2000)
    return values * HECTOPASCALS.get(unit, 0.01 if in_pascal else 1.0)
