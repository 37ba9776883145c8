"""The scores that the page speaks of, and how one of them becomes a cell of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluate import text
from evaluate.page.cells import Cell as Cell
from evaluate.page.cells import Group as Group
from evaluate.page.cells import Row as Row
from evaluate.page.cells import cell as cell
from evaluate.report.ceiling import Ceiling
from evaluate.scoring.score_table import Score, ScoreTable

LEVEL = 0.005
"""Skill so near zero that it does not matter, however certain it is."""


@dataclass(frozen=True)
class Results:
    """The scores of a model, and what it is compared with.

    Args:
        table: scores.csv.
        model: ours.
        channels: short names of those that are drawn.
        leads: hours.
        baselines: persistence and climatology, where they were scored.
        ceiling: scores beside the ceiling's; None where there is none.
    """

    table: ScoreTable
    model: str
    channels: Sequence[str]
    leads: Sequence[int]
    baselines: Sequence[str] = ()
    ceiling: Ceiling | None = None

    def score(self, channel: str, lead: int, metric: str, *, region: str = "globe") -> Score:
        """One of the model's scores."""
        return self.table.score(self.model, channel, lead, metric, region=region)


def share_cell(share: Score) -> Cell:
    """A share of the ceiling's ACC as a cell."""
    if not math.isfinite(share.value):
        return Cell(text.percent(share.value))
    plain = cell(share, text.percent)
    return Cell(plain.value, plain.interval, bar=round(100 * float(np.clip(share.value, 0, 1)), 1))


def tone(skill: Score) -> str:
    """The class of a skill by its interval: good above zero, bad below, level when all of it is next to zero."""
    if max(abs(skill.low), abs(skill.high)) < LEVEL:
        return "level"
    return "good" if skill.low > 0 else "bad" if skill.high < 0 else ""


def coloured(skill: Score) -> str:
    """The tone of a skill, for colour: "good", "bad", or ""."""
    return tone(skill).replace("level", "")
