"""Training anomalies as if the weather around them had not contributed to the climatology.

Contract: a climatology is a mean over the training years, smoothed over a window of days, so each training time helped
to make the value it is compared with: with few years its anomalies are too small and, worse, anomalies some weeks apart
are anticorrelated by construction. Fitted on them, damped persistence gets the wrong sign at two weeks. A test time
made no such contribution. If a share p of the samples behind the climatology at time t comes from the window around t
itself, and s is the weighted mean of the anomalies there, then the climatology of all other samples is c - s p / (1 -
p), and the anomaly from it is a + s p / (1 - p): that is what is fitted on. With forty years p is 1/40; with a single
one there are no other samples, p is cut at MAX_SHARE, and the facts of the fit show it.
"""

from __future__ import annotations

import numpy as np

from evaluate.reading.batch import Field
from pipeline.weather.climatology import SLOTS, day_slots
from pipeline.weather.times import Times

DAY = int(np.timedelta64(1, "D") / np.timedelta64(1, "ns"))
MAX_SHARE = 0.75
NEGLIGIBLE = 0.02
"""A share so small that it is not corrected."""
BLOCK_BYTES = 1_000_000_000
"""Of block means in memory."""


class ExcludedWindow:
    """Means of training anomalies over blocks of days, and the anomaly of any training time without those around it.

    Args:
        times: all training times, sorted.
        window_days: full width of the climatology's triangular window.
        values: numbers in one state.
    """

    def __init__(self, times: Times, *, window_days: float, values: int) -> None:
        self._half = 0.5 * (window_days + 1.0)
        stamps = times.astype("datetime64[ns]").astype(np.int64)
        self._share = dict(zip(stamps.tolist(), self._shares(times), strict=True))
        self.largest_share = max(self._share.values(), default=0.0)
        days = (stamps[-1] - stamps[0]) / DAY + 1 if stamps.size else 1
        self._block = max(window_days / 8.0, days * 4 * values / BLOCK_BYTES)
        self._needed = self.largest_share > NEGLIGIBLE
        if self._needed and self._block > self._half:
            raise ValueError(
                f"fitted baselines must hold means of training anomalies in {BLOCK_BYTES / 1e9:g} GB, got states of "
                f"{values} values; leave damped_persistence and linear out of evaluation.baselines"
            )
        self._sums: dict[int, Field] = {}
        self._counts: dict[int, int] = {}

    def add(self, time: int, anomaly: Field) -> None:
        """Count one training anomaly; time in ns."""
        if not self._needed:
            return
        block = int(time / DAY // self._block)
        if block in self._sums:
            self._sums[block] += anomaly
        else:
            self._sums[block] = anomaly.copy()
        self._counts[block] = self._counts.get(block, 0) + 1

    def without(self, time: int, anomaly: Field) -> Field:
        """The anomaly from the climatology of all other samples; call it when everything is added."""
        share = min(self._share[time], MAX_SHARE)
        if not self._needed or share <= NEGLIGIBLE:
            return anomaly
        middle, reach = time / DAY, self._half
        total = np.zeros_like(anomaly)
        weight = 0.0
        for block in range(int((middle - reach) // self._block), int((middle + reach) // self._block) + 1):
            near = 1.0 - abs((block + 0.5) * self._block - middle) / reach
            if block in self._sums and near > 0.0:
                total += np.float32(near) * self._sums[block]
                weight += near * self._counts[block]
        if weight <= 0.0:
            return anomaly
        corrected: Field = anomaly + (share / (1.0 - share) / weight) * total
        return corrected

    def _shares(self, times: Times) -> list[float]:
        """Weight of the days in the window among all days behind the climatology, for each time."""
        day = times.astype("datetime64[D]").astype(np.int64)
        first = int(day[0]) if day.size else 0
        daily = np.bincount(day - first)
        width = int(np.ceil(self._half))
        kernel = np.clip(1.0 - np.abs(np.arange(-width, width + 1)) / self._half, 0.0, None)
        inside = np.convolve(daily, kernel)[width : width + daily.size][day - first]
        distance = np.arange(SLOTS)
        near = np.clip(1.0 - np.minimum(distance, SLOTS - distance) / self._half, 0.0, None)
        counts = np.bincount(day_slots(times) - 1, minlength=SLOTS)
        every = np.array([np.roll(near, slot) @ counts for slot in range(SLOTS)])[day_slots(times) - 1]
        shares: list[float] = np.clip(inside / np.maximum(every, 1e-9), 0.0, 1.0).tolist()
        return shares
