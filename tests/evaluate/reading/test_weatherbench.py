"""Forecasts in WeatherBench 2's layout: ours written and read back, and others' in their own spellings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from evaluate.reading import weatherbench
from evaluate.reading.align import FORECAST_DIMS
from evaluate.reading.weatherbench import open_forecast, to_weatherbench, write_weatherbench
from pipeline.grid import Grid
from pipeline.weather import variables

CHANNELS = variables.channels(("z", "t", "t2m", "u10"), (500, 850))[0]


@pytest.fixture
def forecast() -> xr.Dataset:
    """Twenty init times, two leads, six channels on an 6 x 12 grid, every value another one."""
    rng = np.random.default_rng(4)
    grid = Grid.regular(30.0)
    middle = {"z": 0.0, "t": 265.0, "t2m": 285.0, "u10": 3.0}
    fields = []
    for c in CHANNELS:
        mean = variables.standard_geopotential(c.level) if c.variable == "z" else middle[c.variable]
        fields.append(mean + rng.standard_normal((20, 2, *grid.shape)))
    coords = {
        "init_time": np.datetime64("2020-01-01", "ns") + np.arange(20) * np.timedelta64(12, "h"),
        "lead_time": np.array([72, 120], "timedelta64[h]").astype("timedelta64[ns]"),
        "channel": [c.name for c in CHANNELS],
        "variable": ("channel", [c.variable for c in CHANNELS]),
        "level": ("channel", np.array([c.level or -1 for c in CHANNELS], np.int32)),
        "unit": ("channel", [c.spec.unit for c in CHANNELS]),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    state = (FORECAST_DIMS, np.stack(fields, axis=2).astype(np.float32))
    contract = {"kind": "forecast", "model": "made", "channels": coords["channel"], "store": "abc"}
    contract |= {"lead_hours": [72, 120], "grid": grid.describe()}
    return xr.Dataset({"state": state}, coords, {"contract": contract, "title": "Forecasts of made"})


def foreign(forecast: xr.Dataset) -> xr.Dataset:
    """The same forecasts as somebody else might write them: other order, origin, units and spellings."""
    ds = to_weatherbench(forecast).load()
    ds.attrs = {}
    height = (ds["geopotential"] / variables.STANDARD_GRAVITY).assign_attrs(units="m")
    ds["geopotential"] = height
    ds["2m_temperature"] = (ds["2m_temperature"] - 273.15).assign_attrs(units="degC")
    ds = ds.rename({"2m_temperature": "t2m", "latitude": "lat", "longitude": "lon"})
    ds = ds.isel(lat=slice(None, None, -1), level=slice(None, None, -1)).roll(lon=6, roll_coords=True)
    ds = ds.assign_coords(lon=(ds["lon"] + 180.0) % 360.0 - 180.0)
    ds["wind_speed"] = ds["temperature"] * 0.0
    return ds.transpose("time", "prediction_timedelta", "level", "lon", "lat")


def test_round_trip_is_exact(forecast: xr.Dataset, tmp_path: Path) -> None:
    """Catches a lost or swapped channel, a rounded coordinate, a lost contract, and codecs of Zarr 3 in Zarr 2."""
    forecast.assign_attrs(contract={}).to_zarr(tmp_path / "ours.zarr", zarr_format=3, consolidated=False)
    stored = xr.open_zarr(tmp_path / "ours.zarr", chunks=None, consolidated=False, decode_timedelta=True)
    write_weatherbench(stored.assign_attrs(forecast.attrs), tmp_path / "a.zarr")
    back = open_forecast(tmp_path / "a.zarr")
    np.testing.assert_array_equal(back["state"].values.view(np.uint32), forecast["state"].values.view(np.uint32))
    for name in ("init_time", "lead_time", "latitude", "longitude", "channel", "variable", "level", "unit"):
        np.testing.assert_array_equal(back[name].values, forecast[name].values, err_msg=name)
    assert back.attrs["contract"] == forecast.attrs["contract"]


def test_layout_is_that_of_weatherbench(forecast: xr.Dataset, tmp_path: Path) -> None:
    """Catches names, dimensions or encodings that WeatherBench 2's own code would not find."""
    write_weatherbench(forecast, tmp_path / "a.zarr")
    metadata = json.loads((tmp_path / "a.zarr" / ".zmetadata").read_text())["metadata"]
    lead = metadata["prediction_timedelta/.zattrs"]
    assert lead["units"] == "hours"
    ds = xr.open_zarr(tmp_path / "a.zarr", decode_timedelta=True)
    assert ds["geopotential"].dims == ("time", "prediction_timedelta", "level", "latitude", "longitude")
    assert ds["2m_temperature"].dims == ("time", "prediction_timedelta", "latitude", "longitude")
    assert set(ds.data_vars) == {"geopotential", "temperature", "2m_temperature", "10m_u_component_of_wind"}
    assert ds["level"].values.tolist() == [500, 850]
    assert ds["geopotential"].attrs["units"] == "m2 s-2"
    t850 = forecast["state"].sel(channel="t850")
    np.testing.assert_array_equal(ds["temperature"].sel(level=850).values, t850.values)


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_foreign_spellings(forecast: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    """Catches a latitude, longitude, level or unit that is taken as it stands."""
    path = tmp_path / f"theirs.{suffix}"
    ds = foreign(forecast)
    ds.to_zarr(path, zarr_format=2) if suffix == "zarr" else ds.to_netcdf(path)
    found = open_forecast(path)
    assert Grid.from_dataset(found).allclose(Grid.from_dataset(forecast))
    assert found["channel"].values.tolist() == forecast["channel"].values.tolist()
    np.testing.assert_allclose(found["state"].values, forecast["state"].values, rtol=2e-7)
    assert json.loads(found.attrs["left_out"]) == {"wind_speed": "not in the catalogue"}
    assert found.attrs["contract"]["model"] == "theirs"


def test_only_what_is_asked_for_in_that_order(forecast: xr.Dataset, tmp_path: Path) -> None:
    """Catches channels returned in the file's order."""
    write_weatherbench(forecast, tmp_path / "a.zarr")
    found = open_forecast(tmp_path / "a.zarr", channels=["u10", "z850"], name="other")
    assert found["channel"].values.tolist() == ["u10", "z850"]
    assert found.attrs["contract"]["model"] == "other"
    np.testing.assert_array_equal(found["state"].values, forecast["state"].sel(channel=["u10", "z850"]).values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: ds.drop_vars("t2m"), ["t2m"]),
        (lambda ds: ds.isel(level=[0]), ["z500", "t500"]),
        (lambda ds: ds.rename(lat="y"), ["latitude", "y"]),
        (lambda ds: ds.expand_dims(number=3), ["number", "ensemble"]),
        (lambda ds: ds.assign_coords(prediction_timedelta=[72, 120]), ["lead times", "units = 'hours'"]),
        (lambda ds: ds.isel(time=[0, 0, 1]), ["init_time", "more than once"]),
        (lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="K")), ["t2m", "check its unit"]),
        (lambda ds: ds.assign(t2m=ds["t2m"].assign_attrs(units="furlong")), ["t2m", "furlong"]),
        (lambda ds: ds.assign(t2m=ds["t2m"].where(ds["lat"] > 0)), ["t2m", "nan"]),
    ],
)
def test_what_cannot_be_understood_is_refused(
    forecast: xr.Dataset, tmp_path: Path, change: Any, words: list[str]
) -> None:
    """Catches a file that is read in part, or with a guess, and scored."""
    change(foreign(forecast)).to_zarr(tmp_path / "b.zarr", zarr_format=2)
    with pytest.raises(ValueError) as error:
        open_forecast(tmp_path / "b.zarr", channels=[c.name for c in CHANNELS])
    assert all(word in str(error.value) for word in words), str(error.value)


