"""Scores of a forecast against its truth: RMSE, MSE, MAE, bias, ACC, Pearson, activity, skill.

Contract: a metric is finish(mean over init times of combine(area-weighted means over space)), so that
roots and ratios come where the definition puts them: the root of the RMSE last, the ratio of the ACC
within each init time. Where space is not reduced (a map), all sums run over init times first. The
weight of a cell is its exact area (`pipeline.grid.Grid`). docs/metrics.md has every formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from evaluate.reading import align
from evaluate.scoring.aggregation import AggregationState
from evaluate.scoring.statistics import STATISTICS, Pair
from pipeline.grid import Grid

SPACE = ("latitude", "longitude")
SCALAR = ("init_time", *SPACE)
"""Dimensions of a score that is one number a lead: all init times, all cells."""

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
Means = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """A score.

    Args:
        name: as in scores.csv.
        title: as in figures.
        statistics: whose means it is made of; "reference_squared_error" is another model's.
        combine: from the means over space of one init time, to quantities that are averaged over init times.
        finish: from those averages to the score.
        power: how often the channel's unit enters the score.
        better: which way is good: "lower", "higher", "zero" or "one".
    """

    name: str
    title: str
    statistics: tuple[str, ...]
    combine: Callable[[Means], tuple[Any, ...]]
    finish: Callable[..., Any]
    power: int
    better: str


def _ratio(numerator: Any, denominator: Any) -> Any:
    """Numerator / denominator, NaN where the denominator is not positive: undefined, never infinite."""
    if isinstance(denominator, xr.DataArray):
        return numerator / denominator.where(denominator > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(denominator) > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def _root(x: Any) -> Any:
    return np.sqrt(x)


def _variance(square: Any, mean: Any) -> Any:
    """Mean square minus squared mean, zero where that is rounding noise."""
    variance = square - mean * mean
    noise = variance < 1e-12 * square
    return variance.where(~noise, 0.0) if isinstance(variance, xr.DataArray) else np.where(noise, 0.0, variance)


def _same(x: Any) -> Any:
    return x


def _acc(m: Means) -> tuple[Any, ...]:
    return (_ratio(m["anomaly_product"], _root(m["forecast_anomaly_squared"] * m["truth_anomaly_squared"])),)


def _pearson(m: Means) -> tuple[Any, ...]:
    f, o = m["forecast_anomaly"], m["truth_anomaly"]
    spread = _variance(m["forecast_anomaly_squared"], f) * _variance(m["truth_anomaly_squared"], o)
    return (_ratio(m["anomaly_product"] - f * o, _root(spread)),)


def _spreads(m: Means) -> tuple[Any, ...]:
    return (
        _variance(m["forecast_anomaly_squared"], m["forecast_anomaly"]),
        _variance(m["truth_anomaly_squared"], m["truth_anomaly"]),
    )


_ANOMALIES = (
    "forecast_anomaly", "truth_anomaly", "forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product",
)  # fmt: skip

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("rmse", "RMSE", ("squared_error",), lambda m: (m["squared_error"],), _root, 1, "lower"),
        Metric("mse", "MSE", ("squared_error",), lambda m: (m["squared_error"],), _same, 2, "lower"),
        Metric(
            "mean_rmse", "Mean of RMSE per init time", ("squared_error",), lambda m: (_root(m["squared_error"]),),
            _same, 1, "lower",
        ),
        Metric("mae", "MAE", ("absolute_error",), lambda m: (m["absolute_error"],), _same, 1, "lower"),
        Metric("bias", "Bias", ("error",), lambda m: (m["error"],), _same, 1, "zero"),
        Metric("acc", "ACC", _ANOMALIES[2:], _acc, _same, 0, "higher"),
        Metric("pearson", "Centred ACC", _ANOMALIES, _pearson, _same, 0, "higher"),
        Metric("activity", "Activity", _ANOMALIES[:4], _spreads, lambda f, o: _root(_ratio(f, o)), 0, "one"),
        Metric(
            "skill", "Skill against climatology", ("squared_error", "truth_anomaly_squared"),
            lambda m: (m["squared_error"], m["truth_anomaly_squared"]), lambda e, r: 1.0 - _ratio(e, r), 0, "higher",
        ),
        Metric(
            "skill_persistence", "Skill against persistence", ("squared_error", "reference_squared_error"),
            lambda m: (m["squared_error"], m["reference_squared_error"]), lambda e, r: 1.0 - _ratio(e, r), 0,
            "higher",
        ),
    )
}  # fmt: skip


def unit_of(metric: Metric, unit: str) -> str:
    """The unit of a score of a channel measured in `unit`."""
    return "1" if metric.power == 0 else unit if metric.power == 1 else f"({unit})^2"


def rmse(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Root of the mean squared error; the root is taken last, after the mean over all `dims`.

    Args:
        forecast: dimensions latitude and longitude (degrees), init_time where `dims` has it, and any others
            (lead_time, channel); a DataArray, or a Dataset of them.
        truth: the same dimensions, or `time` (valid time) instead of init_time and lead_time.
        climatology: not used here; accepted so that all metrics are called alike.
        dims: what to reduce. The default gives one number a lead; ("init_time",) gives a map.
        mask: True where a value counts; NaN is allowed only where it is False. An init time without any
            counted cell does not enter the mean.

    Returns:
        The score, in the unit of the forecast; float64.

    Raises:
        ValueError: another grid, other units or labels, a missing valid time, a duplicate, a NaN.
    """
    return _score("rmse", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def mean_rmse(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Mean over init times of each one's RMSE: the convention of ClimaX and climate-learn, never above `rmse`.

    Arguments, units and errors as in `rmse`.
    """
    return _score("mean_rmse", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def mse(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Mean squared error, in the square of the unit. Arguments and errors as in `rmse`."""
    return _score("mse", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def mae(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Mean absolute error. Arguments, units and errors as in `rmse`."""
    return _score("mae", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def bias(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Mean error, forecast minus truth. Arguments, units and errors as in `rmse`."""
    return _score("bias", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def acc(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Anomaly correlation: mean over init times of sum(w f'o') / sqrt(sum(w f'f') sum(w o'o')), not centred.

    With dims=("init_time",) the sums run over init times at each cell.

    `climatology` is required: that of the training years, with dimensions like `truth`, or dayofyear (1..366,
    29 February is 60) and hour. Other arguments and errors as in `rmse`.

    Returns:
        -1 .. 1; NaN where an anomaly is zero everywhere (the climatology scored against itself).
    """
    return _score("acc", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def pearson(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """The ACC with the area mean of each anomaly removed (the paper's wACC). As `acc` in everything else."""
    return _score("pearson", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def activity(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """Standard deviation of the forecast's anomaly over that of the truth's; below 1 the forecast is too smooth.

    Variances are taken about the mean over space, averaged over init times, then divided. As `acc` in all else.
    """
    return _score("activity", forecast, truth, climatology=climatology, dims=dims, mask=mask)


def skill(
    forecast: Labelled, truth: Labelled, *, climatology: Labelled | None = None, reference: Labelled | None = None,
    dims: Sequence[str] = SCALAR, mask: xr.DataArray | None = None,
) -> Labelled:  # fmt: skip
    """1 - MSE / MSE of the reference: 1 is perfect, 0 as good as the reference, below 0 worse.

    The reference is `climatology` (as in `acc`) unless `reference` gives another forecast of the same
    dimensions, e.g. persistence; one of the two is required. Other arguments and errors as in `rmse`.
    """
    other = reference if reference is not None else climatology
    return _score("skill", forecast, truth, climatology=other, dims=dims, mask=mask)


def _score(
    name: str, forecast: Labelled, truth: Labelled, *, climatology: Labelled | None, dims: Sequence[str],
    mask: xr.DataArray | None,
) -> Labelled:  # fmt: skip
    metric = METRICS[name]
    if isinstance(forecast, xr.DataArray):
        return _score_array(metric, forecast, truth, climatology, tuple(dims), mask)
    for what, other in (("truth", truth), ("climatology", climatology)):
        if other is not None and set(map(str, forecast)) - set(map(str, other)):
            raise ValueError(
                f"{what} must have every variable of the forecast, got none of "
                f"{sorted(set(map(str, forecast)) - set(map(str, other)))}"
            )
    return xr.Dataset(
        {
            v: _score_array(
                metric, forecast[v], truth[v], None if climatology is None else climatology[v], tuple(dims), mask
            )
            for v in forecast
        }
    )


def _score_array(
    metric: Metric, forecast: xr.DataArray, truth: Any, climatology: Any, dims: tuple[str, ...],
    mask: xr.DataArray | None,
) -> xr.DataArray:  # fmt: skip
    absent = [d for d in dims if d not in forecast.dims]
    if absent:
        raise ValueError(f"forecast must have dimensions {list(dims)}, got {forecast.dims}; rename or reduce others")
    needs = any(STATISTICS[s].anomaly for s in metric.statistics)
    if needs and climatology is None:
        raise ValueError(f"climatology must be given for {metric.name}, got None; pass the training years' climatology")
    truth = align.at_valid_time(truth, forecast)
    align.check_pair(forecast, truth)
    weight = xr.DataArray(Grid.from_dataset(forecast).area_weights, dims=SPACE)
    exact = {d: forecast[d] for d in SPACE}
    if mask is not None:
        mask = align.at_valid_time(mask, forecast).assign_coords(exact)
    f, o = (_counted(a, mask, name) for a, name in ((forecast, "forecast"), (truth.assign_coords(exact), "truth")))
    if mask is not None:
        weight = weight * mask.drop_vars(list(mask.coords))
    anomalies: tuple[Any, Any] = (None, None)
    if needs:
        climatology = align.at_valid_time(climatology, forecast)
        align.check_pair(forecast, climatology, what="climatology")
        c = _counted(climatology.assign_coords(exact), mask, "climatology")
        anomalies = (f - c, o - c)
    pair = Pair(f - o, *anomalies)
    early = tuple(d for d in dims if d in SPACE) or dims
    late = tuple(d for d in dims if d not in early)
    state = AggregationState.of({s: STATISTICS[s].compute(pair) for s in metric.statistics}, weight=weight, dims=early)
    parts = [part.mean(late, skipna=mask is not None) for part in metric.combine(state.means())]
    score: xr.DataArray = metric.finish(*parts)
    score = score.rename(forecast.name)
    if forecast.attrs.get("units"):
        score.attrs["units"] = unit_of(metric, str(forecast.attrs["units"]))
    return score


def _counted(array: xr.DataArray, mask: xr.DataArray | None, name: str) -> xr.DataArray:
    """The array in float64, zero where it is masked; NaN elsewhere is refused, when the values are computed."""
    values = array.astype(np.float64)
    if mask is not None:
        values = values.where(mask, 0.0)
    checked: xr.DataArray = xr.apply_ufunc(
        _finite, values, kwargs={"name": name}, dask="parallelized", output_dtypes=[np.float64]
    )
    return checked


def _finite(values: Any, *, name: str) -> Any:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite, got {bad} of {values.size} values that are not; drop those times, or pass a mask"
        )
    return values
