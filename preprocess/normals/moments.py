"""Partial sums of fields that merge exactly, and what is made of them. Pure functions on arrays.

Contract: everything is float64; `+` on two disjoint samples gives what one pass over both would, so a
further year needs no second look at the others. Cells weigh by area, times equally.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.weather.climatology import SLOTS

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations; `+` merges two disjoint samples exactly.

    Args:
        count: number of times; the cells of a time weigh 1 together.
        mean: shape (channel,).
        m2: weighted sum of squared deviations from `mean`, shape (channel,).
    """

    count: int
    mean: Array
    m2: Array

    @classmethod
    def of(cls, field: Array, *, weights: Array) -> Moments:
        """Moments of one time.

        Args:
            field: shape (channel, cell).
            weights: cell areas that sum to 1, shape (cell,).
        """
        # Row by row, so that a channel's moments do not depend on which others are computed with it.
        mean = (field * weights).sum(axis=1)
        return cls(1, mean, ((field - mean[:, None]) ** 2 * weights).sum(axis=1))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        step = other.mean - self.mean
        share = other.count / count
        return Moments(count, self.mean + share * step, self.m2 + other.m2 + step**2 * (self.count * share))

    @property
    def std(self) -> Array:
        """Standard deviation, shape (channel,)."""
        return np.asarray(np.sqrt(self.m2 / self.count))


@dataclass
class DailySums:
    """Sum and number of fields by hour of day and day of year; `+` merges two disjoint samples.

    Args:
        total: shape (hour, day of year, channel, cell).
        count: shape (hour, day of year).
    """

    total: Array
    count: NDArray[np.int64]

    @classmethod
    def empty(cls, *, hours: int, channels: int, cells: int) -> DailySums:
        """No fields yet."""
        return cls(np.zeros((hours, SLOTS, channels, cells)), np.zeros((hours, SLOTS), np.int64))

    def add(self, field: Array, *, hour: int, slot: int) -> None:
        """Add one field of shape (channel, cell) at positions on the two time axes (both from 0)."""
        self.total[hour, slot] += field
        self.count[hour, slot] += 1

    def __add__(self, other: DailySums) -> DailySums:
        return DailySums(self.total + other.total, self.count + other.count)


def merge(parts: Sequence[Moments]) -> Moments:
    """Moments of disjoint samples together."""
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    return whole


def join(parts: Sequence[Moments]) -> Moments:
    """Moments of blocks of channels of one sample, side by side."""
    return Moments(parts[0].count, np.concatenate([p.mean for p in parts]), np.concatenate([p.m2 for p in parts]))


def triangle(window_days: int) -> Array:
    """The smoothing kernel as a matrix over day-of-year slots, shape (366, 366), periodic.

    Weight of a day at distance d is 1 - |d| / h with h = (window_days + 1) / 2, so that exactly
    `window_days` days count; `window_days` = 1 smooths nothing.
    """
    distance = np.arange(SLOTS)
    distance = np.minimum(distance, SLOTS - distance)
    weight = np.clip(1.0 - distance / (0.5 * (window_days + 1)), 0.0, None)
    return np.asarray(weight[(np.arange(SLOTS)[:, None] - np.arange(SLOTS)[None, :]) % SLOTS])


def climatology_kernel(count: NDArray[np.int64], *, window_days: int) -> tuple[Array, bool, str]:
    """How to smooth, given which days and hours the training periods have.

    Args:
        count: number of fields, shape (hour, day of year).
        window_days: full width of the triangle.

    Returns:
        (kernel of shape (366, 366), whether hours are kept apart, kind in words).
    """
    kernel = triangle(window_days)
    if np.all(count @ kernel > 0):
        return kernel, True, "day of year x hour"
    days = np.count_nonzero(count.sum(axis=0))
    by_hour = bool(np.all(count.sum(axis=1) > 0))
    what = "mean by hour of day" if by_hour else "mean over all times"
    return np.ones_like(kernel), by_hour, f"{what} (training covers only {days} days of the year)"


def smooth(total: Array, count: NDArray[np.int64], *, kernel: Array) -> Array:
    """Kernel-weighted mean over days of the year.

    Args:
        total: sums of fields, shape (day of year, cell).
        count: numbers of fields, shape (day of year,).
        kernel: shape (day of year, day of year).

    Returns:
        Shape (day of year, cell).
    """
    return np.asarray((kernel @ total) / (kernel @ count.astype(np.float64))[:, None])


def anomaly_square(
    climatology: Array, *, total: Array, count: NDArray[np.int64], centre: float, weights: Array
) -> float:
    """What a climatology takes off the sum of squares: sum of w (x - c)^2 minus sum of w (x - centre)^2.

    Args:
        climatology: c, shape (day of year, cell).
        total: sums of x, shape (day of year, cell).
        count: numbers of x, shape (day of year,).
        centre: any number near the mean, which keeps the difference of large numbers exact.
        weights: cell areas that sum to 1, shape (cell,).
    """
    shift = climatology - centre
    about = total - count[:, None] * centre
    return float(((count[:, None] * shift - 2.0 * about) * shift).sum(axis=0) @ weights)
