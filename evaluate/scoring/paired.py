"""One model against another: differences of scores with paired intervals.

Contract: both models' scores come from the same draws of init times, so what a hard week does to both cancels;
an interval that leaves zero means that the difference would hold for other init times of that period. Over the
globe, for the scores named; any other pair, score or region is `evaluate.scoring.tables.difference`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pandas as pd

from evaluate.metrics import METRICS, unit_of
from evaluate.scoring import bootstrap, tables
from evaluate.scoring.aggregation import AggregationState
from evaluate.scoring.kernel import Sums
from pipeline.weather.variables import parse_channel

SCORES = ("rmse", "acc")
COLUMNS = (
    "model", "against", "variable", "level", "lead", "region", "metric", "value", "ci_low", "ci_high", "n_init", "unit",
)  # fmt: skip


def paired_table(
    sums: Sums, *, model: str, against: Sequence[str], block: int, units: Mapping[str, str],
    resamples: int = bootstrap.NUM_RESAMPLES,
) -> pd.DataFrame:  # fmt: skip
    """Differences of one model from others over the globe, one row a score, channel and lead.

    Args:
        sums: of all init times.
        model: whose score comes first; value is its score minus the other's.
        against: the others.
        block: of the bootstrap, in init times.
        units: unit of each channel.
        resamples: number of draws.
    """
    state = sums.regional
    globe = dataclasses.replace(
        sums, regional=AggregationState(state.sums.sel(region=["globe"]), state.weights.sel(region=["globe"]))
    )
    frames = []
    for other in against:
        for name in SCORES:
            found = tables.difference(
                globe, METRICS[name], model=model, against=other, block=block, resamples=resamples
            )  # fmt: skip
            rows = found.isel(region=0, drop=True).to_dataframe().reset_index()
            frames.append(rows.assign(model=model, against=other, metric=name, region="globe"))
    frame = pd.concat(frames, ignore_index=True)
    parsed = {str(c): parse_channel(str(c)) for c in frame["channel"].unique()}
    frame["variable"] = [parsed[str(c)].variable for c in frame["channel"]]
    frame["level"] = ["" if parsed[str(c)].level is None else str(parsed[str(c)].level) for c in frame["channel"]]
    frame["unit"] = [unit_of(METRICS[m], units[str(c)]) for m, c in zip(frame["metric"], frame["channel"], strict=True)]
    frame["n_init"] = state.sums.sizes["init_time"]
    return frame.rename(columns={"low": "ci_low", "high": "ci_high"})[list(COLUMNS)]
