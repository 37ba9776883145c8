"""The simulate stage: an archive like ERA5's, the same bytes after any kill, and its label wherever one fits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import files, provenance, store
from pipeline.config import Config, parse
from pipeline.weather.sections import SimulationSource
from preprocess.ingest.ahead import HeadStart
from preprocess.ingest.gridding import FieldReader
from preprocess.ingest.stage import run_regrid
from preprocess.simulation import stage
from preprocess.simulation.setup import LONGEST_STEP, SimulationSetup, time_step
from preprocess.simulation.synthesis import Synthesis
from preprocess.sources import open_source
from tests.preprocess.stores import PLANET
from tests.stores import data_block

pytestmark = pytest.mark.slow

SHORTS = ("z", "t", "q", "t2m", "v10")
LEVELS = (500, 850)
SLABS = 3
_YEAR = {"start": "2004-01-01", "end": "2004-12-31"}


def settings(directory: Path, **changes: Any) -> dict[str, Any]:
    """Nine times in slabs of four: the last slab is short. Crosses a leap day."""
    steps = {"variables": list(SHORTS), "levels": list(LEVELS), "step_hours": 12, "slab_times": 4}
    train, test = ("2004-02-27", "2004-02-28"), ("2004-02-29", "2004-03-01")
    raw: dict[str, Any] = {
        "name": "tiny",
        "directory": str(directory),
        "source": PLANET | {"spinup_days": 2},
        "data": data_block(("2004-02-27", "2004-03-02T00:00"), train=train, test=test, **steps),
        "evaluation": {"variables": ["z500"]},
        "forecast": {"lead_hours": [24]},
        "training": {"lead_hours": [24]},
    }
    for key, value in changes.items():
        section, name = key.split("__")
        raw[section][name] = value
    return raw


def bytes_of(config: Config) -> dict[str, str]:
    """Digest of every file of the archive, its manifest and its kept states."""
    return digests(config.paths.simulated, *config.paths.simulated.with_suffix(".states").glob("*.npz"))


def digests(path: Path, *more: Path) -> dict[str, str]:
    """Digest of every file of a store, its manifest, and more files beside it."""
    found = [*(p for p in path.rglob("*") if p.is_file()), store.manifest_path(path), *more]
    return {str(p.relative_to(path.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(found)}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An archive made in one go."""
    config = parse(settings(tmp_path_factory.mktemp("straight")))
    stage.run_simulate(config)
    return config


@pytest.fixture(scope="module")
def archive(done: Config) -> xr.Dataset:
    return store.open_store(done.paths.simulated).load()


def test_archive_is_shaped_like_era5(archive: xr.Dataset) -> None:
    """Catches a name, dimension, orientation, unit or date that a reader of ERA5 would not find."""
    assert archive["geopotential"].dims == ("time", "level", "latitude", "longitude")
    assert archive["2m_temperature"].dims == ("time", "latitude", "longitude")
    assert archive["10m_v_component_of_wind"].attrs["units"] == "m s-1"
    assert archive["geopotential_at_surface"].dims == ("latitude", "longitude")
    assert list(archive["latitude"].values) == list(np.linspace(90.0, -90.0, 13))
    assert list(archive["longitude"].values) == list(np.arange(0.0, 360.0, 15.0))
    assert list(archive["level"].values) == list(LEVELS)
    assert archive["time"].values[0] == np.datetime64("2004-02-27T00:00")
    assert archive["time"].values[-1] == np.datetime64("2004-03-02T00:00")
    assert archive.sizes["time"] == 9
    assert "u_component_of_wind" not in archive


