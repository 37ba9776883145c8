"""Whether a store keeps the contract of docs/data-contract.md, whoever wrote it: every departure at once.

Contract: nothing is written and nothing repaired. A training store, a forecast store, or a forecast in the layout of
WeatherBench 2 is read once, slab by slab: layout, coordinates, units, times, the manifest and its digests,
and the range of every value. What cannot be read is a departure like any other.

It lies beside the sub-packages, as export does, because it works on stores of any origin.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from pipeline import manifest, store
from pipeline.console import say, stamp
from pipeline.departures import of_manifest, read_slabs, recorded_slabs, tell
from pipeline.grid import Grid
from pipeline.weather import foresight, variables
from pipeline.weather.config import WeatherConfig
from pipeline.words import counted

_KINDS = {
    "training store": ("time", "channel", "latitude", "longitude"),
    "forecast": ("init_time", "lead_time", "channel", "latitude", "longitude"),
}
_BLOCK = 64 << 20
"""Bytes of a store without slabs read at once."""


def run_validate(config: WeatherConfig | None, paths: list[Path]) -> None:
    """Check stores, of a configuration or anyone's.

    Args:
        config: its stores are checked if no path is given; else the stores must have its channels and grid.
        paths: folders of stores.

    Raises:
        ValueError: a store departs from the contract; all departures in one message.
    """
    if not paths:
        assert config is not None
        paths = [p for p in (config.paths.store, config.paths.forecast) if p.exists()]
        if not paths:
            raise ValueError(f"store must exist, got nothing at {config.paths.store}; run python -m pipeline regrid")
    checked = {path: departures(path, config=config) for path in paths}
    tell(checked, page="docs/data-contract.md")
    for line in [] if config is None else foresight.look_ahead(config):
        say(f"validate: {line}")


def departures(path: Path, *, config: WeatherConfig | None = None) -> list[str]:
    """Every departure of a store, one line each; empty for a good one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
    except Exception as error:  # any complaint of any reader
        return [f"must be a Zarr group, got {type(error).__name__}: {error}"]
    if "state" not in ds and "prediction_timedelta" in ds.dims:
        return [*_weatherbench(ds)]
    if "state" not in ds:
        return [f"must hold the array 'state', got {', '.join(map(repr, ds.data_vars)) or 'no array'}"]
    kind = "forecast" if "init_time" in ds["state"].dims else "training store"
    content, faults = manifest.inspect(path)
    return [
        *of_manifest(path, content, faults),
        *_contract(ds, kind),
        *_layout(ds, kind),
        *_channels(ds, config),
        *_grid(ds, config),
        *_times(ds, kind, content, config),
        *_values(path, ds, kind, content),
    ]


def _contract(ds: xr.Dataset, kind: str) -> Iterator[str]:
    contract = ds.attrs.get("contract")
    if not isinstance(contract, Mapping):
        yield f"attribute 'contract' must be a mapping, got {contract!r}"
        return
    if contract.get("schema") != store.SCHEMA:
        yield f"contract.schema must be {store.SCHEMA}, got {contract.get('schema')!r}"
    if contract.get("kind") != kind:
        yield f"contract.kind must be {kind!r}, got {contract.get('kind')!r}"
    if not isinstance(contract.get("source"), Mapping) or "label" not in contract["source"]:
        yield f"contract.source must say what the data are in 'label', got {contract.get('source')!r}"
    names = [str(c) for c in ds["channel"].values] if "channel" in ds else []
    if contract.get("channels") != names:
        yield f"contract.channels must be the channels of the store, got {contract.get('channels')} against {names}"


def _layout(ds: xr.Dataset, kind: str) -> Iterator[str]:
    state = ds["state"]
    if state.dims != _KINDS[kind]:
        yield f"state must have dimensions {_KINDS[kind]}, got {state.dims}"
    if state.dtype != np.float32:
        yield f"state must be float32, got {state.dtype}"
    for name in (*_KINDS[kind], "variable", "level", "unit"):
        if name not in ds.coords and name not in ds:
            yield f"coordinate {name!r} must be there, got none"
    if kind == "training store" and "static" in ds:
        static = ds["static"]
        if static.dims != ("static_channel", "latitude", "longitude"):
            yield f"static must have dimensions static_channel, latitude, longitude, got {static.dims}"
        elif count := int((~np.isfinite(static.values)).sum()):
            yield f"static must be finite, got {counted(count, 'value that is not', 'values that are not')}"


