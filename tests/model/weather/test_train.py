"""The train stage of forecasting: pairs of a store, losses of anomalies, and a wave that it must learn."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import model.weather.train
from model.training import checkpoint
from model.training.step import training_step
from model.weather import training_data
from model.weather.fields import Fields
from model.weather.forecast import run_forecast
from model.weather.task import ForecastTask
from model.weather.train import run_train
from pipeline.config import load
from pipeline.provenance import read_receipt
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from tests.model.runs import curve, equal_runs, losses, same, saved_tensors
from tests.model.weather.trainers import changed, dying_task, elsewhere, trainer_of

pytestmark = pytest.mark.slow

Make = Callable[..., WeatherConfig]
LONG = {"steps": 120, "batch_size": 8, "learning_rate": 5e-3, "validate_every": 120, "checkpoint_every": 120}


@pytest.fixture(scope="module")
def undisturbed(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> WeatherConfig:
    """A run that nothing stopped; shared, only looked at."""
    directory = tmp_path_factory.mktemp("undisturbed") / "results"
    shutil.copytree(synthetic, directory)
    config = load(synthetic / "config.yaml").model_copy(update={"directory": directory})
    run_train(config)
    return config


def test_run_leaves_what_it_promises(
    undisturbed: WeatherConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a stage without its receipt or scores per lead, one that trains twice, or prints on every rank."""
    records = curve(undisturbed.paths.train)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 13))
    assert [r["step"] for r in records if r["kind"] == "validation"] == [5, 10, 12]
    assert set(records[-1]["leads"]) == {"24", "72"}
    assert set(records[-1]["leads"]["24"]["rmse"]) == {"t850", "t2m"}
    facts = read_receipt(undisturbed, stage="train")["facts"]
    assert facts["steps"] == 12
    assert Path(facts["checkpoint"]).name.startswith("best-")
    names = sorted(p.name for p in undisturbed.paths.checkpoints.iterdir())
    assert [n for n in names if n.startswith("step")] == ["step-000000008", "step-000000012"]
    before = undisturbed.paths.metrics.stat().st_mtime_ns
    run_train(undisturbed)
    assert "already complete" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    run_train(undisturbed)
    assert capsys.readouterr().err == ""
    assert undisturbed.paths.metrics.stat().st_mtime_ns == before


