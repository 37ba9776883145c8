"""Scores with their intervals, from sums per image.

Contract: scores.csv has one row for each model, metric, band ("all" for all together) and region; differences.csv one
for each baseline, metric, band and region: the network's score minus the baseline's, from the same resamples of the
images. Intervals are 95%, from resampling whole images. Images that lack a region are no part of its sample, and a band
that was never hidden has no row for that region.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evaluate import bootstrap
from evaluate.imaging.scores import METRICS, REGIONS, Region, psnr
from evaluate.imaging.sums import MODELS, NETWORK

Array = NDArray[np.float64]
Finish = Callable[..., Array]

ALL = "all"
"""In the column `band`: all bands together."""
BY_BAND = ("rmse", "mae")
"""Metrics that are given for every band."""
COLUMNS = ("model", "metric", "band", "wavelength", "region", "value", "ci_low", "ci_high", "n_images", "unit")
DIFFERENCES = ("against", "metric", "band", "wavelength", "region", "value", "ci_low", "ci_high", "n_images", "unit")


@dataclass(frozen=True, eq=False)
class Sample:
    """Sums per image and how they are resampled.

    Args:
        sums: as `evaluate.imaging.sums` writes them.
        resamples: of the images.
        seed: of the resamples.
    """

    sums: xr.Dataset = field(repr=False)
    resamples: int
    seed: int

    @cached_property
    def value_range(self) -> float:
        """Largest minus smallest reflectance of the images."""
        return float(np.nanmax(self.sums["largest"].values) - np.nanmin(self.sums["smallest"].values))

    def images(self, region: Region) -> NDArray[np.bool_]:
        """Images that have a region, shape (image,)."""
        return np.asarray(self.sums["count"].sel(region=region).values.sum(axis=1) > 0)

    def interval(self, region: Region, parts: Sequence[Array], finish: Finish) -> tuple[Array, Array, Array]:
        """A score with the ends of its interval, each of the score's shape.

        Args:
            region: whose images are resampled.
            parts: what is averaged over images, each of shape (image, ...).
            finish: from the averages to the score.
        """
        chosen = self.images(region)
        given = [part[chosen] for part in parts]
        count = int(chosen.sum())
        weights = bootstrap.resample_weights(count, block=1, resamples=self.resamples, seed=self.seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = bootstrap.interval(given, finish, weights=weights, block=1)
            return finish(*[part.mean(axis=0) for part in given]), low, high

    def parts(self, metric: str, region: Region, *, by_band: bool) -> tuple[list[Array], Finish]:
        """What a metric averages over images, with the models on the axis after them, and how it ends."""
        at = self.sums.sel(region=region)
        total: Callable[[Array], Array] = (lambda x: x) if by_band else (lambda x: x.sum(axis=-1))
        number = total(at["count"].values)[:, None]
        if metric == "mae":
            return [total(at["absolute"].values), number], np.divide
        if metric == "spectral_angle":
            return [at["angle"].values, at["pixels"].values[:, None]], np.divide
        if metric == "ssim":
            return [self.sums["similarity"].values, at["pixels"].values[:, None]], np.divide
        squared = [total(at["squared"].values), number]
        if metric == "psnr":
            return squared, lambda s, n: psnr(s / n, value_range=self.value_range)
        return squared, lambda s, n: np.sqrt(s / n)


def score_table(sample: Sample) -> pd.DataFrame:
    """The rows of scores.csv."""
    return _table(sample, list(MODELS), "model", COLUMNS, lambda finish, _axis: finish)


def difference_table(sample: Sample) -> pd.DataFrame:
    """The rows of differences.csv."""
    others = [model for model in MODELS if model != NETWORK]
    ours = MODELS.index(NETWORK)

    def against(finish: Finish, axis: int) -> Finish:
        def difference(*means: Array) -> Array:
            scores = finish(*means)
            return np.delete(np.take(scores, [ours], axis=axis) - scores, ours, axis=axis)

        return difference

    return _table(sample, others, "against", DIFFERENCES, against)


def _table(
    sample: Sample, models: list[str], column: str, columns: Sequence[str], change: Callable[[Finish, int], Finish]
) -> pd.DataFrame:
    """One row for each model, metric, band and region that the sample has; `change` is told the axis of the models."""
    bands = [str(band) for band in sample.sums["band"].values]
    wavelengths = sample.sums["wavelength"].values.tolist()
    frames = []
    for region in REGIONS:
        if not sample.images(region).any():
            continue
        for name, metric in METRICS.items():
            if region not in metric.regions:
                continue
            for by_band in (False, True) if name in BY_BAND else (False,):
                parts, finish = sample.parts(name, region, by_band=by_band)
                value, low, high = sample.interval(region, parts, change(finish, -2 if by_band else -1))
                if column == "model" and metric.better == "low":
                    low = np.maximum(low, 0.0)  # widened for few images, it may lie where no error can
                keys: dict[str, Any] = {column: models}
                keys |= {"band": bands if by_band else [ALL]}
                index = pd.MultiIndex.from_product(list(keys.values()), names=list(keys))
                flat = {"value": value.ravel(), "ci_low": low.ravel(), "ci_high": high.ravel()}
                fixed = {"metric": name, "region": region, "unit": metric.unit}
                frame = pd.DataFrame(flat, index=index).reset_index().assign(**fixed)
                frame["wavelength"] = (wavelengths if by_band else [np.nan]) * len(models)
                frames.append(frame.assign(n_images=int(sample.images(region).sum())))
    found = pd.concat(frames, ignore_index=True)[list(columns)]
    return found[found["value"].notna()].reset_index(drop=True)
