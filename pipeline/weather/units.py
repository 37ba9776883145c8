"""Spellings of names and units: the one place where a file's are read in the catalogue's terms and converted.

Contract: nothing is guessed. Names and units are compared without case; a unit that is neither a spelling of the
canonical one nor convertible to it is refused. The tables decide first: they hold what
meteorological files say, which a general parser reads otherwise ("c" is the speed of light, "mb" a millibarn, "gpm"
unknown) or only with a second of loading. Any other unit goes to pint.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any, TypeVar

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

_USUAL: dict[str, dict[str, tuple[float, float]]] = {
    "m2 s-2": {"gpm": (STANDARD_GRAVITY, 0.0), "gpdam": (10.0 * STANDARD_GRAVITY, 0.0)},
    "K": {"degC": (1.0, 273.15)},
    "Pa": {"hPa": (100.0, 0.0)},
    "kg kg-1": {"g kg-1": (1e-3, 0.0)},
    "%": {"1": (100.0, 0.0)},
    "kg m-2": {"mm": (1.0, 0.0)},
}
"""Canonical unit -> other units in which archives hold such fields -> (scale, offset)."""

_STATED = {"1": {"%": (0.01, 0.0)}}
"""Likewise, where a file must say so: values would not tell them apart."""

_SPELLINGS = {
    "m2 s-2": ("m2/s2", "gpm m/s2", "m+2 s-2", "j kg-1", "j/kg"),
    "gpm": ("m", "meter", "meters", "metre", "metres", "geopotential meters", "geopotential metres"),
    "gpdam": ("dam", "gpdm", "dagpm", "geopotential decameters"),
    "K": ("kelvin", "kelvins", "degk", "deg k", "degree k", "degrees k", "degrees kelvin", "degree_kelvin"),
    "degC": (
        "c", "celsius", "deg c", "deg_c", "degree c", "degrees c", "degree celsius", "degrees celsius",
        "degree_celsius", "degrees_celsius", "°c",
    ),
    "m s-1": ("m/s", "m/sec", "m sec-1", "meter second-1", "meters/second", "meters per second"),
    "kg kg-1": ("kg/kg", "1", "dimensionless"),
    "g kg-1": ("g/kg", "gram/kg", "grams/kg"),
    "%": ("percent", "(0 - 100)"),
    "Pa s-1": ("pa/s", "pascal/s", "pa/sec"),
    "Pa": ("pascal", "pascals"),
    "hPa": ("mb", "mbar", "mbars", "millibar", "millibars", "hectopascal", "hectopascals"),
    "kg m-2": ("kg/m2",),
    "mm": ("millimeter", "millimeters", "millimetre", "millimetres"),
    "1": ("(0 - 1)", "0-1", "dimensionless", "proportion", "fraction", "none"),
}  # fmt: skip
"""Other spellings of a unit, as `_plain` gives them."""

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


def usual_conversions(variable: Variable) -> dict[str, Conversion]:
    """Units in which archives hold a variable, the catalogue's first, and how each becomes canonical."""
    others = _USUAL.get(variable.unit, {})
    return {variable.unit: Conversion()} | {unit: Conversion(*numbers) for unit, numbers in others.items()}


def conversion(variable: Variable, unit: str, *, name: str, origin: object, remedy: str = "convert it") -> Conversion:
    """How to convert a field to the catalogue's unit.

    A field that names no unit is taken as canonical; who reads the source asks for more (`preprocess.sources`).

    Args:
        variable: what the field is.
        unit: as the file spells it, "" for none.
        name: of the field in the file, for the message.
        origin: file or address, for the message.
        remedy: what the message advises.

    Raises:
        ValueError: the unit is neither the catalogue's nor convertible to it.
    """
    given = _plain(unit)
    usual = usual_conversions(variable)
    stated = {unit: Conversion(*numbers) for unit, numbers in _STATED.get(variable.unit, {}).items()}
    for known, found in (usual | stated).items():
        if given in ("" if known == variable.unit else known, known.lower(), *_SPELLINGS.get(known, ())):
            return found
    parsed = _parsed(unit, variable.unit)
    if parsed is None:
        raise ValueError(
            f"variable {variable.short!r} must be in {' or '.join(usual)}, or in a unit that converts to "
            f"{variable.unit}, got {unit!r} for {name!r} in {origin}; {remedy}"
        )
    return parsed


def _plain(unit: str) -> str:
    """A unit in lower case, its exponents without signs: "m**2 s^{-2}" is "m2 s-2"."""
    return " ".join(re.sub(r"\*\*|[\^{}]", "", unit.lower()).replace("*", " ").split())


def _parsed(unit: str, canonical: str) -> Conversion | None:
    """The conversion of a unit that is not in the tables, or None where pint cannot tell.

    Heights become geopotential, through the standard gravity. A fraction is no unit of its own, so what shares no
    more than that with the canonical unit is refused: a mixing ratio is no relative humidity.
    """
    if canonical in ("1", "%"):
        return None
    registry = _registry()
    targets = [(canonical, 1.0)] + ([("m", STANDARD_GRAVITY)] if canonical == "m2 s-2" else [])
    try:
        one = registry.Quantity(1.0, registry.parse_units(unit.strip()))
        factors = {str(name) for name, _ in one.unit_items()}
        # pint takes the degrees of "degrees X" for an angle, and a fraction of anything for a plain number.
        if factors & {"degree", "radian"} or any(name.startswith("delta_") for name in factors):
            return None
        if canonical == "kg kg-1" and {str(registry.get_dimensionality(name)) for name in factors} != {"[mass]"}:
            return None
        for target, scale in targets:
            if one.is_compatible_with(target):
                offset = float(registry.Quantity(0.0, one.units).to(target).magnitude)
                return Conversion((float(one.to(target).magnitude) - offset) * scale, offset * scale)
    except Exception:  # any complaint of its parser
        return None
    return None


@functools.cache
def _registry() -> Any:
    import pint  # takes a second to load, and few files need it

    exponents = functools.partial(re.sub, r"([A-Za-z])(-?\d)", r"\1**\2")  # m s-1 is m s**-1
    return pint.UnitRegistry(preprocessors=[lambda text: exponents(text.replace("^", "**"))])


def pressure_levels(coordinate: xr.DataArray, *, origin: object) -> NDArray[np.float64]:
    """A coordinate of pressure levels in hPa, in the file's order.

    Raises:
        ValueError: its unit is not one of pressure.
    """
    values = np.atleast_1d(coordinate.values).astype(np.float64)
    unit = str(coordinate.attrs.get("units", ""))
    factor = HECTOPASCALS.get(unit.lower())
    if factor is None and unit in ("", "1"):
        in_pascal = "inpa" in str(coordinate.name).lower() or (not unit and values.max() > 2000)
        factor = 0.01 if in_pascal else 1.0
    if factor is None:
        parsed = _parsed(unit, "Pa")
        if parsed is None:
            raise ValueError(
                f"levels must be pressures in hPa or Pa, got unit {unit!r} for {coordinate.name!r} in {origin}; "
                "interpolate to pressure levels first"
            )
        factor = parsed.scale / 100.0
    return values * factor
