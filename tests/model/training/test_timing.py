"""Layouts that are found and chosen: the fastest that fits, the same for every rank, and no result depends on it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from model.costs.hardware import HARDWARE
from model.costs.operators import OperatorClass, Tally, Work
from model.costs.roofline import StepTime, step_time
from model.parallel.launch import process_group
from model.parallel.wrap import LayoutError
from model.training import choose, layouts, this_machine, timing
from model.training.plan_times import Asked
from model.training.rehearsal import Footprint
from model.training.timing import Prediction
from model.weather.plan import run_plan
from model.weather.task import Forecasting
from model.weather.train import run_train
from pipeline.config import parse
from pipeline.provenance import read_receipt
from pipeline.sections import Layout, Training
from pipeline.weather.config import WeatherConfig
from tests.model.conftest import raw_config
from tests.model.runs import losses
from tests.model.weather.trainers import changed

Make = Callable[..., WeatherConfig]


def config_with(directory: Path, layout: Any, **training: Any) -> WeatherConfig:
    config = parse(raw_config(directory, layout=layout, **training))
    assert isinstance(config, WeatherConfig)
    return config


def test_auto_is_a_layout(tmp_path: Path) -> None:
    """Catches a choice that changes the names of outputs, and settings of a choice that is not made."""
    config = config_with(tmp_path, "auto")
    assert (config.training.layout.auto, config.training.layout.world_size) == (True, 1)
    assert config_with(tmp_path, {"auto": True, "ranks": 4}).training.layout.world_size == 4
    assert config.paths.train == config_with(tmp_path, {}).paths.train
    with pytest.raises(ValueError, match=r"ranks and memory are for a layout that is chosen"):
        config_with(tmp_path, {"ranks": 2})
    with pytest.raises(ValueError, match=r"data must be absent where the layout is chosen"):
        config_with(tmp_path, {"auto": True, "data": 2})
    with pytest.raises(ValueError, match=r"trunk and sharding must be absent .* got tensor and fsdp"):
        config_with(tmp_path, {"auto": True, "trunk": "tensor", "sharding": "fsdp"})
    assert config_with(tmp_path, {**config.training.layout.model_dump()}).training.layout == config.training.layout
    with pytest.raises(ValueError, match=r"must say which layout to plan, got auto"):
        run_plan(config)


def fabricated(options: Training, *, seconds: float, peak: int) -> Prediction:
    time = StepTime(seconds, 0.0, 0.0, 0.0, flops=1.0, peak=1.0)
    return Prediction(options, Footprint(0, 0, 0, 0, 0, peak, peak, {}), time, HARDWARE["a100"])


def test_the_fastest_that_fits_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a fast layout that does not fit, thrift that nobody needs, and memory spent for nothing."""

    def predicted(_task: Any, options: Training, **_: Any) -> Prediction:
        data, thrifty = options.layout.data, options.recompute
        known = {4: (1.0, 100), 2: (2.0, 50), 1: (2.01, 20)}
        seconds, peak = known[data]
        if options.layout.trunk == "sequence":
            raise LayoutError("heads")
        return fabricated(options, seconds=seconds * (1.3 if thrifty else 1.0), peak=peak // (2 if thrifty else 1))

    monkeypatch.setattr(timing, "predict", predicted)
    monkeypatch.setattr(layouts, "plan_for", lambda *_, **__: None)
    monkeypatch.setattr(timing, "Least", lambda _: lambda _: 0)
    task = SimpleNamespace(network=None)
    asked: Any = {"machine": HARDWARE["a100"], "ranks": 4, "device_type": "cuda"}

    def order(limit: float) -> list[tuple[int, bool]]:
        found = timing.ranked(task, Training(batch_size=8), limit=limit, **asked)  # type: ignore[arg-type]
        assert all(p.options.layout.trunk != "sequence" for p in found)
        return list(dict.fromkeys((p.options.layout.data, p.options.recompute) for p in found))

    assert order(1000) == [(4, False), (2, False), (1, False)]
    assert order(60) == [(4, True), (2, False), (1, False)]  # 1.3 s recomputed is less than 2 s
    assert order(49) == [(1, False), (2, True)]
    with pytest.raises(ValueError, match="no layout of 4 ranks that does; take more ranks"):
        order(9)
    monkeypatch.setattr(timing, "_ALIKE", 0.01)
    assert order(50)[0] == (4, True)


def test_ranks_that_nothing_divides_are_told_from_memory_that_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches memory blamed for ranks, and an infinite limit that is printed."""

    def refuse(*_: Any, ranks: int) -> None:
        if ranks > 1:
            raise ValueError("groups")

    monkeypatch.setattr(layouts, "plan_for", refuse)
    monkeypatch.setattr(timing, "Least", lambda _: lambda _: 0)
    asked: Any = {"machine": HARDWARE["a100"], "ranks": 3, "device_type": "cuda"}
    with pytest.raises(ValueError, match="must be divisible by the ranks of some layout, got 3 ranks and a batch of 8"):
        timing.ranked(SimpleNamespace(network=None), Training(batch_size=8), limit=math.inf, **asked)  # type: ignore[arg-type]


def test_a_smaller_micro_batch_is_tried_without_recomputation() -> None:
    """Catches recomputation where smaller micro-batches fit without, and either of them where nothing is needed."""

    def fits(limit: int) -> list[tuple[int | None, bool]]:
        def attempt(options: Training) -> Training | None:
            peak = (options.micro_batch or 8) * (4 if options.recompute else 10)
            return options if peak <= limit else None

        return [(found.micro_batch, found.recompute) for found in layouts.first_fits(Training(batch_size=8), attempt)]

    assert fits(80) == [(None, False)]
    assert fits(40) == [(4, False), (None, True)]
    assert fits(9) == [(2, True)]
    assert fits(3) == []


@pytest.mark.parametrize(
    ("gpu", "title"),
    [("NVIDIA GH200 480GB", "gh200"), ("NVIDIA H200", "h200"), ("NVIDIA A100-SXM4-40GB", "a100")],
)
def test_a_gpu_is_known_by_its_longest_name(
    gpu: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a GH200 planned as an H200, and memory of a data sheet where the device says how much it has."""
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: gpu, mem_get_info=lambda: (1, 40 * 10**9))
    monkeypatch.setattr(this_machine.torch, "cuda", cuda)
    assert this_machine.of_training(tmp_path / "none.json", ranks=2) == (HARDWARE[title], None)
    assert this_machine.memory_of_a_rank() == 40e9
    measured = replace(HARDWARE["a100"], name="here", title="a login node", cores=4)
    (tmp_path / "hardware.json").write_text(json.dumps(measured.to_dict()))
    machine, note = this_machine.of_training(tmp_path / "hardware.json", ranks=2)
    assert machine == HARDWARE[title]
    assert "measured on another kind of device" in str(note)
    (tmp_path / "hardware.json").write_text("{}")
    with pytest.raises(ValueError, match=r"hardware.json must hold this machine's figures"):
        this_machine.of_training(tmp_path / "hardware.json", ranks=2)


