"""Scores of a forecast against its truth: RMSE, MSE, MAE, bias, ACC (two conventions), Pearson, activity, skill.

Contract: a metric is finish(mean over init times of combine(area-weighted means over space)), so that roots and ratios
come where the definition puts them: the root of the RMSE last, the ratio of the ACC within each init time, that of the
pooled ACC last. Where space is not reduced (a map), all sums run over init times first. The weight of a cell is its
exact area (`pipeline.grid.Grid`). docs/metrics.md has every formula.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar, Unpack

import numpy as np
import xarray as xr

from evaluate.aggregation import AggregationState
from evaluate.reading import align
from evaluate.statistics import STATISTICS, Pair
from pipeline.grid import Grid

SPACE = ("latitude", "longitude")
SCALAR = ("init_time", *SPACE)
"""Dimensions of a score that is one number per lead: all init times, all cells."""

Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)
Means = Mapping[str, Any]


class Options(TypedDict, total=False):
    """What every metric accepts by keyword; see `rmse`."""

    climatology: xr.DataArray | xr.Dataset | None
    dims: Sequence[str]
    mask: xr.DataArray | None


@dataclass(frozen=True)
class Metric:
    """A score.

    Args:
        name: as in scores.csv.
        title: as in figures.
        statistics: whose means it is made of; "reference_squared_error" is another model's.
        finish: from averages over init times to the score; the average itself when absent.
        combine: from the means over space of one init time, to quantities that are averaged over init times; the
            means themselves when absent.
        power: how often the channel's unit enters the score.
    """

    name: str
    title: str
    statistics: tuple[str, ...]
    finish: Callable[..., Any] = lambda mean: mean
    combine: Callable[[Means], tuple[Any, ...]] | None = None
    power: int = 1

    def parts(self, means: Means) -> tuple[Any, ...]:
        """What is averaged over init times, from the means over space of each."""
        return self.combine(means) if self.combine else tuple(means[s] for s in self.statistics)

    def unit(self, unit: str) -> str:
        """The unit of the score of a channel measured in `unit`."""
        return ("1", unit, f"({unit})^2")[self.power]


_SQUARES = ("forecast_anomaly_squared", "truth_anomaly_squared", "anomaly_product")
_where: Any = xr.where
"""Of labelled, lazy and plain arrays."""


def ratio(numerator: Any, denominator: Any) -> Any:
    """Numerator / denominator, NaN where the denominator is not positive: undefined, never infinite."""
    return numerator / _where(denominator > 0, denominator, np.nan)


def _variance(square: Any, mean: Any) -> Any:
    """Mean square minus squared mean, zero where that is rounding noise."""
    variance = square - mean * mean
    return _where(variance < 1e-12 * square, 0.0, variance)


def _variances(m: Means) -> tuple[Any, ...]:
    return (
        _variance(m["forecast_anomaly_squared"], m["forecast_anomaly"]),
        _variance(m["truth_anomaly_squared"], m["truth_anomaly"]),
    )


def _acc(m: Means) -> tuple[Any, ...]:
    return (_acc_of_means(*(m[s] for s in _SQUARES)),)


def _acc_of_means(forecast: Any, truth: Any, product: Any) -> Any:
    return ratio(product, np.sqrt(forecast * truth))


def _pearson(m: Means) -> tuple[Any, ...]:
    of_forecast, of_truth = _variances(m)
    covariance = m["anomaly_product"] - m["forecast_anomaly"] * m["truth_anomaly"]
    return (ratio(covariance, np.sqrt(of_forecast * of_truth)),)


def _skill(error: Any, reference: Any) -> Any:
    return 1.0 - ratio(error, reference)


_ANOMALIES = ("forecast_anomaly", "truth_anomaly", *_SQUARES)
_AGAINST_CLIMATOLOGY = ("squared_error", "truth_anomaly_squared")
_AGAINST_PERSISTENCE = ("squared_error", "reference_squared_error")

METRICS: dict[str, Metric] = {
    m.name: m
    for m in (
        Metric("rmse", "RMSE", ("squared_error",), np.sqrt),
        Metric("mse", "MSE", ("squared_error",), power=2),
        Metric(
            "mean_rmse",
            "Mean of RMSE per init time",
            ("squared_error",),
            combine=lambda m: (np.sqrt(m["squared_error"]),),
        ),
        Metric("mae", "MAE", ("absolute_error",)),
        Metric("bias", "Bias", ("error",)),
        Metric("acc", "ACC", _SQUARES, combine=_acc, power=0),
        Metric("acc_pooled", "Pooled ACC", _SQUARES, _acc_of_means, power=0),
        Metric("pearson", "Centred ACC", _ANOMALIES, combine=_pearson, power=0),
        Metric("activity", "Activity", _ANOMALIES[:4], lambda f, o: np.sqrt(ratio(f, o)), _variances, power=0),
        Metric("skill", "Skill against climatology", _AGAINST_CLIMATOLOGY, _skill, power=0),
        Metric("skill_persistence", "Skill against persistence", _AGAINST_PERSISTENCE, _skill, power=0),
    )
}


def rmse(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Root of the mean squared error; the root is taken last, after the mean over all `dims`.

    Args:
        forecast: dimensions latitude and longitude (degrees), init_time where `dims` has it, and any others
            (lead_time, channel); a DataArray, or a Dataset of them.
        truth: the same dimensions, or `time` (valid time) instead of init_time and lead_time.
        options: any of

            - climatology: not used here; accepted so that all metrics are called alike.
            - dims: what to reduce. The default gives one number per lead; ("init_time",) gives a map.
            - mask: True where a value counts; NaN is allowed only where it is False. An init time without any
              counted cell does not enter the mean.

    Returns:
        The score, in the unit of the forecast; float64.

    Raises:
        ValueError: another grid, other units or labels, a missing valid time, a duplicate, a NaN.
    """
    return _score("rmse", forecast, truth, options)


