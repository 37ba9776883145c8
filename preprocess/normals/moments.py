"""Partial sums of fields that merge exactly, and what follows from them. Pure functions on arrays.

Contract: everything is float64; `+` on two disjoint samples gives what one pass over both would, so a
further year is added without reading the others. Cells are weighted by area, times equally.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
    """Sum and number of fields by hour of day and day of year.

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


def merge(parts: Sequence[Moments]) -> Moments:
    """Moments of disjoint samples together."""
    return functools.reduce(operator.add, parts)


def join(blocks: Sequence[Mapping[int, Moments]]) -> dict[int, Moments]:
    """Moments of each year from those of blocks of channels, side by side."""
    return {
        year: Moments(first.count, *(np.concatenate([getattr(b[year], k) for b in blocks]) for k in ("mean", "m2")))
        for year, first in blocks[0].items()
    }


def yearly_arrays(yearly: Mapping[int, Moments]) -> dict[str, NDArray[Any]]:
    """Moments of each year as stores hold them: counts (year,), the rest (year, channel)."""
    count = np.array([m.count for m in yearly.values()], np.int64)
    mean, m2 = (np.stack([getattr(m, k) for m in yearly.values()]) for k in ("mean", "m2"))
    return {"year_count": count, "year_mean": mean, "year_m2": m2}


def triangle(window_days: int) -> Array:
    """The smoothing kernel as a matrix over day-of-year slots, shape (366, 366), periodic.

    Weight of a day at distance d is 1 - |d| / h with h = (window_days + 1) / 2, so that exactly
    `window_days` days count; `window_days` = 1 smooths nothing.
    """
    distance = np.arange(SLOTS)
    distance = np.minimum(distance, SLOTS - distance)
    weight = np.clip(1.0 - distance / (0.5 * (window_days + 1)), 0.0, None)
    return np.asarray(weight[(np.arange(SLOTS)[:, None] - np.arange(SLOTS)[None, :]) % SLOTS])


class Smoothing(NamedTuple):
    """How to smooth the sums of a climatology."""

    kernel: Array
    """Weights of days of the year, shape (366, 366)."""
    by_hour: bool
    """Whether hours of day are kept apart."""
    seasonal: bool
    """Whether there is a seasonal cycle."""
    kind: str
    """What messages and the normals call it."""


def climatology_kernel(count: NDArray[np.int64], *, window_days: int) -> Smoothing:
    """How to smooth, given which days and hours the training periods have.

    Args:
        count: number of fields, shape (hour, day of year).
        window_days: full width of the triangle.
    """
    kernel = triangle(window_days)
    if np.all(count @ kernel > 0):
        return Smoothing(kernel, by_hour=True, seasonal=True, kind="day of year x hour")
    days = np.count_nonzero(count.sum(axis=0))
    by_hour = bool(np.all(count.sum(axis=1) > 0))
    mean = f"mean {'by hour of day' if by_hour else 'over all times'} (training covers only {days} days of the year)"
    return Smoothing(np.ones_like(kernel), by_hour=by_hour, seasonal=False, kind=mean)


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
