"""The memory plan of training: what it says is what a real run takes, and what it advises fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from model.training import planner
from model.training.planner import parse_memory
from model.training.rehearsal import Footprint, footprint
from model.weather.plan import host_bytes, run_plan
from model.weather.task import Forecasting
from model.weather.training_data import TrainingData
from pipeline.config import load, parse
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import raw_config
from tests.model.runs import training_peak
from tests.model.weather.trainers import changed, trainer_of

pytestmark = pytest.mark.slow

Make = Callable[..., WeatherConfig]
DEMO = Path(__file__).resolve().parents[3] / "workflows" / "config" / "demo_direct.yaml"


def plan(config: WeatherConfig) -> Footprint:
    return footprint(Forecasting.planned(config), config.training)


@pytest.mark.slow
@pytest.mark.parametrize(
    "training",
    [{"ema_decay": 0.0}, {"recompute": True, "micro_batch": 8, "validation_samples": 64}],
    ids=["plain", "thrifty"],
)
def test_plan_agrees_with_a_real_run(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, training: dict[str, Any]
) -> None:
    """Catches a part of a step that the rehearsal forgets or counts twice."""
    config = experiment(steps=2, batch_size=32, validate_every=2, **training)
    config = changed(config, model={"width": 128, "depth": 3, "heads": 4, "patch": 1})
    monkeypatch.setattr(TrainingData, "hold", lambda *_, **__: None)
    planned = plan(config)
    assert planned.peak == pytest.approx(training_peak(lambda: trainer_of(config)), rel=0.1)
    assert planned.peak == sum(v for k, v in planned.to_dict().items() if k != "peak")
    assert planned.peak == sum(planned.parts.values())
    assert planned.parts["optimiser"] >= planned.optimiser + planned.average
    assert min(planned.parts[part] for part in ("tokenisation", "aggregation", "trunk", "head")) > 0
    parameters = planned.parameters
    assert planned.gradients == parameters
    assert planned.optimiser == 2 * parameters
    assert planned.average == (0 if training.get("ema_decay") == 0.0 else parameters)


@pytest.mark.slow
def test_sharding_and_channel_ranks_divide_what_they_should() -> None:
    """Catches a layout that is planned as if every rank held everything."""
    shared = [
        "model.groups={by: contiguous, count: 4}",
        "model.width=64",
        "model.depth=2",
        "training.batch_size=8",
    ]
    one = plan(load(DEMO, shared))
    fsdp = plan(load(DEMO, [*shared, "training.layout={data: 2, sharding: fsdp}"]))
    both = plan(load(DEMO, [*shared, "training.layout={data: 2, channel: 2, sharding: fsdp, trunk: tensor}"]))
    assert fsdp.parameters == pytest.approx(one.parameters / 2, rel=0.02)
    assert fsdp.optimiser == pytest.approx(one.optimiser / 2, rel=0.02)
    assert fsdp.batches == pytest.approx(one.batches / 2, rel=0.02)
    assert both.parameters < 0.8 * fsdp.parameters
    assert both.batches == pytest.approx(fsdp.batches / 2, rel=0.1)
    assert both.peak < fsdp.peak < one.peak


@pytest.mark.slow
def test_what_does_not_fit_is_refused_with_what_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches advice that does not fit, a refusal without advice, and a plan that needs the stages before it."""
    content = raw_config(tmp_path, batch_size=8)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    whole = plan(parse(content))
    limit = int(0.75 * whole.peak)
    with pytest.raises(
        ValueError, match=r"training must fit into .* the nearest that fits has .*--set training\."
    ) as e:
        run_plan(parse(content), memory=str(limit), device="cpu")
    written = json.loads((tmp_path / "plan-train.json").read_text())
    assert not written["fits"]
    assert written["bytes_per_rank"]["peak"] == whole.peak
    assert written["bytes_of_fields_in_host_memory"] == host_bytes(parse(content))
    advice = str(e.value).rpartition(": --set ")[2].split(" --set ")
    assert len(advice) == 1, advice  # a smaller micro-batch is enough
    run_plan(load(path, advice), memory=str(limit), device="cpu")
    assert json.loads((tmp_path / "plan-train.json").read_text())["fits"]
    assert "activations" in capsys.readouterr().out


def test_nothing_fits_into_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a search that ends in a traceback or advises what does not fit."""
    monkeypatch.setattr(planner, "_MOST_RANKS", 1)
    with pytest.raises(ValueError, match="no layout of up to 1 ranks fits"):
        run_plan(parse(raw_config(tmp_path, batch_size=1)), memory="1kB", device="cpu")


def test_sizes_are_read_as_people_write_them() -> None:
    """Catches gibibytes taken for gigabytes."""
    assert parse_memory("16GB") == 16 * 10**9
    assert parse_memory("16 GiB") == 16 * 2**30
    with pytest.raises(ValueError, match="memory must be a size such as 16GB"):
        parse_memory("much")
