"""The first screen and the tables of numbers: the model beside the climatology, and beside the ceiling.

Contract: every comparison with a ceiling is on the init times that it has and says so. ACC measures what a forecast
predicts, and the ceiling is one in it; skill also asks a forecast to be cautious about what it cannot predict, which a
single run never is. Without a ceiling nothing here mentions one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evaluate import text
from evaluate.report import style
from evaluate.report.leads import few
from evaluate.report.results import Cell, Group, Results, Row, cell, coloured, share_cell, tone
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import UNCALIBRATED, ScoreFacts, uncalibrated_name
from evaluate.scoring.score_table import Score, ScoreTable
from pipeline.weather.variables import parse_channel

REFERENCES = {"coarse": "coarse core", CEILING: "ceiling"}
"""Rows of the headline table below the model's, where there is a ceiling."""


@dataclass(frozen=True)
class Tile:
    """What the forecast is worth at one lead: a claim, and the numbers of the first variable behind it.

    With a ceiling: how much of its ACC is reached, and the lowest and highest share of all variables in percent.
    """

    lead: str
    tone: str
    text: str
    detail: str
    share: str = ""
    bar: tuple[float, float] | None = None


def tiles(results: Results) -> list[Tile]:
    """One tile for each of a few leads."""
    return [_tile(results, lead) for lead in few(results.leads)]


def _tile(results: Results, lead: int) -> Tile:
    channels, title = results.channels, text.lead_title(lead)
    skills = [results.score(c, lead, "skill") for c in channels]
    worse = sum(results.score(c, lead, "skill_persistence").value < 0 for c in channels)
    persistence = f"; RMSE above persistence's{_among(worse, len(channels), noun=False)}" if worse else ""
    claim = _claim(skills) + persistence
    known = [coloured(skill) for skill in skills if skill.has_interval]
    colour = "" if len(known) < len(skills) else "good" if "good" in known else "bad" if "bad" in known else ""
    detail = f"{parse_channel(channels[0]).title}: skill {text.score(skills[0].value)}"
    if results.ceiling is None:
        return Tile(title, colour, claim, detail)
    comparisons = [results.ceiling.compare(c, lead, "acc") for c in channels]
    ours, best = (text.score(v) for v in (comparisons[0].model, comparisons[0].ceiling))
    share, shares = reached([c.share for c in comparisons])
    ends = [round(100 * float(np.clip(f(shares), 0, 1)), 1) for f in (min, max)] if shares else None
    detail = f"{detail}; ACC {ours} (ceiling {best}) on {results.ceiling.sample}"
    return Tile(title, colour, claim, detail, share, None if ends is None else (ends[0], ends[1]))


def reached(shares: Sequence[Score]) -> tuple[str, list[float]]:
    """How much of the ceiling's ACC is reached in several variables, in words, and the shares that are significant."""
    significant = [s.value for s in shares if s.low > 0]
    values = significant or [s.value for s in shares if s.value > 0 and not s.has_interval]
    none = "No significant share of the ceiling's ACC"
    if not values:
        return none, []
    if 0 < 2 * len(significant) < len(shares):  # one significant share of several is what chance gives
        return none + _among(len(shares) - len(significant), len(shares)), []
    low, high = text.percent(min(values)), text.percent(max(values))
    claim = f"Reaches {low if low == high else f'{low} to {high}'} of the ceiling's ACC"
    if not significant:
        return f"{claim} (too few init times for intervals)", values
    return claim + (_among(len(significant), len(shares)) if len(significant) < len(shares) else ""), values


def _among(some: int, total: int, *, noun: bool = True) -> str:
    """In how many of several variables; nothing where there is only one."""
    return f" in {some} of {total}{' variables' * noun}" if total > 1 else ""


def _claim(skills: Sequence[Score]) -> str:
    """The skills of several variables at one lead, in words."""
    total = len(skills)
    if not all(skill.has_interval for skill in skills):
        better = sum(skill.value > 0 for skill in skills)
        claim = f"{'Better' if better else 'Worse'} than climatology{_among(better or total, total)}"
        return f"{claim}, with too few init times for intervals"
    tones = [tone(skill) for skill in skills]
    good, bad = tones.count("good"), tones.count("bad")
    if good:
        return f"Better than climatology{_among(good, total)}" + (f", worse in {bad}" if bad else "")
    return f"Worse than climatology{_among(bad, total)}" if bad else "Not significantly better than climatology"


