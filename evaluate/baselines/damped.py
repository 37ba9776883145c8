"""Damped persistence: the anomaly at the init time, shrunk by a factor fitted on training years.

Contract: forecast = climatology(valid time) + a x anomaly(init time), with one factor a for each lead and
channel, the same at every cell and season. a is the least-squares factor over all pairs of training times,
cells weighted by their area: the pattern autocorrelation of training anomalies, so it falls to zero where
persistence stops helping. Sums add up exactly over batches, in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.simple import Batch, Field, Predictor, key

Array = NDArray[np.float64]


def damped_persistence(factors: NDArray[np.floating]) -> Predictor:
    """Climatology at the valid time + factor x anomaly at the init time.

    Args:
        factors: shape (lead, channel), from `DampingSums`. The batch's `normals` must hold init times too.
    """
    scale = np.asarray(factors, dtype=np.float32)[:, :, None]

    def forecast(batch: Batch, t: int, lead: int) -> Field:
        init = key(batch.init_times[t])
        value: Field = batch.climatology(t, lead) + scale[lead] * (batch.states[init] - batch.normals[init])
        return value

    return forecast


class DampingSums:
    """Area-weighted sums of anomaly products over pairs of training times.

    Args:
        leads: number of leads.
        area: cell areas, shape (cell,).
    """

    def __init__(self, *, leads: int, area: Array) -> None:
        self._area = (area / area.mean()).astype(np.float32)
        self._leads = leads
        self._products: Array | None = None
        self._squares: Array | None = None
        self.pairs = 0

    def add(self, at_init: NDArray[np.float32], at_valid: list[NDArray[np.float32]]) -> None:
        """Count one init time.

        Args:
            at_init: anomaly, shape (channel, cell).
            at_valid: anomalies one lead later each, in the order of the leads.
        """
        if self._products is None or self._squares is None:
            self._products = np.zeros((self._leads, at_init.shape[0]))
            self._squares = np.zeros(at_init.shape[0])
        self._squares += (at_init * at_init) @ self._area
        for row, later in zip(self._products, at_valid, strict=True):
            row += (at_init * later) @ self._area
        self.pairs += 1

    @property
    def factors(self) -> Array:
        """Shape (lead, channel); 0 for a channel without anomalies."""
        if self._products is None or self._squares is None:
            raise ValueError("damped persistence must have training pairs, got none; add some first")
        safe = np.where(self._squares > 0, self._squares, 1.0)
        return np.asarray(np.where(self._squares > 0, self._products / safe, 0.0))
