"""The free run: what it keeps, that a kill changes nothing, and that moisture is never negative."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.parallel.launch import process_group
from model.weather.forecast import run_forecast
from model.weather.free_run import run_free_run
from model.weather.train import run_train
from pipeline.config import Config, parse
from pipeline.provenance import write_receipt
from pipeline.store import open_store, read_manifest, verify_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.free_run_store import read_free_run
from preprocess.normals.stage import run_normals
from tests.model.conftest import raw_config, store_times, synthetic_state
from tests.model.weather.trainers import elsewhere, trainer_of, with_steps
from tests.stores import interrupted, write_training_store

pytestmark = pytest.mark.slow

Make = Callable[..., Config]
HOUR = np.timedelta64(1, "h")


def unsettled(config: WeatherConfig, *, by: float) -> None:
    """The training stage as it would look with parameters far from their start."""
    generator = torch.Generator().manual_seed(2)
    with process_group(world_size=1):
        run = trainer_of(config)
        for tensor in run.learner.average.values():
            tensor.add_(by * torch.randn(tensor.shape, generator=generator))
        run.save("step")
    write_receipt(config, stage="train", outputs=[config.paths.checkpoints], facts={})


def test_a_run_is_the_forecast_that_goes_on_and_survives_a_kill(experiment: Make, tmp_path: Path) -> None:
    """Catches other states than the forecast's, moments of other fields or without area weights, a truth of other
    times, and a block that starts from anything but what the one before ended in."""
    model = {"history_hours": [24], "features": ["season"]}
    forecast = {"calibrate": False, "lead_hours": [24, 72, 744], "free_run_days": 80}
    config = with_steps(experiment, model=model, forecast=forecast, steps=6)
    run_train(config)
    run_forecast(config)
    again = elsewhere(config, tmp_path / "again", also=(config.paths.train.name, "receipts"))
    run_free_run(config)
    run, issued = read_free_run(config.paths.free_run), open_store(config.paths.forecast)
    assert run.sizes["time"] == 80
    first = issued["init_time"].values[0]
    assert np.datetime64(run.attrs["contract"]["init_time"], "ns") == first == np.datetime64("2001-01-22")
    states = issued["state"].isel(init_time=0)
    for hours in (24, 72, 744):  # the last is in the second block
        found = run["fields"].sel(time=first + hours * HOUR)
        assert np.array_equal(found.values, states.sel(lead_time=hours * HOUR, channel=["t850", "t2m"]).values)
    then = first + 72 * HOUR
    state, truth = states.sel(lead_time=72 * HOUR).values, open_store(config.paths.store)["state"].sel(time=then).values
    climatology = Normals.open(config.paths.normals).climatology_at(np.array([then]))[0]
    for source, values in (("model", state), ("truth", truth)):
        numbers = run["numbers"].sel(time=then, source=source)
        for v in range(3):
            weights = np.broadcast_to(config.data.regrid.grid.area_weights, values[v].shape)
            mean = np.average(values[v].astype(float), weights=weights)
            square = np.average((values[v].astype(float) - climatology[v]) ** 2, weights=weights)
            variance = np.average((values[v].astype(float) - mean) ** 2, weights=weights)
            assert numbers.values[:, v] == pytest.approx([mean, variance, square], rel=1e-5)
    beyond = run["time"].values > open_store(config.paths.store)["time"].values[-1]
    assert beyond.any()
    assert np.array_equal(np.isnan(run["numbers"].sel(source="truth").values).all(axis=(1, 2)), beyond)
    assert np.isfinite(run["numbers"].sel(source="model").values).all()

    with interrupted(at_slab=3):
        run_free_run(again)
    run_free_run(again)
    assert read_manifest(again.paths.free_run)["slabs"] == read_manifest(config.paths.free_run)["slabs"]
    assert verify_store(again.paths.free_run) == []
    run_free_run(again)  # nothing is left to do


@pytest.fixture
def humid(tmp_path: Path) -> WeatherConfig:
    """An experiment with humidity near zero and a model with steps that predicts anything."""
    raw = raw_config(tmp_path / "humid", step_hours=[24], steps=2)
    raw["data"]["channels"]["variables"] = ["q", "t2m"]
    raw["model"] |= {"predicts": "change", "network_input": "anomaly"}
    raw["forecast"] |= {"lead_hours": [24, 240], "free_run_days": 35}
    raw["evaluation"] = {"variables": ["q850"]}
    config = parse(raw)
    assert isinstance(config, WeatherConfig)
    grid, times = config.data.regrid.grid, store_times()
    state = synthetic_state(times, grid)
    state[:, :2] = np.maximum(state[:, :2] - state[:, :2].mean(axis=(0, 2, 3), keepdims=True), 0) * 1e-4
    static = np.random.default_rng(3).random((len(config.data.channels.static), *grid.shape)).astype(np.float32)
    write_training_store(config, times, state, static, facts={"label": "simulated"})
    run_normals(config)
    unsettled(config, by=0.3)
    return config


def test_moisture_is_never_negative(humid: WeatherConfig) -> None:
    """Catches limits that allow the small negative values that files hold, and calibration that undoes limits."""
    run_forecast(humid)
    run_free_run(humid)
    for path in (humid.paths.forecast, humid.paths.uncalibrated["uncalibrated"]):
        state = open_store(path)["state"].sel(channel=["q500", "q850"]).values
        assert np.isfinite(state).all()
        assert state.min() >= 0
    assert (state == 0).any(), "the model predicts negative humidity, or this test sees nothing"
    run = read_free_run(humid.paths.free_run)
    assert run["fields"].values.min() == 0
    assert run["outside"].sel(channel="q850").values[0] == 0, "humidity below zero is no sign of a run that leaves"


def test_direct_models_have_no_free_run(experiment: Make, humid: WeatherConfig) -> None:
    """Catches a traceback, or steps of a length that the network never saw."""
    content = experiment().model_dump(mode="json")
    content["forecast"]["free_run_days"] = 30
    with pytest.raises(ValueError, match=r"free_run_days must be absent for direct forecasts.*training\.step_hours"):
        parse(content)
    none = humid.model_copy(update={"forecast": humid.forecast.model_copy(update={"free_run_days": None})})
    with pytest.raises(ValueError, match="free_run_days must say how long the free run is, got none"):
        run_free_run(none)
