"""Progress: a bar on a terminal, a line a minute in a job's log."""

from __future__ import annotations

import doctest
import io
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from model.training.metrics_log import TrainingBar
from pipeline import console as module
from pipeline.console import terminal_progress

Tick = Callable[[float], None]


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Tick:
    """Lets seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def passed(seconds: float) -> None:
        now[0] += seconds

    return passed


def shown(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, force_terminal=terminal, width=100), file


def test_doctest() -> None:
    """Catches an example in the documentation that is no longer true."""
    assert doctest.testmod(module).failed == 0


def test_a_line_a_minute_without_a_terminal(tick: Tick) -> None:
    """Catches a stage of hours that says nothing in a job's log, or a line for every piece of work."""
    console, file = shown(terminal=False)
    with terminal_progress("times", on=console) as bar:
        task = bar.add_task("regrid ERA5", total=400, completed=100)
        for _ in range(30):
            tick(10.0)
            bar.advance(task, 5)
    assert file.getvalue().splitlines() == [
        "regrid ERA5: 130 of 400 times, 9 min left",
        "regrid ERA5: 160 of 400 times, 8 min left",
        "regrid ERA5: 190 of 400 times, 7 min left",
        "regrid ERA5: 220 of 400 times, 6 min left",
        "regrid ERA5: 250 of 400 times, 5 min left",
    ]


def test_other_ways_to_report_count_too(tick: Tick) -> None:
    """Catches the simulation, which reports days with another description, and loops that are tracked, left out."""
    console, file = shown(terminal=False)
    bar = terminal_progress("days", on=console)
    task = bar.add_task("simulate", total=400)
    tick(61.0)
    bar.update(task, advance=100.0, description="simulate 2001-04-11")
    assert file.getvalue() == "simulate 2001-04-11: 100 of 400 days, 3 min left\n"
    for _ in bar.track(range(3), description="reading"):
        tick(61.0)
    assert "reading: " in file.getvalue()


def test_a_terminal_has_the_bar_alone_and_no_console_nothing(tick: Tick) -> None:
    """Catches lines between the frames of a bar, and the ranks and libraries that should be silent."""
    console, file = shown(terminal=True)
    for on in (console, None):
        with terminal_progress("times", on=on) as bar:
            task = bar.add_task("regrid", total=4)
            tick(90.0)
            bar.advance(task)
    assert "3 min left" not in file.getvalue()
    assert "regrid" in file.getvalue()


@pytest.mark.parametrize(("seconds", "left"), [(None, "15 min"), (200.0, "2 min")])
def test_training_tells_loss_rate_and_time_left(tick: Tick, seconds: float | None, left: str) -> None:
    """Catches a training without validation that says nothing for hours, and time left beyond its limit in minutes."""
    console, file = shown(terminal=False)
    with TrainingBar(console, total=1000, done=40, batch_size=8, seconds=seconds) as bar:
        for step in range(41, 101):
            tick(1.0 if step < 100 else 2.0)
            bar.update(step, loss=0.25)
    assert file.getvalue() == f"train: step 100 of 1000, loss 0.2500, 7.9 samples/s, {left} left\n"


def test_time_left_reckons_with_steps_that_take_longer(tick: Tick) -> None:
    """Catches half of the real time left where the second half of a training goes through three steps in a row."""
    console, file = shown(terminal=False)

    def passes(progress: float) -> int:
        return 3 if progress >= 0.5 else 1

    with TrainingBar(console, total=200, done=0, batch_size=8, passes=passes) as bar:
        for step in range(1, 111):
            tick(1.0 if step <= 100 else 3.0)
            bar.update(step, loss=0.25)
    lines = file.getvalue().splitlines()
    assert lines[0].endswith("step 60 of 200, loss 0.2500, 8.0 samples/s, 6 min left")
    assert lines[-1].endswith("step 107 of 200, loss 0.2500, 7.1 samples/s, 5 min left")
