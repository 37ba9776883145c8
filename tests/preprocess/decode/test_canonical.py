"""Every spelling of the same atmosphere becomes the same canonical dataset, and what is wrong is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import Grid
from preprocess.decode.canonical import align, alignment, canonical, checked
from preprocess.decode.identify import identify
from preprocess.decode.survey import survey

SELECT = {"z": [500, 850], "t": [500, 850], "t2m": [], "u10": []}


def read(raw: xr.Dataset, select: dict[str, Any] | None = None, **options: Any) -> xr.Dataset:
    return canonical(raw, survey(raw, origin="a.nc"), select=select or SELECT, **options)


def assert_same(found: xr.Dataset, ds: xr.Dataset, *, tolerance: float = 0.0) -> None:
    grid, other = Grid.from_dataset(found), Grid.from_dataset(ds)
    for short in found:
        field = align(found[short], grid=grid, other=other)
        dims = ["time", "level", "latitude", "longitude"]
        assert list(field.dims) == [d for d in dims if d in ds[short].dims]
        spread = float(np.ptp(ds[short].values))
        np.testing.assert_allclose(field.values, ds[short].values, rtol=0, atol=tolerance * spread)
        np.testing.assert_array_equal(field["time"].values, ds["time"].values)


@pytest.mark.parametrize(
    ("name", "attrs", "on_levels", "short"),
    [
        ("t", {}, True, "t"),
        ("t", {}, False, None),
        ("T2M", {}, False, "t2m"),
        ("10u", {}, False, "u10"),
        ("2m_temperature", {}, False, "t2m"),
        ("z", {}, True, "z"),
        ("z", {"GRIB_paramId": 129}, False, "orog"),
        ("geopotential_at_surface", {}, False, "orog"),
        ("var129", {"GRIB_paramId": np.int64(129)}, True, "z"),
        ("field", {"short_name": "u"}, True, "u"),
        ("ta", {"standard_name": "air_temperature"}, True, "t"),
        ("ta", {"standard_name": "air_temperature"}, False, None),
        ("sst", {"units": "K"}, False, None),
        ("gh", {"GRIB_paramId": 156}, True, "z"),
        ("hgt", {}, True, "z"),
        ("gh", {"GRIB_paramId": 156}, False, None),
    ],
)
def test_identify(name: str, attrs: dict[str, Any], on_levels: bool, short: str | None) -> None:
    """Catches a variable taken for another, above all one on levels for one at the surface."""
    assert identify(name, attrs, on_levels=on_levels) == short


def test_old_cds(atmosphere: Callable[..., xr.Dataset], tmp_path: Any) -> None:
    """Catches packed integers not unpacked and hours since 1900 misread."""
    ds = atmosphere()
    encoding = {}
    for name in ds:
        low, high = float(ds[name].min()), float(ds[name].max())
        scale = (high - low) / 65000
        packing = {"dtype": "int16", "scale_factor": scale, "add_offset": (high + low) / 2, "_FillValue": -32767}
        encoding[name] = packing
    encoding["time"] = {"units": "hours since 1900-01-01 00:00:00.0", "dtype": "int32"}
    ds["level"].attrs["units"] = "millibars"
    ds["z"].attrs["units"] = "m**2 s**-2"
    ds.to_netcdf(tmp_path / "a.nc", format="NETCDF3_64BIT", encoding=encoding)
    assert_same(read(xr.open_dataset(tmp_path / "a.nc", chunks=None)), ds, tolerance=1e-5)


def test_new_cds(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches valid_time, pressure_level from the ground up, number and expver left standing."""
    ds = atmosphere()
    raw = ds.isel(level=[1, 0]).rename(time="valid_time", level="pressure_level")
    raw = raw.assign_coords(number=0, expver=("valid_time", np.array(["0001"] * 8 + ["0005"])))
    assert_same(read(raw), ds)
    assert survey(raw, origin="a.nc").versions == ("0001", "0005")


