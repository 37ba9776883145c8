"""Tables and sentences of the report, made from the numbers and nothing else.

Contract: a sentence claims a difference only where the 95% interval of the score leaves zero; where there
is no interval it says so. Whatever is shown in colour is also written as a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, to_hex

from evaluate.reading.align import lead_title
from evaluate.report import style
from evaluate.scoring.regions import TITLES
from pipeline.weather.variables import parse_channel

FORMULAS = (
    ("Weights", "w: exact area of a grid cell, normalised to mean 1."),
    ("RMSE", "square root of the mean of w (f − o)² over all init times and cells; the root is taken last."),
    ("Bias", "mean of w (f − o), forecast minus truth."),
    ("ACC", "mean over init times of Σ w f′o′ / √(Σ w f′² · Σ w o′²), f′ = f − c, o′ = o − c; maps: sums over time."),
    ("Skill", "1 − MSE / MSE of climatology, on the same init times."),
)  # fmt: skip


def select(frame: pd.DataFrame, *, channel: str, region: str = "globe") -> pd.DataFrame:
    """Rows of one channel and region of scores.csv (read with level as text)."""
    parsed = parse_channel(channel)
    level = "" if parsed.level is None else str(parsed.level)
    return frame[(frame["variable"] == parsed.variable) & (frame["level"] == level) & (frame["region"] == region)]


def lookup(rows: pd.DataFrame, *, model: str, lead: int, metric: str) -> tuple[float, float, float]:
    """(value, low, high) of one score; NaN when it is not there."""
    found = rows[(rows["model"] == model) & (rows["lead"] == lead) & (rows["metric"] == metric)]
    if found.empty:
        return (np.nan, np.nan, np.nan)
    first = found.iloc[0]
    return float(first["value"]), float(first["ci_low"]), float(first["ci_high"])


LEVEL = 0.005
"""Skill so near zero that no one need care, however certain it is."""


def tone(low: float, high: float) -> str:
    """The class of an interval of skill: good above zero, bad below, level when all of it is next to zero."""
    if max(abs(low), abs(high)) < LEVEL:
        return "level"
    return "good" if low > 0 else "bad" if high < 0 else ""


def headline(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, baselines: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of the headline table, grouped by channel."""
    groups = []
    for channel in channels:
        rows = select(frame, channel=channel)
        lines = []
        for lead in leads:
            cells = [_cell(lookup(rows, model=model, lead=lead, metric="rmse"), style.number)]
            cells += [
                _cell(lookup(rows, model=b, lead=lead, metric="rmse"), style.number, interval=False) for b in baselines
            ]
            skill = lookup(rows, model=model, lead=lead, metric="skill")
            cells.append({**_cell(skill, style.score), "tone": tone(*skill[1:]).replace("level", "")})
            cells.append(_cell(lookup(rows, model=model, lead=lead, metric="acc"), style.score))
            if "persistence" in baselines:
                cells.append(
                    _cell(lookup(rows, model="persistence", lead=lead, metric="acc"), style.score, interval=False)
                )
            cells.append(_cell(lookup(rows, model=model, lead=lead, metric="bias"), style.number))
            cells.append(_cell(lookup(rows, model=model, lead=lead, metric="activity"), style.score, interval=False))
            lines.append({"lead": lead_title(lead), "cells": cells})
        parsed = parse_channel(channel)
        groups.append({"title": parsed.title, "unit": style.pretty_unit(parsed.spec.unit), "rows": lines})
    return groups


def _cell(score: tuple[float, float, float], write: Any, *, interval: bool = True) -> dict[str, str]:
    value, low, high = score
    shown = f"{write(low)} … {write(high)}" if interval and np.isfinite(low) else ""
    return {"value": write(value), "interval": shown, "tone": ""}


