"""The forecast store: physical units, common init times, resumable, and climatology before any training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from model.parallel.launch import process_group
from model.training import checkpoint
from model.training.load import weights_digest
from model.weather import forecast
from model.weather.forecast import run_forecast
from model.weather.predict import load_model
from model.weather.train import run_train
from pipeline.provenance import write_receipt
from pipeline.store import open_store, read_manifest, verify_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import Period
from pipeline.weather.times import init_times
from tests.model.weather.trainers import changed, elsewhere, trainer_of
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

Make = Callable[..., WeatherConfig]
HOUR = np.timedelta64(1, "h")


def untrained(config: WeatherConfig) -> None:
    """The training stage as it would look after no step at all."""
    with process_group(world_size=1):
        trainer_of(config).save("step")
    write_receipt(config, stage="train", outputs=[config.paths.checkpoints], facts={})


def test_untrained_forecast_is_the_climatology_to_the_bit(experiment: Make) -> None:
    """Catches a climatology at the wrong time, units left normalised, or channels in another order."""
    config = experiment()
    untrained(config)
    run_forecast(config)
    ds = open_store(config.paths.forecast)
    assert dict(ds["state"].sizes) == {"init_time": 67, "lead_time": 2, "channel": 3, "latitude": 6, "longitude": 12}
    assert ds["lead_time"].values.tolist() == (np.array([24, 72]) * HOUR).astype("timedelta64[ns]").tolist()
    valid = ds["init_time"].values[:, None] + ds["lead_time"].values[None, :]
    assert np.array_equal(ds["state"].values, Normals.open(config.paths.normals).climatology_at(valid))
    assert ds["channel"].values.tolist() == ["t500", "t850", "t2m"]
    assert ds.attrs["contract"]["lead_hours"] == [24, 72]
    assert "simulated atmosphere" in ds.attrs["title"]
    assert verify_store(config.paths.forecast) == []


@pytest.mark.parametrize("network_input", ["state", "anomaly"])
def test_trained_forecast_beats_climatology(experiment: Make, network_input: str) -> None:
    """Catches an anomaly added with the wrong sign or spread, an input other than in training, untrained weights."""
    config = experiment(steps=120, batch_size=8, learning_rate=5e-3, validate_every=120, checkpoint_every=120)
    config = changed(config, model={"network_input": network_input})
    run_train(config)
    run_forecast(config)
    ds = open_store(config.paths.forecast)
    truth = open_store(config.paths.store)["state"]
    normals = Normals.open(config.paths.normals)
    for lead in (24, 72):
        valid = ds["init_time"].values + lead * HOUR
        observed = truth.sel(time=valid).values
        error = ds["state"].sel(lead_time=lead * HOUR).values - observed
        from_climatology = normals.climatology_at(valid) - observed
        assert np.square(error).mean() < 0.8 * np.square(from_climatology).mean()


def test_killed_and_resumed_is_bit_identical(experiment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches batches whose composition, and so whose rounding, depends on where a run was stopped."""
    config = experiment(steps=3)
    run_train(config)
    run_forecast(config)
    slabs = read_manifest(config.paths.forecast)["slabs"]
    again = elsewhere(config, config.root.parent / "again", also=(config.paths.train.name, "receipts"))
    config.paths.receipt("forecast").unlink()
    calls = 0
    original = forecast.forecast_fields

    def dying(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(forecast, "forecast_fields", dying)
    with pytest.raises(KeyboardInterrupt):
        run_forecast(again)
    run_forecast(again)
    assert read_manifest(again.paths.forecast)["slabs"] == slabs
    assert calls == 6  # 5 slabs and the one that died


def test_init_times_avoid_gaps_and_the_end() -> None:
    """Catches leads scored on different init times, inits whose valid time is missing, and a silent omission."""
    times = np.arange("2001-02-01T00", "2001-03-01T00", 12 * HOUR, dtype="datetime64[h]")
    gone = np.datetime64("2001-02-10T00")
    times = times[times != gone].astype("datetime64[ns]")
    period = Period(start="2001-02-02", end="2001-02-25")  # type: ignore[arg-type]
    chosen, missing = init_times(
        times, lead_hours=[24, 168], period=period, step_hours=24, setting="forecast.init_step_hours"
    )
    found = times[chosen].astype("datetime64[h]")
    wanted = np.arange("2001-02-02T00", "2001-02-19T00", 24 * HOUR, dtype="datetime64[h]")
    left_out = [gone - 168 * HOUR, gone - 24 * HOUR, gone]
    assert found.tolist() == [t for t in wanted.tolist() if t not in [x.item() for x in left_out]]
    assert missing.astype("datetime64[h]").tolist() == [x.item() for x in left_out]


def test_test_period_without_init_times_is_refused() -> None:
    """Catches an empty forecast store that scores as nothing."""
    times = np.arange("2001-02-01T06", "2001-03-01T00", 12 * HOUR, dtype="datetime64[h]").astype("datetime64[ns]")
    period = Period(start="2001-02-02", end="2001-02-25")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test period must hold an init time"):
        init_times(times, lead_hours=[24], period=period, step_hours=24, setting="forecast.init_step_hours")


def test_forecasts_use_the_averaged_weights(experiment: Make) -> None:
    """Catches the raw weights used where an average was kept."""
    config = experiment(steps=8, validate_every=8)
    run_train(config)
    path = checkpoint.newest(config.paths.checkpoints)
    assert path is not None
    with process_group(world_size=1):
        run = trainer_of(config)
        run.resume()
    model, digest = load_model(path, run.data.fields, device=torch.device("cpu"))
    assert all(torch.equal(p, run.learner.average[name]) for name, p in model.named_parameters())
    assert digest == weights_digest({n: p.detach() for n, p in model.named_parameters()})
    assert digest != weights_digest({n: p.detach() for n, p in run.learner.parameters.items()})


def test_checkpoint_of_other_data_is_refused(experiment: Make) -> None:
    """Catches a forecast from a store whose contract the model was not trained on."""
    config = experiment()
    untrained(config)
    group = zarr.open_group(config.paths.store, mode="r+")
    contract = {**group.attrs["contract"], "step_hours": 6}
    group.attrs["contract"] = contract
    rewrite_manifest(config.paths.store, lambda content: content.update(contract=contract))
    with pytest.raises(ValueError, match=r"normals .* share the contract|step_hours"):
        run_forecast(config)


def test_stages_before_must_be_finished(experiment: Make, tmp_path: Path) -> None:
    """Catches a traceback where a person only forgot to train."""
    with pytest.raises(ValueError, match="run python -m pipeline train"):
        run_forecast(experiment())


def test_another_checkpoint_never_continues_a_store(experiment: Make) -> None:
    """Catches a forecast store half from one model and half from another."""
    config = experiment()
    untrained(config)
    run_forecast(config)
    config.paths.receipt("forecast").unlink()
    with process_group(world_size=1):
        run = trainer_of(config)
        run.learner.average["lead.bias"].add_(1.0)
        run.save("step")
    with pytest.raises(ValueError, match="checkpoint: "):
        run_forecast(config)
