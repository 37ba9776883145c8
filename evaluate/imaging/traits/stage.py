"""How well traits are predicted: from features, from the untrained network's, from spectra and from indices.

Contract: every method is fitted on the same labelled training images and judged on the same patches of held-out ones.
With few labels several sets of images are drawn; a score is the mean over the draws, and its interval comes from
resampling the held-out images. R2 is 1 - SSE / SST over all their patches, SST about their own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from evaluate import bootstrap
from evaluate.imaging.traits import indices
from evaluate.imaging.traits.regressions import PARTIAL_LEAST_SQUARES, POLYNOMIAL, RIDGE, Method
from evaluate.imaging.traits.samples import Patches
from pipeline.imaging.image_store import TRAIT_UNITS

Array = NDArray[np.float64]

PROBE, UNTRAINED, PLS = "probe", "probe_untrained", "pls"
DRAWS = 5
"""Sets of labelled images, where not all are labelled."""
FEWEST_IMAGES = 2
"""Labelled, for cross-validation over images."""
COLUMNS = (
    "method", "trait", "labelled_images", "draws", "r2", "r2_ci_low", "r2_ci_high", "r2_lowest_draw", "r2_highest_draw",
    "rmse", "rmse_ci_low", "rmse_ci_high", "setting", "n_images", "n_patches", "unit",
)  # fmt: skip
DIFFERENCES = ("against", "trait", "labelled_images", "value", "ci_low", "ci_high", "n_images")


@dataclass(frozen=True, eq=False)
class Trial:
    """Predictions of one method for one trait, with a number of labelled images.

    Args:
        method: its name in tables.
        trait: name.
        labelled: images.
        predictions: for the patches of the held-out images, shape (draw, N).
        setting: what cross-validation chose, median over the draws.
    """

    method: str
    trait: str
    labelled: int
    predictions: Array = field(repr=False)
    setting: float


@dataclass(frozen=True, eq=False)
class Judgement:
    """Turns predictions into scores.

    Args:
        truth: the patches of the held-out images.
        resamples: of those images.
        seed: of the resamples.
    """

    truth: Patches
    resamples: int
    seed: int

    @cached_property
    def _membership(self) -> Array:
        """Which patch belongs to which image, shape (image, N)."""
        return np.asarray(self.truth.images[:, None] == self.truth.image[None], np.float64)

    @cached_property
    def _weights(self) -> Array:
        count = len(self.truth.images)
        return bootstrap.resample_weights(count, block=1, resamples=self.resamples, seed=self.seed)

    def interval(self, trials: Sequence[Trial], finish: Callable[..., Array]) -> tuple[float, float, float]:
        """A score with its interval.

        Args:
            trials: of one trait, with as many draws each.
            finish: from means over images (squared errors of each trial by draw; number, sum and sum of squares of
                the trait) to the score.
        """
        y = self.truth.traits[trials[0].trait]
        parts = [self._membership @ ((trial.predictions - y) ** 2).T for trial in trials]
        parts += [(self._membership @ values)[:, None] for values in (np.ones_like(y), y, y * y)]
        low, high = bootstrap.interval(parts, finish, weights=self._weights, block=1)
        return float(finish(*[part.mean(axis=0) for part in parts])), float(low), float(high)

    def rows(self, trials: Sequence[Trial]) -> pd.DataFrame:
        """The rows of traits.csv."""
        return pd.DataFrame([self._row(trial) for trial in trials], columns=list(COLUMNS))

    def _row(self, trial: Trial) -> dict[str, Any]:
        r2 = self.interval([trial], lambda *means: r_squared(*means).mean(axis=-1))
        rmse = self.interval([trial], lambda sse, n, *_: np.sqrt(sse / n).mean(axis=-1))
        r2 = (r2[0], r2[1], min(r2[2], 1.0))  # widened for few images, it may lie where no R2 can
        y = self.truth.traits[trial.trait]
        by_draw = 1 - ((trial.predictions - y) ** 2).sum(axis=1) / ((y - y.mean()) ** 2).sum()
        return {
            "method": trial.method,
            "trait": trial.trait,
            "labelled_images": trial.labelled,
            "draws": len(trial.predictions),
            **dict(zip(("r2", "r2_ci_low", "r2_ci_high"), r2, strict=True)),
            "r2_lowest_draw": by_draw.min(),
            "r2_highest_draw": by_draw.max(),
            **dict(zip(("rmse", "rmse_ci_low", "rmse_ci_high"), rmse, strict=True)),
            "setting": trial.setting,
            "n_images": len(self.truth.images),
            "n_patches": len(y),
            "unit": TRAIT_UNITS[trial.trait],
        }

    def differences(self, trials: Sequence[Trial]) -> pd.DataFrame:
        """R2 of the probe minus that of every other method, on the same draws and resamples."""
        by_key = {(t.method, t.trait, t.labelled): t for t in trials}
        rows = []
        for (method, trait, labelled), other in by_key.items():
            probe = by_key[PROBE, trait, labelled]
            if method != PROBE:
                found = self.interval([probe, other], _difference)
                rows.append((method, trait, labelled, *found, len(self.truth.images)))
        return pd.DataFrame(rows, columns=list(DIFFERENCES))


def r_squared(squared: Array, number: Array, total: Array, total_squared: Array) -> Array:
    """R2 from means over images, each with the draws, or one column, last."""
    return np.asarray(1.0 - squared / (total_squared - total**2 / number))


def _difference(one: Array, other: Array, *sums: Array) -> Array:
    return np.asarray((r_squared(one, *sums) - r_squared(other, *sums)).mean(axis=-1))


def inputs_of(wavelengths: Array, names: Sequence[str]) -> tuple[dict[str, tuple[str, Method]], dict[str, str]]:
    """The methods, (what they read, how they are fitted) by name, and why some indices are left out.

    Args:
        wavelengths: of the bands [nm].
        names: of the features there are.
    """
    found = {name: (key, RIDGE) for name, key in ((PROBE, "features"), (UNTRAINED, "features_untrained"))}
    methods = {name: pair for name, pair in found.items() if pair[0] in names} | {
        PLS: ("spectra", PARTIAL_LEAST_SQUARES)
    }
    absent = {name: indices.missing(name, wavelengths) for name in indices.INDICES}
    methods |= {name: (name, POLYNOMIAL) for name, reason in absent.items() if not reason}
    return methods, {name: reason for name, reason in absent.items() if reason}


def with_indices(patches: Patches, wavelengths: Array) -> Patches:
    """Patches that also have the indices as inputs; where an index is not defined, it is its median."""
    spectra = patches.inputs["spectra"]
    more = {}
    for name in indices.INDICES:
        values = indices.index_values(name, spectra, wavelengths)
        middle = float(np.nanmedian(values)) if np.isfinite(values).any() else 0.0
        more[name] = np.where(np.isfinite(values), values, middle)[:, None].astype(np.float32)
    return Patches(patches.image, patches.tile, patches.place, patches.inputs | more, patches.traits)


def label_draws(images: NDArray[np.int64], few: Sequence[int], *, seed: int) -> dict[int, list[NDArray[np.int64]]]:
    """Which training images are labelled: all, and draws of some, by their number."""
    generator = np.random.default_rng(seed)
    numbers = sorted({n for n in few if FEWEST_IMAGES <= n < len(images)})
    found = {n: [np.sort(generator.permutation(images)[:n]) for _ in range(DRAWS)] for n in numbers}
    return found | {len(images): [images]}


def run_trials(
    training: Patches,
    held_out: Patches,
    methods: Mapping[str, tuple[str, Method]],
    *,
    draws: Mapping[int, Sequence[NDArray[np.int64]]],
    tick: Callable[[], None] = lambda: None,
) -> list[Trial]:
    """Fit every method for every trait with every set of labels, and predict the held-out patches."""
    trials = []
    for labelled, sets in draws.items():
        parts = [training.of(images) for images in sets]
        for trait in training.traits:
            for name, (key, method) in methods.items():
                fits = [method.fit(p.inputs[key], p.traits[trait], groups=p.image) for p in parts]
                predictions = np.stack([fit.predict(held_out.inputs[key]) for fit in fits])
                setting = float(np.median([fit.setting for fit in fits]))
                trials.append(Trial(name, trait, labelled, predictions, setting))
                tick()
    return trials


def predicted_patches(held_out: Patches, trials: Sequence[Trial], *, names: Sequence[str]) -> pd.DataFrame:
    """Truth and predictions with all labels, one row for each held-out patch.

    Args:
        held_out: the patches.
        trials: all of them.
        names: of the images, by number.
    """
    most = max(trial.labelled for trial in trials)
    columns: dict[str, Any] = {
        "image": [names[i] for i in held_out.image],
        "tile": held_out.tile,
        "row": held_out.place[:, 0],
        "column": held_out.place[:, 1],
        **held_out.traits,
    }
    columns |= {f"{t.trait}_{t.method}": t.predictions[0] for t in trials if t.labelled == most}
    return pd.DataFrame(columns)
