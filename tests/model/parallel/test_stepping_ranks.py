"""Training through several steps on several ranks: the losses and weights of one rank, in float64."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.weather.forecast import run_forecast
from model.weather.train import run_train
from pipeline.config import parse
from pipeline.store import open_store
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import raw_config, write_store
from tests.model.parallel.harness import run_distributed
from tests.model.runs import losses, saved_tensors
from tests.model.weather.trainers import elsewhere

pytestmark = pytest.mark.slow


def raw(directory: Path, *, data: int, channel: int, **training: Any) -> dict[str, Any]:
    """A model of changes with one earlier state: eight channels in four groups, some read by two ranks."""
    layout = {key: training.pop(key) for key in ("trunk", "sharding") if key in training}
    content = raw_config(directory, steps=4, batch_size=8, precision="float64", clip_norm=10.0, **training)
    content["model"] |= {
        "groups": {"by": "contiguous", "count": 4},
        "dropout": 0.0,
        "unit": "C",
        "predicts": "change",
        "history_hours": [24],
        "heads": 4,
    }
    content["training"] |= {
        "step_hours": [24],
        "rollout": [[0, 1], [0.25, 3]],
        "input_noise": 0.2,
        "validate_every": 4,
        "layout": {"data": data, "channel": channel, **layout},
    }
    return content


def train(content: dict[str, Any]) -> None:
    config = parse(content)
    run_train(config)
    while not config.paths.receipt("train").exists():  # rank 0 writes it after the others have left
        time.sleep(0.05)
    run_forecast(config)


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> WeatherConfig:
    config = parse(raw(tmp_path_factory.mktemp("one") / "results", data=1, channel=1))
    assert isinstance(config, WeatherConfig)
    write_store(config)
    run_train(config)
    run_forecast(config)
    return config


LAYOUTS: list[dict[str, Any]] = [
    {"data": 2, "channel": 1, "micro_batch": 3},
    {"data": 1, "channel": 2, "recompute": True},
    {"data": 2, "channel": 2, "sharding": "fsdp"},
    {"data": 2, "channel": 1, "sharding": "fsdp", "recompute": True},
    {"data": 1, "channel": 4, "trunk": "tensor"},
    {"data": 1, "channel": 2, "trunk": "sequence"},
    {"data": 1, "channel": 2, "rollout_gradients": "last"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_ranks_give_the_losses_and_forecasts_of_one(
    one_rank: WeatherConfig, tmp_path: Path, layout: dict[str, Any]
) -> None:
    """Catches gradients of a predicted state that reach only the channels of this rank, or reach them twice."""
    content = raw(tmp_path / "ranks", **layout)
    config = parse(content)
    assert isinstance(config, WeatherConfig)
    expected = one_rank
    if "rollout_gradients" in layout:
        alone = raw(tmp_path / "one", data=1, channel=1, rollout_gradients="last")
        expected = elsewhere(one_rank, tmp_path / "one").model_copy(update={"training": parse(alone).training})
        run_train(expected)
        run_forecast(expected)
    elsewhere(one_rank, tmp_path / "ranks")
    run_distributed(train, layout["data"] * layout["channel"], content)
    assert losses(config.paths.train) == pytest.approx(losses(expected.paths.train), rel=1e-10)
    ours, theirs = saved_tensors(config.paths.train), saved_tensors(expected.paths.train)
    for name in (n for n in ours if n.endswith("exp_avg")):
        assert (ours[name] - theirs[name]).abs().max() <= 1e-9 * (1 + theirs[name].abs().max()), name
    for which in ("forecast", "uncalibrated"):
        stores = [c.paths.forecast if which == "forecast" else c.paths.uncalibrated[which] for c in (config, expected)]
        found, wanted = (open_store(store)["state"].values for store in stores)
        assert np.allclose(found, wanted, rtol=1e-5)
    assert torch.isfinite(torch.from_numpy(found)).all()
