"""The simulated atmosphere as its own forecaster: the ceiling, the coarse core, and their way into stores."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import provenance, store
from pipeline.config import Config, parse
from preprocess.ingest.gridding import Gridder
from preprocess.ingest.stage import run_regrid
from preprocess.simulation import stage, twins
from preprocess.simulation.atmosphere import time_of
from preprocess.simulation.perturb import coarsened, perturbed
from preprocess.simulation.setup import SimulationSetup
from preprocess.sources import open_source
from tests.preprocess.stores import PLANET
from tests.stores import data_block

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("twins")]


def settings(directory: Path, **twin: Any) -> Config:
    """A month of a planet with six layers, twelve-hourly; two leads that differ."""
    return parse(
        {
            "name": "twins",
            "directory": str(directory),
            "source": PLANET | {"spinup_days": 10},
            "data": data_block(
                ("2004-03-01", "2004-03-31"),
                train=("2004-03-01", "2004-03-19"),
                test=("2004-03-20", "2004-03-31"),
                variables=["z", "t", "u", "t2m"],
                levels=[500, 850],
                step_hours=12,
                slab_times=8,
                regrid={"resolution": 22.5},
            ),
            "model": {"patch": 2},
            "training": {"lead_hours": [24]},
            "forecast": {"lead_hours": [72, 24], "init_step_hours": 24},
            "evaluation": {
                "variables": ["z500"],
                "twins": {"models": ["ceiling", "coarse"], "init_step_hours": 48, **twin},
            },
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Config]:
    """Simulated, regridded, and forecast from states without error."""
    config = settings(tmp_path_factory.mktemp("twins"), perturbation=0.0)
    stage.run_simulate(config)
    setup = SimulationSetup(config)
    days = [np.datetime64(f"2004-03-{day}T00:00") for day in (20, 22, 24, 26, 28)]
    assert all(setup.state_path(day).exists() for day in days), "simulate passed the twins' starts without keeping them"
    run_regrid(config)
    twins.run_twins(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "_APART_DAYS", 4)  # a month holds no states a month apart
        yield config


def truth_of(config: Config, forecast: xr.Dataset) -> np.ndarray:
    """The training store at the forecast's valid times, (init_time, lead_time, ...)."""
    truth = store.open_store(config.paths.store)["state"]
    valid = forecast["init_time"].values[:, None] + forecast["lead_time"].values[None, :]
    return truth.sel(time=valid.ravel()).values.reshape(*valid.shape, *truth.shape[1:])


def digest(path: Path) -> str:
    """Of all values of a forecast store."""
    return hashlib.sha256(np.ascontiguousarray(store.open_store(path)["state"].values).tobytes()).hexdigest()


def test_without_an_error_the_ceiling_is_the_truth(world: Config) -> None:
    """Restart, integration, synthesis and regridding are those of the store, up to the rounding of a batch of another
    size, in the order of the leads; catches a wrong date, other weights, a lead in the wrong place."""
    forecast = store.open_store(world.paths.twins["ceiling"])
    assert [str(t)[:10] for t in forecast["init_time"].values] == [f"2004-03-{d:02d}" for d in (20, 22, 24, 26, 28)]
    assert (forecast["lead_time"].values / np.timedelta64(1, "h")).tolist() == [72, 24]
    np.testing.assert_allclose(forecast["state"].values, truth_of(world, forecast), rtol=2e-6, atol=1e-4)


def test_coarse_core_knows_the_weather_of_the_first_day(world: Config) -> None:
    """Its error grows with the lead and starts below the spread of the weather; catches coefficients cut in the
    wrong place, mountains without their pressure, and a first step that blows up."""
    forecast = store.open_store(world.paths.twins["coarse"])
    truth = truth_of(world, forecast)
    error = np.sqrt(((forecast["state"].values - truth) ** 2).mean(axis=(0, 3, 4)))
    states = store.open_store(world.paths.store)["state"].values[:40]
    spread = np.sqrt(((states - states.mean(axis=0)) ** 2).mean(axis=(0, 2, 3)))
    channels = forecast["channel"].values.tolist()
    z500 = channels.index("z500")
    assert (error[0] > error[1]).all()
    assert error[1, z500] < 0.8 * spread[z500]
    assert forecast.attrs["contract"]["twin"]["truncation"] == 15