def test_a_choice_that_fails_is_told_to_every_rank(tmp_path: Path) -> None:
    """Catches an error of rank 0 alone, for which the other ranks wait."""
    config = config_with(tmp_path, "auto")
    config.root.mkdir(parents=True, exist_ok=True)
    (config.root / "hardware.json").write_text("[]")
    found = choose.best(config, Forecasting.planned, 1e9)
    assert "hardware.json must hold this machine's figures" in found["refused"]


def test_ranks_on_a_measured_processor_share_it(tmp_path: Path) -> None:
    """Catches ranks that are planned as if each had the whole machine that was measured."""
    one = replace(HARDWARE["a100"], name="here", cores=1, per_node=1)
    (tmp_path / "hardware.json").write_text(json.dumps(one.to_dict()))
    machine, _ = this_machine.of_training(tmp_path / "hardware.json", ranks=2)
    work = Work({OperatorClass("copy_", "float32", (1,)): Tally(1, 0.0, 1e9)})
    assert step_time(work, machine, ranks=2).operations == 2 * step_time(work, machine, ranks=1).operations


def test_what_a_training_takes_follows_from_the_step() -> None:
    """Catches hours of one rank for those of all, and seconds for hours."""
    options = Training(batch_size=8, steps=900, layout=Layout(data=4))
    prediction = fabricated(options, seconds=2.0, peak=1)
    assert prediction.samples_per_second == 4.0
    assert prediction.device_hours == 900 * 2.0 * 4 / 3600
    assert prediction.energy == pytest.approx(2.0 * 400 / 1000)


