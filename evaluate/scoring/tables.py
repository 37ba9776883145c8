"""From sums to scores: one tidy table, and maps.

Contract: metrics are finished here, from the means of `evaluate.scoring.kernel.Sums`; each score carries its
confidence interval from the same draws of init times, so every ratio of two models is a paired one.
Undefined scores (the ACC of the climatology, an interval from too few init times) are NaN in arrays and
empty in the table, and stay in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evaluate.baselines import simple
from evaluate.metrics import METRICS, Metric, unit_of
from evaluate.scoring import bootstrap
from evaluate.scoring.kernel import MAP_STATISTICS, Sums
from evaluate.scoring.statistics import STATISTICS
from pipeline.weather import variables as catalogue

AXES = ("model", "lead", "channel", "region")
COLUMNS = (
    "model", "variable", "level", "lead", "region", "metric", "value", "ci_low", "ci_high", "n_init", "unit",
)  # fmt: skip
MAP_METRICS = ("rmse", "mse", "bias", "acc", "skill", "skill_persistence")


def init_means(sums: Sums, *, reference: str | None = None) -> dict[str, NDArray[np.float64]]:
    """Means over each region at each init time, by statistic.

    Args:
        sums: of all init times.
        reference: model whose squared error is "reference_squared_error", if any.

    Returns:
        Arrays of shape (init_time, model, lead, channel, region); model has length 1 where all models share it.
    """
    means = {}
    for name, array in sums.regional.means().items():
        if STATISTICS[name].of_truth:
            array = array.expand_dims("model")
        means[name] = array.transpose("init_time", *AXES).values
    means["forecast_anomaly"] = means["error"] + means["truth_anomaly"]
    if reference is not None:
        position = sums.regional.sums["model"].values.tolist().index(reference)
        means["reference_squared_error"] = means["squared_error"][:, [position]]
    return means


def choose_block(sums: Sums, *, channels: Sequence[str], spacing_hours: float) -> int:
    """Block length of the bootstrap, in init times, from the global squared errors of the models.

    Baselines are left out where there is a model: the errors of persistence follow the seasons, not the weather.

    Args:
        sums: of all init times.
        channels: whose errors are looked at.
        spacing_hours: between init times; a block is never shorter than three days, over which weather forgets.
    """
    errors = sums.regional.sums["squared_error"].sel(region="globe", channel=list(channels))
    models = errors["model"].values.tolist()
    errors = errors.sel(model=[m for m in models if m not in {*simple.NAMES, *simple.TWINS}] or models)
    series = errors.transpose("init_time", ...).values.reshape(errors.sizes["init_time"], -1)
    return bootstrap.block_length(series, shortest=max(1, round(72.0 / spacing_hours)))


def regional_scores(sums: Sums, *, block: int, resamples: int = bootstrap.NUM_RESAMPLES, seed: int = 0) -> xr.Dataset:
    """Every metric of every model, lead, channel and region, with its interval.

    Args:
        sums: of all init times.
        block: of the bootstrap, in init times.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        `value`, `low`, `high` by (metric, model, lead, channel, region).
    """
    coords = {a: sums.regional.sums[a].values for a in AXES}
    reference = "persistence" if "persistence" in coords["model"].tolist() else None
    means = init_means(sums, reference=reference)
    num = means["error"].shape[0]
    weights = bootstrap.resample_weights(num, block=min(block, num), resamples=resamples, seed=seed)
    chosen = [m for m in METRICS.values() if set(m.statistics) <= set(means)]
    shape = tuple(len(v) for v in coords.values())
    values = {key: np.empty((len(chosen), *shape)) for key in ("value", "low", "high")}
    for i, metric in enumerate(chosen):
        parts = metric.combine(means)
        values["value"][i] = metric.finish(*[part.mean(axis=0) for part in parts])
        values["low"][i], values["high"][i] = bootstrap.interval(parts, metric.finish, weights=weights, block=block)
    dims = ("metric", *AXES)
    return xr.Dataset({key: (dims, v) for key, v in values.items()}, {"metric": [m.name for m in chosen], **coords})


def difference(
    sums: Sums, metric: Metric, *, model: str, against: str, block: int, resamples: int = bootstrap.NUM_RESAMPLES,
    seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """A score of one model minus that of another, with its paired interval.

    Returns:
        `value`, `low`, `high` by (lead, channel, region).
    """
    names = sums.regional.sums["model"].values.tolist()
    means = init_means(sums, reference="persistence" if "persistence" in names else None)
    num = means["error"].shape[0]
    weights = bootstrap.resample_weights(num, block=min(block, num), resamples=resamples, seed=seed)
    pair = [
        metric.combine({s: v[:, [names.index(n)]] if v.shape[1] > 1 else v for s, v in means.items()})
        for n in (model, against)
    ]
    half = len(pair[0])

    def finish(*parts: Any) -> Any:
        return metric.finish(*parts[:half]) - metric.finish(*parts[half:])

    parts = [*pair[0], *pair[1]]
    low, high = bootstrap.interval(parts, finish, weights=weights, block=block)
    found = {"value": finish(*[p.mean(axis=0) for p in parts]), "low": low, "high": high}
    coords = {a: sums.regional.sums[a].values for a in AXES[1:]}
    return xr.Dataset({key: (AXES[1:], v[0]) for key, v in found.items()}, coords)


def to_table(scores: xr.Dataset, *, units: Mapping[str, str], num_init: int) -> pd.DataFrame:
    """The tidy table of scores.csv.

    Args:
        scores: from `regional_scores`.
        units: unit of each channel.
        num_init: number of init times.
    """
    order = ("model", "channel", "lead", "region", "metric")
    index = pd.MultiIndex.from_product([scores[a].values for a in order], names=order)
    flat = {key: scores[key].transpose(*order).values.ravel() for key in ("value", "low", "high")}
    frame = pd.DataFrame(flat, index=index).reset_index()
    channels = {c: catalogue.parse_channel(c) for c in map(str, scores["channel"].values)}
    frame["variable"] = frame["channel"].map({name: c.variable for name, c in channels.items()})
    levels = {name: "" if c.level is None else str(c.level) for name, c in channels.items()}
    frame["level"] = frame["channel"].map(levels)
    both = {(c, m): unit_of(METRICS[m], units[c]) for c in channels for m in map(str, scores["metric"].values)}
    frame["unit"] = [both[pair] for pair in zip(frame["channel"], frame["metric"], strict=True)]
    frame["n_init"] = num_init
    return frame.rename(columns={"low": "ci_low", "high": "ci_high"})[list(COLUMNS)]


def map_scores(sums: Sums) -> xr.Dataset:
    """Maps of scores: one variable a metric, by (model, lead, channel, latitude, longitude), float32.

    Besides, `significant`: where the model's squared error differs from the climatology's (t-test over blocks
    of init times, false discovery rate 0.1), and `spectrum`: mean power by zonal wavenumber.
    """
    means: dict[str, Any] = sums.maps.means()
    if "persistence" in sums.maps.sums["model"].values.tolist():
        means["reference_squared_error"] = means["squared_error"].sel(model="persistence", drop=True)
    order = ("model", "lead", "channel", "latitude", "longitude")
    known = {*MAP_STATISTICS, "reference_squared_error"} & set(means)
    out: dict[str, Any] = {}
    for name in MAP_METRICS:
        metric = METRICS[name]
        if set(metric.statistics) <= known:
            array: xr.DataArray = metric.finish(*metric.combine(means))
            out[name] = array.transpose(*order).astype(np.float32)
    if "climatology" in sums.blocks.sums["model"].values.tolist():
        errors = sums.blocks.means()["squared_error"]
        gain = errors - errors.sel(model="climatology", drop=True)
        counts = sums.blocks.weights.values
        filled = np.flatnonzero(counts)
        gain = gain.transpose("block", *order).isel(block=filled)
        found = [
            [[bootstrap.sign_test(gain.values[:, m, h, c], counts=counts[filled]) for c in range(gain.shape[3])]
             for h in range(gain.shape[2])] for m in range(gain.shape[1])
        ]  # fmt: skip
        out["significant"] = (order, np.array(found))
    spectrum = sums.spectra.means()["power"].rename(model="spectrum_model")
    return xr.Dataset({**out, "spectrum": spectrum.transpose("spectrum_model", ...)})
