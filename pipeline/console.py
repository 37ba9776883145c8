"""What a user sees on standard error while a stage runs.

Contract: results never go through here; a message is one line, a progress bar has rate and time left.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

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


def progress(unit: str) -> Progress:
    """A progress bar to use as a context manager; `unit` is what is counted, e.g. "times".

    Where there is no terminal its last state is printed.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def terminal_progress(unit: str, *, on: Console | None) -> Progress:
    """The same, silent where there is no terminal or no console."""
    bar = progress(unit)
    return Progress(*bar.columns, console=on, disable=on is None or not on.is_terminal)
