"""What is summed: un-reduced quantities of one forecast field and its truth, each named and computed once.

Contract: a statistic is one NumPy function of the error e = f - o and of the anomalies f' = f - c and o' = o - c from
the climatology c at the valid time. It has the forecast's shape, is additive over cells and init times with cell-area
weights, and takes no root and no ratio; those belong to `evaluate.metrics`. Labelled and lazy arrays work too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


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
        function: NumPy function that makes it.
        operands: fields of `Pair` it is made from.
    """

    name: str
    function: np.ufunc
    operands: tuple[str, ...]

    def compute(self, pair: Pair) -> Any:
        """The quantity for every cell."""
        return self.function(*[getattr(pair, operand) for operand in self.operands])

    @property
    def anomaly(self) -> bool:
        """Whether it needs the climatology."""
        return any(operand != "error" for operand in self.operands)

    @property
    def of_truth(self) -> bool:
        """Whether it is the same for every model."""
        return set(self.operands) == {"truth_anomaly"}


_E, _F, _O = "error", "forecast_anomaly", "truth_anomaly"

STATISTICS: dict[str, Statistic] = {
    s.name: s
    for s in (
        Statistic("error", np.positive, (_E,)),
        Statistic("absolute_error", np.absolute, (_E,)),
        Statistic("squared_error", np.multiply, (_E, _E)),
        Statistic("forecast_anomaly", np.positive, (_F,)),
        Statistic("forecast_anomaly_squared", np.multiply, (_F, _F)),
        Statistic("anomaly_product", np.multiply, (_F, _O)),
        Statistic("truth_anomaly", np.positive, (_O,)),
        Statistic("truth_anomaly_squared", np.multiply, (_O, _O)),
    )
}

MODEL_STATISTICS = ("error", "absolute_error", "squared_error", "forecast_anomaly_squared", "anomaly_product")
"""What scoring sums for every model, the error first; the forecast anomaly follows as error + truth anomaly."""
TRUTH_STATISTICS = ("truth_anomaly", "truth_anomaly_squared")
"""What scoring sums once for all models."""