def test_resume_is_bit_identical(undisturbed: WeatherConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches order, leads or dropout that start anew, and a receipt for a training that was stopped."""
    config = elsewhere(undisturbed, tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(model.weather.train, "ForecastTask", dying_task(7))
        with pytest.raises(KeyboardInterrupt):
            run_train(config)
    assert not config.paths.receipt("train").exists()
    run_train(config)
    assert equal_runs(config.paths.train, undisturbed.paths.train)


def test_not_finite_names_the_pair(
    undisturbed: WeatherConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group_of_one: None
) -> None:
    """Catches a message that does not say which times hold the bad values."""
    config, original = elsewhere(undisturbed, tmp_path / "again"), training_data.make_batch
    expected: list[str] = []

    def poisoned(fields: Any, pairs: Any, items: Any, **options: Any) -> Any:
        batch = original(fields, pairs, items, **options)
        if np.array_equal(items.start, trainer.data.order.batch(6, size=4).start):
            batch.target[2, 1, 3, 4] = float("inf")
            expected.append(pairs.describe(items.start[2], items.lead[2]))
        return batch

    trainer = trainer_of(config)
    monkeypatch.setattr(training_data, "make_batch", poisoned)
    with pytest.raises(ValueError, match="must be finite") as error:
        trainer.run()
    assert expected[0] in str(error.value)
    assert checkpoint.newest(config.paths.checkpoints) == config.paths.checkpoints / "step-000000006"
    assert all(torch.isfinite(t).all() for t in saved_tensors(config.paths.train).values())
    monkeypatch.undo()
    run_train(config)
    assert same(saved_tensors(config.paths.train), saved_tensors(undisturbed.paths.train))


@pytest.mark.parametrize(
    ("options", "within"),
    [
        ({"micro_batch": 3}, 1e-5),
        ({"recompute": True}, 1e-5),
        pytest.param({"compile": True}, 1e-5, marks=pytest.mark.slow),
        ({"precision": "bfloat16"}, 1e-2),
    ],
    ids=str,
)
def test_how_a_batch_is_computed_does_not_move_the_losses(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], within: float
) -> None:
    """Catches a model that the compiler cannot follow through training and validation, or options that do nothing."""
    compiled, compile_ = [], torch.compile

    def trace_only(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return compile_(function, backend="eager")

    monkeypatch.setattr(torch, "compile", trace_only)

    def train_with(**more: Any) -> list[float]:
        config = experiment(steps=5, batch_size=8, checkpoint_every=5, validate_every=5, **more)
        config = changed(config, model={"dropout": 0.0})
        shutil.rmtree(config.paths.train, ignore_errors=True)
        config.paths.receipt("train").unlink(missing_ok=True)
        run_train(config)
        return losses(config.paths.train)

    found, plain = train_with(**options), train_with()
    assert found == pytest.approx(plain, rel=within)
    assert len(compiled) == ("compile" in options)
    if "precision" in options:
        assert found != pytest.approx(plain, rel=1e-6)


def test_validation_takes_no_more_at_once_than_training(experiment: Make, group_of_one: None) -> None:
    """Catches a validation that runs out of the memory for which micro_batch was chosen."""
    seen = []

    class Counting(ForecastTask):
        def predicted(self, predict: Any, batch: Any, **options: Any) -> tuple[Tensor, Tensor]:
            seen.append(len(batch))
            return super().predicted(predict, batch, **options)

    config = experiment(steps=1, batch_size=8, micro_batch=3, validate_every=1, validation_samples=14)
    trainer_of(config, kind=Counting).run()
    assert seen == [3, 3, 2, 3, 3, 3, 3, 2]  # a step, then 14 fixed pairs


def test_no_training_pair_leaves_the_training_period(experiment: Make, group_of_one: None) -> None:
    """Catches leakage: a valid time in validation or test, or a pair over the gap in the store."""
    data = trainer_of(changed(experiment(lead_hours=[12, 24, 168]), model={"history_hours": [12, 24]})).data
    used = data.pairs.times[data.pairs.used_times]
    assert used.min() == np.datetime64("2000-01-01T00")
    assert used.max() == np.datetime64("2000-12-31T12")
    assert data.pairs.times[data.pairs.init].min() == np.datetime64("2000-01-02T00")
    assert data.validation is not None
    pairs = data.validation[0]
    seen = pairs.times[pairs.used_times]
    assert seen.min() >= np.datetime64("2001-01-01T00")
    assert seen.max() <= np.datetime64("2001-01-20T12")


def test_validation_shorter_than_a_lead_is_refused(experiment: Make, group_of_one: None) -> None:
    """Catches a best checkpoint chosen on some of the leads only."""
    with pytest.raises(ValueError, match="720 h"):
        trainer_of(changed(experiment(), forecast={"lead_hours": [24, 720]}))


def test_another_normals_digest_is_refused(undisturbed: WeatherConfig, group_of_one: None) -> None:
    """Catches a resume on data that are no longer those of the checkpoint."""
    trainer = trainer_of(undisturbed)
    assert isinstance(trainer.task, ForecastTask)
    object.__setattr__(trainer.task.normals, "digest", "0000")
    with pytest.raises(ValueError, match=r"normals: .* against 0000"):
        trainer.resume()


@pytest.mark.parametrize("network_input", ["state", "anomaly"])
def test_it_learns_the_travelling_wave(experiment: Make, network_input: str) -> None:
    """Catches a loop that runs but does not learn: the wave is predictable, so climatology must be beaten."""
    config = changed(experiment(**LONG), model={"network_input": network_input})
    run_train(config)
    assert all(lead["skill"] > 0.25 for lead in curve(config.paths.train)[-1]["leads"].values())


def test_losses_count_in_units_of_anomalies(experiment: Make, group_of_one: None) -> None:
    """Catches channel weights that never reach the loss, or the standard deviation of the wrong channel."""
    plain, weighted = (trainer_of(experiment(anomaly_weighted=on)) for on in (False, True))
    task = weighted.task
    assert isinstance(task, ForecastTask)
    ratio = torch.from_numpy((task.normals.std / task.normals.anomaly_std) ** 2).float()
    assert torch.allclose(task.channel_V, ratio / ratio.mean())
    assert ratio.max() > 1.5 * ratio.min()
    batch = plain.data.batch(0)
    expected = (batch.target.square() * task.area_HW / task.area_HW.mean()).mean(dim=(0, 2, 3))
    for one, weights in ((plain, torch.ones(3)), (weighted, task.channel_V)):
        loss = training_step(one.learner, one.task, batch, step=0).loss  # an untrained model predicts zero
        assert loss == pytest.approx((expected * weights).mean().item(), rel=1e-5)


def test_earlier_states_help_where_the_wave_moves(experiment: Make) -> None:
    """Catches history that training, validation and forecast read differently."""
    config = changed(experiment(**LONG), model={"history_hours": [12]})
    run_train(config)
    assert all(lead["skill"] > 0.25 for lead in curve(config.paths.train)[-1]["leads"].values())
    run_forecast(config)
    facts = read_receipt(config, stage="forecast")["facts"]
    assert "2001-01-21T00" in facts["missing_init_times"]  # its earlier state lies in the validation period
    forecast, truth = open_store(config.paths.forecast)["state"], open_store(config.paths.store)["state"]
    valid = forecast["init_time"].values + np.timedelta64(24, "h")
    error = forecast.isel(lead_time=0).values - truth.sel(time=valid).values
    nothing = Normals.open(config.paths.normals).climatology_at(valid) - truth.sel(time=valid).values
    assert np.square(error).mean() < 0.9 * np.square(nothing).mean()


def test_a_climatology_of_single_times_is_refused(experiment: Make) -> None:
    """Catches a training with loss 0 on four times, each of which is its own climatology."""
    config = experiment()
    normals = Normals.open(config.paths.normals)
    alone = replace(normals, anomaly_std=np.zeros_like(normals.anomaly_std), contract={**normals.contract, "times": 2})
    with pytest.raises(
        ValueError, match=r"weather beside its climatology, got none in t500, t850, t2m: .* 1 time in all"
    ):
        Fields(config.paths.store, alone)


def test_what_cannot_be_forecast_is_not_trained_for(experiment: Make) -> None:
    """Catches leads that no init time of the store's test period has, found out after the training."""
    config = experiment()
    asked = config.forecast.model_copy(update={"lead_hours": [24, 2400]})
    with pytest.raises(ValueError, match="every lead must have at least one pair of times, got none for 2400 h"):
        run_train(config.model_copy(update={"forecast": asked}))
    assert not config.paths.train.exists()
