"""climate-learn's networks, trained as the model is: they learn, resume, are planned, and are scored beside others."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.distributed.tensor import DTensor

from evaluate.scoring.stage import run_score
from model.network import climatelearn
from model.parallel.launch import process_group
from model.training import checkpoint
from model.training.rehearsal import footprint
from model.training.run import trained
from model.training.trainer import RunFolder
from model.weather.baselines import network_experiment, run_baselines
from model.weather.fields import Fields
from model.weather.forecast import run_forecast
from model.weather.predict import load_model
from model.weather.task import Forecasting, ForecastTask
from model.weather.train import run_train
from model.weather.training_data import TrainingData
from model.weights.plain_file import read_plain, run_export
from pipeline import provenance
from pipeline.config import Config, parse
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import raw_config
from tests.model.parallel.harness import run_distributed
from tests.model.runs import curve, equal_runs, losses, saved_tensors, training_peak
from tests.model.weather.trainers import changed, dying_task, elsewhere, trainer_of, with_steps

MINIATURES = {
    "resnet": {"n_blocks": 1, "hidden_channels": 16},
    "unet": {"ch_mults": [1, 2], "n_blocks": 1, "hidden_channels": 8},
}
STEPS, BATCH = 30, 8

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("networks")]


@pytest.fixture(scope="module", autouse=True)
def miniatures() -> Iterator[None]:
    """Both networks with a block or two."""
    with pytest.MonkeyPatch.context() as patch:
        for name, sizes in MINIATURES.items():
            patch.setitem(climatelearn.ARCHITECTURES, name, sizes)
        yield


@pytest.fixture(scope="module")
def small(synthetic: Path, tmp_path_factory: pytest.TempPathFactory, miniatures: None) -> WeatherConfig:
    """A model and both networks, trained for thirty steps, with the state of twelve hours before; their forecasts."""
    directory = tmp_path_factory.mktemp("networks") / "results"
    shutil.copytree(synthetic, directory)
    raw = raw_config(directory, steps=STEPS, batch_size=BATCH, roll_longitude=True)
    raw["model"]["history_hours"] = [12]
    raw["evaluation"]["trained_baselines"] = ["resnet", "unet"]
    config = parse(raw)
    assert isinstance(config, WeatherConfig)
    run_train(config)
    run_forecast(config)
    run_baselines(config)
    return config


def unet(config: WeatherConfig, folder: Path, **training: Any) -> WeatherConfig:
    """The same data with the U-Net as the model."""
    return changed(elsewhere(config, folder), model={"architecture": "unet"}, training=training)


def train_alone(config: WeatherConfig, folder: Path, *, kind: type[ForecastTask] = ForecastTask) -> Any:
    with process_group(world_size=1) as device:
        return trained(
            lambda device: kind(config, device=device),
            config.training,
            folder=RunFolder(folder),
            device=device,
            console=Console(quiet=True),
        )


@pytest.mark.parametrize("name", MINIATURES)
def test_networks_learn_from_what_the_model_is_given(small: WeatherConfig, name: str) -> None:
    """Catches a loss that does not fall, other inputs than the model's (history, statics), and receipts that do not
    say what was trained on how many samples."""
    folder = small.paths.networks / name
    found = losses(folder, "train")
    assert len(found) == STEPS
    assert np.mean(found[-5:]) < np.mean(found[:5])
    facts = provenance.read_receipt(small, stage="baselines")["facts"][name]
    assert (facts["samples"], facts["steps"], facts["architecture"]) == (STEPS * BATCH, STEPS, MINIATURES[name])
    assert facts["parameters"] > 1000
    ours, theirs = (
        checkpoint.describe(checkpoint.best_or_last(path)) for path in (small.paths.checkpoints, folder / "checkpoints")
    )
    assert theirs["model"]["architecture"] == name
    assert theirs["model"]["channels"] == ours["model"]["channels"]
    assert "t850-12h" in theirs["model"]["channels"]
    assert theirs["model"]["out_channels"] == ours["model"]["out_channels"]
    names = saved_tensors(folder)
    assert any(n.startswith("average.") and n.endswith("running_var") for n in names)


def test_networks_are_scored_on_the_same_init_times(small: WeatherConfig) -> None:
    """Catches forecasts of other times, or a network that is left out of the table."""
    stores = [open_store(path) for path in (small.paths.forecast, *small.paths.network_forecasts.values())]
    for store in stores[1:]:
        np.testing.assert_array_equal(store["init_time"].values, stores[0]["init_time"].values)
        assert store.attrs["contract"]["train"] == stores[0].attrs["contract"]["train"]
    assert "climate-learn's resnet" in stores[1].attrs["title"]
    run_score(small)
    frame = pd.read_csv(small.paths.scores / "scores.csv")
    assert {"resnet", "unet", "small", "linear", "climatology"} <= set(frame["model"])
    assert frame["n_init"].nunique() == 1


@pytest.mark.parametrize("name", MINIATURES)
def test_a_killed_training_ends_with_the_same_weights(small: WeatherConfig, tmp_path: Path, name: str) -> None:
    """Catches statistics of batch norms, or their average, that start anew; the receipt's digest is that of the whole
    run too."""
    config, whole = network_experiment(name, small), small.paths.networks / name
    with pytest.raises(KeyboardInterrupt):
        train_alone(config, tmp_path, kind=dying_task(17))
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step-000000016"
    train_alone(config, tmp_path)
    assert equal_runs(tmp_path, whole)
    digest = checkpoint_digest(small, tmp_path / "checkpoints")
    assert digest == provenance.read_receipt(small, stage="baselines")["facts"][name]["weights"]


def checkpoint_digest(config: WeatherConfig, checkpoints: Path) -> str:
    path = checkpoint.best_or_last(checkpoints)
    assert path is not None
    channels = tuple(checkpoint.describe(path)["model"]["channels"])
    fields = Fields(config.paths.store, Normals.open(config.paths.normals), channels=channels)
    return load_model(path, fields, device=torch.device("cpu"))[1]


def test_minutes_stop_a_training(small: WeatherConfig, tmp_path: Path) -> None:
    """A budget of time instead of steps ends early and says how many samples that was; resumed, it has ended."""
    raw = small.model_dump(mode="json")
    raw["evaluation"]["trained_budget"] = {"steps": 1000, "minutes": 0.002}
    config = network_experiment("resnet", parse(raw))
    run = train_alone(config, tmp_path)
    assert 0 < run.step < 1000
    assert run.facts()["steps"] == run.step
    before = curve(tmp_path)
    assert train_alone(config, tmp_path).step == run.step
    assert curve(tmp_path) == before


def test_nothing_named_is_refused(small: WeatherConfig) -> None:
    """The command without a network to train, and a score without its forecasts."""
    with pytest.raises(ValueError, match=r"evaluation.trained_baselines must name a network"):
        run_baselines(changed(small, evaluation={"trained_baselines": []}))
    raw = small.model_dump(mode="json")
    raw["evaluation"] |= {"trained_baselines": ["unet"], "trained_budget": {"steps": 7}}
    with pytest.raises(ValueError, match="run python -m pipeline baselines first"):
        run_score(parse(raw))


def test_a_network_can_be_the_model(small: WeatherConfig, tmp_path: Path) -> None:
    """Catches a stage that knows one architecture: training, forecasts, and the plain file with the same function."""
    config = unet(small, tmp_path / "unet")
    run_train(config)
    run_forecast(config)
    issued = open_store(config.paths.forecast)
    np.testing.assert_array_equal(issued["init_time"].values, open_store(small.paths.forecast)["init_time"].values)
    assert np.isfinite(issued["state"].values).all()
    run_export(config)
    plain = read_plain(config.paths.train / "small.safetensors")
    path = checkpoint.best_or_last(config.paths.checkpoints)
    assert path is not None
    fields = Fields(config.paths.store, Normals.open(config.paths.normals), channels=plain.model.channels_held)
    network, _ = load_model(path, fields, device=torch.device("cpu"))
    x, lead = fields.inputs(np.array([3, 40])), torch.tensor([24.0, 72.0])
    with torch.inference_mode():
        assert torch.equal(plain.model(x, lead), network(x, lead))


def train_on_ranks(content: dict[str, Any]) -> str:
    """Train; a digest of what this rank holds in the end."""
    climatelearn.ARCHITECTURES.update(MINIATURES)
    config = parse(content)
    assert isinstance(config, WeatherConfig)
    with process_group(world_size=2) as device:
        folder, console = RunFolder(config.paths.train), Console(quiet=True)
        learner = trained(
            lambda device: ForecastTask(config, device=device),
            config.training,
            folder=folder,
            device=device,
            console=console,
        ).learner
    held = {**learner.weights(), **{f"average.{name}": t for name, t in learner.average.items()}}
    whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in held.items()}
    return hashlib.sha256(b"".join(whole[name].numpy().tobytes() for name in sorted(whole))).hexdigest()


def on_ranks(small: WeatherConfig, folder: Path, **layout: Any) -> dict[str, Any]:
    return unet(small, folder, steps=6).model_dump(mode="json") | {
        "training": {**small.training.model_dump(mode="json"), "steps": 6, "layout": layout}
    }


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_it_runs_on_data_ranks(small: WeatherConfig, tmp_path: Path, sharding: str) -> None:
    """Catches statistics of batch norms that differ between ranks, and a checkpoint that one rank alone cannot read."""
    content = on_ranks(small, tmp_path / "ranks", data=2, sharding=sharding)
    first, second = run_distributed(train_on_ranks, 2, content)
    assert first == second
    config = parse(content)
    longer = changed(config, training={"layout": small.training.layout, "steps": 8})
    assert train_alone(longer, config.paths.train).step == 8
    assert len(losses(config.paths.train, "train")) == 8


def test_channel_ranks_are_refused(small: WeatherConfig, tmp_path: Path) -> None:
    """Catches a network given a part of its channels, or a message about groups that it does not have."""
    with pytest.raises(RuntimeError, match=r"a network with one group cannot be cut over channels"):
        run_distributed(train_on_ranks, 2, on_ranks(small, tmp_path / "ranks", channel=2))


@pytest.mark.parametrize("training", [{}, {"micro_batch": 8}], ids=["whole", "micro-batches"])
def test_plan_agrees_with_a_real_run(
    small: WeatherConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any]
) -> None:
    """Catches batch statistics or a network that the rehearsal builds otherwise than the trainer."""
    monkeypatch.setitem(climatelearn.ARCHITECTURES, "unet", {**MINIATURES["unet"], "hidden_channels": 64})
    monkeypatch.setattr(TrainingData, "hold", lambda *_, **__: None)
    config = unet(small, tmp_path / "unet", steps=2, batch_size=32, validate_every=2, **training)
    planned = footprint(Forecasting.planned(config), config.training)
    assert planned.peak == pytest.approx(training_peak(lambda: trainer_of(config)), rel=0.1)


def test_networks_follow_the_recipe_of_a_model_with_steps(experiment: Callable[..., Config]) -> None:
    """Catches networks that are trained on leads, without roll-outs, or not calibrated beside a model that is."""
    options = {"rollout": [[0, 1], [0.5, 3]], "steps": 4, "validate_every": 2, "step_hours": [12, 24]}
    config = with_steps(experiment, model={"features": ["season"]}, **options)
    config = changed(config, evaluation={"trained_baselines": ["unet"]})
    run_baselines(config)
    trained_as = checkpoint.describe(checkpoint.best_or_last(config.paths.networks / "unet" / "checkpoints"))
    assert trained_as["stepping"] == {"predicts": "change", "step_hours": [12, 24]}
    assert trained_as["config"]["training"]["rollout"] == [[0, 1], [0.5, 3]]
    assert "sin_season" in trained_as["model"]["channels"]
    issued = open_store(config.paths.network_forecasts["unet"])
    assert issued.attrs["contract"]["rollout_hours"] == [12, 24]
    assert issued["calibration"].dims == ("lead_time", "channel", "latitude")
    assert np.isfinite(issued["state"].values).all()


@pytest.mark.parametrize(
    ("budget", "minutes", "expected"),
    [({}, 2.5, (12, 2.5)), ({"steps": 7}, 2.5, (7, None)), ({"minutes": 9.0}, 2.5, (12, 9.0)), ({}, None, (12, None))],
)
def test_networks_get_the_time_that_the_model_gets(
    experiment: Callable[..., Config], budget: dict[str, Any], minutes: float | None, expected: tuple[int, float | None]
) -> None:
    """Catches networks that train without end beside a model whose minutes are limited."""
    content = experiment(minutes=minutes).model_dump(mode="json")
    content["evaluation"] |= {"trained_baselines": ["unet"], "trained_budget": budget}
    config = parse(content)
    assert isinstance(config, WeatherConfig)
    training = network_experiment("unet", config).training
    assert (training.steps, training.minutes) == expected