def _channels(ds: xr.Dataset, config: WeatherConfig | None) -> Iterator[str]:
    if "channel" not in ds:
        return
    names = [str(c) for c in ds["channel"].values]
    known = []
    for i, name in enumerate(names):
        try:
            channel = variables.parse_channel(name)
        except ValueError as error:
            yield str(error)
            continue
        known.append(channel)
        wanted = {"variable": channel.variable, "level": channel.level or -1, "unit": channel.spec.unit}
        for key, value in wanted.items():
            if key in ds and ds[key].dims == ("channel",) and ds[key].values[i] != value:
                yield f"{key} of channel {name!r} must be {value!r}, got {ds[key].values[i].item()!r}"
    shorts = list(variables.BY_SHORT)
    order = sorted(known, key=lambda c: (shorts.index(c.variable), c.level or 0))
    if order != known:
        yield f"channels must be in the catalogue's order, {', '.join(c.name for c in order)}; got {', '.join(names)}"
    for name, count in Counter(names).items():
        if count > 1:
            yield f"channels must differ, got {name!r} {counted(count, 'time')}"
    if config is not None and (ours := [c.name for c in config.data.channels.dynamic]) != names:
        yield f"channels must be those of the configuration, {', '.join(ours)}; got {', '.join(names)}"


def _grid(ds: xr.Dataset, config: WeatherConfig | None) -> Iterator[str]:
    try:
        grid = Grid.from_dataset(ds)
    except ValueError as error:
        yield str(error)
        return
    if grid.latitude.size > 1 and grid.latitude[0] > grid.latitude[-1]:
        yield f"latitude must run from south to north, got {grid.latitude[0]:g} .. {grid.latitude[-1]:g}"
    if grid.longitude[0] < 0 or grid.longitude[-1] >= 360:
        yield f"longitude must lie within 0 .. 360, got {grid.longitude[0]:g} .. {grid.longitude[-1]:g}"
    if not grid.is_global:
        yield f"grid must cover the globe, got {grid}"
    described = (ds.attrs.get("contract") or {}).get("grid")
    if described is not None and described != grid.describe():
        yield f"contract.grid must describe the coordinates, got {described} against {grid.describe()}"
    if config is not None and grid != config.data.regrid.grid:
        yield f"grid must be that of the configuration, {config.data.regrid.grid}; got {grid}"


def _times(ds: xr.Dataset, kind: str, content: Mapping[str, Any], config: WeatherConfig | None) -> Iterator[str]:
    dim = _KINDS[kind][0]
    if dim not in ds.coords:
        return
    times, contract = ds[dim].values, ds.attrs.get("contract") or {}
    if not np.issubdtype(times.dtype, np.datetime64):
        yield f"{dim} must be times, got {times.dtype}"
        return
    back = np.flatnonzero(np.diff(times) <= np.timedelta64(0))
    if back.size:
        yield f"{dim} must increase strictly, got {stamp(times[back[0] + 1])} after {stamp(times[back[0]])}"
        return
    if kind == "forecast":
        if "lead_time" in ds and not np.issubdtype(ds["lead_time"].dtype, np.timedelta64):
            yield f"lead_time must be durations, got {ds['lead_time'].dtype}"
        return
    hours = contract.get("step_hours")
    if not isinstance(hours, int) or hours <= 0:
        yield f"contract.step_hours must be a number of hours, got {hours!r}"
        return
    if config is not None and hours != config.data.step_hours:
        yield f"step must be that of the configuration, {config.data.step_hours} h; got {hours} h"
    step = np.timedelta64(hours, "h")
    if (off := np.flatnonzero((times - times[0]) % step)).size:
        yield f"times must lie {hours} h apart or a multiple, got {stamp(times[off[0]])} after {stamp(times[0])}"
        return
    if content:
        absent = np.setdiff1d(np.arange(times[0], times[-1] + step, step), times)
        listed = np.array(content["facts"].get("missing_times", []), "datetime64[ns]")
        if (unlisted := np.setdiff1d(absent, listed)).size:
            got = f"{counted(unlisted.size, 'that is not', 'that are not')}, {stamp(unlisted[0])} first"
            yield f"missing times must be listed in the manifest, got {got}"
        if (there := np.intersect1d(listed, times)).size:
            got = f"{counted(there.size, 'that is there', 'that are there')}, {stamp(there[0])} first"
            yield f"times listed as missing must be absent, got {got}"


