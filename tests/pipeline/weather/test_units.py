"""One rule for the spellings of names and units, whoever reads a file."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from pipeline.weather.units import Conversion, conversion, pressure_levels, variable_named
from pipeline.weather.variables import BY_SHORT, CATALOGUE, STANDARD_GRAVITY


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


@pytest.mark.parametrize(("short", "unit"), [("t2m", "degF"), ("u", "knots"), ("t", "m"), ("t", "gpm")])
def test_unknown_units_are_refused(short: str, unit: str) -> None:
    """Catches a unit of the wrong dimension, or one of the right dimension that nobody has thought about."""
    with pytest.raises(ValueError, match=rf"{short!r} must be in \S+.*got '{unit}' for '{short}' in a.nc"):
        convert(short, unit)


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
    ],
)
def test_pressure_levels(name: str, unit: str, factor: float) -> None:
    """Catches pascals taken for hectopascals."""
    coordinate = xr.DataArray(np.array([500.0, 850.0]) * factor, dims=name, name=name, attrs={"units": unit})
    np.testing.assert_allclose(pressure_levels(coordinate, origin="a.nc"), [500.0, 850.0])
    with pytest.raises(ValueError, match="got unit 'km' for"):
        pressure_levels(coordinate.assign_attrs(units="km"), origin="a.nc")
