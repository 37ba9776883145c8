"""How certain a score is: moving-block bootstrap over init times.

Contract: neighbouring init times see the same weather, so whole blocks of them are drawn, with replacement, and the
score is computed from each draw. All models share the draws, which makes every ratio and difference of models a paired
one. The interval is the percentile interval, widened about the score as the small number n / block of independent
blocks requires (the factor of Hesterberg's 2015 expanded percentile interval: Student's t against the normal). The
block length follows from the data (Politis & White 2004, with the correction of Patton, Politis & White 2009) and is
written with every score. docs/metrics.md says what the intervals cover.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Array = NDArray[np.float64]

NUM_RESAMPLES = 1000
FEWEST_BLOCKS = 4
"""The block is cut so that at least this many fit; with fewer there is no interval."""
STRETCH = 3.0
"""Politis and White's length minimises the error of the variance; intervals cover better with less bias and
more noise, that is with longer blocks (measured in docs/metrics.md)."""


def block_length(series: ArrayLike, *, shortest: int = 1) -> int:
    """Block length that suits the autocorrelation of one or more series.

    Args:
        series: shape (n,) or (n, k), one row an init time, in order.
        shortest: never less, whatever the series show; few init times show little.

    Returns:
        The median over the columns of the length by Politis and White's rule, times STRETCH, rounded up;
        no more than n / FEWEST_BLOCKS, unless `shortest` is.
    """
    x = np.asarray(series, dtype=np.float64)
    x = x.reshape(x.shape[0], -1)
    n = x.shape[0]
    if n < 8:
        return shortest
    quiet = max(5, math.ceil(math.sqrt(math.log10(n))))
    longest = min(math.ceil(math.sqrt(n)) + quiet, n - 1)
    x = x - x.mean(axis=0)
    covariance = np.stack([(x[: n - k] * x[k:]).sum(axis=0) / n for k in range(longest + 1)])
    rho = covariance / np.where(covariance[0] > 0, covariance[0], 1.0)  # 0 for a constant series
    bound = 2.0 * math.sqrt(math.log10(n) / n)
    lengths = []
    for column in rho.T:
        small = np.abs(column[1:]) < bound
        runs = [m for m in range(len(small) - quiet + 1) if small[m : m + quiet].all()]
        last = runs[0] if runs else int(np.flatnonzero(~small)[-1]) + 1
        window = min(max(2 * last, 1), longest)
        lags = np.arange(-window, window + 1)
        taper = np.clip(2.0 * (1.0 - np.abs(lags) / window), 0.0, 1.0)
        values = taper * column[np.abs(lags)]
        g, spectrum = float((np.abs(lags) * values).sum()), float(values.sum())
        lengths.append((1.5 * g * g / max(spectrum * spectrum, 1e-12)) ** (1 / 3) * n ** (1 / 3))
    wanted = math.ceil(STRETCH * float(np.median(lengths)))
    return max(shortest, min(wanted, n // FEWEST_BLOCKS), 1)


def resample_weights(num: int, *, block: int, resamples: int = NUM_RESAMPLES, seed: int = 0) -> Array:
    """How often each init time is drawn in each resample, divided by `num`.

    Args:
        num: number of init times.
        block: length of the moving blocks, 1 .. num.
        resamples: number of draws.
        seed: of the random draws; the same seed gives the same draws for every score.

    Returns:
        Shape (resamples, num), float64; rows sum to 1.
    """
    if not 1 <= block <= num:
        raise ValueError(f"block length must lie between 1 and the number of init times {num}, got {block}")
    generator = np.random.default_rng(seed)
    starts = generator.integers(0, num - block + 1, size=(resamples, -(-num // block)))
    index = (starts[:, :, None] + np.arange(block)).reshape(resamples, -1)[:, :num]
    flat = index + num * np.arange(resamples)[:, None]
    counts = np.bincount(flat.ravel(), minlength=resamples * num)
    return np.asarray(counts.reshape(resamples, num) / num)


def expansion(num: int, *, block: int, confidence: float = 0.95) -> float:
    """How much wider than the percentile interval one must be; NaN with fewer than FEWEST_BLOCKS blocks.

    Args:
        num: number of init times.
        block: length of the blocks.
        confidence: nominal coverage.
    """
    blocks = num / block
    if blocks < FEWEST_BLOCKS:
        return math.nan
    level = (1.0 + confidence) / 2.0
    return float(stats.t.ppf(level, df=blocks - 1.0) / stats.norm.ppf(level)) * math.sqrt(blocks / (blocks - 1.0))


def interval(
    parts: Sequence[Array], finish: Callable[..., Any], *, weights: Array, block: int, confidence: float = 0.95
) -> tuple[Array, Array]:
    """Confidence interval of a score.

    Args:
        parts: what is averaged over init times, each of shape (init_time, ...), of shapes that broadcast.
        finish: from the averages to the score (the root of the RMSE, the ratio of the skill).
        weights: from `resample_weights`.
        block: its block length.
        confidence: nominal coverage.

    Returns:
        Lower and upper end, each of the shape of the score; NaN with fewer than FEWEST_BLOCKS blocks.
    """
    num = parts[0].shape[0]
    score = np.asarray(finish(*[part.mean(axis=0) for part in parts]))
    factor = expansion(num, block=block, confidence=confidence)
    if math.isnan(factor):
        return np.full(score.shape, np.nan), np.full(score.shape, np.nan)
    draws = np.asarray(finish(*[(weights @ part.reshape(num, -1)).reshape(-1, *part.shape[1:]) for part in parts]))
    centre = draws.mean(axis=0)
    draws = np.moveaxis(np.sort(np.moveaxis(draws, 0, -1)), -1, 0)  # several times as fast as np.quantile's selection
    tail = (1.0 - confidence) / 2.0
    low, high = quantile(draws, tail), quantile(draws, 1.0 - tail)
    return score - factor * (centre - low), score + factor * (high - centre)


def quantile(ordered: Array, share: float) -> Array:
    """A quantile over the first axis of what `np.sort` has put in order there, as `np.quantile` interpolates.

    Args:
        ordered: shape (draw, ...); NaN last, as sorting puts it.
        share: in [0, 1].

    Returns:
        Shape (...); NaN where a draw is NaN.
    """
    place = share * (len(ordered) - 1)
    below, part = int(place), place - int(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    between = low + (high - low) * part if part < 0.5 else high - (high - low) * (1.0 - part)
    return np.where(np.isnan(ordered[-1]), np.nan, between)


def sign_test(block_means: ArrayLike, *, counts: ArrayLike, rate: float = 0.1) -> NDArray[np.bool_]:
    """Where the mean of a field over blocks of init times differs from zero.

    A t-test over block means at each cell, with the false discovery rate held at `rate` over all cells
    (Benjamini & Hochberg; 0.1 is Wilks 2016's choice for fields whose cells are correlated).

    Args:
        block_means: shape (block, ...).
        counts: init times in each block, shape (block,); blocks shorter than half the longest are left out.
        rate: the false discovery rate.

    Returns:
        True where significant, shape (...); False everywhere with fewer than three blocks.
    """
    x, n = np.asarray(block_means, dtype=np.float64), np.asarray(counts)
    x = x[n >= 0.5 * n.max()]
    if x.shape[0] < 3:
        return np.zeros(x.shape[1:], bool)
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    t = np.abs(mean) / np.where(std > 0, std / math.sqrt(x.shape[0]), np.inf)
    p = 2.0 * stats.t.sf(t, df=x.shape[0] - 1)
    return np.asarray(stats.false_discovery_control(p, axis=None).reshape(p.shape) <= rate)