def _values(path: Path, ds: xr.Dataset, kind: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Digests, missing values and ranges, each slab read once."""
    group: Any = zarr.open_group(path, mode="r")
    state = group["state"]
    length, axis = state.shape[0], state.ndim - 3
    names = [str(c) for c in ds["channel"].values] if "channel" in ds else []
    slabs = recorded_slabs(content)
    if not slabs:
        step = max(1, _BLOCK // max(1, 4 * int(np.prod(state.shape[1:], dtype=np.int64))))
        slabs = {str(slab.index): (slab.start, slab.stop, None) for slab in store.slabs(length, step)}
    arrays = sorted(n for n, a in group.arrays() if n == "state" or (content and a.shards is not None))
    covered = sum(stop - start for start, stop, _ in slabs.values())
    if covered != length:
        yield f"slabs must cover {length} along {_KINDS[kind][0]}, got {covered} recorded"
    low, high, missing = (np.full(len(names), v) for v in (np.inf, -np.inf, 0))
    for parts, faults in read_slabs(path, content, slabs, arrays):
        yield from faults
        if parts and axis >= 1 and parts["state"].shape[axis] == len(names):
            flat = np.moveaxis(parts["state"], axis, 0).reshape(len(names), -1)
            good = np.isfinite(flat)
            missing += (~good).sum(axis=1)
            low = np.minimum(low, flat.min(axis=1, where=good, initial=np.inf))
            high = np.maximum(high, flat.max(axis=1, where=good, initial=-np.inf))
    for name, a, b, gone in zip(names, low, high, missing, strict=True):
        yield from _range(name, float(a), float(b), int(gone))


def _range(name: str, low: float, high: float, missing: int) -> Iterator[str]:
    if missing:
        yield f"channel {name!r} must have no missing values, got {missing}"
    try:
        channel = variables.parse_channel(name)
    except ValueError:
        return  # said already
    bottom, top = variables.plausible_range(channel)
    if low < bottom or high > top:
        yield f"channel {name!r} must lie within {bottom:g} .. {top:g} {channel.spec.unit}, got {low:g} .. {high:g}"


def _weatherbench(ds: xr.Dataset) -> Iterator[str]:
    """Departures from WeatherBench 2's layout of forecasts."""
    init = next((d for d in ("time", "init_time") if d in ds.dims), None)
    if init is None:
        yield f"must have the dimension 'time' of init times, got {', '.join(map(str, ds.dims))}"
        return
    by_long = {v.long: v for v in variables.CATALOGUE}
    for name, array in ds.data_vars.items():
        spec = by_long.get(str(name))
        if spec is None:
            yield f"variable {name!r} must be one of the catalogue's long names, got an unknown one"
            continue
        wanted = {init, "prediction_timedelta", "latitude", "longitude"} | ({"level"} if spec.levels else set())
        if set(array.dims) != wanted:
            yield f"{name} must have dimensions {', '.join(sorted(wanted))}, got {', '.join(map(str, array.dims))}"
            continue
        for i, time in enumerate(ds[init].values):
            if missing := int((~np.isfinite(array.isel({init: i}).values)).sum()):
                yield f"{name} must have no missing values, got {missing} at {stamp(time)}"
                break
    yield from _grid(ds, None)
