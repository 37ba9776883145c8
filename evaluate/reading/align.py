"""Which forecast is compared with which truth: by labels, on the valid time, never by position.

Contract: init_time + lead_time = valid_time. Both sides must lie on the same grid in the same order,
in the same units, without duplicates and without NaN; whatever does not fit is refused with every
reason in one error, and nothing is dropped silently. Models are compared on common init times only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from pipeline.grid import Grid
from pipeline.store import contract_differences, contract_digest
from pipeline.weather.climatology import day_slots, hours_of_day
from pipeline.weather.times import Times as Times
from pipeline.weather.times import inside


def lead_hours(values: ArrayLike) -> NDArray[np.int64]:
    """Lead times in whole hours, from timedelta64 or numbers of hours.

    Raises:
        ValueError: a lead is not a whole number of hours.
    """
    array = np.atleast_1d(np.asarray(values))
    if np.issubdtype(array.dtype, np.timedelta64):
        hours = array / np.timedelta64(1, "h")
    else:
        hours = array.astype(np.float64)
    if not np.all(hours == np.round(hours)):
        raise ValueError(f"lead times must be whole hours, got {hours.tolist()}")
    return np.asarray(np.round(hours), dtype=np.int64)


def lead_title(hours: int) -> str:
    """How figures and tables call a lead: "6 h", "1 day", "7 days"."""
    if hours < 24 or hours % 24:
        return f"{hours} h"
    return "1 day" if hours == 24 else f"{hours // 24} days"


def parse_lead(text: str) -> int:
    """A lead in hours: "7d", "36h" or "168".

    >>> parse_lead("7d"), parse_lead("36h"), parse_lead("168")
    (168, 36, 168)

    Raises:
        ValueError: anything else.
    """
    found = re.fullmatch(r"(\d+)\s*(d|days?|h|hours?|)", text.strip().lower())
    if not found or int(found[1]) == 0:
        raise ValueError(f"lead must look like 7d or 168h, got {text!r}")
    return int(found[1]) * (24 if found[2].startswith("d") else 1)


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
        _refuse_duplicates(field_["time"].values, "truth time")
        absent = ~np.isin(valid.values, field_["time"].values)
        if absent.any():
            raise ValueError(
                f"truth must have every valid time, got {int(absent.sum())} of {absent.size} missing, first "
                f"{_iso(valid.values[absent][0])}; select common init times first (common_init_times)"
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
        ValueError: every reason at once: dimension names, grid, labels, units, duplicates.
    """
    faults: list[str] = []
    for name, array in (("forecast", forecast), (what, truth)):
        absent = [d for d in ("latitude", "longitude") if d not in array.dims]
        if absent:
            faults.append(
                f"{name} must have dimensions latitude and longitude, got {array.dims}; rename them, weights need both"
            )
            continue
        for dim in array.dims:
            if dim in array.indexes and array.indexes[dim].has_duplicates:
                twice = array.indexes[dim][array.indexes[dim].duplicated()][0]
                faults.append(f"{name} must have each {dim} once, got {twice} more than once")
    if not faults:
        ours, theirs = Grid.from_dataset(forecast), Grid.from_dataset(truth)
        if not ours.allclose(theirs):
            hint = "sort both south to north" if ours.allclose(_flipped(theirs)) else "regrid one of them"
            faults.append(f"{what} must lie on the forecast's grid {ours}, got {theirs}; {hint}")
        for dim in set(forecast.dims) & set(truth.dims) - {"latitude", "longitude"}:
            if dim in forecast.indexes and dim in truth.indexes:
                faults += _label_faults(forecast.indexes[dim], truth.indexes[dim], dim=str(dim), what=what)
        lacking = [str(d) for d in forecast.dims if d not in truth.dims]
        if what == "truth" and lacking:
            faults.append(f"truth must have the forecast's dimensions, got none of {lacking}; give it a time axis")
        extra = [str(d) for d in truth.dims if d not in forecast.dims]
        if extra:
            faults.append(f"{what} must have no dimension the forecast lacks, got {extra}; select one label of it")
        faults += _unit_faults(forecast, truth, what=what)
    _raise(faults, f"forecast and {what} must match")


