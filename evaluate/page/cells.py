"""Scores, the cells of tables that show them, and the sentences of a page.

Contract: a score goes with its interval everywhere; a cell holds text only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Score(NamedTuple):
    """One score and the ends of its 95% interval; NaN for what there is not."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        """Whether there were enough samples for one."""
        return math.isfinite(self.low)


NO_SCORE = Score()
"""A score that is not there."""


@dataclass(frozen=True)
class Cell:
    """A number, its interval, the tone ("good", "bad") that colours it, and the length of a bar below it in percent."""

    value: str = ""
    interval: str = ""
    tone: str = ""
    bar: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table: the lead, or the name of a reference below the model's row."""

    lead: str
    cells: list[Cell]
    reference: bool = False


@dataclass(frozen=True)
class Group:
    """The rows of one variable."""

    title: str
    rows: list[Row]
    unit: str = ""


def cell(score: Score, write: Callable[[float], str], *, interval: bool = True, tone: str = "") -> Cell:
    """A score as a cell, with its interval where there is one."""
    shown = f"{write(score.low)} … {write(score.high)}" if interval and score.has_interval else ""
    return Cell(write(score.value), shown, tone)


@dataclass(frozen=True)
class Finding:
    """A sentence, and its tone: "good", "bad" or ""."""

    text: str
    tone: str = ""
