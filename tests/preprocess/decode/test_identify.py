"""Which variable a field is, in the files of other centres."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.weather.variables import BY_SHORT, CATALOGUE
from preprocess.decode.identify import Request, identify
from preprocess.decode.survey import survey


def cf(name: str) -> dict[str, Any]:
    return {"standard_name": name}


@pytest.mark.parametrize(
    ("name", "attrs", "on_levels", "height", "short"),
    [
        # CMIP
        ("zg", cf("geopotential_height"), True, None, "z"),
        ("ta", cf("air_temperature"), True, None, "t"),
        ("ua", cf("eastward_wind"), True, None, "u"),
        ("va", cf("northward_wind"), True, None, "v"),
        ("hus", cf("specific_humidity"), True, None, "q"),
        ("hur", cf("relative_humidity"), True, None, "r"),
        ("wap", cf("lagrangian_tendency_of_air_pressure"), True, None, "w"),
        ("tas", cf("air_temperature"), False, 2.0, "t2m"),
        ("tas", cf("air_temperature"), False, 1.5, "t2m"),
        ("uas", cf("eastward_wind"), False, 10.0, "u10"),
        ("vas", cf("northward_wind"), False, None, "v10"),
        ("psl", cf("air_pressure_at_mean_sea_level"), False, None, "msl"),
        ("ps", cf("surface_air_pressure"), False, None, "sp"),
        ("prw", cf("atmosphere_mass_content_of_water_vapor"), False, None, "tcwv"),
        ("sftlf", cf("land_area_fraction"), False, None, "lsm"),
        ("orog", cf("surface_altitude"), False, None, "orog"),
        # CESM, which has no standard names
        ("Z3", {"long_name": "Geopotential Height (above sea level)"}, True, None, "z"),
        ("SHUM", {}, True, None, "q"),
        ("RELHUM", {"long_name": "Relative humidity"}, True, None, "r"),
        ("PS", {"long_name": "Surface pressure"}, False, None, "sp"),
        ("PSL", {"long_name": "Sea level pressure"}, False, None, "msl"),
        ("TREFHT", {"long_name": "Reference height temperature"}, False, None, "t2m"),
        ("U10", {"long_name": "10m wind speed"}, False, None, None),
        ("U10", {"long_name": "10 metre U wind component"}, False, None, "u10"),
        ("u10", {"long_name": "zonal wind speed at 10 m"}, False, None, "u10"),
        # NCEP
        ("air", cf("air_temperature"), True, None, "t"),
        ("air", {}, True, None, "t"),
        ("uwnd", {}, True, None, "u"),
        ("vwnd", {}, True, None, "v"),
        ("shum", {}, True, None, "q"),
        ("rhum", {}, True, None, "r"),
        ("omega", {}, True, None, "w"),
        ("slp", {}, False, None, "msl"),
        ("pr_wtr", {}, False, None, "tcwv"),
        # the standard name decides
        ("x", cf("air_temperature"), True, None, "t"),
        ("x", cf("air_temperature"), False, 2.0, "t2m"),
        ("t", cf("air_potential_temperature"), True, None, None),
        ("w", cf("upward_air_velocity"), True, None, None),
        ("q", cf("relative_humidity"), True, None, "r"),
        ("z", cf("altitude"), True, None, None),
        ("x", cf("eastward_wind"), False, 100.0, None),
        ("tas", cf("air_temperature"), False, 10.0, "t2m"),  # the height of another field of the file
        ("t2m", cf("surface_temperature"), False, None, None),
        ("x", cf("air_temperature"), False, None, None),
        # what is no standard name decides nothing
        ("t2m", cf("unknown"), False, None, "t2m"),
        ("t2m", cf("2m_temperature"), False, None, "t2m"),
        ("t", cf("Temperature"), True, None, "t"),
        ("orog", cf("geopotential"), False, None, "orog"),
        ("z", cf("geopotential"), False, None, "orog"),
        ("gh", cf("geopotential_height"), False, None, None),
    ],
)
def test_names_of_other_centres(
    name: str, attrs: dict[str, Any], on_levels: bool, height: float | None, short: str | None
) -> None:
    """Catches a field that is not recognised, and worse, one taken for another because of its name."""
    assert identify(name, attrs, on_levels=on_levels, height=height) == short


@given(variable=st.sampled_from(CATALOGUE), data=st.data())
def test_every_spelling_of_every_variable(variable: Any, data: st.DataObject) -> None:
    """Catches a spelling in the catalogue that is not recognised, in any case, with and without its standard name."""
    name = data.draw(st.sampled_from(variable.names))
    name = data.draw(st.sampled_from([name, name.upper(), name.capitalize()]))
    attrs = data.draw(st.sampled_from([{}, *(cf(standard) for standard in variable.standard_names)]))
    assert identify(name, attrs, on_levels=variable.levels) == variable.short
    assert identify("field", {"GRIB_shortName": name}, on_levels=variable.levels) == variable.short


def test_the_user_has_the_last_word() -> None:
    """Catches source.names that lose against a name or a standard name, or that leave the wrong field in place."""
    request = Request(names={"z": "MYZ", "orog": "z"})
    assert request.identify("MYZ", cf("altitude"), on_levels=True) == "z"
    assert request.identify("z", cf("geopotential"), on_levels=True) is None
    assert request.identify("z", {}, on_levels=False) == "orog"
    assert request.identify("t", {}, on_levels=True) == "t"


def dataset(**fields: tuple[str, dict[str, Any]]) -> xr.Dataset:
    """Fields on a small grid, each with a unit and attributes; names with a capital lie on two levels."""
    ds = xr.Dataset(
        coords={
            "time": np.array(["2001-01-01"], "datetime64[ns]"),
            "level": ("level", [500, 850], {"units": "hPa"}),
            "latitude": np.linspace(90, -90, 7),
            "longitude": np.arange(8) * 45.0,
        }
    )
    for name, (unit, attrs) in fields.items():
        dims = ("time", *(["level"] if name[0].isupper() else []), "latitude", "longitude")
        shape = [ds.sizes[d] for d in dims]
        ds[name] = (dims, np.full(shape, 280.0, np.float32), {"units": unit} | attrs)
    return ds


def test_what_nobody_asked_for_stops_no_file() -> None:
    """Catches a file refused for a unit, a spelling, a level or an axis of a field that is not wanted."""
    ds = dataset(T=("K", {}), Q=("furlongs", {}), u10=("m s-1", {}), U10M=("m s-1", {}))
    ds["uas"] = ds["u10"]  # twice the same variable
    ds["v10"] = ds["u10"].expand_dims(number=3)
    ds["hybrid"] = ds["T"].rename(level="lev").assign_coords(lev=("lev", [1.0, 2.0], {"formula_terms": "ap b"}))
    found = survey(ds, origin="a.nc", request=Request(frozenset({"t"})))
    assert list(found.fields) == ["t"]
    assert {"Q", "u10", "uas", "v10"} <= set(found.unasked)
    for wanted, message in (
        ("q", r"'q' must be in kg kg-1 or g kg-1, .* got 'furlongs' for 'Q' in a.nc; .*source.units: {q: kg kg-1}"),
        ("u10", r"'u10' must be there once, got .* in a.nc; drop one, or say which .*source.names: {u10: \w+}"),
    ):
        with pytest.raises(ValueError, match=message):
            survey(ds.drop_vars("hybrid"), origin="a.nc", request=Request(frozenset({wanted})))


def test_of_two_fields_of_one_standard_name() -> None:
    """Catches a derived field, which kept its parent's attributes, in place of the parent or beside it."""
    ds = dataset(Geostrophic=("m s-1", cf("eastward_wind")), U=("m s-1", cf("eastward_wind")))
    for order in (["Geostrophic", "U"], ["U", "Geostrophic"]):
        found = survey(ds[order], origin="a.nc")
        assert found.fields["u"].name == "U"
        assert list(found.unknown) == ["Geostrophic"]
    twice = dataset(Var131=("m s-1", {"GRIB_paramId": 131}), U=("m s-1", {}))
    with pytest.raises(ValueError, match="'u' must be there once, got 'Var131' and 'U'"):
        survey(twice, origin="a.nc")


def test_levels_that_are_no_pressures() -> None:
    """Catches hybrid levels of a model, whose numbers look like pressures, taken for them."""
    ds = dataset(T=("K", {})).rename(level="lev")
    ds["lev"].attrs = {"units": "hPa", "standard_name": "atmosphere_hybrid_sigma_pressure_coordinate"}
    with pytest.raises(ValueError, match=r"levels must be pressures, got 'lev' \(atmosphere_hybrid.* interpolate to"):
        survey(ds, origin="a.nc")


def test_units_that_the_user_gives() -> None:
    """Catches source.units that lose against what the file claims."""
    ds = dataset(Z=("m2 s-2", {}))
    found = survey(ds, origin="a.nc", request=Request(units={"z": "dam"})).fields["z"]
    assert (found.unit, found.to_canonical.scale) == ("dam", pytest.approx(98.0665))
    assert BY_SHORT["z"].unit == "m2 s-2"