def test_values_are_plausible_and_finite(archive: xr.Dataset) -> None:
    """Catches NaN, a field in another unit, levels upside down, and south where north should be."""
    for name, values in archive.data_vars.items():
        assert np.isfinite(values.values).all(), name
    t, z, q = (archive[n] for n in ("temperature", "geopotential", "specific_humidity"))
    assert 200.0 < float(t.min()) < float(t.max()) < 330.0
    assert 4.6e4 < float(z.sel(level=500).mean()) < 5.8e4
    assert 1.0e4 < float(z.sel(level=850).mean()) < 1.6e4
    assert 0.0 <= float(q.min()) < 1e-4 < float(q.max()) < 0.04
    winter = archive["2m_temperature"].mean(("time", "longitude"))
    assert float(winter.sel(latitude=75.0)) < float(winter.sel(latitude=0.0)) - 25.0
    antarctica = archive["geopotential_at_surface"].sel(latitude=-90.0).mean()
    arctic = archive["geopotential_at_surface"].sel(latitude=90.0).mean()
    assert float(antarctica) > 1.5e4 > 3e3 > float(abs(arctic))
    for pole in (90.0, -90.0):
        assert float(np.ptp(t.sel(latitude=pole).values, axis=-1).max()) < 1e-2


def test_label_is_everywhere(done: Config, archive: xr.Dataset) -> None:
    """Catches an archive, a variable, a receipt or a source that could be taken for ERA5."""
    assert archive.attrs["title"].startswith("SIMULATED")
    assert archive.attrs["label"] == "simulated"
    assert "none is observed" in archive.attrs["history"]
    assert archive.attrs["contract"]["label"] == "simulated"
    assert all("simulated" in v.attrs["long_name"] for v in archive.data_vars.values())
    assert provenance.read_receipt(done, stage="simulate")["facts"]["label"] == "simulated"
    source = open_source(done)
    assert source.label == "simulated"
    assert source.description["label"] == "simulated"


def test_source_reads_the_archive(done: Config, archive: xr.Dataset) -> None:
    """Catches an archive that the regrid stage cannot read, or reads turned."""
    ds = open_source(done).dataset()
    np.testing.assert_array_equal(ds["t"].values, archive["temperature"].values)
    np.testing.assert_array_equal(ds["z"].sel(level=850).values, archive["geopotential"].sel(level=850).values)


