"""What a user sees on standard error while a stage runs.

Contract: results never go through here; a message is one line, a progress bar has the time left. Where there is no
terminal, as in a job's log, a line a minute says the same.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str) -> None:
    """One line for the user, printed as it is."""
    console.print(message, markup=False)


def stamp(time: np.datetime64) -> str:
    """A time as messages and facts print it, to the minute.

    >>> stamp(np.datetime64("2001-02-03T04:05:06"))
    '2001-02-03T04:05'
    """
    return str(np.datetime_as_string(time, unit="m"))


def data_name(label: str) -> str:
    """What titles and figures call the data: nobody may mistake simulated fields for observed ones."""
    return "simulated atmosphere" if label == "simulated" else label


def data_with_article(label: str) -> str:
    """The same inside a sentence."""
    return f"a {data_name(label)}" if label == "simulated" else label


PLAIN_SECONDS = 60.0
"""Between two lines of progress where there is no terminal."""


class Bar(Progress):
    """A progress bar; where there is no terminal, a line a minute instead.

    Args:
        unit: what is counted, e.g. "times".
        on: where to.
        disable: show neither.
    """

    def __init__(self, unit: str, *, on: Console, disable: bool = False) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=on,
            disable=disable or not on.is_terminal,
        )
        self._unit, self._silent = unit, disable or on.is_terminal
        self._lines: dict[TaskID, MinuteLine] = {}

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        """A task, whose time counts from now."""
        task_id = super().add_task(description, start, total, completed, visible, **fields)
        self._lines[task_id] = MinuteLine(done=completed)
        return task_id

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Some more is done."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Something else about a task is known."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        if self._silent:
            return
        with self._lock:
            task = self._tasks[task_id]
            if task.total is not None and (rate := self._lines[task_id].due(task.completed)) is not None:
                left = duration((task.total - task.completed) / rate) if rate else "?"
                self.console.print(
                    f"{task.description}: {task.completed:.4g} of {task.total:.4g} {self._unit}, {left} left",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )


class MinuteLine:
    """When the next line of progress is due, and how fast the work went so far.

    Args:
        done: what was done before.
    """

    def __init__(self, *, done: float) -> None:
        self._first = done
        self._began = self._said = time.monotonic()

    def due(self, done: float) -> float | None:
        """What is done in a second, on average, where a line is due now; None where it is not."""
        now = time.monotonic()
        if now - self._said < PLAIN_SECONDS:
            return None
        self._said = now
        return (done - self._first) / max(now - self._began, 1e-9)


def duration(seconds: float) -> str:
    """A time span for people, rounded.

    >>> duration(41.7), duration(200), duration(9000), duration(400000)
    ('42 s', '3 min', '2 h 30 min', '4 days 15 h')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def progress(unit: str) -> Bar:
    """A progress bar to use as a context manager; `unit` is what is counted, e.g. "times"."""
    return Bar(unit, on=console)


def terminal_progress(unit: str, *, on: Console | None) -> Bar:
    """The same on another console; silent where there is none."""
    return Bar(unit, on=on or console, disable=on is None)
