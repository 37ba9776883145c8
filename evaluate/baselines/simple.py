"""Forecasts that cost nothing, which every model has to beat: persistence and climatology.

Contract: a baseline is issued for the same init times and leads as the model it is compared with, and uses nothing
that a forecaster would not have at the init time. Persistence is the state at the init time; climatology is the
training years' day-of-year x hour mean at the valid time. Those with fitted numbers, damped persistence and linear
regression, are made by `evaluate.baselines.fit`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import xarray as xr

from evaluate.reading import align
from evaluate.reading.batch import Batch, Field, Predictor, key
from pipeline.weather.sections_evaluation import TwinName
from pipeline.weather.times import Times

NAMES = ("persistence", "climatology", "damped_persistence", "linear")
"""All baselines."""
TWINS: tuple[str, ...] = get_args(TwinName)
"""Forecasts that a simulated atmosphere makes of itself (`python -m pipeline twins`): by the same core from slightly
wrong states, and by a coarser core."""


def stored(name: str) -> Predictor:
    """A forecast read from a store."""
    return lambda batch, t, lead: batch.forecasts[name][t, lead]


def persistence(batch: Batch, t: int, lead: int) -> Field:  # noqa: ARG001 - the same at every lead
    """The state at the init time, at every lead."""
    return batch.states[key(batch.init_times[t])]


PREDICTORS: dict[str, Predictor] = {"persistence": persistence, "climatology": Batch.climatology}
"""Baselines that need no fit, by their name in the configuration."""


def persistence_forecast(truth: xr.DataArray, *, init_times: Times, leads: Sequence[int]) -> xr.DataArray:
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


def climatology_forecast(climatology: xr.DataArray, *, init_times: Times, leads: Sequence[int]) -> xr.DataArray:
    """The climatology as a labelled forecast.

    Args:
        climatology: with `dayofyear` (1..366, 29 February is 60) and perhaps `hour`.
        init_times: datetime64.
        leads: hours.
    """
    return align.at_valid_time(climatology, xr.Dataset(coords=_axes(init_times, leads)))


def _axes(init_times: Times, leads: Sequence[int]) -> dict[str, xr.DataArray]:
    steps = align.lead_hours(np.asarray(leads)).astype("timedelta64[h]").astype("timedelta64[ns]")
    init = np.asarray(init_times, dtype="datetime64[ns]")
    return {n: xr.DataArray(v, {n: v}, [n]) for n, v in (("init_time", init), ("lead_time", steps))}
