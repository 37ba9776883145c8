"""The regrid stage puts every value in its place, invents none, and ends with the same bytes after any kill."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.weather.sections import Period
from pipeline.weather.variables import parse_channel
from preprocess.ingest import stage
from preprocess.ingest.stage import gaps, run_regrid, select_times
from preprocess.regrid import regrid
from preprocess.sources import Archive
from tests import forked
from tests.preprocess.stores import command, tree
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

Atmosphere = Callable[..., xr.Dataset]
Configure = Callable[..., Config]
TARGET = Grid.regular(22.5)
NAMES = ["z500", "z850", "t500", "t850", "t2m", "u10"]


def test_every_channel_in_its_place(source: Path, configure: Configure, expected: Callable[..., np.ndarray]) -> None:
    """Catches channels out of catalogue order, a level or a time swapped, latitude upside down."""
    config = configure([source])
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    assert ds["channel"].values.tolist() == NAMES
    assert ds["variable"].values.tolist() == ["z", "z", "t", "t", "t2m", "u10"]
    assert ds["level"].values.tolist() == [500, 850, 500, 850, -1, -1]
    assert ds["unit"].values.tolist() == ["m2 s-2"] * 2 + ["K"] * 3 + ["m s-1"]
    assert Grid.from_dataset(ds) == TARGET
    assert ds["state"].shape == (9, 6, 8, 16)
    for name in NAMES:
        channel = parse_channel(name)
        truth = expected(channel.variable, channel.level, ds["time"].values, TARGET.latitude, TARGET.longitude)
        found = ds["state"].sel(channel=name).values
        # Bilinear on 10 degrees misses a wave of this length by up to its curvature, 1.5% of its size.
        np.testing.assert_allclose(found, truth, rtol=0, atol=0.015 * np.ptp(truth))
        shifted = np.roll(truth, 1, axis=0)
        assert np.abs(found - truth).max() < 0.2 * np.abs(found - shifted).max()


def test_equal_to_regridding_by_hand(source: Path, configure: Configure, atmosphere: Atmosphere) -> None:
    """Catches a second interpolation, or another method than the one asked for."""
    for method in ("bilinear", "conservative"):
        config = configure([source], name=method, regrid={"resolution": 22.5, "method": method})
        run_regrid(config)
        ds = store.open_store(config.paths.store)
        by_hand = regrid(atmosphere()[["t2m"]], target=TARGET, method=method)["t2m"]
        np.testing.assert_array_equal(ds["state"].sel(channel="t2m").values, by_hand.values)
        assert ds.attrs["contract"]["regrid"]["method"] == method


def test_source_on_the_target_grid(
    atmosphere: Atmosphere, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches values interpolated, or put in another place, where the source only has another order."""
    ds = atmosphere(latitude=TARGET.latitude, longitude=TARGET.longitude)
    turned = ds.isel(latitude=slice(None, None, -1)).transpose("longitude", "latitude", ...)
    turned = turned.assign_coords(longitude=(ds.longitude + 180) % 360 - 180).sortby("longitude")
    turned.to_netcdf(tmp_path / "a.nc")
    config = configure([tmp_path / "a.nc"])
    run_regrid(config)
    assert "nothing to interpolate" in capsys.readouterr().err
    found = store.open_store(config.paths.store)
    assert found.attrs["contract"]["regrid"] == {"method": "none", "engine": "none"}
    for name in NAMES:
        channel = parse_channel(name)
        field = ds[channel.variable] if channel.level is None else ds[channel.variable].sel(level=channel.level)
        np.testing.assert_array_equal(found["state"].sel(channel=name).values, field.values)


def test_statics_from_their_own_grid(
    source: Path, atmosphere: Atmosphere, configure: Configure, tmp_path: Path
) -> None:
    """Catches statics forced onto the grid of the other fields, or in another order."""
    fine = {"latitude": np.linspace(-90, 90, 37), "longitude": np.arange(72) * 5.0 - 180.0}
    atmosphere(("lsm", "orog"), **fine).to_netcdf(tmp_path / "constants.nc")
    channels = {"variables": ["t2m"], "levels": [], "statics": ["orog", "lsm"]}
    config = configure([source], constants=[tmp_path / "constants.nc"], channels=channels)
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    assert ds["static_channel"].values.tolist() == ["lsm", "orog"]
    assert ds["static"].dtype == np.float32
    for name in ("lsm", "orog"):
        by_hand = regrid(atmosphere((name,), **fine)[[name]], target=TARGET, method="bilinear")[name]
        np.testing.assert_array_equal(ds["static"].sel(static_channel=name).values, by_hand.values)


