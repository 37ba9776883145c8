"""One rule for the spellings of names and units, whoever reads a file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pint
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.weather.units import Conversion, conversion, pressure_levels, variable_named
from pipeline.weather.variables import BY_SHORT, CATALOGUE, STANDARD_GRAVITY

PINT = pint.UnitRegistry()


def convert(short: str, unit: str) -> Conversion:
    return conversion(BY_SHORT[short], unit, name=short, origin="a.nc")


def test_conversions_by_algebra() -> None:
    """Catches a scale or offset the wrong way round."""
    assert convert("t", "degC")(25.0) == 298.15
    assert convert("z", "gpm")(5500.0) == pytest.approx(53936.575)
    assert convert("z", "m") == Conversion(STANDARD_GRAVITY)
    assert convert("msl", "hPa")(1013.25) == pytest.approx(101325.0)
    assert convert("q", "g kg-1")(8.0) == pytest.approx(0.008)


@pytest.mark.parametrize(
    ("short", "unit"),
    [("z", "m**2 s**-2"), ("t", "k"), ("u", "m/s"), ("q", "kg kg**-1"), ("q", "1"), ("lsm", "(0 - 1)"), ("t2m", " ")],
)
def test_spellings_change_nothing(short: str, unit: str) -> None:
    """Catches a canonical unit taken for another, and values touched that need not be."""
    values = np.array([0.1, 271.3], np.float32)
    assert not convert(short, unit).changes
    assert convert(short, unit)(values) is values


def test_dtype_is_kept() -> None:
    """Catches float32 fields that double in memory while they are converted."""
    converted = convert("t", "celsius")(np.array([25.0], np.float32))
    assert converted.dtype == np.float32


@pytest.mark.parametrize(
    ("short", "unit", "scale", "offset"),
    [
        ("msl", "millibars", 100.0, 0.0),
        ("msl", "hPa", 100.0, 0.0),
        ("msl", "Pa", 1.0, 0.0),
        ("t", "degK", 1.0, 0.0),
        ("t", "C", 1.0, 273.15),
        ("z", "gpm", STANDARD_GRAVITY, 0.0),
        ("z", "dam", 10 * STANDARD_GRAVITY, 0.0),
        ("q", "1", 1.0, 0.0),
        ("q", "kg kg**-1", 1.0, 0.0),
        ("r", "1", 100.0, 0.0),
        ("lsm", "%", 0.01, 0.0),
        # no table has these; pint reads them
        ("t2m", "degF", 5 / 9, 459.67 * 5 / 9),
        ("u", "knots", 1852 / 3600, 0.0),
        ("msl", "kPa", 1000.0, 0.0),
        ("z", "km", 1000 * STANDARD_GRAVITY, 0.0),
        ("w", "hPa s^-1", 100.0, 0.0),
        ("q", "mg kg-1", 1e-6, 0.0),
    ],
)
def test_units_of_real_files(short: str, unit: str, scale: float, offset: float) -> None:
    """Catches a file of common units that cannot be read, and a unit read as another."""
    found = convert(short, unit)
    assert (found.scale, found.offset) == pytest.approx((scale, offset), rel=1e-12)


@pytest.mark.parametrize(
    ("short", "unit"),
    [
        ("t", "m"),
        ("t", "gpm"),
        ("t", "delta_degC"),
        ("t", "degrees R"),  # pint: an angle times a temperature
        ("u", "ms-1"),
        ("w", "m s-1"),
        ("q", "kg m-3"),
        ("q", "%"),
        ("r", "kg kg-1"),
        ("lsm", "K"),
        ("msl", "furlongs per"),
        ("msl", "import os"),
    ],
)
def test_units_of_something_else_are_refused(short: str, unit: str) -> None:
    """Catches a unit of the wrong dimension, also where both are fractions, and a parser's own error for nonsense."""
    with pytest.raises(ValueError, match=rf"{short!r} must be in \S+.*got '{unit}' for '{short}' in a.nc; convert it"):
        convert(short, unit)


FACTOR = re.compile(r"([A-Za-z]+)(-?\d*)")


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, str]:
    """A variable, and its unit in one of the ways in which files write powers, products and quotients."""
    variable = draw(st.sampled_from([v for v in CATALOGUE if FACTOR.match(v.unit)]))
    factors = [(symbol, int(power or 1)) for symbol, power in FACTOR.findall(variable.unit)]
    power = draw(st.sampled_from(["{}", "**{}", "^{}", "^{{{}}}"]))

    def one(symbol: str, exponent: int) -> str:
        return symbol if exponent == 1 else symbol + power.format(exponent)

    above = [one(s, p) for s, p in factors if p > 0]
    if draw(st.booleans()):
        text = draw(st.sampled_from([" ", "*"])).join(above)
        text += "".join("/" + one(s, -p) for s, p in factors if p < 0)
    else:
        text = " ".join(one(s, p) for s, p in factors)
    return variable.short, draw(st.sampled_from(["", " "])) + text