def findings(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, baselines: Sequence[str]
) -> list[dict[str, str]]:
    """One sentence a channel against climatology and persistence, and one over all channels at each lead."""
    sentences = []
    for channel in channels:
        rows = select(frame, channel=channel)
        parts: dict[str, list[str]] = {"good": [], "level": [], "": [], "bad": [], "unknown": []}
        for lead in leads:
            value, low, high = lookup(rows, model=model, lead=lead, metric="skill")
            if not np.isfinite(low):
                parts["unknown"].append(f"{style.score(value)} at {lead_title(lead)}")
                continue
            parts[tone(low, high)].append(
                f"{lead_title(lead)} (skill {style.score(value)} [{style.score(low)}, {style.score(high)}])"
            )
        claims = []
        if parts["good"]:
            claims.append(f"beats climatology at {join(parts['good'])}")
        if parts["level"]:
            claims.append(f"is level with climatology at {join(parts['level'])}")
        if parts[""]:
            claims.append(f"cannot be told from climatology at {join(parts[''])}")
        if parts["bad"]:
            claims.append(f"is worse than climatology at {join(parts['bad'])}")
        if parts["unknown"]:
            claims.append(
                f"has skill against climatology {join(parts['unknown'])} (too few init times for an interval)"
            )
        text = f"{parse_channel(channel).title}: {'; '.join(claims)}."
        if "persistence" in baselines:
            text += f" {_against_persistence(rows, model=model, leads=leads)}"
        sentences.append({"text": text, "tone": "good" if parts["good"] else "bad" if parts["bad"] else ""})
    return sentences + _over_all(frame, model=model, leads=leads)


def _against_persistence(rows: pd.DataFrame, *, model: str, leads: Sequence[int]) -> str:
    scores = [lookup(rows, model=model, lead=lead, metric="skill_persistence") for lead in leads]
    better = [lead_title(h) for h, (value, _, _) in zip(leads, scores) if value > 0]
    sure = [lead_title(h) for h, (_, low, _) in zip(leads, scores) if low > 0]
    if len(sure) == len(leads):
        return "Its RMSE is below persistence's at every lead."
    if not better:
        return "Its RMSE is not below persistence's at any lead."
    doubt = "" if better == sure else " (not all beyond doubt)"
    worse = [lead_title(h) for h in leads if lead_title(h) not in better]
    rest = f", above it at {join(worse)}" if worse else ""
    return f"Its RMSE is below persistence's at {join(better)}{doubt}{rest}."


def _over_all(frame: pd.DataFrame, *, model: str, leads: Sequence[int]) -> list[dict[str, str]]:
    rows = frame[(frame["model"] == model) & (frame["metric"] == "skill") & (frame["region"] == "globe")]
    counts = []
    total = 0
    for lead in leads:
        at = rows[rows["lead"] == lead]
        total = len(at)
        if not np.isfinite(at["ci_low"]).all():
            return []
        tones = [tone(low, high) for low, high in zip(at["ci_low"], at["ci_high"])]
        better, worse = tones.count("good"), tones.count("bad")
        counts.append(f"{better} better, {total - better - worse} alike, {worse} worse at {lead_title(lead)}")
    if total < 5:
        return []
    return [
        {"text": f"Of all {total} channels against climatology: {join(counts, last='; ', comma='; ')}.", "tone": ""}
    ]


def join(words: Sequence[str], *, last: str = " and ", comma: str = ", ") -> str:
    """Words in a row: "a, b and c"."""
    return words[0] if len(words) == 1 else comma.join(words[:-1]) + last + words[-1]


def heat_scale(frame: pd.DataFrame, *, model: str) -> float:
    """End of the symmetric colour scale of the scorecard: 0.1 to 1."""
    skill = frame[(frame["model"] == model) & (frame["metric"] == "skill")]["value"].abs().to_numpy()
    return float(np.clip(style.nice_ceiling(float(np.nanquantile(skill, 0.98))), 0.1, 1.0))


