"""Which forecast is compared with which truth: by labels, on the valid time, never by position.

Contract: init_time + lead_time = valid_time. Both sides must lie on the same grid in the same order, in the same
units, without duplicates and without NaN; whatever does not fit is refused with every reason in one error, and
nothing is dropped silently. Models are compared on common init times only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from evaluate.reading.faults import ComparisonError, Fault
from evaluate.text import iso_hour, lead_title
from pipeline.grid import Grid
from pipeline.store import contract_differences, contract_digest
from pipeline.weather.climatology import day_slots, hours_of_day
from pipeline.weather.times import Times, inside
from pipeline.words import counted

FORECAST_DIMS = ("init_time", "lead_time", "channel", "latitude", "longitude")
TRUTH_DIMS = ("time", "channel", "latitude", "longitude")


def lead_hours(values: ArrayLike) -> NDArray[np.int64]:
    """Lead times in whole hours, from timedelta64 or numbers of hours.

    Raises:
        ValueError: a lead is not a whole number of hours.
    """
    array = np.atleast_1d(np.asarray(values))
    hours = array / np.timedelta64(1, "h") if np.issubdtype(array.dtype, np.timedelta64) else array.astype(np.float64)
    if not np.all(hours == np.round(hours)):
        raise ValueError(f"lead times must be whole hours, got {hours.tolist()}")
    return np.asarray(np.round(hours), dtype=np.int64)


def valid_times(init_times: Times, leads: Sequence[int] | NDArray[np.int64]) -> Times:
    """Valid times, shape (init_time, lead)."""
    steps = lead_hours(np.asarray(leads)).astype("timedelta64[h]")
    return np.asarray(init_times.astype("datetime64[ns]")[:, None] + steps[None, :])


def at_valid_time(field_: xr.DataArray, forecast: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Select a field at the forecast's valid times.

    Args:
        field_: with a `time` axis, or `dayofyear` (1..366) and perhaps `hour` axes (a climatology); a field
            with neither is returned as it is.
        forecast: with `init_time`, and perhaps `lead_time`.

    Returns:
        The field with the forecast's init_time and lead_time instead.

    Raises:
        ValueError: a valid time is absent from `time`, or the forecast has no init_time.
    """
    if not {"time", "dayofyear"} & set(field_.dims):
        return field_
    if "init_time" not in forecast.coords:
        raise ValueError(f"forecast must have a coordinate 'init_time', got {sorted(map(str, forecast.coords))}")
    valid = forecast["init_time"]
    if "lead_time" in forecast.coords:
        steps = lead_hours(forecast["lead_time"].values).astype("timedelta64[h]").astype("timedelta64[ns]")
        valid = valid + forecast["lead_time"].copy(data=steps.reshape(forecast["lead_time"].shape))
    if "time" in field_.dims:
        times = field_.indexes["time"]
        if times.has_duplicates:
            raise ValueError(f"truth time must be unique, got {iso_hour(times[times.duplicated()][0])} more than once")
        absent = ~np.isin(valid.values, times)
        if absent.any():
            raise ValueError(
                f"truth must have every valid time, got {int(absent.sum())} of {absent.size} missing, first "
                f"{iso_hour(valid.values[absent][0])}; select common init times first (common_init_times)"
            )
        chosen = field_.sel(time=valid).drop_vars("time")
    else:
        indexers = {"dayofyear": valid.copy(data=day_slots(valid.values))}
        if "hour" in field_.dims:
            indexers["hour"] = valid.copy(data=hours_of_day(valid.values))
        chosen = field_.sel(indexers).drop_vars(list(indexers))
    return chosen.drop_vars([c for c in ("init_time", "lead_time") if c in chosen.coords]).assign_coords(
        {c: forecast[c] for c in ("init_time", "lead_time") if c in chosen.dims}
    )


def check_pair(forecast: xr.DataArray, truth: xr.DataArray, *, what: str = "truth") -> None:
    """Refuse two labelled arrays that cannot be compared.

    Args:
        forecast: with dimensions latitude and longitude.
        truth: the same, already at the valid times.
        what: what the second one is called.

    Raises:
        ComparisonError: every reason at once: dimension names, grid, labels, units, duplicates.
    """
    faults: list[Fault] = []
    for name, array in (("forecast", forecast), (what, truth)):
        if {"latitude", "longitude"} - set(array.dims):
            have = f"{name} must have latitude and longitude, got {array.dims}; rename them, weights need both"
            faults.append(Fault("dimensions", have))
            continue
        for dim, index in array.indexes.items():
            if dim in array.dims and index.has_duplicates:
                twice = index[index.duplicated()][0]
                faults.append(Fault("duplicates", f"{name} must have each {dim} once, got {twice} more than once"))
    if not faults:
        faults = [
            *_grid_faults(forecast, truth, what=what),
            *_label_faults(forecast, truth, what=what),
            *_dimension_faults(forecast, truth, what=what),
            *_unit_faults(forecast, truth, what=what),
        ]
    if faults:
        raise ComparisonError(f"forecast and {what} must match", faults)