def test_what_is_no_forecast_says_so(tmp_path: Path) -> None:
    """A store of this project moved without its manifest, and a file that is no NetCDF: one sentence each."""
    xr.Dataset({"state": ("init_time", [1.0])}).to_zarr(tmp_path / "alone.zarr", zarr_format=2)
    with pytest.raises(ValueError, match=r"must have its manifest beside it, got no alone\.manifest"):
        open_forecast(tmp_path / "alone.zarr")
    (tmp_path / "a.nc").write_text("no data")
    with pytest.raises(ValueError, match=r"a Zarr store or a NetCDF file, got .*a.nc: neither$"):
        open_forecast(tmp_path / "a.nc")


def test_a_killed_export_goes_on(forecast: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an export that takes half a store for a whole one, or that starts over."""
    monkeypatch.setattr(weatherbench, "_SLAB", 8)
    written: list[int] = []
    write = weatherbench.files.write_json

    def stop(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        written.append(content["done"])
        if written == [8, 16]:
            raise KeyboardInterrupt

    monkeypatch.setattr(weatherbench.files, "write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        write_weatherbench(forecast, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    write_weatherbench(forecast, tmp_path / "a.zarr")
    assert written == [8, 16, 20]
    np.testing.assert_array_equal(open_forecast(tmp_path / "a.zarr")["state"].values, forecast["state"].values)
