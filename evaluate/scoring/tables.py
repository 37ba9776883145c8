"""From sums to scores: tidy tables, differences of two models, and maps.

Contract: metrics are finished here, from the means of `evaluate.scoring.kernel.Sums`; all scores of a `Sample` have
their confidence intervals from the same draws of init times, so every ratio and difference of two models is a paired
one. An interval of a difference that excludes zero means that the difference would hold for other init times of that
period. Undefined scores (the ACC of the climatology, an interval from too few init times) are NaN in arrays and empty
in the table, and stay in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evaluate import bootstrap
from evaluate.aggregation import AggregationState
from evaluate.baselines import simple
from evaluate.metrics import METRICS, Metric
from evaluate.scoring.kernel import MAP_STATISTICS, Sums
from evaluate.statistics import STATISTICS
from pipeline.weather import variables as catalogue

Array = NDArray[np.float64]
Units = Mapping[str, str]
"""Unit of each channel."""

AXES = ("model", "lead", "channel", "region")
_ROW = ("variable", "level", "lead", "region", "metric", "value", "ci_low", "ci_high")
COLUMNS = ("model", *_ROW, "n_init", "unit")
"""Of scores.csv."""
DIFFERENCE_COLUMNS = ("model", "against", *_ROW, "n_init", "unit")
"""Of differences.csv."""
DIFFERENCES = ("rmse", "acc")
MAP_METRICS = ("rmse", "mse", "bias", "acc", "skill", "skill_persistence")
FEWEST_INITS = {"acc": 2}
"""Init times that a map needs: the correlation of one value with one other is 1 or -1 at every cell."""


@dataclass(frozen=True)
class Sample:
    """The sums of some init times, and the draws of them that all their intervals are made from.

    Args:
        sums: of all init times.
        block: of the bootstrap, in init times.
        resamples: number of draws.
        seed: of the draws.
    """

    sums: Sums
    block: int
    resamples: int = bootstrap.NUM_RESAMPLES
    seed: int = 0

    @property
    def num_init(self) -> int:
        """Number of init times."""
        return int(self.sums.regional.sums.sizes["init_time"])

    @property
    def coords(self) -> dict[str, Any]:
        """Labels of the axes of scores."""
        return {a: self.sums.regional.sums[a].values for a in AXES}

    @cached_property
    def means(self) -> dict[str, Array]:
        """Means over each region at each init time, by statistic.

        Arrays of shape (init_time, model, lead, channel, region); model has length 1 where all models share it.
        "reference_squared_error" is persistence's, where it was scored.
        """
        means = {}
        for name, array in self.sums.regional.means().items():
            shared = array.expand_dims("model") if STATISTICS[name].of_truth else array
            means[name] = shared.transpose("init_time", *AXES).values
        means["forecast_anomaly"] = means["error"] + means["truth_anomaly"]
        if "persistence" in self.sums.models:
            means["reference_squared_error"] = means["squared_error"][:, [self.sums.models.index("persistence")]]
        return means

    @cached_property
    def weights(self) -> Array:
        """How often each init time is drawn."""
        block = min(self.block, self.num_init)
        return bootstrap.resample_weights(self.num_init, block=block, resamples=self.resamples, seed=self.seed)

    def parts(self, metric: Metric, model: str) -> tuple[Array, ...]:
        """What is averaged over init times for a score of one model."""
        m = self.sums.models.index(model)
        return metric.parts({s: v[:, [m]] if v.shape[1] > 1 else v for s, v in self.means.items()})

    def score(self, parts: Sequence[Array], finish: Callable[..., Any]) -> dict[str, Array]:
        """A score of averages over init times: its `value`, and the ends `low` and `high` of its interval."""
        low, high = bootstrap.interval(parts, finish, weights=self.weights, block=self.block)
        return {"value": finish(*[part.mean(axis=0) for part in parts]), "low": low, "high": high}

    def over_globe(self) -> Sample:
        """The same without regions."""
        state, globe = self.sums.regional, {"region": ["globe"]}
        regional = AggregationState(state.sums.sel(globe), state.weights.sel(globe))
        return dataclasses.replace(self, sums=dataclasses.replace(self.sums, regional=regional))


def choose_block(sums: Sums, *, channels: Sequence[str], spacing_hours: float) -> int:
    """Block length of the bootstrap, in init times, from the global squared errors of the models.

    Baselines are left out where there is a model: the errors of persistence follow the seasons, not the weather.

    Args:
        sums: of all init times.
        channels: whose errors are looked at.
        spacing_hours: between init times; a block is never shorter than three days, over which weather forgets.
    """
    errors = sums.regional.sums["squared_error"].sel(region="globe", channel=list(channels))
    errors = errors.sel(model=[m for m in sums.models if m not in {*simple.NAMES, *simple.TWINS}] or sums.models)
    series = errors.transpose("init_time", ...).values.reshape(errors.sizes["init_time"], -1)
    return bootstrap.block_length(series, shortest=max(1, round(72.0 / spacing_hours)))


def regional_scores(sample: Sample) -> xr.Dataset:
    """Every metric of every model, lead, channel and region, with its interval.

    Returns:
        `value`, `low`, `high` by (metric, model, lead, channel, region).
    """
    chosen = [m for m in METRICS.values() if set(m.statistics) <= set(sample.means)]
    scores = [sample.score(metric.parts(sample.means), metric.finish) for metric in chosen]
    shape = tuple(len(v) for v in sample.coords.values())
    values = {key: np.stack([np.broadcast_to(s[key], shape) for s in scores]) for key in ("value", "low", "high")}
    dims = ("metric", *AXES)
    return xr.Dataset({k: (dims, v) for k, v in values.items()}, {"metric": [m.name for m in chosen], **sample.coords})


def difference(sample: Sample, metric: Metric, *, model: str, against: str) -> xr.Dataset:
    """A score of one model minus that of another, with its paired interval.

    Returns:
        `value`, `low`, `high` by (lead, channel, region).
    """
    ours, theirs = sample.parts(metric, model), sample.parts(metric, against)

    def finish(*parts: Any) -> Any:
        return metric.finish(*parts[: len(ours)]) - metric.finish(*parts[len(ours) :])

    score = sample.score([*ours, *theirs], finish)
    coords = {a: sample.coords[a] for a in AXES[1:]}
    return xr.Dataset({key: (AXES[1:], v[0]) for key, v in score.items()}, coords)


def difference_table(sample: Sample, *, model: str, against: Sequence[str], units: Units) -> pd.DataFrame:
    """Scores of one model minus those of others over the globe, one row for each other, score, channel and lead."""
    globe = sample.over_globe()
    frames = []
    for other in against:
        for name in DIFFERENCES:
            found = difference(globe, METRICS[name], model=model, against=other).isel(region=0, drop=True)
            rows = found.to_dataframe().reset_index()
            frames.append(rows.assign(model=model, against=other, metric=name, region="globe"))
    return _tidy(pd.concat(frames, ignore_index=True), sample, units)[list(DIFFERENCE_COLUMNS)]


def score_table(sample: Sample, *, units: Units) -> pd.DataFrame:
    """The tidy table of scores.csv."""
    scores = regional_scores(sample)
    order = ("model", "channel", "lead", "region", "metric")
    index = pd.MultiIndex.from_product([scores[a].values for a in order], names=order)
    flat = {key: scores[key].transpose(*order).values.ravel() for key in ("value", "low", "high")}
    return _tidy(pd.DataFrame(flat, index=index).reset_index(), sample, units)[list(COLUMNS)]


def _tidy(frame: pd.DataFrame, sample: Sample, units: Units) -> pd.DataFrame:
    """Names of columns as in the files, with the unit of each score and the number of init times."""
    unit = [METRICS[m].unit(units[c]) for m, c in zip(frame["metric"], frame["channel"], strict=True)]
    frame = with_channel(frame).assign(unit=unit, n_init=sample.num_init)
    return frame.rename(columns={"low": "ci_low", "high": "ci_high"})


def with_channel(frame: pd.DataFrame) -> pd.DataFrame:
    """A table with the variable and the level ("" for none) of its channels."""
    parsed = {c: catalogue.parse_channel(c) for c in frame["channel"].unique()}
    level = {name: "" if c.level is None else str(c.level) for name, c in parsed.items()}
    variable = {name: c.variable for name, c in parsed.items()}
    return frame.assign(variable=frame["channel"].map(variable), level=frame["channel"].map(level))


def has_map(metric: str, *, num_init: int) -> bool:
    """Whether a map of a score says anything, made from so many init times."""
    return num_init >= FEWEST_INITS.get(metric, 1)


def map_scores(sums: Sums) -> xr.Dataset:
    """Maps of scores: one variable per metric, by (model, lead, channel, latitude, longitude), float32.

    Besides, `significant`: where the model's squared error differs from the climatology's (t-test over blocks
    of init times, false discovery rate 0.1), and `spectrum`: mean power by zonal wavenumber.
    """
    means: dict[str, Any] = sums.maps.means()
    if "persistence" in sums.models:
        means["reference_squared_error"] = means["squared_error"].sel(model="persistence", drop=True)
    order = ("model", "lead", "channel", "latitude", "longitude")
    known = {*MAP_STATISTICS, "reference_squared_error"} & set(means)
    out: dict[str, Any] = {}
    for metric in (METRICS[name] for name in MAP_METRICS if has_map(name, num_init=int(sums.maps.weights))):
        if set(metric.statistics) <= known:
            array: xr.DataArray = metric.finish(*metric.parts(means))
            out[metric.name] = array.transpose(*order).astype(np.float32)
    if "climatology" in sums.models:
        errors = sums.blocks.means()["squared_error"]
        gain = errors - errors.sel(model="climatology", drop=True)
        counts = sums.blocks.weights.values
        filled = np.flatnonzero(counts)
        gains = gain.transpose("block", *order).isel(block=filled).values
        significant = np.empty(gains.shape[1:], bool)
        for panel in np.ndindex(*gains.shape[1:4]):
            significant[panel] = bootstrap.sign_test(gains[:, *panel], counts=counts[filled])
        out["significant"] = (order, significant)
    spectrum = sums.spectra.means()["power"].rename(model="spectrum_model")
    return xr.Dataset({**out, "spectrum": spectrum.transpose("spectrum_model", ...)})
