"""States from a file become a store on the model's grid, once for each content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import store
from pipeline.config import Config
from pipeline.weather.sections import FileWords
from preprocess.ingest.initial_states import prepare_initial

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]


def write_states(path: Path, times: list[str], *, offset: float = 0.0) -> None:
    """Temperature on two levels at some times on a 10 degree grid, rows from north to south."""
    latitude, longitude = np.arange(90.0, -91.0, -10.0), np.arange(0.0, 360.0, 10.0)
    shape = (len(times), 2, latitude.size, longitude.size)
    wave = 10 * np.cos(np.deg2rad(latitude))[:, None] * np.cos(np.deg2rad(longitude))[None]
    values = np.broadcast_to(260.0 + offset + wave, shape).astype(np.float32)
    ds = xr.Dataset(
        {"t": (("time", "level", "latitude", "longitude"), values, {"units": "K"})},
        coords={
            "time": np.array(times, "datetime64[ns]"),
            "level": ("level", [500, 850], {"units": "hPa"}),
            "latitude": latitude,
            "longitude": longitude,
        },
    )
    ds.to_netcdf(path)


def issued_from(configure: Configure, given: Path) -> Config:
    config = configure(
        [given],
        channels={"variables": ["t"], "levels": [500, 850], "statics": ["lsm"]},
        regrid={"resolution": 30.0},
    )
    return config.model_copy(update={"forecast": config.forecast.model_copy(update={"initial": str(given)})})


def test_states_of_a_folder_in_the_order_of_time(configure: Configure, tmp_path: Path) -> None:
    """Catches statics demanded of an analysis, times dropped by the training's step, and files read as one state."""
    folder = tmp_path / "states"
    folder.mkdir()
    write_states(folder / "b.nc", ["2020-01-03T07:00"])
    write_states(folder / "a.nc", ["2020-02-01T12:00"], offset=5.0)
    path = prepare_initial(issued_from(configure, folder))
    ds = store.open_store(path)
    assert ds["time"].values.astype("datetime64[h]").astype(str).tolist() == ["2020-01-03T07", "2020-02-01T12"]
    assert ds["channel"].values.tolist() == ["t500", "t850"]
    mean = ds["state"].mean(dim=("channel", "latitude", "longitude")).values
    assert mean[1] - mean[0] == pytest.approx(5.0, abs=0.01)
    assert prepare_initial(issued_from(configure, path)) == path


def test_a_file_that_changed_is_read_again(configure: Configure, tmp_path: Path) -> None:
    """Catches yesterday's state under today's name."""
    path = tmp_path / "latest.nc"
    write_states(path, ["2020-01-03T06:00"])
    first = prepare_initial(issued_from(configure, path))
    path.unlink()
    write_states(path, ["2020-01-03T06:00"], offset=5.0)
    second = prepare_initial(issued_from(configure, path))
    assert first != second
    assert store.open_store(second)["state"].values.mean() > store.open_store(first)["state"].values.mean() + 4


def test_what_was_said_of_the_training_files_holds_for_states(configure: Configure, tmp_path: Path) -> None:
    """Catches states of the training's own archive that need its names again, and others refused for lacking them."""
    path, odd = tmp_path / "state.nc", tmp_path / "odd.nc"
    write_states(path, ["2020-01-03T06:00"])
    with xr.open_dataset(path) as ds:
        celsius = ds.rename(t="MYT").map(lambda x: (x - 273.15).assign_attrs(units="warm"))
        celsius.to_netcdf(odd)
    config = issued_from(configure, odd)
    source = config.source.model_copy(update={"names": {"t": "MYT"}, "units": {"t": "degC"}})
    found = store.open_store(prepare_initial(config.model_copy(update={"source": source})))["state"].values
    plain = issued_from(configure, path)
    same = plain.model_copy(update={"source": source.model_copy(update={"units": {}})})
    np.testing.assert_allclose(found, store.open_store(prepare_initial(same))["state"].values, atol=1e-3)


def test_what_is_said_of_the_states(configure: Configure, tmp_path: Path) -> None:
    """Catches states of odd names or of an ensemble that only a user who trains on files can use."""
    path, odd = tmp_path / "state.nc", tmp_path / "odd.nc"
    write_states(path, ["2020-01-03T06:00"])
    with xr.open_dataset(path) as ds:
        members = xr.concat([ds, ds + 1.0], xr.DataArray([0, 1], dims="number", name="number"))
        members.rename(t="MYT").map(lambda x: x.assign_attrs(units="warm")).to_netcdf(odd)
    config = issued_from(configure, odd)
    with pytest.raises(ValueError, match=r"for initial states, source.\* here is forecast.initial_files.\*"):
        prepare_initial(config)
    words = FileWords(names={"t": "MYT"}, units={"t": "K"}, member=1)
    said = config.model_copy(update={"forecast": config.forecast.model_copy(update={"initial_files": words})})
    found = store.open_store(prepare_initial(said))["state"].values
    plain = store.open_store(prepare_initial(issued_from(configure, path)))["state"].values
    np.testing.assert_allclose(found, plain + 1.0, atol=1e-3)


def test_channels_that_are_missing_are_named(configure: Configure, tmp_path: Path) -> None:
    """Catches a state that is filled up, or refused one channel at a time."""
    path = tmp_path / "state.nc"
    write_states(path, ["2020-01-03T06:00"])
    config = issued_from(configure, path)
    channels = config.data.channels.model_copy(update={"variables": ["t", "t2m"], "levels": [500, 700, 850]})
    config = config.model_copy(update={"data": config.data.model_copy(update={"channels": channels})})
    with pytest.raises(ValueError, match="700") as error:
        prepare_initial(config)
    assert "t2m" in str(error.value)