def check_stores(forecast: xr.Dataset, truth: xr.Dataset, *, leads: Sequence[int], name: str) -> None:
    """Refuse a forecast store that cannot be scored against a training store.

    Args:
        forecast: `state (init_time, lead_time, channel, latitude, longitude)`.
        truth: `state (time, channel, latitude, longitude)`.
        leads: hours that must be there.
        name: what the forecast is called.

    Raises:
        ValueError: every reason at once.
    """
    _raise(
        store_faults(forecast, truth, leads=leads, name=name), f"forecast {name!r} must be comparable with the store"
    )


def store_faults(forecast: xr.Dataset, truth: xr.Dataset, *, leads: Sequence[int], name: str) -> list[str]:
    """Every reason why a forecast store cannot be scored against a training store; see `check_stores`."""
    faults: list[str] = []
    for label, ds, dims in (
        (f"forecast {name!r}", forecast, ("init_time", "lead_time", "channel", "latitude", "longitude")),
        ("store", truth, ("time", "channel", "latitude", "longitude")),
    ):
        if "state" not in ds or tuple(ds["state"].dims) != dims:
            found = tuple(ds["state"].dims) if "state" in ds else sorted(map(str, ds))
            faults.append(f"{label} must hold state {dims}, got {found}")
    if not faults:
        ours, theirs = Grid.from_dataset(forecast), Grid.from_dataset(truth)
        if not ours.allclose(theirs):
            faults.append(f"grid: forecast {ours}, store {theirs}; regrid one of them")
        known = list(map(str, truth["channel"].values))
        absent = [c for c in map(str, forecast["channel"].values) if c not in known]
        if absent:
            faults.append(f"channels: the store lacks {', '.join(absent)}")
        elif "unit" in forecast.coords and "unit" in truth.coords:
            units = dict(zip(known, map(str, truth["unit"].values), strict=True))
            for channel, unit in zip(map(str, forecast["channel"].values), map(str, forecast["unit"].values)):
                if unit != units[channel]:
                    faults.append(f"units: forecast has {channel} in {unit!r}, the store in {units[channel]!r}")
        have = lead_hours(forecast["lead_time"].values).tolist()
        missing = [h for h in leads if h not in have]
        if missing:
            faults.append(f"leads: {missing} h are missing, the forecast has {have}")
        for label, times in (("init_time", forecast["init_time"].values), ("time", truth["time"].values)):
            doubled = times[:-1][times[1:] == times[:-1]] if times.size else times
            if doubled.size or len(np.unique(times)) != len(times):
                faults.append(f"{label}: duplicates, first {_iso(doubled[0]) if doubled.size else 'unsorted'}")
        faults += _contract_faults(forecast.attrs.get("contract", {}), truth.attrs.get("contract", {}))
    return faults


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
        ValueError: none is left; the message counts the reasons.
    """
    known = np.unique(np.asarray(truth, "datetime64[ns]"))
    everything = np.unique(np.concatenate([np.asarray(t, "datetime64[ns]") for t in models.values()]))
    hours = lead_hours(np.asarray(leads))
    keep = np.ones(everything.size, bool)
    dropped: dict[str, list[str]] = {}

    def drop(bad: NDArray[np.bool_], reason: str) -> None:
        bad = bad & keep
        if bad.any():
            dropped[reason] = [_iso(t) for t in everything[bad]]
            keep[bad] = False

    for name, times in models.items():
        drop(~np.isin(everything, np.asarray(times, "datetime64[ns]")), f"no forecast of {name}")
    drop(~np.isin(everything, known), "the store lacks the init time")
    valid = valid_times(everything, hours)
    for column, hour in enumerate(hours):
        drop(~np.isin(valid[:, column], known), f"the store lacks the valid time at {lead_title(int(hour))}")
    if not keep.any():
        counts = "; ".join(f"{reason}: {len(times)}" for reason, times in dropped.items()) or "no forecasts"
        raise ValueError(
            f"forecasts and truth must overlap in time, got no common init time of {everything.size} ({counts}); "
            f"the store runs {_iso(known[0]) if known.size else '-'} .. {_iso(known[-1]) if known.size else '-'}"
        )
    return Alignment(everything[keep], hours, dropped)


def check_outside(valid: Times, periods: Sequence[Mapping[str, str]], *, who: str = "the climatology") -> None:
    """Refuse to score where models were fitted.

    Args:
        valid: valid times, any shape.
        periods: training periods, {"start": ISO time, "end": ISO time}.
        who: was fitted there.

    Raises:
        ValueError: a valid time lies inside one.
    """
    for period in periods:
        found = inside(valid, [period])
        if found.any():
            raise ValueError(
                f"forecasts must be valid outside the training periods, got {int(found.sum())} of {found.size} valid "
                f"times within {period['start']} .. {period['end']}, where {who} was fitted, first "
                f"{_iso(valid[found].min())}; choose another test period"
            )


def _contract_faults(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Forecasts belong to the store they were issued from; without that record, to its source and regridding."""
    issued = ours.get("store")
    if issued is not None and theirs and issued != contract_digest(theirs):
        return [f"store: the forecasts were issued from another one (contract {issued}, not {contract_digest(theirs)})"]
    return [
        f"{key}: {line}"
        for key in ("source", "regrid")
        if isinstance(ours.get(key), Mapping) and isinstance(theirs.get(key), Mapping)
        for line in contract_differences(ours[key], theirs[key])
    ]


