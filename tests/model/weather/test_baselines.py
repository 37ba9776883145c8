"""climate-learn's networks behind the adapter: what they are given, that they learn, resume, and are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from evaluate import climatelearn, trained
from evaluate.scoring import stage
from pipeline import config as configuration
from pipeline import provenance
from pipeline.config import Config
from pipeline.store import open_store

QUIET = Console(quiet=True)
SHORT = {
    "data__period": {"start": "2001-01-01", "end": "2002-02-28"},
    "data__splits": {
        "train": {"start": "2001-01-01", "end": "2001-12-31"},
        "test": {"start": "2002-01-01", "end": "2002-02-28"},
    },
    "training": {"lead_hours": [24, 168], "steps": 30, "batch_size": 8, "ema_decay": 0.8, "roll_longitude": True},
    "evaluation": {"variables": ["z500"], "trained_baselines": ["resnet", "unet"]},
    "model": {"patch": 2, "network_input": "anomaly"},
}

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("trained")]


@pytest.fixture(scope="module")
def small(build_experiment: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Both networks in miniature, trained for thirty steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(climatelearn.ARCHITECTURES, "resnet", {"n_blocks": 1, "hidden_channels": 16})
        patch.setitem(climatelearn.ARCHITECTURES, "unet", {"ch_mults": [1, 2], "n_blocks": 1, "hidden_channels": 8})
        config = build_experiment(tmp_path_factory.mktemp("trained"), **SHORT)
        trained.run_baselines(config)
        yield config


def test_importing_needs_the_repair_only_here() -> None:
    """With a torchvision without compiled operators the networks can be made; the shapes are climate-learn's."""
    net = climatelearn.network("resnet", in_channels=5, out_channels=3)
    assert sum("ResidualBlock" in type(m).__name__ for m in net.modules()) == 28
    repository = Path(climatelearn.__file__).resolve().parent.parent
    users = [
        p.relative_to(repository).as_posix()
        for folder in ("pipeline", "preprocess", "model", "evaluate")
        for p in (repository / folder).rglob("*.py")
        if "import climate_learn" in p.read_text() or "from climate_learn" in p.read_text()
    ]
    assert users == ["evaluate/climatelearn.py"]


def test_batches_hold_the_pairs_they_say(small: Config) -> None:
    """A batch decoded by hand: inputs are the anomaly at the init time, targets that one lead later, in spreads and
    turned together, the lead in the last channel; catches targets at the wrong time and fields turned apart."""
    raw = configuration.parse({**small.model_dump(mode="json"), "training": small.training.model_dump(mode="json")
                               | {"roll_longitude": False}})  # fmt: skip
    samples = trained.Samples(raw)
    x, y = (t.numpy() for t in samples.batch(3))
    truth, normals = open_store(small.paths.store), samples.normals
    times = truth["time"].values
    anomaly = (truth["state"].values - normals.climatology_at(times)) / normals.anomaly_std[:, None, None]
    train = times <= np.datetime64("2001-12-31T23")
    for i in range(len(x)):
        lead = round(float(x[i, -1].mean() * 100))
        assert lead in (24, 168)
        start = int(np.argmin(np.abs(anomaly - x[i, : len(samples.channels)]).max(axis=(1, 2, 3))))
        np.testing.assert_allclose(x[i, : len(samples.channels)], anomaly[start], atol=2e-4)
        np.testing.assert_allclose(y[i], anomaly[start + lead // 24], atol=2e-4)
        assert train[start + lead // 24]
    np.testing.assert_allclose(
        x[0, -2], (truth["static"].values[0] - normals.static_mean[0]) / normals.static_std[0], atol=1e-4
    )
    turned = trained.Samples(small)
    before = turned.batch(3)[0].numpy()
    assert not np.array_equal(before, x)
    np.testing.assert_allclose(np.sort(before, axis=-1), np.sort(x, axis=-1))


def test_networks_learn_and_are_scored(small: Config) -> None:
    """Loss falls, receipts tell samples and parameters, and scores.csv holds both beside model and baselines on the
    same init times."""
    facts = provenance.read_receipt(small, stage="baselines")["facts"]
    for name in ("resnet", "unet"):
        content = torch.load(small.paths.networks / name / "checkpoint.pt", weights_only=True)
        assert np.mean(content["losses"][-5:]) < np.mean(content["losses"][:5])
        assert facts[name]["samples"] == 30 * 8
        assert facts[name]["parameters"] > 1000
        forecast = open_store(small.paths.network_forecasts[name])
        assert (
            forecast.attrs["contract"]["train"]
            == open_store(small.paths.network_forecasts["unet"]).attrs["contract"]["train"]
        )
        ours = open_store(small.paths.forecast)
        np.testing.assert_array_equal(forecast["init_time"].values, ours["init_time"].values)
    stage.run_score(small)
    frame = pd.read_csv(small.paths.scores / "scores.csv")
    assert {"resnet", "unet", "tiny", "linear"} <= set(frame["model"])
    assert frame["n_init"].nunique() == 1


def test_a_killed_training_ends_with_the_same_weights(small: Config, tmp_path: Path, monkeypatch) -> None:
    """Stopped in the middle, at a checkpoint, and taken up: the same steps, dropout included."""
    samples = trained.Samples(small)
    monkeypatch.setattr(trained, "_SAVE_SECONDS", 0.0)
    whole, facts = trained.train("unet", samples, folder=tmp_path / "whole", console=QUIET)
    original = trained.Samples.batch

    def dies(self: trained.Samples, step: int) -> Any:
        if step == 17:
            raise KeyboardInterrupt
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(trained.Samples, "batch", dies)
        with pytest.raises(KeyboardInterrupt):
            trained.train("unet", samples, folder=tmp_path / "killed", console=QUIET)
    again, resumed = trained.train("unet", samples, folder=tmp_path / "killed", console=QUIET)
    assert resumed["weights"] == facts["weights"]
    assert facts["weights"] == provenance.read_receipt(small, stage="baselines")["facts"]["unet"]["weights"]
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_minutes_stop_a_training(small: Config, tmp_path: Path) -> None:
    """A budget of time instead of steps ends early and says how many samples that was."""
    raw = small.model_dump(mode="json")
    raw["evaluation"]["trained_budget"] = {"steps": 1000, "minutes": 0.002}
    samples = trained.Samples(configuration.parse(raw))
    _, facts = trained.train("resnet", samples, folder=tmp_path, console=QUIET)
    assert 0 < facts["steps"] < 1000
    assert facts["samples"] == facts["steps"] * 8


def test_nothing_named_is_refused(build_experiment: Any, small: Config) -> None:
    """The command without a network to train, and a score without its forecasts."""
    raw = small.model_dump(mode="json")
    raw["evaluation"]["trained_baselines"] = []
    with pytest.raises(ValueError, match=r"evaluation.trained_baselines must name a network"):
        trained.run_baselines(configuration.parse(raw))
    raw["evaluation"]["trained_baselines"] = ["unet"]
    raw["evaluation"]["trained_budget"] = {"steps": 7}
    with pytest.raises(ValueError, match="run python -m pipeline baselines first"):
        stage.run_score(configuration.parse(raw))
