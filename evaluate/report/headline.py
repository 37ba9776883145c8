"""Where a model stands, for the first screen and the tables: beside the climatology, and beside the ceiling.

Contract: every comparison with a ceiling is on the init times that it has and says so. ACC says what a forecast
knows, and there the ceiling is one; skill also asks it to keep still about what it does not know, which a single run
never does. Without a ceiling nothing here speaks of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from evaluate.reading.align import lead_title
from evaluate.report import sentences, style
from evaluate.report.ceiling import Ceiling, Stand
from evaluate.scoring.ceiling_share import CEILING
from pipeline.weather.variables import parse_channel

MOST_TILES = 4


def order(models: Sequence[str], *, model: str) -> list[str]:
    """Ours first, then other models, simple baselines, and the references of a simulated atmosphere last."""
    last = ["linear", "damped_persistence", "persistence", "coarse", CEILING]
    others = [m for m in models if m not in (model, "climatology", *last)]
    return [model, *others, *[m for m in last if m in models]]


def tiles(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, ceiling: Ceiling | None = None
) -> list[dict[str, Any]]:
    """What the forecast is worth, one tile a lead: against the climatology, and of what could be known.

    Args:
        frame: scores.csv, level as text.
        channels: short names, those that are drawn.
        leads: hours; at most MOST_TILES of them are shown, the first and the last among them.
        model: ours.
        ceiling: scores beside the ceiling's.
    """
    places = np.linspace(0, len(leads) - 1, min(len(leads), MOST_TILES)).round().astype(int)
    found = []
    for lead in [leads[i] for i in np.unique(places)]:
        scores = [
            sentences.lookup(sentences.select(frame, channel=c), model=model, lead=lead, metric="skill")
            for c in channels
        ]
        tone, text = _claim(scores)
        against = [
            sentences.lookup(sentences.select(frame, channel=c), model=model, lead=lead, metric="skill_persistence")[0]
            for c in channels
        ]
        lost = sum(value < 0 for value in against)
        beaten = f"; RMSE above persistence's in {lost} of {len(channels)}" if lost else ""
        tile: dict[str, Any] = {
            "lead": lead_title(lead), "text": text + beaten, "tone": tone, "known": "", "bar": None,
            "more": f"{parse_channel(channels[0]).title}: skill {style.score(scores[0][0])}",
        }  # fmt: skip
        if ceiling is not None:
            stands = [ceiling.stand(c, lead, "acc") for c in channels]
            best = f"the ceiling's {style.score(stands[0].ceiling)} on {ceiling.sample}"
            tile["more"] += f"; ACC {style.score(stands[0].model)} of {best}"
            tile["known"], known = _known(stands)
            low, high = (float(np.clip(f(known), 0, 1)) if known else 0.0 for f in (min, max))
            tile["bar"] = {"left": round(100 * low, 1), "width": round(100 * (high - low), 1), "empty": not known}
        found.append(tile)
    return found


def _known(stands: Sequence[Stand]) -> tuple[str, list[float]]:
    """What is known of what could be known, in words, and the shares that are beyond doubt."""
    sure = [s.share for s in stands if s.low > 0]
    known = sure or [s.share for s in stands if s.share > 0 and not np.isfinite(s.low)]
    if not known:
        return "Knows nothing for sure of what could be known", []
    if 0 < 2 * len(sure) < len(stands):  # one of several beyond doubt is what chance gives
        return f"Knows nothing for sure in {len(stands) - len(sure)} of {len(stands)} variables", []
    low, high = style.percent(min(known)), style.percent(max(known))
    span = low if low == high else f"{low.removesuffix('%')} to {high}"
    text = f"Knows {span} of what could be known"
    if not sure:
        return f"{text}, if init times are enough", known
    return text + (f" in {len(sure)} of {len(stands)} variables" if len(sure) < len(stands) else ""), known


def _claim(scores: Sequence[tuple[float, float, float]]) -> tuple[str, str]:
    """Tone and words for the skills of several variables at one lead."""
    total = len(scores)
    if not all(np.isfinite(low) for _, low, _ in scores):
        above = sum(value > 0 for value, _, _ in scores)
        text = f"Ahead of climatology in {above}" if above else f"Behind climatology in {total}"
        return "", f"{text} of {total} variables, from too few init times to be sure"
    tones = [sentences.tone(low, high) for _, low, high in scores]
    good, bad = tones.count("good"), tones.count("bad")
    if good:
        return "good", f"Better than climatology in {good} of {total} variables" + (f", worse in {bad}" if bad else "")
    if bad:
        return "bad", f"Worse than climatology in {bad} of {total} variables"
    return "", "No better than climatology beyond doubt"


def headline(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, baselines: Sequence[str],
    ceiling: Ceiling | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The headline table (`sentences.headline`); with a ceiling its rows and a column of shares too."""
    groups = sentences.headline(frame, channels=channels, leads=leads, model=model, baselines=baselines)
    if ceiling is None:
        return groups
    for channel, group in zip(channels, groups, strict=True):
        rows = sentences.select(ceiling.frame, channel=channel)
        present = rows["model"].unique().tolist()
        extended = []
        for lead, row in zip(leads, group["rows"], strict=True):
            row["cells"].append(_share(ceiling, channel, lead, model))
            extended.append(row)
            for name, title in (("coarse", "coarse core"), (CEILING, "ceiling")):
                if name in present:
                    again = sentences.headline(
                        ceiling.frame, channels=[channel], leads=[lead], model=name, baselines=[]
                    )
                    rmse, skill, acc, bias, activity = again[0]["rows"][0]["cells"]
                    blank = {"value": "", "interval": "", "tone": ""}
                    cells = [rmse, *[blank] * len(baselines), skill | {"tone": ""}, acc]
                    cells += [*[blank] * ("persistence" in baselines), bias, activity]
                    end = {**blank, "value": "100%"} if name == CEILING else _share(ceiling, channel, lead, name)
                    extended.append({"lead": title, "cells": [*cells, end], "reference": True})
        group["rows"] = extended
    return groups


