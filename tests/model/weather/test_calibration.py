"""Roll-outs with trained steps, and the calibration of what they issue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from model.training import checkpoint
from model.weather import calibration
from model.weather.calibration import Calibration, calibrate
from model.weather.forecast import run_forecast
from model.weather.job import Job, prepare, ways
from model.weather.train import run_train
from pipeline.config import Config, parse
from pipeline.grid import Grid
from pipeline.store import open_store, read_manifest, verify_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from tests.model.weather.trainers import with_steps
from tests.stores import interrupted

pytestmark = pytest.mark.slow

Make = Callable[..., Config]
HOUR = np.timedelta64(1, "h")


def states(path: Path) -> np.ndarray:
    return open_store(path)["state"].values


def job_of(config: WeatherConfig) -> Job:
    path = checkpoint.best_or_last(config.paths.checkpoints)
    assert path is not None
    return prepare(config, path, device=torch.device("cpu"), initial=None)


@pytest.mark.usefixtures("group_of_one")
def test_factors_are_the_regression_on_validation_forecasts(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches factors of another lead or channel, without area weights, and a fit that sees the test period."""
    config = with_steps(experiment)
    run_train(config)
    job = job_of(config)
    whole, leads = job.predictor.whole, np.array(config.forecast.lead_hours)
    seen: list[np.ndarray] = []
    share = np.array([[2.0, 0.5, -1.0], [4.0, 1.0, 0.0]])  # (lead, channel) of the truth in the forecast
    random = np.random.default_rng(0)

    def issued(config: WeatherConfig, job: Job, init: np.ndarray) -> np.ndarray:
        times = whole.times[init]
        seen.append(times)
        valid = times[:, None] + leads.astype("timedelta64[h]")
        truth = open_store(config.paths.store)["state"].sel(time=valid.ravel()).values
        climate = whole.normals.climatology_at(valid)
        anomaly = truth.reshape(climate.shape) - climate
        noise = (
            random.standard_normal(anomaly.shape) * np.cos(np.deg2rad(whole.coords["latitude"].values))[:, None] ** 4
        )
        made.append((anomaly, share[None, :, :, None, None] * anomaly + noise))
        return (climate + made[-1][1]).astype(np.float32)

    made: list[tuple[np.ndarray, np.ndarray]] = []
    monkeypatch.setattr(calibration, "forecast_fields", issued)
    found = calibrate(config, job, config.paths.train, console=Console(quiet=True)).array
    truth, forecast = (np.concatenate(parts) for parts in zip(*made, strict=True))
    cross, square, true = ((a * b).sum(axis=(0, 4)) for a, b in ((forecast, truth), (forecast,) * 2, (truth,) * 2))
    latitude = whole.coords["latitude"].values
    area = Grid(latitude, whole.coords["longitude"].values).cell_area[:, 0]
    expected = np.empty_like(cross)
    for e, v, h in np.ndindex(*cross.shape):
        near = [area[i] * max(0.0, 1 - abs(abs(latitude[i]) - abs(latitude[h])) / 20) for i in range(len(latitude))]
        above, below = (np.sum(near * sums[e, v] / true[e, v]) for sums in (cross, square))
        expected[e, v, h] = np.clip(above / below, 0.01, 1)
    assert np.allclose(found, expected, atol=1e-4)
    assert np.all(found[0, 2] == np.float32(0.01))
    assert 0.0 < found[1, 0].mean() < found[0, 0].mean() < 1.0
    assert found[0, 0].std() > 5e-3
    assert np.allclose(found, found[:, :, ::-1], atol=1e-4)
    times = np.concatenate(seen)
    (period,) = config.data.splits.validation
    assert times.min() >= np.datetime64(period.start)
    assert times.max() + leads.max() * HOUR <= np.datetime64(period.end)
    assert len(times) == len(np.unique(times)) == 34
    monkeypatch.setattr(calibration, "fit", lambda *_, **__: pytest.fail("fitted twice"))
    again = calibrate(config, job, config.paths.train, console=Console(quiet=True))
    assert np.array_equal(again.array, found)


def test_calibrated_forecasts_stand_beside_those_as_they_were(experiment: Make) -> None:
    """Catches factors applied to states instead of anomalies, at another lead, twice, or not at all."""
    config = with_steps(experiment, forecast={"lead_hours": [24, 72]})
    run_train(config)
    run_forecast(config)
    ds, raw = open_store(config.paths.forecast), open_store(config.paths.uncalibrated["uncalibrated"])
    factors = ds["calibration"]
    assert factors.dims == ("lead_time", "channel", "latitude")
    assert "calibration" not in raw.coords
    normals = Normals.open(config.paths.normals)
    valid = ds["init_time"].values[:, None] + ds["lead_time"].values
    climate = normals.climatology_at(valid)
    expected = climate + factors.values[..., None] * (raw["state"].values - climate)
    assert np.allclose(ds["state"].values, expected, atol=1e-4)
    assert not np.allclose(ds["state"].values, raw["state"].values, atol=1e-2)
    (kept,) = config.paths.train.glob("calibration-*.json")
    stored = json.loads(kept.read_text())
    assert np.allclose(stored["factors"], factors.values)
    off = with_steps(experiment, forecast={"lead_hours": [24, 72], "calibrate": False})
    assert off.paths.uncalibrated == {}
    run_forecast(off)
    assert np.array_equal(states(off.paths.forecast), raw["state"].values)