def test_training_store_is_made_meanwhile_as_afterwards(
    done: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a slab made while simulating that differs from the regrid stage's, or that the stage makes again."""
    other = parse(settings(tmp_path))
    for path in (done.paths.simulated, done.paths.simulated.with_suffix(".states")):
        shutil.copytree(path, tmp_path / path.relative_to(str(done.directory)))
    shutil.copy(store.manifest_path(done.paths.simulated), store.manifest_path(other.paths.simulated))
    run_regrid(other)
    manifest = json.loads(store.manifest_path(done.paths.store).read_text())
    assert sorted(manifest["slabs"]) == ["0", "1", "2"]
    assert not manifest["complete"], "finishing is left to the regrid stage"
    monkeypatch.setattr(FieldReader, "__call__", lambda *_: pytest.fail("made again"))
    run_regrid(done)
    assert digests(done.paths.store) == digests(other.paths.store)


def test_archive_does_not_need_the_training_store(
    done: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Catches a simulation that fails, or says nothing, when slabs of the training store cannot be made meanwhile."""
    config = parse(settings(tmp_path))
    with files.lock(store.lock_path(config.paths.store)):
        stage.run_simulate(config)
    said = capfd.readouterr().err
    assert said.count("regrid: no further slab is made while simulating: output must have one writer at a time") == 1
    assert bytes_of(config) == bytes_of(done)
    assert not config.paths.store.exists()


def test_no_slab_is_made_before_its_times_are_there(done: Config, tmp_path: Path) -> None:
    """Catches a slab of the training store made from a slab of the archive that is not recorded yet."""
    config = parse(settings(tmp_path))
    setup = SimulationSetup(config)
    with setup.writer(config.paths.simulated, setup.synthesis()) as writer, HeadStart(config) as regridded:
        first = writer.pending()[0]
        with xr.open_zarr(done.paths.simulated, consolidated=False) as raw:
            writer.write(first, {name: raw[name].values[first.slice] for name in writer.arrays})
        regridded.up_to(setup.times[first.stop - 2])
        assert regridded.made == 0
        regridded.up_to(setup.times[first.stop - 1])
        assert regridded.made == 1


def test_done_is_not_done_again(done: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a second run that integrates anew."""
    before = bytes_of(done)
    monkeypatch.setattr(SimulationSetup, "synthesis", lambda _: pytest.fail("simulated again"))
    stage.run_simulate(done)
    assert bytes_of(done) == before


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_crash_and_resume_give_the_same_bytes(
    done: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Catches a resumed run that differs in one bit, or starts over."""
    config = parse(settings(tmp_path))
    written: list[int] = []
    real = store.SlabStore.write

    def failing(self: store.SlabStore, slab: store.Slab, data: Any, **more: Any) -> None:
        if self.path != config.paths.simulated:
            return real(self, slab, data, **more)
        if slab.index == fails_at and not written.count(-1):
            written.append(-1)
            raise OSError(28, "No space left on device")
        written.append(slab.index)
        return real(self, slab, data, **more)

    monkeypatch.setattr(store.SlabStore, "write", failing)
    with pytest.raises(OSError, match="No space left"):
        stage.run_simulate(config)
    assert not config.paths.receipt("simulate").exists()
    stage.run_simulate(config)
    assert [i for i in written if i >= 0] == list(range(SLABS)), "each slab is written once"
    assert bytes_of(config) == bytes_of(done)


KILLED = """
import os, signal, sys, yaml
from pipeline import store
from pipeline.config import parse
from preprocess.ingest.ahead import HeadStart
from preprocess.ingest.gridding import FieldReader
from preprocess.ingest.stage import run_regrid
from preprocess.simulation import stage
place, index, raw = sys.argv[1], int(sys.argv[2]), yaml.safe_load(sys.argv[3])
real = getattr(store.SlabStore, place)
def deadly(self, slab, *args, **kwargs):
    if slab.index == index and self.path.name.startswith("simulated"):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, slab, *args, **kwargs)
setattr(store.SlabStore, place, deadly)
stage.run_simulate(parse(raw))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("place", "index"), [("write", 1), ("record", 1), ("record", 2)])
def test_kill_9_and_resume_give_the_same_bytes(
    done: Config, tmp_path: Path, root: Path, place: str, index: int
) -> None:
    """Catches a half-written slab that is believed, before the write or between the write and its record."""
    raw = settings(tmp_path)
    child = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(index), json.dumps(raw)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    config = parse(raw)
    manifest = json.loads(store.manifest_path(config.paths.simulated).read_text())
    assert sorted(manifest["slabs"]) == [str(i) for i in range(index)]
    stage.run_simulate(config)
    assert bytes_of(config) == bytes_of(done)


def test_restart_reaches_any_time(done: Config, archive: xr.Dataset) -> None:
    """Catches a restart that is off by a step, and kept states that are not those of the archive."""
    setup = SimulationSetup(done)
    for index in (0, 4, 6):
        time = archive["time"].values[index].astype("datetime64[m]")
        state = setup.state_at(time)
        fields = Synthesis(setup.atmosphere, grid=setup.grid, levels=LEVELS).to_era5([state])
        np.testing.assert_allclose(fields["temperature"][0], archive["temperature"].values[index], atol=1e-3)
    with pytest.raises(ValueError, match="states must be kept at or before 2004-02-01"):
        setup.state_at(np.datetime64("2004-02-01T00:00"))


def test_states_of_another_planet_are_refused(done: Config, tmp_path: Path) -> None:
    """Catches a run that goes on from a state with another forcing."""
    config = parse(settings(tmp_path))
    setup = SimulationSetup(config)
    setup.states.mkdir(parents=True)
    theirs = SimulationSetup(parse(settings(tmp_path, source__seed=4)))
    state = theirs.atmosphere.initial_state(setup.spinup_start)
    theirs.states = setup.states
    theirs.keep(state)
    with pytest.raises(ValueError, match="seed: 4 against 3"):
        stage.run_simulate(config)
    assert not config.paths.receipt("simulate").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data__channels": {"variables": ["z", "msl", "r"], "levels": [500]}},
            r"must be among those simulated.*got r, msl",
        ),
        ({"source__resolution": 7.0}, "grid resolution must divide 180 degrees, got 7"),
        ({"source__time_step_minutes": 50}, r"time_step_minutes must divide data.step_hours \(12 h\), got 50"),
        ({"source__levels": 2}, "levels must be at least 5, got 2"),
    ],
)
def test_bad_settings_write_nothing(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Catches an error that comes after the first file."""
    with pytest.raises(ValueError, match=message):
        stage.run_simulate(parse(settings(tmp_path, **change)))
    assert not list(tmp_path.iterdir())


def test_longer_period_begins_with_the_same_days(done: Config, archive: xr.Dataset) -> None:
    """Catches a run whose days depend on how long it goes on, and one that spoils the shorter archive."""
    before = bytes_of(done)
    assert done.directory is not None
    config = parse(settings(done.directory, data__period={"start": "2004-02-27", "end": "2004-03-03T00:00"}))
    stage.run_simulate(config)
    longer = store.open_store(config.paths.simulated)
    assert longer.sizes["time"] == 11
    for name, values in archive.data_vars.items():
        same = longer[name] if "time" not in values.dims else longer[name][:9]
        np.testing.assert_allclose(same.values, values.values, rtol=1e-6, atol=1e-6 * float(np.abs(values).max()))
    assert bytes_of(done) == before


def test_full_disk_is_told_before_the_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that finds out after an hour that its archive cannot fit."""
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: _Usage())
    with pytest.raises(ValueError, match="disk must hold"):
        stage.run_simulate(parse(settings(tmp_path)))
    assert not list(tmp_path.iterdir())


