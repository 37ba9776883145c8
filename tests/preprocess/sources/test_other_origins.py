"""One atmosphere as CMIP, CESM, NCEP and MERRA-2 write it: the same fields, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline.weather.sections import Channels, FilesSource
from pipeline.weather.variables import BY_SHORT, STANDARD_GRAVITY
from preprocess.sources.local_files import open_files

VARIABLES = ("z", "t", "u", "v", "q", "t2m", "u10", "v10")
CHANNELS = Channels(variables=list(VARIABLES), levels=[500, 850], statics=["orog", "lsm"])
KELVIN = 273.15


def renamed(ds: xr.Dataset, names: dict[str, str], **units: str) -> xr.Dataset:
    """Other names; attributes are the unit only, the catalogue's unless another is given."""
    for name, array in ds.data_vars.items():
        array.attrs = {"units": units.get(str(name), BY_SHORT[str(name)].unit)}
    return ds.rename(names)


def cmip(ds: xr.Dataset) -> xr.Dataset:
    """Standard names, levels in Pa from the ground up, bounds, the height of fields near the ground."""
    ds = ds.assign(z=ds["z"] / STANDARD_GRAVITY, orog=ds["orog"] / STANDARD_GRAVITY, lsm=ds["lsm"] * 100)
    names = {"z": "zg", "t": "ta", "u": "ua", "v": "va", "q": "hus", "t2m": "tas", "u10": "uas", "v10": "vas"}
    out = renamed(ds, names | {"lsm": "sftlf", "latitude": "lat", "longitude": "lon"}, z="m", orog="m", lsm="%", q="1")
    standard = {new: BY_SHORT[old].standard_name for old, new in names.items()}
    for name, text in (standard | {"zg": "geopotential_height", "orog": "surface_altitude"}).items():
        out[name].attrs["standard_name"] = text
    out["sftlf"].attrs["standard_name"] = "land_area_fraction"
    for name, height in (("tas", 2.0), ("uas", 10.0), ("vas", 10.0)):
        out[name] = out[name].assign_coords(height=height)
        out = out.drop_vars("height") if name != "vas" else out
    out = out.isel(level=[1, 0]).rename(level="plev").assign_coords(plev=("plev", [85000.0, 50000.0], {"units": "Pa"}))
    out["thetao"] = out["ta"].assign_attrs(standard_name="air_potential_temperature", units="degree of some kind")
    edges = np.stack([out["lat"] - 5, out["lat"] + 5], axis=1)
    return out.assign(lat_bnds=(("lat", "bnds"), edges))


def cesm(ds: xr.Dataset) -> xr.Dataset:
    """No standard names, heights in m, the speed of the wind beside its components."""
    ds = ds.assign(z=ds["z"] / STANDARD_GRAVITY)
    names = {"z": "Z3", "t": "T", "u": "U", "v": "V", "q": "Q", "t2m": "TREFHT", "orog": "PHIS", "lsm": "LANDFRAC"}
    out = renamed(ds, names | {"u10": "UAS", "v10": "VAS", "latitude": "lat", "longitude": "lon"}, z="m", q="kg/kg")
    out["U10"] = np.hypot(out["UAS"], out["VAS"]).assign_attrs(units="m/s", long_name="10m wind speed")
    return out.rename(level="plev").assign_coords(plev=("plev", [500.0, 850.0], {"units": "hPa"}))


def ncep(ds: xr.Dataset) -> xr.Dataset:
    """The names of PSL's files, levels in millibars, degrees Celsius and g/kg, from south to north."""
    ds = ds.assign(z=ds["z"] / STANDARD_GRAVITY, t=ds["t"] - KELVIN, q=ds["q"] * 1000, t2m=ds["t2m"] - KELVIN)
    names = {"z": "hgt", "t": "air", "u": "uwnd", "v": "vwnd", "q": "shum", "t2m": "tmp2m", "u10": "ugrd10m"}
    out = renamed(ds, names | {"v10": "vgrd10m", "orog": "hgtsfc"}, z="m", t="degC", q="grams/kg", t2m="degC")
    out["level"].attrs["units"] = "millibar"
    return out.isel(latitude=slice(None, None, -1)).assign_attrs(Conventions="COARDS")


def merra(ds: xr.Dataset) -> xr.Dataset:
    """Standard names that are none of CF's."""
    ds = ds.assign(z=ds["z"] / STANDARD_GRAVITY)
    names = {"z": "H", "t": "T", "u": "U", "v": "V", "q": "QV", "t2m": "T2M", "u10": "U10M", "v10": "V10M"}
    out = renamed(ds, names | {"orog": "PHIS", "latitude": "lat", "longitude": "lon", "level": "lev"}, z="m")
    for name, text in (("H", "edge_heights"), ("T", "air_temperature"), ("T2M", "2-meter_air_temperature")):
        out[name].attrs["standard_name"] = text
    return out


@pytest.mark.parametrize("written", [cmip, cesm, ncep, merra])
def test_the_same_atmosphere(
    atmosphere: Callable[..., xr.Dataset], tmp_path: Path, written: Callable[[xr.Dataset], xr.Dataset]
) -> None:
    """Catches a field that is not found under its name there, or one that is found and scaled wrongly."""
    ds = atmosphere((*VARIABLES, "orog", "lsm"))
    raw = written(ds.copy(deep=True))
    raw.to_netcdf(tmp_path / "a.nc")
    found = open_files(FilesSource(kind="files", paths=[str(tmp_path)]), channels=CHANNELS)
    fields = found.dataset().compute()
    for short in VARIABLES:
        expected = ds[short].reindex(latitude=fields["latitude"])
        np.testing.assert_allclose(fields[short].values, expected.values, rtol=1e-6, atol=1e-5)
    for short, field in found.statics().items():
        expected = ds[short].reindex(latitude=field["latitude"])
        np.testing.assert_allclose(field.values, expected.values, rtol=1e-5, atol=1e-6)