@given(spelled())
def test_every_way_to_write_a_canonical_unit(pair: tuple[str, str]) -> None:
    """Catches a spelling of the canonical unit that is refused, or scaled."""
    short, unit = pair
    assert convert(short, unit).scale == pytest.approx(1.0)
    assert convert(short, unit).offset == 0.0


WRITTEN = [  # catalogue unit, another unit as pint writes it, how files write it
    ("K", "degC", ["degC", "C", "Celsius", "deg C", "degree_Celsius"]),
    ("K", "degF", ["degF", "degree_Fahrenheit"]),
    ("Pa", "hPa", ["hPa", "mb", "mbar", "millibars", "Millibar", "HPA"]),
    ("Pa", "kPa", ["kPa", "kilopascal"]),
    ("m s-1", "knot", ["knots", "kt"]),
    ("m s-1", "cm/s", ["cm s-1", "cm/s", "cm s**-1", "cm s^-1"]),
    ("kg kg-1", "g/kg", ["g/kg", "g kg-1", "g kg**-1"]),
    ("Pa s-1", "hPa/s", ["hPa s-1", "hPa/s", "hPa s**-1"]),
    ("kg m-2", "g/m**2", ["g m-2", "g/m^2"]),
]


@given(case=st.sampled_from(WRITTEN), share=st.floats(0.0, 1.0), data=st.data())
def test_values_come_back(case: tuple[str, str, list[str]], share: float, data: st.DataObject) -> None:
    """Catches a wrong scale, offset or direction: pint turns a plausible value into the unit, we turn it back."""
    canonical, other, spellings = case
    variable = data.draw(st.sampled_from([v for v in CATALOGUE if v.unit == canonical]))
    value = variable.low + share * (variable.high - variable.low)
    base = canonical.replace("kg kg-1", "kg/kg").replace(" s-1", "/s").replace(" m-2", "/m**2")
    given_value = float(PINT.Quantity(value, base).to(other).magnitude)
    back = convert(variable.short, data.draw(st.sampled_from(spellings)))(given_value)
    assert back == pytest.approx(value, rel=1e-9, abs=1e-9)


@pytest.mark.slow
def test_pint_is_loaded_for_rare_units_only(root: Path) -> None:
    """Catches the second that pint takes, paid at every start of every stage."""
    program = (
        "import sys; from pipeline.weather.units import conversion; from pipeline.weather.variables import BY_SHORT\n"
        "for short, unit in (('t', 'degC'), ('z', 'gpm'), ('msl', 'millibars'), ('u', 'knots')):\n"
        "    conversion(BY_SHORT[short], unit, name='', origin='')\n"
        "    print('pint' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    ).stdout
    assert output.split() == ["False", "False", "False", "True"]


def test_names() -> None:
    """Catches two variables with one spelling, and a comparison that minds the case."""
    names = [name.lower() for v in CATALOGUE for name in v.names]
    assert len(names) == len(set(names))
    assert variable_named("T2M") is BY_SHORT["t2m"]
    assert variable_named("geopotential_height") is BY_SHORT["z"]
    assert variable_named("wind_speed") is None


@pytest.mark.parametrize(
    ("name", "unit", "factor"),
    [
        ("level", "hPa", 1.0),
        ("level", "millibars", 1.0),
        ("plev", "Pa", 100.0),
        ("isobaricInPa", "", 100.0),
        ("level", "", 1.0),
        ("plev", "", 100.0),
        ("level", "1", 1.0),
        ("lev", "kPa", 0.1),
    ],
)
def test_pressure_levels(name: str, unit: str, factor: float) -> None:
    """Catches pascals taken for hectopascals."""
    coordinate = xr.DataArray(np.array([500.0, 850.0]) * factor, dims=name, name=name, attrs={"units": unit})
    np.testing.assert_allclose(pressure_levels(coordinate, origin="a.nc"), [500.0, 850.0])
    with pytest.raises(ValueError, match="got unit 'km' for"):
        pressure_levels(coordinate.assign_attrs(units="km"), origin="a.nc")
