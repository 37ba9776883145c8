"""Tables whose cells are coloured by skill: all variables, levels and leads, and the regions.

Contract: whatever is shown in colour is also written as a number; bold is what the 95% interval supports.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.colors import Colormap, to_hex

from evaluate import text
from evaluate.report import style
from evaluate.report.results import Results, tone
from evaluate.scoring.regions import TITLES
from evaluate.scoring.score_table import Score
from pipeline.weather.variables import Channel, parse_channel


@dataclass(frozen=True)
class HeatCell:
    """A coloured number; the hint has it in full with its interval, bold is one whose interval excludes zero."""

    text: str
    hint: str
    bold: bool = False
    background: str = ""
    ink: str = ""


@dataclass(frozen=True)
class HeatTable:
    """A table of named rows of coloured cells; groups of columns are (title, number of columns)."""

    title: str
    columns: list[str]
    groups: list[tuple[str, int]]
    corner: str = ""
    rows: dict[str, list[HeatCell]] = field(default_factory=dict)


def heat_scale(results: Results) -> float:
    """End of the symmetric colour scale of skill: 0.1 to 1."""
    frame = results.table.frame
    skill = frame[(frame["model"] == results.model) & (frame["metric"] == "skill")]["value"].abs().to_numpy()
    return float(np.clip(style.nice_ceiling(float(np.nanquantile(skill, 0.98))), 0.1, 1.0))


def scorecard(results: Results) -> list[HeatTable]:
    """One table per variable, levels by leads; variables without levels share one."""
    frame = results.table.frame
    rows = frame[(frame["model"] == results.model) & (frame["metric"] == "skill") & (frame["region"] == "globe")]
    tables: dict[str, HeatTable] = {}
    for variable, level in rows[["variable", "level"]].drop_duplicates().itertuples(index=False):
        channel = Channel(str(variable), int(level) if level else None)
        title, name = (channel.spec.label, str(level)) if level else ("Near the surface", channel.name)
        table = tables.setdefault(title, _table(results, title, corner="hPa" if level else ""))
        table.rows[name] = _cells(results, channel.name)
    return list(tables.values())


def region_tables(results: Results) -> list[HeatTable]:
    """One table per drawn channel: regions by leads."""
    tables = []
    for channel in results.channels:
        table = _table(results, parse_channel(channel).title)
        for region in map(str, results.table.frame["region"].unique()):
            table.rows[TITLES[region]] = _cells(results, channel, region=region)
        tables.append(table)
    return tables


def gradient(colours: Colormap = style.SKILL) -> str:
    """A colour map as a CSS gradient."""
    stops = ",".join(to_hex(colours(x)) for x in np.linspace(0, 1, 11))
    return f"linear-gradient(90deg,{stops})"


def _table(results: Results, title: str, *, corner: str = "") -> HeatTable:
    """An empty table: skill at every lead, and beside it the share of the ceiling's ACC where there is a ceiling."""
    names = text.lead_columns(results.leads)
    if results.ceiling is None:
        return HeatTable(title, names, [], corner)
    return HeatTable(title, names * 2, [("skill", len(names)), ("share of ceiling", len(names))], corner)


def _cells(results: Results, channel: str, *, region: str = "globe") -> list[HeatCell]:
    end = heat_scale(results)
    cells = [_skill_cell(results.score(channel, h, "skill", region=region), end) for h in results.leads]
    if results.ceiling is not None:
        shares = [results.ceiling.share(channel, h, "acc", region=region) for h in results.leads]
        cells += [_share_cell(share) for share in shares]
    return cells


def _skill_cell(skill: Score, end: float) -> HeatCell:
    place = 0.5 + 0.5 * float(np.clip(skill.value / end, -1, 1)) if np.isfinite(skill.value) else 0.5
    interval = f" [{skill.low:.4f}, {skill.high:.4f}]" if skill.has_interval else ""
    bold = tone(skill) in ("good", "bad")
    return HeatCell(text.score(skill.value), f"{skill.value:.4f}{interval}", bold, *painted(style.SKILL(place)))


def _share_cell(share: Score) -> HeatCell:
    """A share of the ceiling's ACC; a dash where the ceiling has no significant one."""
    if not np.isfinite(share.value):
        return HeatCell("–", "the ceiling has no significant ACC here")
    interval = f" [{100 * share.low:.0f}%, {100 * share.high:.0f}%]" if share.has_interval else ""
    colours = painted(style.CORRELATION(float(np.clip(share.value, 0.0, 1.0))))
    hint = f"{100 * share.value:.1f}%{interval}"
    return HeatCell(text.percent(share.value), hint, share.low > 0 or share.high < 0, *colours)


def painted(colour: Any) -> tuple[str, str]:
    """A background, and an ink that can be read on it."""
    light = float(np.dot(np.asarray(colour[:3]) ** 2.2, [0.2126, 0.7152, 0.0722]))
    return to_hex(colour), "#10151c" if light > 0.19 else "#ffffff"
