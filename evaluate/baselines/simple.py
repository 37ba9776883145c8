"""Forecasts that cost nothing, which every model has to beat: persistence and climatology.

Contract: a baseline is issued for the same init times and leads as the model it is compared with, and
knows nothing a forecaster would not have at the init time. Persistence is the state at the init time;
climatology is the training years' day-of-year x hour mean at the valid time. Those with fitted numbers,
damped persistence and linear regression, are made by `evaluate.baselines.fit`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.reading import align

Field = NDArray[np.float32]
"""One state, shape (channel, cell)."""


@dataclass
class Batch:
    """Everything known about a few init times.

    Args:
        start: position of the first init time among all of them.
        init_times: shape (T,), datetime64[ns].
        valid_times: shape (T, L).
        states: truth by time (int64 ns).
        normals: climatology by time, likewise.
        forecasts: stored forecasts by model name, shape (T, L, channel, cell).
    """

    start: int
    init_times: align.Times
    valid_times: align.Times
    states: dict[int, Field] = field(repr=False)
    normals: dict[int, Field] = field(repr=False)
    forecasts: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def truth(self, t: int, lead: int) -> Field:
        """The state at the valid time."""
        return self.states[key(self.valid_times[t, lead])]

    def climatology(self, t: int, lead: int) -> Field:
        """The climatology at the valid time."""
        return self.normals[key(self.valid_times[t, lead])]


Predictor = Callable[[Batch, int, int], Field]
"""(batch, init time, lead) -> the forecast; times and leads by position."""


def key(time: np.datetime64) -> int:
    """A time as int64 nanoseconds."""
    return int(time.astype("datetime64[ns]").astype(np.int64))


def stored(name: str) -> Predictor:
    """A forecast read from a store."""
    return lambda batch, t, lead: batch.forecasts[name][t, lead]


def persistence(batch: Batch, t: int, lead: int) -> Field:  # noqa: ARG001 - the same at every lead
    """The state at the init time, at every lead."""
    return batch.states[key(batch.init_times[t])]


def climatology(batch: Batch, t: int, lead: int) -> Field:
    """The climatology at the valid time."""
    return batch.climatology(t, lead)


def fit_damping(anomaly_at_init: Any, anomaly_at_valid: Any, *, weight: xr.DataArray, dims: Sequence[str]) -> Any:
    """The factor that minimises the mean squared error of damped persistence, by least squares.

    Args:
        anomaly_at_init: labelled anomalies of training years.
        anomaly_at_valid: the anomalies one lead later, of the same shape and labels.
        weight: cell areas.
        dims: what is summed: times and space.
    """
    product = xr.dot(anomaly_at_init * anomaly_at_valid, weight, dim=list(dims))
    return product / xr.dot(anomaly_at_init * anomaly_at_init, weight, dim=list(dims))


PREDICTORS: dict[str, Predictor] = {"persistence": persistence, "climatology": climatology}
"""Baselines that need no fit, by their name in the configuration."""
NAMES = ("persistence", "climatology", "damped_persistence", "linear")
"""All baselines."""
TWINS = ("ceiling", "coarse")
"""References that a simulated atmosphere makes of itself (`python -m pipeline twins`)."""


def persistence_forecast(truth: xr.DataArray, *, init_times: align.Times, leads: Sequence[int]) -> xr.DataArray:
    """Persistence as a labelled forecast.

    Args:
        truth: with a `time` axis.
        init_times: which must be among its times.
        leads: hours.

    Returns:
        Dimensions (init_time, lead_time, ...), coordinate lead_time as timedelta64.
    """
    axes = _axes(init_times, leads)
    absent = ~np.isin(axes["init_time"].values, truth["time"].values)
    if absent.any():
        raise ValueError(
            f"init_times must be among the times of the truth, got {axes['init_time'].values[absent][0]}; "
            "leave it out of all models"
        )
    at_init = truth.sel(time=axes["init_time"]).drop_vars("time")
    return at_init.expand_dims(lead_time=axes["lead_time"], axis=at_init.dims.index("init_time") + 1)


def climatology_forecast(climatology: xr.DataArray, *, init_times: align.Times, leads: Sequence[int]) -> xr.DataArray:
    """The climatology as a labelled forecast.

    Args:
        climatology: with `dayofyear` (1..366, 29 February is 60) and perhaps `hour`.
        init_times: datetime64.
        leads: hours.
    """
    axes = _axes(init_times, leads)
    return align.at_valid_time(climatology, xr.Dataset(coords=axes))


def _axes(init_times: align.Times, leads: Sequence[int]) -> dict[str, xr.DataArray]:
    steps = align.lead_hours(np.asarray(leads)).astype("timedelta64[h]").astype("timedelta64[ns]")
    init = np.asarray(init_times, dtype="datetime64[ns]")
    return {
        "init_time": xr.DataArray(init, dims="init_time", coords={"init_time": init}),
        "lead_time": xr.DataArray(steps, dims="lead_time", coords={"lead_time": steps}),
    }