def test_questions_that_make_no_sense_are_refused() -> None:
    """Catches nodes of nothing, and a table's machine that is measured here."""
    with pytest.raises(ValueError, match="--nodes must go with --hardware"):
        Asked(nodes=2)
    with pytest.raises(ValueError, match="nodes must be at least 1"):
        Asked("h200", nodes=0)
    with pytest.raises(ValueError, match="--calibrate measures this machine"):
        Asked("h200", calibrate=True)


@pytest.mark.slow
def test_layouts_for_a_machine_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a plan for hardware that prints or keeps something else than it found, or calls it measured."""
    config = config_with(tmp_path, {}, batch_size=8)
    run_plan(config, hardware="gh200", nodes=1)
    kept = json.loads((tmp_path / "plan-train-hardware.json").read_text())
    best = kept["layouts"][0]
    assert kept["origin"] == "modelled"
    assert (kept["ranks"], best["ranks"]) == (4, 4)
    assert best["step_seconds"] == min(layout["step_seconds"] for layout in kept["layouts"])
    shown = capsys.readouterr().out
    assert "modelled, not measured" in shown
    assert "4 data x 1 channel" in shown
    with pytest.raises(ValueError, match=r"must fit into 0\.0 MB per rank, got no layout"):
        run_plan(config, hardware="gh200", nodes=1, memory="10kB")


@pytest.mark.slow
def test_results_do_not_depend_on_a_layout_that_is_chosen(
    experiment: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches a choice that is not kept, not told, made anew by a run that resumes, or that moves the loss."""
    given = experiment(steps=3, validate_every=3)
    run_train(given)
    right = losses(given.paths.train)
    kept = given.paths.train.with_name("given")
    given.paths.train.rename(kept)
    auto = changed(given, training={"layout": Layout(auto=True)})
    monkeypatch.setattr(choose, "ProcessPoolExecutor", Here)
    run_train(auto)
    assert losses(auto.paths.train) == right
    chosen = read_receipt(auto, stage="train")["facts"]["layout"]
    assert chosen["layout"] == {"data": 1, "channel": 1, "trunk": "replicated", "sharding": "ddp"}
    assert "s a step" in chosen["why"]
    monkeypatch.setattr(choose, "ProcessPoolExecutor", None)  # asked again, it would fail
    with process_group(world_size=1):
        console = Console(quiet=True)
        options, again = choose.settled(auto, Forecasting.planned, folder=auto.paths.train, console=console)
    assert again == chosen
    assert options.layout == Layout()
    shutil.rmtree(kept)


@pytest.mark.slow
def test_a_choice_says_why_and_what_came_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a choice for another number of ranks, or for more memory than a rank has."""
    monkeypatch.setattr(choose, "of_training", lambda *_, **__: (HARDWARE["a100"], None))
    found = choose.best(config_with(tmp_path, {"auto": True, "ranks": 2}), Forecasting.planned, 80e9)
    assert found["layout"]["data"] == 2
    assert "by the model of NVIDIA A100" in found["why"]
    assert all(other["ranks"] == 2 for other in found["runners_up"])
    small = config_with(tmp_path, {"auto": True, "ranks": 2, "memory": "10kB"})
    assert "no layout of 2 ranks that does" in choose.best(small, Forecasting.planned, 80e9)["refused"]


class Here:
    """A pool whose work is done here, before the group of real ranks would be in its way."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, _function: Any, config: Any, _planned: Any, _available: float) -> Any:
        prediction = fabricated(config.training.model_copy(update={"layout": Layout()}), seconds=1.0, peak=1)
        found = {**prediction.to_dict(), "words": "w", "why": "1 s a step", "runners_up": []}
        return SimpleNamespace(result=lambda: found)
