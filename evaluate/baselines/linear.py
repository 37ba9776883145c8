"""Linear regression of the whole state on its leading patterns: what can be predicted without a model of the weather.

Contract: anomalies of all channels, each over its standard deviation and weighted by the root of the cell area, are
projected on the leading empirical orthogonal functions (EOFs) of the training years; the coefficients at the valid time
are regressed on those at the init time, one matrix per lead, by ridge regression; forecast = climatology(valid time) +
patterns x coefficients. This is the linear inverse model of Penland and Sardeshmukh (1995, J. Climate 8, 1999-2024)
with a separate matrix for every lead. A regression on all cells and channels would have more unknowns than training
states by a factor of a hundred; sixty patterns leave some fifteen states for each unknown, and the ridge takes care of
the rest. Its strength is chosen for every lead by cross-validation over blocks of training time; pairs that touch the
block left out are not fitted on. Nothing outside the training periods is read. Plain anomalies are used, without the
correction of `evaluate.baselines.excluded_window`: that adds the error of a climatology of fewer years to both sides, a
slow pattern that sixty predictors learn by heart and a test year does not have.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluate.reading.batch import Batch, Field, key
from pipeline.weather.foresight import FEWEST_STATES, STATE_BYTES, most_states

Array = NDArray[np.float64]
Matrix = NDArray[np.float32]

PATTERNS = 60
"""At most; a third of the snapshots where those are few."""
SNAPSHOTS = 300
"""States the patterns are made from, spread over the training periods."""
FOLDS = 5
STRENGTHS = np.concatenate([[0.0], np.logspace(-2, 4, 13)])
"""Ridge strengths tried, in units of the mean variance of a coefficient."""


def snapshot_count(available: int, *, values: int) -> int:
    """How many states the patterns are made from.

    Args:
        available: training times.
        values: numbers in one state.

    Raises:
        ValueError: memory, or the training periods, hold too few.
    """
    count = min(SNAPSHOTS, most_states(available, values=values))
    if count < FEWEST_STATES:
        raise ValueError(
            f"baseline 'linear' must have {FEWEST_STATES} training states in {STATE_BYTES / 1e9:g} GB, got {count} of "
            f"{available}, of {values} values each; leave 'linear' out of evaluation.baselines"
        )
    return count


def leading_patterns(snapshots: Matrix, *, count: int) -> Matrix:
    """Leading EOFs by the method of snapshots.

    Args:
        snapshots: shape (state, value), scaled anomalies; not centred again.
        count: how many are wanted.

    Returns:
        Orthonormal rows, shape (at most count, value), strongest first.
    """
    gram = (snapshots @ snapshots.T).astype(np.float64)
    variance, vectors = np.linalg.eigh(gram)
    variance, vectors = variance[::-1][:count], vectors[:, ::-1][:, :count]
    kept = variance > 1e-6 * variance[0]
    mixing = (vectors[:, kept] / np.sqrt(variance[kept])).T.astype(np.float32)
    return np.asarray(mixing @ snapshots)


def ridge(x: Array, y: Array, *, strength: float) -> Array:
    """The matrix B that minimises |y - x B|^2 + strength x (mean variance of x) x n |B|^2, shape (k, k)."""
    products = x.T @ x
    penalty = strength * np.trace(products) / len(products)
    return np.asarray(np.linalg.lstsq(products + penalty * np.eye(len(products)), x.T @ y, rcond=None)[0])


def choose_strength(
    x: Array, y: Array, *, starts: NDArray[np.int64], ends: NDArray[np.int64], folds: int = FOLDS
) -> tuple[float, float]:
    """Ridge strength by cross-validation over blocks of time.

    Args:
        x: coefficients at init times, shape (n, k), in order of time.
        y: coefficients at valid times.
        starts: init times as integers, shape (n,).
        ends: valid times.
        folds: number of blocks.

    Returns:
        The strongest ridge that is within one standard error of the best (Hastie, Tibshirani and Friedman 2009,
        section 7.10), and the share of variance it explains in blocks that were not fitted on.
    """
    lost = []
    for block in np.array_split(np.arange(len(x)), folds):
        apart = (ends < starts[block[0]]) | (starts > ends[block[-1]])
        if apart.sum() < 2:
            continue
        fits = [ridge(x[apart], y[apart], strength=float(s)) for s in STRENGTHS]
        lost.append([((y[block] - x[block] @ fit) ** 2).sum() / (y[block] ** 2).sum() for fit in fits])
    if len(lost) < 2:
        return float(STRENGTHS[-1]), 0.0
    errors = np.array(lost)
    best = int(np.argmin(errors.mean(axis=0)))
    worse = errors - errors[:, [best]]
    doubt = worse.std(axis=0, ddof=1) / np.sqrt(len(errors))
    chosen = int(np.flatnonzero(worse.mean(axis=0) <= doubt)[-1])
    return float(STRENGTHS[chosen]), 1.0 - float(errors[:, chosen].mean())


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A fitted regression.

    Args:
        patterns: orthonormal rows, shape (k, channel x cell).
        scale: what anomalies are multiplied with before projection, shape (channel, cell).
        operators: shape (lead, k, k), from coefficients at the init time (rows) to the valid time.
    """

    patterns: Matrix = field(repr=False)
    scale: Matrix = field(repr=False)
    operators: Array = field(repr=False)

    def coefficients(self, anomalies: Matrix) -> Array:
        """Coefficients of anomalies (state, channel, cell), shape (state, k)."""
        scaled = (anomalies * self.scale).reshape(len(anomalies), -1)
        return np.asarray((scaled @ self.patterns.T).astype(np.float64))

    def anomalies(self, coefficients: Array) -> Matrix:
        """Back from coefficients (state, k) to anomalies (state, channel, cell)."""
        scaled = (coefficients.astype(np.float32) @ self.patterns).reshape(-1, *self.scale.shape)
        return np.asarray(np.divide(scaled, self.scale, out=np.zeros_like(scaled), where=self.scale > 0))

    def __call__(self, batch: Batch, t: int, lead: int) -> Field:
        """A predictor; all forecasts of a batch are made at its first call and kept with it."""
        held = f"linear {id(self)}"
        if held not in batch.forecasts:
            init = [key(time) for time in batch.init_times]
            x = self.coefficients(np.stack([batch.states[i] - batch.normals[i] for i in init]))
            batch.forecasts[held] = np.stack([self.anomalies(x @ operator) for operator in self.operators], axis=1)
        value: Field = batch.climatology(t, lead) + batch.forecasts[held][t, lead]
        return value


def scale_of(area: Array, std: Array) -> Matrix:
    """Root of the cell area over the channel's standard deviation, shape (channel, cell); 0 where that is 0."""
    inverse = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
    return np.asarray((inverse[:, None] * np.sqrt(area / area.sum())[None, :]).astype(np.float32))