def test_long_names_and_odd_order(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches dimensions taken by position: ARCO, WeatherBench and NeuralGCM files order them differently."""
    ds = atmosphere()
    long = {"z": "geopotential", "t": "temperature", "t2m": "2m_temperature", "u10": "10m_u_component_of_wind"}
    raw = ds.rename(long).transpose("level", "longitude", "latitude", "time").rename(latitude="lat", longitude="lon")
    assert_same(read(raw), ds)


def test_a_scalar_time_and_level(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches a snapshot on one level refused for lack of dimensions."""
    ds = atmosphere(("t",)).isel(time=[2], level=[1])
    found = read(ds.isel(time=0, level=0).rename(level="isobaricInhPa"), {"t": [850]})
    assert_same(found, ds)


def test_valid_time_of_forecasts(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches the time of analysis taken for the time of a forecast."""
    ds = atmosphere(("t2m",))
    step = np.timedelta64(3, "h")
    raw = ds.assign_coords(time=ds["time"] - step)
    raw = raw.assign_coords(step=step, valid_time=("time", ds["time"].values))
    found = survey(raw, origin="a.nc")
    np.testing.assert_array_equal(found.times, ds["time"].values)
    assert set(found.lead_hours) == {3.0}
    assert_same(read(raw, {"t2m": []}), ds)


def test_mixed_versions(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches ERA5 averaged with, or replaced by, the NaN of ERA5T along an expver dimension."""
    ds = atmosphere(("t2m", "u10"))
    final, first = ds.copy(deep=True), ds.copy(deep=True) + 1.0
    for name in ds:
        final[name][6:] = np.nan
        first[name][:4] = np.nan  # times 4 and 5 are in both: the final version wins
    raw = xr.concat([first, final], dim=xr.DataArray([5, 1], dims="expver", name="expver")).transpose("time", ...)
    found = read(raw, {"t2m": [], "u10": []})
    assert_same(found.isel(time=slice(6)), ds.isel(time=slice(6)))
    assert_same(found.isel(time=slice(6, None)), ds.isel(time=slice(6, None)) + 1.0)


@pytest.mark.parametrize("order", ["from -180", "wrapped", "closed", "descending"])
def test_longitudes(atmosphere: Callable[..., xr.Dataset], order: str) -> None:
    """Catches columns that lose their place when longitudes are wrapped, or a meridian counted twice."""
    ds = atmosphere(("t2m",))
    if order == "from -180":
        raw = ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude")
    elif order == "wrapped":
        raw = ds.assign_coords(longitude=(ds.longitude + 180) % 360 - 180)
    elif order == "closed":
        raw = xr.concat([ds, ds.isel(longitude=[0]).assign_coords(longitude=[360.0])], dim="longitude")
    else:
        raw = ds.isel(longitude=slice(None, None, -1))
    found = read(raw, {"t2m": []})
    assert np.all(np.diff(found["longitude"]) > 0)
    assert_same(found, ds)


def test_units(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches a conversion not made, made twice, or made in the wrong direction."""
    ds = atmosphere()
    raw = ds.copy(deep=True)
    raw["t2m"] = (raw["t2m"] - 273.15).assign_attrs(units="degC")
    raw["z"] = (raw["z"] / 9.80665).assign_attrs(units="gpm")
    raw["level"] = ("level", np.array([50000.0, 85000.0]), {"units": "Pa"})
    found = read(raw)
    assert_same(found, ds, tolerance=1e-5)
    assert found["z"].attrs["units"] == "m2 s-2"
    unknown = ds.rename(t2m="2t")
    unknown["2t"].attrs["units"] = "hPa"
    with pytest.raises(
        ValueError, match=r"'t2m' must be in K or degC, .*got 'hPa' for '2t' in a.nc; .* source.units: {t2m: K}"
    ):
        read(unknown)


@pytest.mark.parametrize(
    ("short", "change", "message"),
    [
        ("t2m", lambda x: x - 273.15, r"'t2m' .* within 170 .. 340 K, got \S+ at 2001-01-01T00:00 in a.nc"),
        ("z", lambda x: x / 9.80665, r"'z' \(geopotential\) at 500 hPa must lie within .* m2 s-2, got "),
        ("t2m", lambda x: x.where(x.time != x.time[4]), r"no missing values, got 684 of 684 at 2001-01-02T00:00 in"),
        ("u10", lambda x: x.where((x.time != x.time[7]) | (x.latitude != 50)), "got 36 of 684 at 2001-01-02T18"),
        ("u10", lambda x: x.where(x.time != x.time[3], np.inf), "got 684 of 684 at 2001-01-01T18"),
    ],
)
def test_implausible_values(
    atmosphere: Callable[..., xr.Dataset], short: str, change: Callable[..., Any], message: str
) -> None:
    """Catches Celsius, heights in metres and gaps passed on, and messages that name the wrong time."""
    raw = atmosphere()
    raw[short] = change(raw[short]).transpose(*raw[short].dims).assign_attrs(raw[short].attrs)
    lazy = read(raw.chunk({"time": -1}))
    field = checked(lazy[short], short=short, origin="a.nc")
    with pytest.raises(ValueError, match=message):
        field.compute()
    fine = {s for s in SELECT if s != short}
    for other in fine:
        np.testing.assert_array_equal(checked(lazy[other], short=other, origin="a.nc").compute(), lazy[other])


def test_checking_is_lazy(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches a check that reads the whole archive when it is opened."""
    raw = atmosphere(("t2m",)) * np.nan
    field = checked(read(raw.chunk({"time": 1}), {"t2m": []})["t2m"], short="t2m", origin="a.nc")
    assert field.chunks is not None
    assert field.chunks[0] == (1,) * 9


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda d: d.isel(time=[0, 1, 3, 2]), "got 2001-01-01T12:00 after 2001-01-01T18:00 in a.nc; sort"),
        (lambda d: d.isel(time=[0, 1, 1, 2]), "got 2001-01-01T06:00 twice in a.nc"),
        (lambda d: d.assign_coords(time=d.time.where(d.time != d.time[3])), "missing values, got 1 in a.nc"),
        (lambda d: d.assign_coords(time=np.arange(9)), "dates of the standard calendar, got int64 for 'time' in a.nc"),
        (lambda d: d.assign(T2M=d.t2m), "'t2m' must be there once, got 't2m' and 'T2M' in a.nc"),
        (lambda d: d.assign_coords(level=("level", [1, 2], {"units": "m"})), "got unit 'm' for 'level' in a.nc"),
        (lambda d: d.isel(latitude=[0, 2, 1]), r"latitude must be strictly increasing or .* \(in a.nc\)"),
        (lambda d: d.expand_dims(number=3), r"got 3 \(0 .. 2\) in a.nc; choose one, e.g. source.member: 0"),
        (lambda d: d.expand_dims(band=3), "got dimension 'band' of length 3 in a.nc; select one first"),
    ],
)
def test_refusals(atmosphere: Callable[..., xr.Dataset], break_it: Callable[..., Any], message: str) -> None:
    """Catches a fault of a file passed over, or a message that does not name the file."""
    with pytest.raises(ValueError, match=message):
        read(break_it(atmosphere()))


