"""How much of the gap between climatology and ceiling each model closes, with intervals.

Contract: model, climatology and ceiling on the same init times; the share is (model - climatology) / (ceiling -
climatology) of a score. In ACC the climatology is 0 and the share is the model's ACC over the ceiling's: how much of
what is predictable it predicts. The ceiling is a single run that does not damp what it can no longer predict, so its
RMSE and skill fall below the climatology's beyond the limit of predictability; there, and wherever it does not differ
significantly from the climatology, a share would be a number without a meaning and is left empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from evaluate.metrics import METRICS, ratio
from evaluate.scoring.tables import AXES, Sample, with_channel

CEILING = "ceiling"
LEAST_ACC = 0.2
"""Without intervals, a ceiling whose ACC is below it may predict nothing."""
COLUMNS = (
    *("model", "variable", "level", "lead", "region", "metric", "value", "ci_low", "ci_high"),
    *("climatology", "ceiling", "ceiling_low", "ceiling_high", "n_init"),
)
GAINS: dict[str, Callable[..., Any]] = {
    "acc": METRICS["acc"].finish,
    "skill": METRICS["skill"].finish,
    "rmse": lambda error, reference: np.sqrt(reference) - np.sqrt(error),
}
"""How far from the climatology, upwards is better, of the averages that ACC and skill are made of."""


def share_table(sample: Sample) -> pd.DataFrame:
    """Shares of every model beside the ceiling, one row for each model, channel, lead, region and score.

    Args:
        sample: common init times, with a model "ceiling".

    Returns:
        Columns COLUMNS: `value` is the share with its interval; `climatology` and `ceiling` are scores, the latter
        with the interval of its distance from the climatology.
    """
    labels = pd.MultiIndex.from_product([sample.coords[a] for a in AXES[1:]], names=AXES[1:]).to_frame(index=False)
    acc = sample.parts(METRICS["acc"], CEILING)[0].mean(axis=0)
    frames = []
    for metric, gain in GAINS.items():
        source = METRICS["acc" if metric == "acc" else "skill"]
        best = sample.parts(source, CEILING)
        top = sample.score(best, gain)
        reference = np.sqrt(best[1].mean(axis=0)) if metric == "rmse" else np.zeros_like(top["value"])
        known = (top["value"] > 0) & np.where(np.isfinite(top["low"]), top["low"] > 0, acc >= LEAST_ACC)

        def share(*parts: Any, gain: Any = gain, half: int = len(best)) -> Any:
            return ratio(gain(*parts[:half]), gain(*parts[half:]))

        shared = {
            "climatology": reference,
            "ceiling": reference + (-1.0 if metric == "rmse" else 1.0) * top["value"],
            "ceiling_low": top["low"],
            "ceiling_high": top["high"],
        }
        for model in sample.sums.models:
            if model not in (CEILING, "climatology"):
                score = sample.score([*sample.parts(source, model), *best], share)
                columns = {k: np.where(known, v, np.nan).ravel() for k, v in score.items()}
                columns |= {k: np.ravel(v) for k, v in shared.items()}
                frames.append(labels.assign(**columns, model=model, metric=metric, n_init=sample.num_init))
    frame = with_channel(pd.concat(frames, ignore_index=True))
    return frame.rename(columns={"low": "ci_low", "high": "ci_high"})[list(COLUMNS)]