def mean_rmse(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Mean over init times of each one's RMSE: the convention of ClimaX and climate-learn, never above `rmse`.

    Arguments, units and errors as in `rmse`.
    """
    return _score("mean_rmse", forecast, truth, options)


def mse(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Mean squared error, in the square of the unit. Arguments and errors as in `rmse`."""
    return _score("mse", forecast, truth, options)


def mae(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Mean absolute error. Arguments, units and errors as in `rmse`."""
    return _score("mae", forecast, truth, options)


def bias(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Mean error, forecast minus truth. Arguments, units and errors as in `rmse`."""
    return _score("bias", forecast, truth, options)


def acc(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Anomaly correlation: mean over init times of sum(w f'o') / sqrt(sum(w f'f') sum(w o'o')), not centred.

    With dims=("init_time",) the sums run over init times at each cell.

    The option `climatology` is required: that of the training years, with dimensions like `truth`, or dayofyear
    (1..366, 29 February is 60) and hour. Other arguments and errors as in `rmse`.

    Returns:
        -1 .. 1; NaN where an anomaly is zero everywhere (the climatology scored against itself).
    """
    return _score("acc", forecast, truth, options)


def acc_pooled(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """The ACC as WeatherBench-X takes it: sums over init times and space first, then the ratio.

    So init times with large anomalies count for more. As `acc` in everything else; equal to it on maps.
    """
    return _score("acc_pooled", forecast, truth, options)


def pearson(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """The ACC with the area mean of each anomaly removed (the paper's wACC). As `acc` in everything else."""
    return _score("pearson", forecast, truth, options)


def activity(forecast: Labelled, truth: Labelled, **options: Unpack[Options]) -> Labelled:
    """Standard deviation of the forecast's anomaly over that of the truth's; below 1 the forecast is too smooth.

    Variances are taken about the mean over space, averaged over init times, then divided. As `acc` in all else.
    """
    return _score("activity", forecast, truth, options)


def skill(
    forecast: Labelled, truth: Labelled, *, reference: Labelled | None = None, **options: Unpack[Options]
) -> Labelled:
    """1 - MSE / MSE of the reference: 1 is perfect, 0 as good as the reference, below 0 worse.

    The reference is `climatology` (as in `acc`) unless `reference` gives another forecast of the same dimensions, e.g.
    persistence; one of the two is required. Other arguments and errors as in `rmse`.
    """
    return _score("skill", forecast, truth, options if reference is None else {**options, "climatology": reference})


def _score(name: str, forecast: Labelled, truth: Any, options: Options) -> Labelled:
    if isinstance(forecast, xr.DataArray):
        return _score_array(METRICS[name], forecast, truth, **options)
    climatology: Any = options.get("climatology")
    for what, other in (("truth", truth), ("climatology", climatology)):
        absent = sorted(set(map(str, forecast)) - set(map(str, forecast if other is None else other)))
        if absent:
            raise ValueError(f"{what} must have every variable of the forecast, got none of {absent}")
    scores = {}
    for v in forecast:
        its: Options = {**options, "climatology": None if climatology is None else climatology[v]}
        scores[v] = _score_array(METRICS[name], forecast[v], truth[v], **its)
    return xr.Dataset(scores)


def _score_array(
    metric: Metric,
    forecast: xr.DataArray,
    truth: xr.DataArray,
    *,
    climatology: Any = None,
    dims: Sequence[str] = SCALAR,
    mask: xr.DataArray | None = None,
) -> xr.DataArray:
    if set(dims) - set(forecast.dims):
        raise ValueError(f"forecast must have dimensions {list(dims)}, got {forecast.dims}; rename or reduce others")
    anomalies = any(STATISTICS[s].anomaly for s in metric.statistics)
    if anomalies and climatology is None:
        raise ValueError(f"climatology must be given for {metric.name}, got None; pass the training years' climatology")
    truth = align.at_valid_time(truth, forecast)
    align.check_pair(forecast, truth)
    exact = {d: forecast[d] for d in SPACE}
    mask = mask if mask is None else align.at_valid_time(mask, forecast).assign_coords(exact)

    def counted(array: xr.DataArray, what: str) -> xr.DataArray:
        """The array in float64, zero where it is masked; NaN elsewhere is refused, when the values are computed."""
        values = array.assign_coords(exact).astype(np.float64)
        values = values if mask is None else values.where(mask, 0.0)
        options: Any = {"kwargs": {"name": what}, "dask": "parallelized", "output_dtypes": [np.float64]}
        checked: xr.DataArray = xr.apply_ufunc(_finite, values, **options)
        return checked

    f, o = counted(forecast, "forecast"), counted(truth, "truth")
    weight = xr.DataArray(Grid.from_dataset(forecast).area_weights, dims=SPACE)
    weight = weight if mask is None else weight * mask.drop_vars(list(mask.coords))
    pair = Pair(f - o)
    if anomalies:
        climatology = align.at_valid_time(climatology, forecast)
        align.check_pair(forecast, climatology, what="climatology")
        c = counted(climatology, "climatology")
        pair = Pair(f - o, f - c, o - c)
    early = tuple(d for d in dims if d in SPACE) or tuple(dims)
    late = tuple(d for d in dims if d not in early)
    state = AggregationState.of({s: STATISTICS[s].compute(pair) for s in metric.statistics}, weight=weight, dims=early)
    averages = [part.mean(late, skipna=mask is not None) for part in metric.parts(state.means())]
    score: xr.DataArray = metric.finish(*averages).rename(forecast.name)
    if forecast.attrs.get("units"):
        score.attrs["units"] = metric.unit(str(forecast.attrs["units"]))
    return score


def _finite(values: Any, *, name: str) -> Any:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise ValueError(
            f"{name} must be finite, got {bad} of {values.size} values that are not; drop those times, or pass a mask"
        )
    return values