def _flipped(grid: Grid) -> Grid:
    return Grid(grid.latitude[::-1], grid.longitude)


def _label_faults(ours: Any, theirs: Any, *, dim: str, what: str) -> list[str]:
    if ours.equals(theirs):
        return []
    missing, extra = ours.difference(theirs), theirs.difference(ours)
    if not len(missing) and not len(extra):
        return [f"{what} must have {dim} in the forecast's order, got another order"]
    parts = [f"{what} lacks {list(map(str, missing[:5]))}"] if len(missing) else []
    parts += [f"forecast lacks {list(map(str, extra[:5]))}"] if len(extra) else []
    count = len(missing) + len(extra)
    return [f"{what} must have the forecast's labels on {dim}, got {count} differing: {'; '.join(parts)}"]


def _unit_faults(forecast: xr.DataArray, truth: xr.DataArray, *, what: str) -> list[str]:
    faults = []
    a, b = forecast.attrs.get("units"), truth.attrs.get("units")
    if a is not None and b is not None and a != b:
        faults.append(f"{what} must be in the forecast's units {a!r}, got {b!r}; convert one of them")
    if "unit" in forecast.coords and "unit" in truth.coords and forecast["unit"].shape == truth["unit"].shape:
        differs = forecast["unit"].values != truth["unit"].values
        if np.any(differs):
            ours, theirs = np.atleast_1d(forecast["unit"].values), np.atleast_1d(truth["unit"].values)
            i = int(np.flatnonzero(np.atleast_1d(differs))[0])
            faults.append(f"{what} must be in the forecast's units, got {str(theirs[i])!r} against {str(ours[i])!r}")
    return faults


def _refuse_duplicates(times: Times, name: str) -> None:
    unique, counts = np.unique(times, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name} must be unique, got {_iso(unique[counts > 1][0])} {int(counts.max())} times")


def _raise(faults: list[str], headline: str) -> None:
    if len(faults) == 1:
        raise ValueError(faults[0] if " must " in faults[0] else f"{headline}, got a difference in {faults[0]}")
    if faults:
        raise ValueError(f"{headline}, got {len(faults)} faults:\n" + "\n".join(f"  {f}" for f in faults))


def _iso(time: Any) -> str:
    return str(np.datetime64(time, "h")) if not isinstance(time, str) else time