def _grid_faults(forecast: Any, truth: Any, *, what: str, model: str | None = None) -> list[Fault]:
    ours, theirs = Grid.from_dataset(forecast), Grid.from_dataset(truth)
    if ours.allclose(theirs):
        return []
    flipped = ours.allclose(Grid(theirs.latitude[::-1], theirs.longitude))
    remedy = "sort both south to north" if flipped else "regrid one of them"
    return [Fault("grid", f"forecast on {ours}, {what} on {theirs}; {remedy}", model)]


def _label_faults(forecast: xr.DataArray, truth: xr.DataArray, *, what: str) -> list[Fault]:
    faults = []
    for dim in set(forecast.dims) & set(truth.dims) - {"latitude", "longitude"}:
        if dim not in forecast.indexes or dim not in truth.indexes:
            continue
        ours, theirs = forecast.indexes[dim], truth.indexes[dim]
        if ours.equals(theirs):
            continue
        missing, extra = ours.difference(theirs), theirs.difference(ours)
        if not len(missing) and not len(extra):
            faults.append(Fault("labels", f"{what} must have {dim} in the forecast's order, got another order"))
            continue
        lacks = [f"{what} lacks {list(map(str, missing[:5]))}"] if len(missing) else []
        lacks += [f"forecast lacks {list(map(str, extra[:5]))}"] if len(extra) else []
        count = len(missing) + len(extra)
        reason = f"{what} must have the forecast's labels on {dim}, got {count} differing: {'; '.join(lacks)}"
        faults.append(Fault("labels", reason))
    return faults


def _dimension_faults(forecast: xr.DataArray, truth: xr.DataArray, *, what: str) -> list[Fault]:
    lacking = [str(d) for d in forecast.dims if d not in truth.dims]
    extra = [str(d) for d in truth.dims if d not in forecast.dims]
    faults = []
    if what == "truth" and lacking:
        reason = f"truth must have the forecast's dimensions, got none of {lacking}; give it a time axis"
        faults.append(Fault("dimensions", reason))
    if extra:
        reason = f"{what} must have no dimension the forecast lacks, got {extra}; select one label of it"
        faults.append(Fault("dimensions", reason))
    return faults


def _unit_faults(forecast: xr.DataArray, truth: xr.DataArray, *, what: str) -> list[Fault]:
    pairs = [(forecast.attrs.get("units"), truth.attrs.get("units"))]
    if "unit" in forecast.coords and "unit" in truth.coords and forecast["unit"].shape == truth["unit"].shape:
        ours, theirs = (np.atleast_1d(a["unit"].values).tolist() for a in (forecast, truth))
        pairs += [next(((a, b) for a, b in zip(ours, theirs, strict=True) if a != b), (None, None))]
    return [
        Fault("units", f"{what} must be in the forecast's units {ours!r}, got {theirs!r}; convert one of them")
        for ours, theirs in pairs
        if ours is not None and theirs is not None and ours != theirs
    ]


def store_faults(forecast: xr.Dataset, truth: xr.Dataset, *, leads: Sequence[int], name: str) -> list[Fault]:
    """Every reason why a forecast store cannot be scored against a training store.

    Args:
        forecast: `state (init_time, lead_time, channel, latitude, longitude)`.
        truth: `state (time, channel, latitude, longitude)`.
        leads: hours that must be there.
        name: what the forecast is called.
    """
    faults: list[Fault] = []
    for model, ds, dims in ((name, forecast, FORECAST_DIMS), (None, truth, TRUTH_DIMS)):
        if "state" not in ds or tuple(ds["state"].dims) != dims:
            have = tuple(ds["state"].dims) if "state" in ds else sorted(map(str, ds))
            who = "the store" if model is None else "it"
            faults.append(Fault("dimensions", f"{who} must hold state {dims}, got {have}", model))
    if faults:
        return faults
    faults += _grid_faults(forecast, truth, what="the store", model=name)
    known = list(map(str, truth["channel"].values))
    channels = list(map(str, forecast["channel"].values))
    absent = [c for c in channels if c not in known]
    if absent:
        faults.append(Fault("channels", f"the store lacks {', '.join(absent)}", name))
    elif others := _called_alike(forecast, truth):
        faults.append(Fault("channels", f"{', '.join(others)} of the store is of another variable or level", name))
    elif "unit" in forecast.coords and "unit" in truth.coords:
        units = dict(zip(known, map(str, truth["unit"].values), strict=True))
        for channel, unit in zip(channels, map(str, forecast["unit"].values), strict=True):
            if unit != units[channel]:
                faults.append(Fault("units", f"{channel} is in {unit!r}, the store has {units[channel]!r}", name))
    have = lead_hours(forecast["lead_time"].values).tolist()
    missing = [h for h in leads if h not in have]
    if missing:
        faults.append(Fault("leads", f"{missing} h are missing, there are {have}", name))
    for model, axis, ds in ((name, "init_time", forecast), (None, "time", truth)):
        if ds.indexes[axis].has_duplicates:
            twice = ds.indexes[axis][ds.indexes[axis].duplicated()][0]
            faults.append(Fault("duplicates", f"{axis} must be unique, got {iso_hour(twice)} more than once", model))
    return faults + _contract_faults(forecast.attrs.get("contract", {}), truth.attrs.get("contract", {}), name)


