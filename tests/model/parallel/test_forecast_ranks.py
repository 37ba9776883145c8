"""Forecasts made by several ranks are those of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.weather.forecast import run_forecast
from model.weather.train import run_train
from pipeline.config import parse
from pipeline.store import open_store, verify_store
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import write_store
from tests.model.parallel.harness import run_distributed
from tests.model.parallel.test_train_ranks import raw
from tests.model.weather.trainers import elsewhere

pytestmark = pytest.mark.slow

LAYOUTS = [
    {"data": 2, "channel": 2, "sharding": "fsdp"},
    {"data": 1, "channel": 2, "trunk": "tensor"},
]


def forecast(content: dict[str, Any]) -> None:
    run_forecast(parse(content))


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> WeatherConfig:
    content = raw(tmp_path_factory.mktemp("one") / "results", data=1, channel=1)
    content["forecast"]["rollout_hours"] = 24
    config = parse(content)
    write_store(config)
    run_train(config)
    run_forecast(config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: "-".join(map(str, layout.values())))
def test_ranks_issue_the_forecasts_of_one(one_rank: WeatherConfig, tmp_path: Path, layout: dict[str, Any]) -> None:
    """Catches init times given to two ranks or to none, parts put together in another order, channels misread."""
    content = raw(tmp_path, **layout)
    content["forecast"]["rollout_hours"] = 24
    config = parse(content)
    elsewhere(one_rank, tmp_path, also=(one_rank.paths.train.name, "receipts"))
    one_rank.paths.receipt("forecast").unlink(missing_ok=True)
    run_distributed(forecast, layout["data"] * layout["channel"], content)
    ours, theirs = open_store(config.paths.forecast), open_store(one_rank.paths.forecast)
    assert verify_store(config.paths.forecast) == []
    assert ours.attrs["contract"] == theirs.attrs["contract"]
    assert np.array_equal(ours["init_time"].values, theirs["init_time"].values)
    assert np.allclose(ours["state"].values, theirs["state"].values, atol=2e-3)
    assert theirs["state"].values.std(axis=0).min() > 0.1
