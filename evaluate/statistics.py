"""What is summed: un-reduced quantities of one forecast field and its truth, each named and computed once.

Contract: a statistic is a function of the error e = f - o and the anomalies f' = f - c, o' = o - c from
the climatology c at the valid time. It has the forecast's shape, is additive over cells and init times
with cell-area weights, and takes no root and no ratio; those belong to `evaluate.metrics`. The same
functions serve labelled arrays and plain ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pair:
    """A forecast against its truth.

    Args:
        error: f - o, taken before any climatology is removed.
        forecast_anomaly: f - c, or None without a climatology.
        truth_anomaly: o - c, or None without a climatology.
    """

    error: Any
    forecast_anomaly: Any = None
    truth_anomaly: Any = None


@dataclass(frozen=True)
class Statistic:
    """A named un-reduced quantity.

    Args:
        name: key in every aggregation state.
        compute: from a pair, elementwise.
        power: how often the channel's unit enters it.
        anomaly: whether it needs the climatology.
        of_truth: whether it is the same for every model.
    """

    name: str
    compute: Callable[[Pair], Any]
    power: int
    anomaly: bool = False
    of_truth: bool = False


STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic("error", lambda p: p.error, 1),
        Statistic("absolute_error", lambda p: abs(p.error), 1),
        Statistic("squared_error", lambda p: p.error * p.error, 2),
        Statistic("forecast_anomaly", lambda p: p.forecast_anomaly, 1, anomaly=True),
        Statistic("forecast_anomaly_squared", lambda p: p.forecast_anomaly * p.forecast_anomaly, 2, anomaly=True),
        Statistic("anomaly_product", lambda p: p.forecast_anomaly * p.truth_anomaly, 2, anomaly=True),
        Statistic("truth_anomaly", lambda p: p.truth_anomaly, 1, anomaly=True, of_truth=True),
        Statistic("truth_anomaly_squared", lambda p: p.truth_anomaly * p.truth_anomaly, 2, anomaly=True, of_truth=True),
    )
}

MODEL_STATISTICS = ("error", "absolute_error", "squared_error", "forecast_anomaly_squared", "anomaly_product")
"""What scoring sums for every model; the forecast anomaly follows as error + truth anomaly."""
TRUTH_STATISTICS = ("truth_anomaly", "truth_anomaly_squared")
"""What scoring sums once for all models."""