def test_receipt_label_and_contract(world: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """A twin says that its data are simulated, from which store, and how it was made; run again, nothing is done."""
    contract = store.open_store(world.paths.twins["ceiling"]).attrs["contract"]
    assert contract["source"]["label"] == "simulated"
    assert contract["model"] == "ceiling"
    truth = store.open_store(world.paths.store)
    assert contract["store"] == store.contract_digest(truth.attrs["contract"])
    assert "simulated" in store.open_store(world.paths.twins["coarse"]).attrs["title"]
    facts = provenance.read_receipt(world, stage="twins")["facts"]
    assert facts["init_times"] == 5
    assert facts["ceiling"]["initial_rmse"]["z500"] < 0.1
    assert facts["coarse"]["initial_rmse"]["z500"] > 0.0


@pytest.fixture(scope="module")
def perturbed_world(world: Config) -> Config:
    """The same planet with an analysis error of a fifth of the weather's spread."""
    config = settings(world.root, perturbation=0.2, models=["ceiling"])
    twins.run_twins(config)
    return config


def test_perturbed_states_have_the_error_that_was_asked_for(perturbed_world: Config) -> None:
    """A fifth of the spread, in every channel within a factor of two; catches a missing root of two or a square."""
    config = perturbed_world
    setup = SimulationSetup(config)
    twin = twins.Twin("ceiling", setup, config, Gridder(open_source(config), config))
    found = twin.initial_rmse(store.open_store(config.paths.twins["ceiling"])["init_time"].values)
    states = store.open_store(config.paths.store)["state"].values[:40]
    spread = np.sqrt(((states - states.mean(axis=0)) ** 2).mean(axis=(0, 2, 3)))
    ratio = np.array(list(found.values())) / spread
    assert ((ratio > 0.1) & (ratio < 0.4)).all(), dict(zip(found, ratio, strict=True))
    state = setup.state_at(np.datetime64("2004-03-20"))
    one, two = (setup.state_at(t) for t in twins.partners(setup, np.datetime64("2004-03-20")))
    double = perturbed(state, one, two, size=0.4)["vorticity"] - state["vorticity"]
    single = perturbed(state, one, two, size=0.2)["vorticity"] - state["vorticity"]
    np.testing.assert_allclose(double, 2 * single, atol=1e-6)
    assert perturbed(state, one, two, size=0.4)["minutes"] == state["minutes"]


def test_a_killed_run_ends_with_the_same_bytes(perturbed_world: Config, tmp_path: Path, monkeypatch) -> None:
    """Stopped after its first slab; what was written stays, and the rest follows as if nothing had happened."""
    config = perturbed_world
    whole = digest(config.paths.twins["ceiling"])
    manifest = store.manifest_path(config.paths.twins["ceiling"])
    for path in (config.paths.twins["ceiling"], manifest, config.paths.receipt("twins")):
        path.rename(tmp_path / path.name)
    original, calls = twins.Twin.forecast, []

    def dies(self: twins.Twin, time: np.datetime64) -> np.ndarray:
        calls.append(time)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(self, time)

    monkeypatch.setattr(twins.Twin, "forecast", dies)
    with pytest.raises(KeyboardInterrupt):
        twins.run_twins(config)
    assert not config.paths.receipt("twins").exists()
    twins.run_twins(config)
    assert len(calls) == 6  # four of the first slab, one that died, the same again
    assert digest(config.paths.twins["ceiling"]) == whole


def test_partners_are_of_the_season_and_strangers(world: Config, monkeypatch) -> None:
    """Slab boundaries far enough from the date and from one another, the nearest first; an archive that is too short
    for thirty days is refused."""
    setup = SimulationSetup(world)
    time = np.datetime64("2004-03-20T00:00", "m")
    first, second = twins.partners(setup, time)
    assert set(map(str, (first, second))) <= set(map(str, setup.times[:: setup.slab_times]))
    assert abs(first - time) >= np.timedelta64(4, "D")
    assert abs(first - second) >= np.timedelta64(4, "D")
    assert abs(first - time) <= abs(second - time)
    monkeypatch.setattr(twins, "_APART_DAYS", 30)
    with pytest.raises(ValueError, match="archive must hold two states 30 days apart"):
        twins.partners(setup, time)


def test_a_coarse_state_is_the_large_scales_of_the_true_one(world: Config) -> None:
    """Vorticity of the kept wavenumbers is untouched, the ground's pressure follows the coarser mountains, the
    older time level is one coarse step before; a core that is not coarser is refused."""
    setup = SimulationSetup(world)
    twin = twins.Twin("coarse", setup, world, Gridder(open_source(world), world))
    state = setup.state_at(np.datetime64("2004-03-20"))
    cut = coarsened(state, setup.atmosphere, twin.atmosphere)
    np.testing.assert_array_equal(
        cut["vorticity"][:, :31, :16], state["vorticity"][:, :31, :16] * (cut["vorticity"][:, :31, :16] != 0)
    )
    assert np.count_nonzero(cut["vorticity"]) > 300
    assert time_of(cut) == time_of(state)
    height = np.asarray(twin.atmosphere.surface.height)
    pressure = np.asarray(twin.atmosphere.grid.to_nodal(cut["pressure"]))[0]
    assert np.corrcoef(height.ravel(), pressure.ravel())[0, 1] < -0.9
    one = twin.atmosphere.advance(cut, twin.atmosphere.time_step_minutes / 60.0)
    step = np.abs(one["vorticity"] - cut["vorticity"]).max()
    assert np.abs(cut["vorticity"] - cut["previous_vorticity"]).max() < 5 * step
    with pytest.raises(ValueError, match="coarse core must have a truncation below T21"):
        coarsened(state, setup.atmosphere, setup.atmosphere)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    """Real data have no twins; init times are among the forecasts'; a stage that is missing is named."""
    raw = settings(tmp_path).model_dump(mode="json")
    real = raw | {"source": {"kind": "files", "paths": ["a.nc"]}}
    with pytest.raises(ValueError, match=r"evaluation.twins.models must be empty for data that are not simulated"):
        parse(real)
    raw["evaluation"]["twins"]["init_step_hours"] = 36
    assert parse(raw).twin_step_hours == 48
    with pytest.raises(ValueError, match="run python -m pipeline regrid first"):
        twins.run_twins(settings(tmp_path))
    with pytest.raises(ValueError, match=r"evaluation.twins.models must name a model"):
        twins.run_twins(settings(tmp_path, models=[]))