def _share(ceiling: Ceiling, channel: str, lead: int, model: str) -> dict[str, Any]:
    """A cell with a share of the ceiling's ACC."""
    rows = sentences.select(ceiling.shares, channel=channel)
    value, low, high = sentences.lookup(rows, model=model, lead=lead, metric="acc")
    cell: dict[str, Any] = {"value": style.percent(value), "interval": "", "tone": ""}
    if np.isfinite(value):
        cell["bar"] = round(100 * float(np.clip(value, 0, 1)), 1)
        cell["interval"] = f"{style.percent(low)} … {style.percent(high)}" if np.isfinite(low) else ""
    return cell


def standing(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, metric: str,
    ceiling: Ceiling | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A score of every model by channel and lead.

    Args:
        frame: scores.csv, or those on common init times, level as text.
        channels: short names.
        leads: hours.
        model: ours.
        metric: "acc" or "skill".
        ceiling: scores beside the ceiling's; then the model's share of its ACC is the last column of the ACC table.

    Returns:
        Number of init times, column titles, and rows grouped by channel.
    """
    models = order([str(m) for m in frame["model"].unique()], model=model)
    shares = ceiling if metric == "acc" else None
    groups = []
    for channel in channels:
        rows = sentences.select(frame, channel=channel)
        lines = []
        for lead in leads:
            cells: list[dict[str, Any]] = [
                {"value": style.score(v), "interval": f"{style.score(a)} … {style.score(b)}" if np.isfinite(a) else "",
                 "tone": sentences.tone(a, b).replace("level", "") if metric == "skill" else ""}
                for v, a, b in (sentences.lookup(rows, model=m, lead=lead, metric=metric) for m in models)
            ]  # fmt: skip
            if shares is not None:
                cells.append(_share(shares, channel, lead, model))
            lines.append({"lead": lead_title(lead), "cells": cells})
        groups.append({"title": parse_channel(channel).title, "rows": lines})
    columns = [style.model_title(m) if m != model else "model" for m in models]
    return {
        "n_init": int(frame["n_init"].min()) if len(frame) else 0,
        "columns": columns + (["model, share of ceiling"] if shares is not None else []),
        "groups": groups,
    }


def note(facts: Mapping[str, Any]) -> str:
    """What the references are, and on how many init times they stand."""
    twins = facts.get("twins")
    parts = []
    if twins:
        parts.append(
            f"Ceiling and coarse core are costly: all models are compared here on the {twins['n_init']} of "
            f"{twins['of']} init times that these have, every {twins['init_spacing_hours'] / 24:g} days."
        )
    if twins or any(m in facts.get("models", {}) for m in (CEILING, "coarse")):
        parts.append(
            "Ceiling: the simulated atmosphere itself, restarted from states with an analysis error. Coarse core: the "
            "same equations at a lower truncation from the true states. Both are single runs, not damped towards the "
            "climatology: beyond the limit of predictability their skill is negative."
        )
    return " ".join(parts)
