"""What is fitted to labelled patches: ridge regression, partial least squares, and a polynomial of an index.

Contract: each method has one setting that decides how much it may bend (strength, components, degree), which
cross-validation over images chooses: an image is never split, since its patches know one another. Pure.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STRENGTHS = tuple(10.0**power for power in np.arange(-6.0, 4.1, 0.5))
"""Of ridge regression, times the number of patches, for features of unit variance."""
MOST_COMPONENTS = 15
DEGREES = (1, 2, 3)
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted method.

    Args:
        predict: from inputs (N, ...) to the trait (N,).
        setting: what cross-validation chose.
    """

    predict: Callable[[NDArray[np.floating]], Array]
    setting: float


Path = Callable[[Array, Array, Array], Array]
"""(inputs, trait, other inputs) -> what every setting predicts for the others, shape (setting, N)."""


@dataclass(frozen=True)
class Method:
    """A method with its settings.

    Args:
        path: predictions with every setting, which cost little more than with one; the last ones may be left out where
            there are too few patches for them.
        settings: from the stiffest one.
    """

    path: Path
    settings: Sequence[float]

    def fit(self, inputs: NDArray[np.floating], trait: Array, *, groups: NDArray[np.int64]) -> Fitted:
        """Choose the setting by cross-validation, and fit with it on everything.

        Args:
            inputs: shape (N, input), finite.
            trait: shape (N,).
            groups: the image of each patch, shape (N,); two at least.
        """
        x = np.asarray(inputs, np.float64).reshape(len(inputs), -1)
        folds = _folds(groups)
        errors = np.zeros(len(self.settings))
        for fold in np.unique(folds):
            out = folds == fold
            predicted = self.path(x[~out], trait[~out], x[out])
            errors = errors[: len(predicted)] + ((predicted - trait[out]) ** 2).sum(axis=1)[: len(errors)]
        best = int(np.argmin(errors))

        def predict(other: NDArray[np.floating]) -> Array:
            return np.asarray(self.path(x, trait, np.asarray(other, np.float64).reshape(len(other), -1))[best])

        return Fitted(predict, self.settings[best])


def _folds(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of the fold of each patch; images in turn, so that folds have as many of them."""
    _, order = np.unique(groups, return_inverse=True)
    return np.asarray(order % min(FOLDS, int(order.max()) + 1))


def _scaled(x: Array, other: Array) -> tuple[Array, Array]:
    mean, std = x.mean(axis=0), x.std(axis=0)
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-12), std, 1.0)
    return (x - mean) / std, (other - mean) / std


def _ridge(x: Array, y: Array, other: Array) -> Array:
    """Ridge regression with every strength, from one decomposition; the strongest first."""
    a, b = _scaled(x, other)
    values, vectors = np.linalg.eigh(a.T @ a)
    projected = vectors.T @ (a.T @ (y - y.mean()))
    strengths = np.asarray(STRENGTHS[::-1]) * len(a)
    weights = projected / (np.maximum(values, 0.0) + strengths[:, None])
    return np.asarray(y.mean() + weights @ (b @ vectors).T)


def _partial_least_squares(x: Array, y: Array, other: Array) -> Array:
    """Partial least squares with 1, 2, ... components: those of a fit with many begin with those of one with few."""
    from sklearn.cross_decomposition import PLSRegression

    if len(x) < 2:
        return np.full((1, len(other)), y.mean())
    count = min(MOST_COMPONENTS, len(x) - 1, x.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="y residual is constant")  # fitted exactly; the rest adds nothing
        model = PLSRegression(n_components=count, scale=False).fit(x, y)
    centred = (other - x.mean(axis=0)) @ model.x_rotations_
    steps = np.cumsum(centred * model.y_loadings_[0], axis=1)
    return np.asarray(y.mean() + steps.T)


def _polynomial(x: Array, y: Array, other: Array) -> Array:
    """Polynomials of one variable, straight to cubic; outside what was seen they stay at the end."""
    a, b = _scaled(x, np.clip(other, x.min(), x.max()))
    return np.stack([np.polynomial.Polynomial.fit(a[:, 0], y, degree)(b[:, 0]) for degree in DEGREES])


RIDGE = Method(_ridge, STRENGTHS[::-1])
PARTIAL_LEAST_SQUARES = Method(_partial_least_squares, tuple(range(1, MOST_COMPONENTS + 1)))
POLYNOMIAL = Method(_polynomial, DEGREES)
