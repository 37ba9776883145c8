"""Damped persistence: the anomaly at the init time, shrunk by a factor fitted on training years.

Contract: forecast = climatology(valid time) + a x anomaly(init time), with one factor a for each lead and channel, the
same at every cell and season. a is the least-squares factor over all pairs of training times, cells weighted by their
area: the pattern autocorrelation of training anomalies, so it falls to zero where persistence stops helping. Sums add
up exactly over batches, in any order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluate.reading.batch import Batch, Field, Predictor, key

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
        channels: number of channels.
        area: cell areas, shape (cell,).
    """

    def __init__(self, *, leads: int, channels: int, area: Array) -> None:
        self._area = (area / area.mean()).astype(np.float32)
        self._products, self._squares = np.zeros((leads, channels)), np.zeros(channels)

    def add(self, at_init: Field, at_valid: list[Field]) -> None:
        """Count one init time.

        Args:
            at_init: anomaly, shape (channel, cell).
            at_valid: anomalies at the valid time of each lead.
        """
        self._squares += (at_init * at_init) @ self._area
        for row, later in zip(self._products, at_valid, strict=True):
            row += (at_init * later) @ self._area

    @property
    def factors(self) -> Array:
        """Shape (lead, channel); 0 for a channel without anomalies."""
        known = np.broadcast_to(self._squares > 0, self._products.shape)
        return np.divide(self._products, self._squares, out=np.zeros_like(self._products), where=known)