def test_a_roll_out_is_one_step_after_the_other(experiment: Make) -> None:
    """Catches steps that start from the init time, other units of the change, and a mean over ways that is not one."""
    plain = {"calibrate": False, "lead_hours": [24, 48, 72]}
    training = {"step_hours": [12, 24], "steps": 30, "learning_rate": 5e-3, "validate_every": 30}
    both = with_steps(experiment, forecast=plain, **training)
    run_train(both)
    run_forecast(both)
    single = [with_steps(experiment, forecast={**plain, "rollout_hours": h}, **training) for h in (12, 24)]
    for config in single:
        run_forecast(config)
    short, long = (states(config.paths.forecast) for config in single)
    assert np.allclose(states(both.paths.forecast), (short + long) / 2, rtol=1e-6)
    assert not np.allclose(short, long, atol=1e-2)
    from model.parallel.launch import process_group

    with process_group(world_size=1):
        job = job_of(single[1])
        fields, predictor = job.predictor.whole, job.predictor
        normals = fields.normals
        state = open_store(both.paths.store)["state"].values[job.init[:5]].astype(np.float64)
        times = fields.times[job.init[:5]]
        scale = normals.change_std(24)[:, None, None]
        for _ in range(3):
            climate = normals.climatology_at(times)
            x = torch.from_numpy((state - climate) / normals.anomaly_std[:, None, None]).float()
            x = torch.cat([x, fields.static_SHW.expand(5, -1, -1, -1)], dim=1)
            with torch.no_grad():
                change = predictor.model(x, torch.full((5,), 24.0)).numpy() * scale
            times = times + 24 * HOUR
            state = state - climate + change + normals.climatology_at(times)
    assert np.allclose(long[:5, 2], state, atol=5e-3)


def test_thirty_days_stay_bounded(experiment: Make) -> None:
    """Catches a roll-out that grows: after thirty days its departures are no larger than those of the truth."""
    forecast = {"lead_hours": [720], "calibrate": False}
    training = {"steps": 150, "batch_size": 8, "learning_rate": 5e-3, "rollout": [[0, 1], [0.5, 3]]}
    config = with_steps(experiment, forecast=forecast, **training, validate_every=150, ema_decay=0.0)
    run_train(config)
    run_forecast(config)
    ds, normals = open_store(config.paths.forecast), Normals.open(config.paths.normals)
    climate = normals.climatology_at(ds["init_time"].values[:, None] + ds["lead_time"].values)
    spread = (ds["state"].values - climate).std(axis=(0, 1, 3, 4))
    assert np.isfinite(spread).all()
    assert (spread < 1.5 * normals.anomaly_std).all()


def test_a_forecast_stopped_between_its_two_stores_resumes(experiment: Make) -> None:
    """Catches a slab that one store has and the other never gets."""
    config = with_steps(experiment)
    run_train(config)
    with interrupted(at_slab=4):
        run_forecast(config)
    run_forecast(config)
    stores = [config.paths.forecast, config.paths.uncalibrated["uncalibrated"]]
    stopped = [read_manifest(store)["slabs"] for store in stores]
    assert all(verify_store(store) == [] for store in stores)
    config.paths.receipt("forecast").unlink()
    for store in stores:
        store.rename(store.with_suffix(".old"))
        store.with_name(f"{store.stem}.manifest.json").unlink()
    run_forecast(config)
    assert [read_manifest(store)["slabs"] for store in stores] == stopped


def test_what_a_checkpoint_cannot_do_is_refused(experiment: Make) -> None:
    """Catches direct forecasts of a model with steps, and steps of a direct model on a lead it never saw."""
    config = with_steps(experiment)
    leads = {"lead_hours": [36]}
    odd = config.model_copy(update={"forecast": config.forecast.model_copy(update=leads)})
    with pytest.raises(ValueError, match=r"multiples of a step of the network, \[24\] h, got \[36\]"):
        ways(odd, (24,), direct=None)
    asked = config.model_copy(update={"forecast": config.forecast.model_copy(update={"rollout_hours": 12})})
    with pytest.raises(ValueError, match=r"one of the steps that the network was trained on, \[24\] h, got 12"):
        ways(asked, (24,), direct=None)
    with pytest.raises(ValueError, match=r"one of the leads that the network was trained on, \[24, 72\] h, got 12"):
        ways(asked, (), direct=[24, 72])
    content = experiment(step_hours=[24]).model_dump(mode="json")
    content["forecast"] |= {"lead_hours": [24, 720], "calibrate": True}
    with pytest.raises(ValueError, match=r"longer than the longest lead of 720 h for forecast.calibrate, got 479 h"):
        parse(content)


@pytest.mark.usefixtures("group_of_one")
def test_a_checkpoint_of_the_other_kind_is_refused(experiment: Make) -> None:
    """Catches a direct model that is applied again and again, and one with steps that is asked for leads directly."""
    direct, steps = experiment(steps=1), with_steps(experiment, steps=1)
    kinds = {"direct forecasts": direct, "a model with steps of 24 h": steps}
    for kind, config in kinds.items():
        (other_kind, other) = next((k, c) for k, c in kinds.items() if k != kind)
        run_train(config)
        config.paths.train.rename(other.paths.train)
        with pytest.raises(ValueError, match=rf"must be one of {other_kind}, as .* got one of {kind}; run python"):
            job_of(other)
        shutil.rmtree(other.paths.train)


def test_calibration_is_a_share_of_the_anomaly() -> None:
    """Catches a factor that scales the climatology."""
    factors = Calibration([[[0.5, 0.0], [1.0, 0.25]]], [24], ["a", "b"], [-10.0, 10.0], [])
    state, climate = np.full((1, 1, 2, 2, 1), 6.0, np.float32), np.full((1, 1, 2, 2, 1), 2.0, np.float32)
    assert factors.applied(state, climate)[0, 0, :, :, 0].tolist() == [[4.0, 2.0], [6.0, 3.0]]
