"""An analysis of one time becomes a store, without periods that somebody would have to invent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config
from preprocess.ingest.stage import run_regrid
from preprocess.normals.stage import run_normals

Atmosphere = Callable[..., xr.Dataset]


def analysis(folder: Path, path: Path, **data: Any) -> Config:
    """An experiment that has nothing but files."""
    channels = {"variables": ["t2m"], "levels": [], "statics": []}
    content = {"regrid": {"resolution": 30.0}, "channels": channels} | data
    source = {"kind": "files", "paths": [str(path)], "label": "made up"}
    return configuration.parse({"name": "analysis", "directory": str(folder), "source": source, "data": content})


def write(ds: xr.Dataset, path: Path) -> Path:
    ds.to_netcdf(path)
    return path


def test_one_time(atmosphere: Atmosphere, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches periods demanded where there is one time, and leads, figures and patches checked that nobody will use."""
    config = analysis(tmp_path / "out", write(atmosphere(("t2m",)).isel(time=[3]), tmp_path / "one.nc"))
    assert [stage.name for stage in config.stages] == ["regrid"]
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    assert ds["time"].values.astype("datetime64[h]").astype(str).tolist() == ["2001-01-01T18"]
    assert ds["state"].shape == (1, 1, 6, 12)
    capsys.readouterr()
    run_regrid(config)
    assert "regrid: complete in" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"data.splits must be given for everything but the store .*, got none"):
        run_normals(config)


def test_times_of_the_files(atmosphere: Atmosphere, tmp_path: Path) -> None:
    """Catches a store of files without a period that is called complete when another file has come."""
    ds = atmosphere(("t2m",))
    folder = tmp_path / "files"
    folder.mkdir()
    write(ds.isel(time=slice(0, 2)), folder / "a.nc")
    config = analysis(tmp_path / "out", folder)
    run_regrid(config)
    np.testing.assert_array_equal(store.open_store(config.paths.store)["time"], ds["time"][:2])
    write(ds.isel(time=[2]), folder / "b.nc")
    with pytest.raises(ValueError, match=r"must have the same time .* move the store away"):
        run_regrid(config)
    half = ds.isel(time=[0]).assign_coords(time=ds["time"].values[:1] + np.timedelta64(30, "m"))
    with pytest.raises(ValueError, match="on the full hour, got 2001-01-01T00:30"):
        run_regrid(analysis(tmp_path / "half", write(half, tmp_path / "half.nc")))


def test_only_files_say_their_times(tmp_path: Path) -> None:
    """Catches a simulation or an archive of eighty years without an end."""
    raw = {"name": "a", "source": {"kind": "simulation"}, "data": {}}
    with pytest.raises(ValueError, match=r"data.period must be given for source.kind 'simulation', got none"):
        configuration.parse(raw)
    config = analysis(tmp_path, tmp_path / "a.nc")
    assert configuration.parse(config.model_dump(mode="json")) == config