def _called_alike(forecast: xr.Dataset, truth: xr.Dataset) -> list[str]:
    """Channels that both sides call the same and that are of different variables or levels, where both say so."""
    keys = [k for k in ("variable", "level") if k in forecast.coords and k in truth.coords]
    ours, theirs = (
        {str(c): tuple(ds[k].values[i] for k in keys) for i, c in enumerate(ds["channel"].values)}
        for ds in (forecast, truth)
    )
    return [name for name, identity in ours.items() if identity != theirs[name]]


def _contract_faults(ours: Mapping[str, Any], theirs: Mapping[str, Any], model: str) -> list[Fault]:
    """Forecasts belong to the store they were issued from; without that record, to its source and regridding."""
    issued = ours.get("store")
    if issued is not None and theirs and issued != contract_digest(theirs):
        reason = f"issued from another store (contract {issued}, not {contract_digest(theirs)})"
        return [Fault("store", reason, model)]
    return [
        Fault("store", f"{key}: {line}", model)
        for key in ("source", "regrid")
        if isinstance(ours.get(key), Mapping) and isinstance(theirs.get(key), Mapping)
        for line in contract_differences(ours[key], theirs[key])
    ]


@dataclass(frozen=True)
class Alignment:
    """Common init times of all models.

    Args:
        init_times: sorted, shape (T,).
        leads: hours, shape (L,).
        dropped: reason -> init times left out for it.
    """

    init_times: Times
    leads: NDArray[np.int64]
    dropped: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def valid_times(self) -> Times:
        """Shape (T, L)."""
        return valid_times(self.init_times, self.leads)


def common_init_times(models: Mapping[str, Times], truth: Times, *, leads: Sequence[int]) -> Alignment:
    """Init times that every model has, and for which the truth has the init time and every valid time.

    Args:
        models: init times of each model that has its own.
        truth: times of the store.
        leads: hours.

    Raises:
        ComparisonError: none is left; the message counts the reasons.
    """
    known = np.unique(np.asarray(truth, "datetime64[ns]"))
    everything = np.unique(np.concatenate([np.asarray(t, "datetime64[ns]") for t in models.values()]))
    hours = lead_hours(np.asarray(leads))
    valid = valid_times(everything, hours)
    needed = {f"no forecast of {name}": np.isin(everything, times) for name, times in models.items()}
    needed["the store lacks the init time"] = np.isin(everything, known)
    for column, hour in enumerate(hours):
        needed[f"the store lacks the valid time at {lead_title(int(hour))}"] = np.isin(valid[:, column], known)
    keep = np.ones(everything.size, bool)
    dropped: dict[str, list[str]] = {}
    for reason, there in needed.items():
        if (keep & ~there).any():
            dropped[reason] = [iso_hour(t) for t in everything[keep & ~there]]
        keep &= there
    if not keep.any():
        counts = "; ".join(f"{reason}: {len(times)}" for reason, times in dropped.items()) or "no forecasts"
        span = f"{iso_hour(known[0])} .. {iso_hour(known[-1])}" if known.size else "nothing"
        reason = f"no common init time of {everything.size} ({counts}); the store holds {span}"
        raise ComparisonError("forecasts and truth must overlap in time", [Fault("times", reason)])
    return Alignment(everything[keep], hours, dropped)


def training_faults(
    valid: Times, periods: Sequence[Mapping[str, str]], *, who: str = "the climatology", model: str | None = None
) -> list[Fault]:
    """Valid times inside periods that something was fitted on: a score there would flatter it.

    Args:
        valid: valid times, any shape.
        periods: training periods, {"start": ISO time, "end": ISO time}.
        who: was fitted there.
        model: the forecast that it concerns.
    """
    faults = []
    for period in periods:
        within = inside(valid, [period])
        if within.any():
            reason = (
                f"{int(within.sum())} of {counted(within.size, 'valid time')}, first {iso_hour(valid[within].min())}, "
                f"within {period['start']} .. {period['end']}, where {who} was fitted; choose another test period"
            )
            faults.append(Fault("training", reason, model))
    return faults