class _Usage:
    free = 1000


def test_a_shard_of_the_archive_is_a_slab(tmp_path: Path) -> None:
    """Catches chunks that do not divide a slab, as eleven times of four megabytes do not divide 64: a slab's last times
    would lie in the shard of the slab before."""
    levels = [1000, 925, 850, 700, 600, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30]
    wide = {"data__channels": {"variables": list(SHORTS), "levels": levels, "statics": []}, "data__period": _YEAR}
    config = parse(settings(tmp_path, source__resolution=5.0, data__slab_times=64, **wide))
    setup = SimulationSetup(config)
    for short in SHORTS:
        spec = setup._spec(short)
        assert spec.shard(setup.slab_times)[0] == setup.slab_times
        assert spec.chunks[0] > 1


def test_time_step_divides_every_output_step() -> None:
    """Catches a default step that the core refuses for some truncation or output step."""
    for truncation, longest in LONGEST_STEP.items():
        for hours in (1, 2, 3, 4, 6, 8, 12, 24):
            source = SimulationSource().model_copy(update={"truncation": truncation})  # coarse twins go lower
            minutes = time_step(source, step_hours=hours)
            assert 1440 % minutes == 0
            assert hours * 60 % minutes == 0
            assert longest / 2 < minutes <= longest
    assert time_step(SimulationSource(time_step_minutes=15), step_hours=6) == 15


def test_progress_names_the_date(done: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Catches a long stage that shows nothing."""
    messages: list[str] = []
    original: Callable[..., None] = stage._Meter.at

    def listen(self: Any, time: np.datetime64, what: str) -> None:
        messages.append(f"{what} {time}")
        original(self, time, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage._Meter, "at", listen)
        stage.run_simulate(parse(settings(tmp_path)))
    assert messages[0] == "spin up 2004-02-25T00:00"
    assert messages[-1].startswith("simulate 2004-03-02")
    assert "simulated" in capfd.readouterr().err
