"""The table of stages, and what follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import pytest

from pipeline import workloads
from pipeline.config import load, parse
from pipeline.weather.config import WeatherPaths
from tests.pipeline.test_cli import RAW

TASKS = list(workloads.WORKLOADS)


@pytest.mark.parametrize("task", TASKS)
def test_a_table_is_in_order(task: str) -> None:
    """Catches a stage that needs one which runs later, or none; two of one name; an output that two stages write."""
    seen: list[str] = []
    outputs: list[str] = []
    for stage in workloads.stages(task):
        assert set(stage.needs) <= set(seen), stage.name
        assert stage.name not in seen
        seen.append(stage.name)
        outputs += stage.outputs
    assert len(outputs) == len(set(outputs))


@pytest.mark.parametrize("task", TASKS)
def test_a_background_stage_asks_for_one_thread(task: str) -> None:
    """Catches a stage that would wait for others instead of running beside them: one core is left to it."""
    assert {stage.resources.threads for stage in workloads.stages(task) if stage.background} <= {1}


def test_paths_are_those_of_the_table() -> None:
    """Catches an output without an annotation, which mypy would not know, and an annotation of nothing."""
    annotated = set(get_type_hints(WeatherPaths)) - {"root"}
    assert annotated == {name for stage in workloads.stages("forecast") for name in stage.outputs}


def changed(setting: str, value: str) -> set[str]:
    """Stages whose receipts have another name after a change of one setting of the demo."""
    demo = Path("workflows/config/demo.yaml")
    before, after = load(demo), load(demo, [f"{setting}={value}"])
    return {s.name for s in workloads.stages("forecast") if before.paths.receipt(s.name) != after.paths.receipt(s.name)}


LAST = {"score", "report"}
FROM_FORECAST = {"forecast", "baselines"} | LAST
FROM_TRAIN = {"train", "free_run"} | FROM_FORECAST
FROM_REGRID = {"regrid", "normals", "twins"} | FROM_TRAIN


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("source.seed", "3", {"simulate", "fetch"} | FROM_REGRID),
        ("data.regrid.method", "nearest", FROM_REGRID),
        ("data.normals.window_days", "31", {"normals"} | FROM_TRAIN),
        ("training.learning_rate", "0.1", FROM_TRAIN),
        ("training.minutes", "3", FROM_TRAIN),
        ("model.architecture", "unet", FROM_TRAIN),
        ("forecast.init_step_hours", "48", FROM_FORECAST),  # the same init times for the twins, every 480 h
        ("forecast.init_step_hours", "72", {"twins"} | FROM_FORECAST),
        ("forecast.weights", "model", {"free_run"} | FROM_FORECAST),
        ("evaluation.trained_budget.steps", "7", {"baselines"} | LAST),
        ("evaluation.variables", "[z500]", {"free_run"} | LAST),
        ("evaluation.trained_baselines", "[unet]", {"baselines"} | LAST),
        ("evaluation.twins.perturbation", "0.2", {"twins"} | LAST),
        ("evaluation.animation_frames", "3", {"report"}),
        ("training.micro_batch", "4", set()),
        ("training.checkpoint_every", "7", set()),
        ("training.layout", "{data: 2, channel: 2}", set()),
        ("evaluation.workers", "2", set()),
        ("data.normals.keep_sums", "true", set()),
        ("compute.workers", "2", set()),
    ],
)
def test_a_setting_moves_what_depends_on_it(
    setting: str, value: str, expected: set[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a setting that decides a result and is not in its name, and one of speed that is."""
    monkeypatch.chdir(root)
    assert changed(setting, value) == expected


def test_a_free_run_is_a_stage_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches forecasts that are issued again because a free run was asked for, and a page without it."""
    monkeypatch.chdir(root)
    assert changed("forecast.free_run_days", "30") == {"free_run", "report"}
    demo = Path("workflows/config/demo.yaml")
    stages = [[stage.name for stage in load(demo, more).stages] for more in ([], ["forecast.free_run_days=30"])]
    assert set(stages[1]) - set(stages[0]) == {"free_run"}


@pytest.mark.parametrize("task", ["forcast", 3, None])
def test_an_unknown_task_is_one_message(task: Any) -> None:
    """Catches a traceback, or a file of one workload read as another's."""
    with pytest.raises(ValueError, match=r"task must be one of forecast, reconstruct, got") as error:
        parse({**RAW, "task": task})
    assert len(str(error.value).splitlines()) == 1


def test_a_file_without_a_task_is_a_forecast() -> None:
    """Catches files of before that no longer load, or load as something else."""
    assert parse(RAW) == parse({**RAW, "task": "forecast"})