def test_static_fields(atmosphere: Callable[..., xr.Dataset]) -> None:
    """Catches a static field kept along time, and surface geopotential taken for that on levels."""
    ds = atmosphere(("z", "lsm", "orog"))
    raw = ds.rename(orog="phis").rename(time="valid_time")
    raw["lsm"] = raw["lsm"].expand_dims(valid_time=raw["valid_time"])
    found = read(raw, {"lsm": [], "orog": []}, static=True)
    for short in ("lsm", "orog"):
        assert found[short].dims == ("latitude", "longitude")
        np.testing.assert_array_equal(found[short], ds[short])


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(3, 12),
    columns=st.integers(4, 15),
    roll=st.integers(0, 14),
    origin=st.sampled_from([0.0, -180.0, 1.25]),
    flip=st.booleans(),
)
def test_alignment_finds_any_order(rows: int, columns: int, roll: int, origin: float, flip: bool) -> None:
    """Catches cells put in another place: coordinates stand for the values, so they must move alike."""
    lat = np.linspace(-80, 80, rows)
    lon = np.sort((np.arange(columns) * 360.0 / columns + roll * 360.0 / columns) % 360.0)
    shifted = np.sort((lon - origin) % 360.0 + origin)
    source, target = Grid(lat[::-1] if flip else lat, shifted), Grid(lat, lon)
    orders = alignment(source, target)
    assert orders is not None
    np.testing.assert_allclose(source.latitude[orders[0]], target.latitude)
    np.testing.assert_allclose(source.longitude[orders[1]] % 360.0, target.longitude % 360.0, atol=1e-9)
    assert alignment(source, Grid(lat + 0.01, lon)) is None
    assert alignment(source, Grid(lat[:-1], lon)) is None