def scorecard(
    frame: pd.DataFrame, *, leads: Sequence[int], model: str, size: float, shares: pd.DataFrame | None = None
) -> list[dict[str, Any]]:
    """One heat table a variable: levels by leads; variables without levels share one.

    Args:
        frame: scores.csv, level as text.
        leads: hours.
        model: ours.
        size: end of the colour scale.
        shares: shares.csv, level as text; then the shares of the ceiling's ACC stand beside the skill.
    """
    rows = frame[(frame["model"] == model) & (frame["metric"] == "skill") & (frame["region"] == "globe")]
    tables: dict[str, dict[str, Any]] = {}
    for (variable, level), group in rows.groupby(["variable", "level"], sort=False):
        spec = parse_channel(f"{variable}{level}").spec
        title, name = (spec.label, f"{level}") if level else ("Near the surface", str(variable))
        table = tables.setdefault(
            title,
            {"title": title, "corner": "hPa" if level else "", "rows": [], **_columns(leads, shares)},
        )
        cells = [_heat_cell(lookup(group, model=model, lead=h, metric="skill"), size) for h in leads]
        if shares is not None:
            cells += _share_cells(select(shares, channel=f"{variable}{level}"), leads=leads, model=model)
        table["rows"].append({"name": name, "cells": cells})
    return list(tables.values())


def region_tables(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, size: float,
    shares: pd.DataFrame | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """One heat table a channel: regions by leads. As `scorecard`."""
    names = [str(r) for r in frame["region"].unique()]
    tables = []
    for channel in channels:
        rows = []
        for region in names:
            found = select(frame, channel=channel, region=region)
            cells = [_heat_cell(lookup(found, model=model, lead=h, metric="skill"), size) for h in leads]
            if shares is not None:
                cells += _share_cells(select(shares, channel=channel, region=region), leads=leads, model=model)
            rows.append({"name": TITLES[region], "cells": cells})
        title = parse_channel(channel).title
        tables.append({"title": title, "corner": "", "rows": rows, **_columns(leads, shares)})
    return tables


def _columns(leads: Sequence[int], shares: pd.DataFrame | None) -> dict[str, Any]:
    """Titles of the columns of a heat table, and of the groups of them where there are two."""
    names = [_short(h) for h in leads]
    if shares is None:
        return {"columns": names, "groups": []}
    return {"columns": names * 2, "groups": [("skill", len(names)), ("of the ceiling", len(names))]}


def _share_cells(rows: pd.DataFrame, *, leads: Sequence[int], model: str) -> list[dict[str, Any]]:
    """The model's share of the ceiling's ACC at every lead; a dash where the ceiling knows nothing for sure."""
    cells = []
    for lead in leads:
        value, low, high = lookup(rows, model=model, lead=lead, metric="acc")
        if not np.isfinite(value):
            cells.append({"text": "–", "background": "", "ink": "", "sure": False,
                          "hint": "the ceiling knows nothing for sure here"})  # fmt: skip
            continue
        interval = f" [{100 * low:.0f}%, {100 * high:.0f}%]" if np.isfinite(low) else ""
        cell = {
            "text": style.percent(value),
            "sure": bool(low > 0 or high < 0),
            "hint": f"{100 * value:.1f}%{interval}",
        }
        cells.append(cell | _painted(style.CORRELATION(float(np.clip(value, 0.0, 1.0)))))
    return cells


def _short(lead: int) -> str:
    return lead_title(lead).replace(" days", " d").replace(" day", " d")


def _heat_cell(score: tuple[float, float, float], size: float) -> dict[str, Any]:
    value, low, high = score
    place = 0.5 + 0.5 * float(np.clip(value / size, -1, 1)) if np.isfinite(value) else 0.5
    known = np.isfinite(low)
    return {
        **_painted(style.SKILL(place)),
        "text": style.score(value),
        "sure": bool(known and tone(low, high) in ("good", "bad")),
        "hint": f"{value:.4f} [{low:.4f}, {high:.4f}]" if known else f"{value:.4f}",
    }


def _painted(colour: Any) -> dict[str, str]:
    """A background and an ink that can be read on it."""
    light = float(np.dot(np.asarray(colour[:3]) ** 2.2, [0.2126, 0.7152, 0.0722]))
    return {"background": to_hex(colour), "ink": "#10151c" if light > 0.19 else "#ffffff"}


def gradient(colours: Colormap = style.SKILL) -> str:
    """Colours of the scorecard as a CSS gradient."""
    stops = ",".join(to_hex(colours(x)) for x in np.linspace(0, 1, 11))
    return f"linear-gradient(90deg,{stops})"