def test_gaps_are_listed_and_never_filled(
    atmosphere: Atmosphere, configure: Configure, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches an axis that pretends a gap is not there, or a missing time filled with its neighbour."""
    ds = atmosphere()
    ds.isel(time=[0, 1, 4, 5, 6, 8]).to_netcdf(tmp_path / "a.nc")
    config = configure([tmp_path / "a.nc"])
    run_regrid(config)
    found = store.open_store(config.paths.store)
    np.testing.assert_array_equal(found["time"].values, ds["time"].values[[0, 1, 4, 5, 6, 8]])
    facts = store.read_manifest(config.paths.store)["facts"]
    assert facts["missing_times"] == ["2001-01-01T12:00", "2001-01-01T18:00", "2001-01-02T18:00"]
    assert facts["times"] == 6
    text = capsys.readouterr().err
    assert "lacks 3 times" in text
    assert "2001-01-01T12:00 .. 2001-01-01T18:00 (2 times), 2001-01-02T18:00" in text
    receipt = json.loads(config.paths.receipt("regrid").read_text())
    assert receipt["facts"]["missing_times"] == facts["missing_times"]


def test_times_on_the_step(configure: Configure, time_axis: Callable[..., np.ndarray]) -> None:
    """Catches hourly files thinned from the wrong hour, and an empty choice passed on."""
    hourly = time_axis(60, hours=1)
    period = Period(start="2001-01-01T06:00", end="2001-01-03")
    data = configure(["x.nc"]).data.model_copy(update={"period": period, "step_hours": 12})
    present, missing = select_times(hourly, data)
    assert [str(t)[:13] for t in present] == [
        "2001-01-01T06",
        "2001-01-01T18",
        "2001-01-02T06",
        "2001-01-02T18",
        "2001-01-03T06",
    ]
    assert [str(t)[:13] for t in missing] == ["2001-01-03T18"]
    with pytest.raises(
        ValueError, match=r"none at steps of 12 h .* source has 30 times, 2001-01-01T01:00 .. 2001-01-03T11:00"
    ):
        select_times(hourly[1::2], data)
    assert gaps(hourly[[0, 1, 2, 5, 9, 10]], step_hours=1) == [
        "2001-01-01T00:00 .. 2001-01-01T02:00 (3 times)",
        "2001-01-01T05:00",
        "2001-01-01T09:00 .. 2001-01-01T10:00 (2 times)",
    ]


def test_each_slab_is_read_once(source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a loop over variables or levels, and a slab read again to be checked."""
    asked: list[int] = []
    original = Archive.dataset

    def dataset(self: Archive, times: Any = None) -> xr.Dataset:
        asked.append(len(times))
        return original(self, times)

    monkeypatch.setattr(Archive, "dataset", dataset)
    run_regrid(configure([source]))
    assert asked == [4, 4, 1]


def test_finished_work_is_left_alone(
    source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a second run that opens the source again or touches the store."""
    config = configure([source])
    run_regrid(config)
    before = tree(config)
    monkeypatch.setattr(stage, "open_archive", lambda config: pytest.fail("the source was opened"))
    run_regrid(config)
    assert "complete in" in capsys.readouterr().err
    assert tree(config) == before


def test_resumes_at_the_first_slab_not_recorded(
    source: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches slabs computed twice, or a resumed store with other bytes."""
    whole = configure([source], name="whole")
    run_regrid(whole)
    broken = configure([source], name="broken")
    written = store.SlabStore.record

    def record(self: store.SlabStore, slab: store.Slab, **keys: Any) -> None:
        if slab.index == 1:
            raise KeyboardInterrupt  # the slab is on disk, its record is not
        written(self, slab, **keys)

    with monkeypatch.context() as patch:
        patch.setattr(store.SlabStore, "record", record)
        with pytest.raises(KeyboardInterrupt):
            run_regrid(broken)
    asked: list[int] = []
    original = Archive.dataset
    monkeypatch.setattr(Archive, "dataset", lambda self, times: asked.append(len(times)) or original(self, times))
    run_regrid(broken)
    assert asked == [4, 1]
    assert tree(broken) == tree(whole)


@pytest.mark.slow
def test_killed_at_any_moment(atmosphere: Atmosphere, configure: Configure, tmp_path: Path, root: Path) -> None:
    """Catches any state left by kill -9 that the next run does not repair to the same bytes."""
    fine = {"latitude": np.linspace(90, -90, 91), "longitude": np.arange(180) * 2.0}
    times = np.datetime64("2001-01-01", "ns") + np.arange(9) * np.timedelta64(6, "h")
    atmosphere(times=times, **fine).to_netcdf(tmp_path / "source.nc")
    whole = configure([tmp_path / "source.nc"], name="whole", slab_times=1)
    forked.run(["pipeline", "--version"], cwd=root)  # the first one waits for what all share to be loaded
    start = time.monotonic()
    done = forked.run(command(whole, tmp_path), cwd=root)
    assert done.returncode == 0, done.stderr
    span = time.monotonic() - start
    killed = configure([tmp_path / "source.nc"], name="killed", slab_times=1)
    dice, kills, partial = random.Random(11), 0, 0
    for _ in range(8):
        process = forked.start(command(killed, tmp_path), cwd=root, output=tmp_path)
        process.join(dice.uniform(0.2, 0.9) * span)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
        manifest = store.manifest_path(killed.paths.store)
        partial += manifest.exists() and not json.loads(manifest.read_text())["complete"]
    done = forked.run(command(killed, tmp_path), cwd=root)
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert tree(killed) == tree(whole)
    assert not list(killed.paths.store.parent.glob(".*"))


def test_simulated_archive(atmosphere: Atmosphere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a simulated atmosphere not labelled as such, or a store kept when its planet has changed."""
    config = configuration.parse(
        {
            "name": "sim",
            "directory": str(tmp_path / "sim"),
            "source": {"kind": "simulation"},
            "data": {
                "channels": {"variables": ["t", "t2m"], "levels": [850], "statics": ["lsm"]},
                "period": {"start": "2001-01-01", "end": "2001-01-03"},
                "regrid": {"resolution": 22.5},
                "splits": {
                    "train": {"start": "2001-01-01", "end": "2001-01-01T18:00"},
                    "test": {"start": "2001-01-02", "end": "2001-01-03T00:00"},
                },
            },
            "evaluation": {"variables": ["t2m"]},
        }
    )
    with pytest.raises(ValueError, match="run python -m pipeline simulate first"):
        run_regrid(config)
    ds = atmosphere(("t", "t2m", "lsm"), levels=(850,))
    coords = ds[["lsm"]].rename(lsm="land_sea_mask").assign_coords(time=ds["time"])
    dims = ("time", "level", "latitude", "longitude")
    arrays = {
        "temperature": store.ArraySpec(dims, ds["t"].shape, (1, 1, 19, 36), attrs={"units": "K"}),
        "2m_temperature": store.ArraySpec((dims[0], *dims[2:]), ds["t2m"].shape, (1, 19, 36), attrs={"units": "K"}),
    }
    with store.SlabStore(
        config.paths.simulated,
        arrays=arrays,
        coords=coords.assign_coords(level=[850]),
        slab_dim="time",
        slab_size=5,
        contract={"kind": "simulated archive"},
    ) as archive:
        for slab in archive.pending():
            part = ds.isel(time=slab.slice)
            archive.write(slab, {"temperature": part["t"].values, "2m_temperature": part["t2m"].values})
        archive.finish()
    run_regrid(config)
    found = store.open_store(config.paths.store)
    assert found.attrs["contract"]["source"]["label"] == "simulated"
    assert found.attrs["title"] == "Training store of a simulated atmosphere"
    by_hand = regrid(ds[["t"]], target=TARGET, method="bilinear")["t"].values[:, 0]
    np.testing.assert_array_equal(found["state"].sel(channel="t850").values, by_hand)
    monkeypatch.setattr(stage, "open_archive", lambda config: pytest.fail("looked again"))
    run_regrid(config)
    another = {"schema": 1, "kind": "simulated archive", "planet": "another"}
    zarr.open_group(config.paths.simulated, mode="r+").attrs["contract"] = another
    rewrite_manifest(config.paths.simulated, lambda content: content.update(contract=another))
    with pytest.raises(pytest.fail.Exception, match="looked again"):
        run_regrid(config)


def test_no_torch(root: Path) -> None:
    """Catches an import that the preprocess stage must not make."""
    code = (
        "import sys, preprocess.ingest.stage, preprocess.normals.stage, preprocess.sources.cloud, "
        "preprocess.ingest.plan, preprocess.export, preprocess.validate; sys.exit('torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=False).returncode == 0
