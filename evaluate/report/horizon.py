"""How far ahead forecasts are useful: the lead at which their anomaly correlation falls below 0.6.

Contract: up to an ACC of 0.6 there is, by experience, skill for the largest weather patterns (ECMWF, User guide to
forecast products). Between two leads the ACC is taken to fall along a straight line; before the first and after the
last nothing is assumed. Models on fewer init times are compared with ours on those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluate import text
from evaluate.report import style
from evaluate.report.headline import order
from evaluate.report.results import Results
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import uncalibrated_name
from evaluate.scoring.score_table import ScoreTable
from pipeline.weather.variables import parse_channel
from pipeline.words import counted

LIMIT = 0.6
LEFT_OUT = ("climatology", "damped_persistence")
"""Neither drawn nor listed on the first screen: the ACC of the one is undefined, that of the other persistence's."""


@dataclass(frozen=True)
class Reach:
    """How far ahead a forecast is useful.

    Args:
        hours: at which its ACC falls below LIMIT; NaN where it has none.
        words: the same for people: "5.5 days", "under 7 days", "30 days or more".
    """

    hours: float
    words: str


def reach(leads: Sequence[int], acc: Sequence[float]) -> Reach:
    """How far ahead a forecast is useful.

    Args:
        leads: hours, increasing.
        acc: at each lead.
    """
    known = [(h, a) for h, a in zip(leads, acc, strict=True) if math.isfinite(a)]
    if not known:
        return Reach(math.nan, "–")
    below = next((i for i, (_, a) in enumerate(known) if a < LIMIT), None)
    if below is None:
        return Reach(float(known[-1][0]), f"{text.lead_title(known[-1][0])} or more")
    if below == 0:
        return Reach(float(known[0][0]), f"under {text.lead_title(known[0][0])}")
    (first, high), (last, low) = known[below - 1], known[below]
    hours = first + (last - first) * (high - LIMIT) / (high - low)
    return Reach(hours, _days(hours))


def _days(hours: float) -> str:
    if hours < 24:
        return f"{hours:.0f} h"
    days = hours / 24
    return f"{days:.0f} days" if days >= 9.95 else f"{days:.1f} days"


@dataclass(frozen=True)
class ReachRow:
    """One model: how far ahead in each variable, and a bar for the first of them in percent of the longest."""

    title: str
    ours: bool
    bar: float
    cells: list[str]


@dataclass(frozen=True)
class Horizon:
    """What the first screen says.

    Args:
        ours: how far ahead the model's forecasts of the first variable are useful.
        sentence: the same, against what, in words.
        columns: the variables.
        groups: rows of models on the same init times, by what these are.
    """

    ours: str
    sentence: str
    columns: list[str]
    groups: dict[str, list[ReachRow]]


def horizon(results: Results) -> Horizon:
    """How far ahead the model's forecasts are useful, beside those of all others."""
    beside, count = results.ceiling, int(results.table.frame["n_init"].max())
    groups = {counted(count, "init time"): results.table}
    if beside is not None and beside.n_init != beside.of:
        groups[beside.sample] = beside.table
    found = {sample: _reaches(results, table) for sample, table in groups.items()}
    if len(found) > 1:  # what the table of fewer init times adds
        plain, few = found.values()
        for name in [m for m in few if m in plain and m != results.model]:
            del few[name]
        for name in [m for m in plain if m in few and m != results.model]:
            del plain[name]
    longest = max([r[0].hours for rows in found.values() for r in rows.values() if r[0].hours > 0], default=1.0)
    rows = {sample: _rows(results, of, longest=longest) for sample, of in found.items()}
    first = next(iter(found.values()))
    columns = [parse_channel(c).name for c in results.channels]
    return Horizon(first[results.model][0].words, _sentence(results, first), columns, rows)


def _reaches(results: Results, table: ScoreTable) -> dict[str, list[Reach]]:
    """By model, how far ahead each variable; models that were scored on these init times."""
    fewest = table.frame.groupby("model")["n_init"].first()
    ours = fewest.get(results.model)
    found = {}
    for model in order(table.models, model=results.model):
        if model not in (*LEFT_OUT, uncalibrated_name(results.model)) and fewest.get(model) == ours:
            scores = [[table.score(model, c, h, "acc").value for h in results.leads] for c in results.channels]
            found[model] = [reach(results.leads, acc) for acc in scores]
    return found


def _rows(results: Results, found: dict[str, list[Reach]], *, longest: float) -> list[ReachRow]:
    looks = style.looks(list(found))
    rows = []
    for model, reaches in found.items():
        ours, hours = model == results.model, np.nan_to_num(reaches[0].hours)
        title = "model" if ours else looks[model].title
        rows.append(
            ReachRow(title, ours, round(100 * float(hours) / longest, 1), [text.short(r.words) for r in reaches])
        )
    return rows


def _sentence(results: Results, found: dict[str, list[Reach]]) -> str:
    """Our reach, what it is compared with, and up to where the forecast is better than the climatology."""
    title = parse_channel(results.channels[0]).title
    looks = style.looks(list(found))
    others = [f"{looks[m].title} {r[0].words}" for m, r in found.items() if m not in (results.model, CEILING)]
    said = f"{title}: anomaly correlation (ACC) of at least {LIMIT:g}, the usual threshold of usefulness"
    said += f" ({text.join(others)})" if others else ""
    skills = [results.score(results.channels[0], h, "skill") for h in results.leads]
    better = [h for h, s in zip(results.leads, skills, strict=True) if (s.low if s.has_interval else s.value) > 0]
    if not better:
        return f"{said}. Not better than climatology at any lead."
    return f"{said}. Better than climatology up to {text.lead_title(better[-1])}."