def headline(results: Results) -> list[Group]:
    """The headline table; with a ceiling, rows of the references and a column of shares too."""
    groups, raw = [], uncalibrated_name(results.model)
    for channel in results.channels:
        rows = []
        for lead in results.leads:
            ours = _headline_cells(results, results.table, results.model, channel, lead)
            rows.append(Row(text.lead_title(lead), ours + _shares(results, channel, lead)))
            if raw in results.table.models:
                cells = _headline_cells(results, results.table, raw, channel, lead)
                rows.append(Row(UNCALIBRATED, cells + _shares(results, channel, lead, model=raw), reference=True))
            for name, title in REFERENCES.items() if results.ceiling else ():
                if results.ceiling is not None and name in results.ceiling.table.models:
                    cells = _headline_cells(results, results.ceiling.table, name, channel, lead)
                    rows.append(Row(title, cells + _shares(results, channel, lead, model=name), reference=True))
        parsed = parse_channel(channel)
        groups.append(Group(parsed.title, rows, text.pretty_unit(parsed.spec.unit)))
    return groups


def _headline_cells(results: Results, table: ScoreTable, model: str, channel: str, lead: int) -> list[Cell]:
    ours = model == results.model

    def score(metric: str, name: str = model) -> Score:
        return table.score(name, channel, lead, metric)

    baselines = [cell(score("rmse", b), text.number, interval=False) if ours else Cell() for b in results.baselines]
    persistence = [cell(score("acc", "persistence"), text.score, interval=False) if ours else Cell()]
    return [
        cell(score("rmse"), text.number),
        *baselines,
        cell(score("skill"), text.score, tone=coloured(score("skill")) if ours else ""),
        cell(score("acc"), text.score),
        *(persistence if "persistence" in results.baselines else []),
        cell(score("bias"), text.number),
        cell(score("activity"), text.score, interval=False),
    ]


def _shares(results: Results, channel: str, lead: int, *, model: str = "") -> list[Cell]:
    """A cell with a model's share of the ceiling's ACC (ours where none is named), where there is a ceiling."""
    if results.ceiling is None:
        return []
    return [Cell("100%") if model == CEILING else share_cell(results.ceiling.share(channel, lead, "acc", model=model))]


@dataclass(frozen=True)
class ModelTable:
    """One score of every model."""

    n_init: int
    columns: list[str]
    groups: list[Group]


def model_table(results: Results, table: ScoreTable, metric: Literal["acc", "skill"]) -> ModelTable:
    """A score of every model by channel and lead.

    Args:
        results: of the model; with a ceiling, its share of the ceiling's ACC is the last column of the ACC table.
        table: scores.csv, or the scores on common init times.
        metric: which score.
    """
    models, shares = order(table.models, model=results.model), results.ceiling is not None and metric == "acc"
    groups = []
    for channel in results.channels:
        rows = []
        for lead in results.leads:
            scores = [table.score(m, channel, lead, metric) for m in models]
            cells = [cell(s, text.score, tone=coloured(s) if metric == "skill" else "") for s in scores]
            rows.append(Row(text.lead_title(lead), cells + (_shares(results, channel, lead) if shares else [])))
        groups.append(Group(parse_channel(channel).title, rows))
    looks = style.looks(models)
    columns = [looks[m].title if m != results.model else "model" for m in models]
    n_init = int(table.frame["n_init"].min()) if len(table.frame) else 0
    return ModelTable(n_init, columns + ["model, share of ceiling"] * shares, groups)


def order(models: Sequence[str], *, model: str) -> list[str]:
    """Ours first, then other models, simple baselines, and the references of a simulated atmosphere last."""
    last = ["linear", "damped_persistence", "persistence", "coarse", CEILING]
    others = [m for m in models if m not in (model, "climatology", *last)]
    return [model, *others, *[m for m in last if m in models]]


def note(facts: ScoreFacts) -> str:
    """What the references are, and on how many init times they were scored."""
    twins, parts = facts.twins, []
    if twins:
        parts.append(
            "Ceiling and coarse core are expensive to run, so all models are compared here on the "
            f"{text.sample(twins.n_init, of=twins.of, spacing_hours=twins.init_spacing_hours, having='they have')}."
        )
    if twins or {CEILING, "coarse"} & set(facts.models):
        parts.append(
            "Ceiling: the simulated atmosphere itself, restarted from states with an analysis error. Coarse core: the "
            "same equations at a lower truncation, started from the true states. Both are single runs, not damped "
            "towards climatology, so their skill is negative beyond the limit of predictability."
        )
    return " ".join(parts)
