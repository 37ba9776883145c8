"""How much of the way from the climatology to the ceiling each model has gone, with intervals.

Contract: model, climatology and ceiling on the same init times; the share is (model - climatology) / (ceiling -
climatology) of a score. In ACC the climatology is 0 and the share is the model's ACC over the ceiling's: what it
knows of what could be known. The ceiling is a single run that does not damp what it no longer knows, so its RMSE and
skill fall below the climatology's beyond the limit of predictability; there, and wherever it cannot be told from
the climatology, a share would be a number without a meaning and is left empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from evaluate.metrics import METRICS
from evaluate.scoring import bootstrap, tables
from evaluate.scoring.kernel import Sums
from pipeline.weather.variables import parse_channel

CEILING = "ceiling"
LEAST_ACC = 0.2
"""Without intervals, a ceiling whose ACC is below it may know nothing."""
COLUMNS = (
    "model", "variable", "level", "lead", "region", "metric", "value", "ci_low", "ci_high", "climatology", "ceiling",
    "ceiling_low", "ceiling_high", "n_init",
)  # fmt: skip


def _gain_rmse(error: Any, reference: Any) -> Any:
    return np.sqrt(reference) - np.sqrt(error)


GAINS: dict[str, Callable[..., Any]] = {
    "acc": METRICS["acc"].finish, "skill": METRICS["skill"].finish, "rmse": _gain_rmse,
}  # fmt: skip
"""How far from the climatology, upwards is better, of the averages that ACC and skill are made of."""


def share_table(sums: Sums, *, block: int, resamples: int = bootstrap.NUM_RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Shares of every model beside the ceiling, one row a model, channel, lead, region and score.

    Args:
        sums: of common init times, with a model "ceiling".
        block: of the bootstrap, in init times.
        resamples: number of draws.
        seed: of the draws, the same as the scores'.

    Returns:
        Columns COLUMNS: `value` is the share with its interval; `climatology` and `ceiling` are scores, the latter
        with the interval of its distance from the climatology.
    """
    names = [str(m) for m in sums.regional.sums["model"].values]
    means = tables.init_means(sums)
    num = means["error"].shape[0]
    weights = bootstrap.resample_weights(num, block=min(block, num), resamples=resamples, seed=seed)
    keys = pd.MultiIndex.from_product(
        [sums.regional.sums[a].values for a in tables.AXES[1:]], names=tables.AXES[1:]
    ).to_frame(index=False)  # fmt: skip
    acc = METRICS["acc"].combine(_only(means, names.index(CEILING)))[0].mean(axis=0)
    frames = []
    for metric, gain in GAINS.items():
        combine = METRICS["acc" if metric == "acc" else "skill"].combine
        parts = [combine(_only(means, m)) for m in range(len(names))]
        best = parts[names.index(CEILING)]
        half = len(best)
        top = gain(*[p.mean(axis=0) for p in best])
        low, high = bootstrap.interval(best, gain, weights=weights, block=block)
        reference = np.sqrt(best[1].mean(axis=0)) if metric == "rmse" else np.zeros_like(top)
        known = (top > 0) & np.where(np.isfinite(low), low > 0, acc >= LEAST_ACC)

        def share(*both: Any, gain: Any = gain, half: int = half) -> Any:
            gone, whole = gain(*both[:half]), gain(*both[half:])
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(whole > 0, gone / whole, np.nan)

        for m, name in enumerate(names):
            if name in (CEILING, "climatology"):
                continue
            pair = [*parts[m], *best]
            value = np.where(known, share(*[p.mean(axis=0) for p in pair]), np.nan)
            ends = [np.where(known, e, np.nan) for e in bootstrap.interval(pair, share, weights=weights, block=block)]
            found = {"value": value, "ci_low": ends[0], "ci_high": ends[1], "climatology": reference}
            sign = -1.0 if metric == "rmse" else 1.0
            found |= {"ceiling": reference + sign * top, "ceiling_low": low, "ceiling_high": high}
            rows = keys.assign(**{k: np.ravel(v) for k, v in found.items()})
            frames.append(rows.assign(model=name, metric=metric, n_init=num))
    frame = pd.concat(frames, ignore_index=True)
    parsed = {str(c): parse_channel(str(c)) for c in frame["channel"].unique()}
    frame["variable"] = [parsed[str(c)].variable for c in frame["channel"]]
    frame["level"] = ["" if parsed[str(c)].level is None else str(parsed[str(c)].level) for c in frame["channel"]]
    return frame[list(COLUMNS)]


def _only(means: dict[str, Any], position: int) -> dict[str, Any]:
    """Means of one model."""
    return {s: v[:, [position]] if v.shape[1] > 1 else v for s, v in means.items()}
