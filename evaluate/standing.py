"""Where a model stands: between the climatology and the best that could be known, among everything scored.

Contract: one table, all models on the same init times: those of scores_common.csv where references were made
for some of them only, else those of scores.csv. The ceiling is what the simulated atmosphere itself reaches
from states with an analysis error. Anomaly correlation says what a forecast knows, and there the ceiling is
one; skill also asks it to keep still about what it does not know, which a single run never does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from evaluate import style, words
from evaluate.align import lead_title
from pipeline.variables import parse_channel


def read_common(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of all models on common init times.

    Args:
        folder: of the scores.
        frame: scores.csv, level as text.
    """
    path = folder / "scores_common.csv"
    if not path.exists():
        return frame
    common = pd.read_csv(path, dtype={"level": str, "unit": str})
    return common.assign(level=common["level"].fillna(""))


def order(models: Sequence[str], *, model: str) -> list[str]:
    """Ours first, then other models, simple baselines, and the references of a simulated atmosphere last."""
    last = ["linear", "damped_persistence", "persistence", "coarse", "ceiling"]
    others = [m for m in models if m not in (model, "climatology", *last)]
    return [model, *others, *[m for m in last if m in models]]


def standing(
    frame: pd.DataFrame, *, channels: Sequence[str], leads: Sequence[int], model: str, metric: str
) -> dict[str, Any]:
    """The table: a score of every model by channel and lead.

    Args:
        frame: from `read_common`.
        channels: short names.
        leads: hours.
        model: ours.
        metric: "acc" or "skill".

    Returns:
        Number of init times, column titles, and rows grouped by channel; for the ACC, the share of the ceiling's that
        the model reaches is the last column where there is a ceiling.
    """
    models = order([str(m) for m in frame["model"].unique()], model=model)
    ceiling = "ceiling" in models and metric == "acc"
    groups = []
    for channel in channels:
        rows = words.select(frame, channel=channel)
        lines = []
        for lead in leads:
            found = [words.lookup(rows, model=m, lead=lead, metric=metric) for m in models]
            cells = [
                {"value": style.score(v), "interval": f"{style.score(a)} … {style.score(b)}" if np.isfinite(a) else "",
                 "tone": words.tone(a, b).replace("level", "") if metric == "skill" else ""}
                for v, a, b in found
            ]  # fmt: skip
            if ceiling:
                top = found[models.index("ceiling")][0]
                share = found[0][0] / top if top > 0 else np.nan
                cells.append(
                    {
                        "value": f"{100 * max(share, 0.0):.0f}%" if np.isfinite(share) else "–",
                        "interval": "",
                        "tone": "",
                    }
                )
            lines.append({"lead": lead_title(lead), "cells": cells})
        groups.append({"title": parse_channel(channel).title, "rows": lines})
    columns = [style.model_title(m) if m != model else "model" for m in models]
    return {
        "n_init": int(frame["n_init"].min()) if len(frame) else 0,
        "columns": columns + (["model, share of ceiling"] if ceiling else []),
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
    if twins or any(m in facts.get("models", {}) for m in ("ceiling", "coarse")):
        parts.append(
            "Ceiling: the simulated atmosphere itself, restarted from states with an analysis error. Coarse core: the "
            "same equations at a lower truncation from the true states. Both are single runs, not damped towards the "
            "climatology: beyond the limit of predictability their skill is negative."
        )
    return " ".join(parts)
