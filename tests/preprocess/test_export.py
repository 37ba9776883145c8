"""Exports are read by climate-learn's own data module, and their normals are those of all training years."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import store
from pipeline.config import Config
from preprocess.export import long_name, parts, run_export
from preprocess.ingest.stage import run_regrid

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]
TIMES = 40


@pytest.fixture
def exported(
    atmosphere: Callable[..., xr.Dataset], time_axis: Callable[..., np.ndarray], configure: Configure, tmp_path: Path
) -> Config:
    """Two training years of unequal length with a gap in the second, then validation and test."""
    times = time_axis(TIMES, start="2000-12-30")
    keep = np.delete(np.arange(TIMES), 13)
    ds = atmosphere(("z", "t", "t2m", "lsm", "orog"), times=times).isel(time=keep)
    ds.to_netcdf(tmp_path / "a.nc")
    config = configure(
        [tmp_path / "a.nc"],
        channels={"variables": ["z", "t", "t2m"], "levels": [500, 850], "statics": ["lsm", "orog"]},
        period={"start": "2000-12-30", "end": "2001-01-08T18:00"},
        splits={
            "train": {"start": "2000-12-30", "end": "2001-01-04T18:00"},
            "validation": {"start": "2001-01-05", "end": "2001-01-06T18:00"},
            "test": {"start": "2001-01-07", "end": "2001-01-08T18:00"},
        },
    )
    run_regrid(config)
    run_export(config)
    return config


def state(config: Config) -> xr.DataArray:
    return store.open_store(config.paths.store)["state"].load()


def test_names() -> None:
    """Catches names that the readers of these files do not know."""
    names = [long_name(n) for n in ("z500", "q1000", "t2m", "v10")]
    assert names == ["geopotential_500", "specific_humidity_1000", "2m_temperature", "10m_v_component_of_wind"]


def test_files_end_where_a_time_is_missing(exported: Config) -> None:
    """Catches a file that spans a gap, whose reader would pair times that are not one lead apart."""
    folder = exported.paths.export
    found = {s: sorted(p.name for p in (folder / s).glob("2*.npz")) for s in ("train", "val", "test")}
    assert found == {"train": ["2000_0.npz", "2001_0.npz", "2001_1.npz"], "val": ["2001_0.npz"], "test": ["2001_0.npz"]}
    lengths = [np.load(folder / "train" / n)["2m_temperature"].shape[0] for n in found["train"]]
    assert lengths == [8, 5, 10]
    truth = state(exported)
    second = np.load(folder / "train" / "2001_1.npz")
    np.testing.assert_array_equal(second["geopotential_850"][:, 0], truth.sel(channel="z850").values[13:23])
    assert second["land_sea_mask"].shape == (10, 1, 8, 16)
    times = store.open_store(exported.paths.store)["time"].values
    assert [len(s) for s in parts(times, list(exported.data.splits.train), step_hours=6)] == lengths


def test_normals_are_those_of_all_training_times(exported: Config) -> None:
    """Catches means of yearly means, spreads without the difference between years, and validation times in either."""
    folder = exported.paths.export
    train = state(exported).values[:23].astype(np.float64)
    mean, std = (dict(np.load(folder / f"normalize_{n}.npz")) for n in ("mean", "std"))
    for i, name in enumerate(["geopotential_500", "geopotential_850", "temperature_500", "temperature_850"]):
        np.testing.assert_allclose(mean[name], [train[:, i].mean()], rtol=1e-12)
        np.testing.assert_allclose(std[name], [train[:, i].std()], rtol=1e-10)
    for split in ("train", "val", "test"):
        found = np.load(folder / split / "climatology.npz")["2m_temperature"]
        np.testing.assert_allclose(found, train[:, 4:5].mean(axis=0), rtol=1e-12)


def test_a_second_run_writes_nothing(exported: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches hours of writing done twice, and half-written files left under another name."""
    before = {p: p.stat().st_mtime_ns for p in exported.paths.export.rglob("*")}
    run_export(exported)
    assert "complete in" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in exported.paths.export.rglob("*")} == before
    assert not [p for p in before if ".tmp" in p.name]


READ = """
import sys
import numpy as np
import torch
for name in ("nms", "qnms"):  # a CPU torchvision lacks them, and importing it then fails
    if not hasattr(torch.ops.torchvision, name):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
from climate_learn.data import IterDataModule

folder, inputs, outputs = sys.argv[1], sys.argv[2].split(), sys.argv[3].split()
module = IterDataModule(
    "direct-forecasting", folder, folder, inputs, outputs, src="era5", history=1, window=1, pred_range=2,
    subsample=1, batch_size=3, buffer_size=8,
)
module.setup()
x, y, names, out_names = next(iter(module.test_dataloader()))
latitude, longitude = module.get_lat_lon()
np.savez(
    sys.argv[4], x=x.numpy(), y=y.numpy(), names=list(names), out_names=list(out_names), latitude=latitude,
    longitude=longitude, samples=sum(batch[0].shape[0] for batch in module.train_dataloader()),
    climatology=module.get_climatology("test")["2m_temperature"].numpy(),
)
"""


@pytest.mark.slow
def test_climate_learn_reads_it(exported: Config, tmp_path: Path) -> None:
    """Catches any departure from the layout: climate-learn's own data module must give back the store's fields."""
    if importlib.util.find_spec("climate_learn") is None:
        pytest.skip("climate-learn (the extra `baselines`) is not installed")
    inputs = ["land_sea_mask", "orography", "lattitude", "geopotential_500", "temperature_850", "2m_temperature"]
    outputs = ["geopotential_500", "2m_temperature"]
    folder = exported.paths.export
    # In a process of its own: it brings a hundred libraries along.
    command = [sys.executable, "-c", READ, str(folder), " ".join(inputs), " ".join(outputs), str(tmp_path / "read.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "read.npz")
    truth = state(exported)
    np.testing.assert_array_equal(found["latitude"], truth["latitude"].values)
    np.testing.assert_array_equal(found["longitude"], truth["longitude"].values)
    assert (found["names"].tolist(), found["out_names"].tolist()) == (inputs, outputs)
    mean, std = (dict(np.load(folder / f"normalize_{n}.npz")) for n in ("mean", "std"))
    test = truth.values[-8:].astype(np.float64)
    x, y = found["x"], found["y"]
    cases = [(x[:, 0, 3], 0, "geopotential_500", 0), (x[:, 0, 5], 0, "2m_temperature", 4)]
    cases += [(y[:, 0], 2, "geopotential_500", 0), (y[:, 1], 2, "2m_temperature", 4)]
    for got, lead, name, channel in cases:
        expected = (test[lead : lead + 3, channel] - mean[name]) / std[name]
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)
    assert found["samples"] == (8 - 2) + (5 - 2) + (10 - 2)
    np.testing.assert_allclose(found["climatology"], truth.values[:23, 4].mean(axis=0), rtol=1e-6)
