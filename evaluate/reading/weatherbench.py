"""Forecasts in the layout of WeatherBench 2: written for others, and read as models to compare with.

Contract: a WeatherBench 2 forecast is a Zarr store with one array per variable under its ERA5 long name, dimensions
(time, prediction_timedelta, [level,] latitude, longitude), where `time` is the init time, levels are hPa and units SI.
What `run_export` writes, `open_forecast` reads back bit for bit, and with the contract it was issued under. Files from
elsewhere may differ in names, units, the order of dimensions and latitudes, and the origin of longitudes; what cannot
be understood is refused, and what is left out is named. Only one field of every channel is read at once, which must be
plausible; everything else is read when it is needed.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console

from evaluate.reading.align import FORECAST_DIMS, lead_hours
from pipeline import files, provenance
from pipeline.console import terminal_progress
from pipeline.grid import Grid
from pipeline.store import manifest_path, open_store
from pipeline.weather import units
from pipeline.weather import variables as catalogue
from pipeline.weather.config import WeatherConfig

_SPELLINGS = {
    "init_time": ("init_time", "time", "initial_time", "forecast_reference_time"),
    "lead_time": ("prediction_timedelta", "lead_time", "step", "prediction_timedelta_daily"),
    **{axis: units.COORDINATE_NAMES[axis] for axis in ("level", "latitude", "longitude")},
}
_CONTRACT = "chagcast_contract"
_SLAB = 16


def open_forecast(path: Path | str, *, channels: Sequence[str] | None = None, name: str | None = None) -> xr.Dataset:
    """Open forecasts from elsewhere as a forecast store of this project.

    Args:
        path: a forecast store of this project, a Zarr store in WeatherBench 2's layout, or a NetCDF file in it.
        channels: short names wanted, in order; every one that is understood when absent.
        name: what the model is called; the name it was exported under, or that of the file, when absent.

    Returns:
        `state (init_time, lead_time, channel, latitude, longitude)`, float32, canonical units, latitudes south to
        north, longitudes within 0 .. 360, on Dask where it is not one of our stores. `attrs["contract"]` names
        model and channels; `attrs["left_out"]` lists variables that are no channel.

    Raises:
        ValueError: nothing there, a dimension or coordinate that is missing or not understood, an unknown unit,
            an implausible value, or wanted channels that are absent; all of them are named.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"forecast must exist, got nothing at {path}; give a Zarr store or a NetCDF file")
    if manifest_path(path).exists():
        ds = open_store(path, stage="python -m pipeline forecast")
        catalogue.require_channel_names(ds, store=path)
    else:
        opened = _open(path)
        if "state" in opened and "init_time" in opened["state"].dims:
            raise ValueError(
                f"forecast {path} must have its manifest beside it, got no {manifest_path(path).name}; copy both"
            )
        raw = _named(opened, path)
        ds = _stacked(raw, path, channels)
        written = json.loads(raw.attrs.get(_CONTRACT, "{}"))
        contract = {"kind": "forecast", "model": path.stem, "grid": Grid.from_dataset(ds).describe(), **written}
        contract |= {"channels": ds["channel"].values.tolist(), "lead_hours": lead_hours(ds["lead_time"]).tolist()}
        ds.attrs["contract"] = contract
    if channels is not None:
        known = list(map(str, ds["channel"].values))
        absent = [c for c in channels if c not in known]
        if absent:
            raise ValueError(
                f"forecast {path} must have every channel that is scored, got none of {', '.join(absent)}; "
                f"it has {', '.join(known)}"
            )
        if list(channels) != known:
            ds = ds.isel(channel=[known.index(c) for c in channels])
    if name is not None:
        ds = ds.assign_attrs(contract={**ds.attrs["contract"], "model": name})
    return ds


def to_weatherbench(forecast: xr.Dataset) -> xr.Dataset:
    """The same forecasts as WeatherBench 2 lays them out; lazy where they are.

    Args:
        forecast: as `open_forecast` returns it.

    Raises:
        ValueError: variables on levels do not share them.
    """
    parsed = [catalogue.parse_channel(str(c)) for c in forecast["channel"].values]
    levels = {c.variable: [p.level for p in parsed if p.variable == c.variable] for c in parsed if c.level is not None}
    if len({tuple(v) for v in levels.values()}) > 1:
        raise ValueError(f"variables on levels must share them, got {levels}; export fewer channels")
    state = forecast["state"].drop_vars(
        [c for c in forecast["state"].coords if c not in FORECAST_DIMS or c == "channel"]
    )
    arrays: dict[str, xr.DataArray] = {}
    for spec in dict.fromkeys(c.spec for c in parsed):
        rows = [i for i, c in enumerate(parsed) if c.variable == spec.short]
        if spec.levels:
            array = state.isel(channel=slice(rows[0], rows[-1] + 1) if len(rows) == rows[-1] + 1 - rows[0] else rows)
            array = array.rename(channel="level").assign_coords(level=np.array(levels[spec.short], np.int64))
        else:
            array = state.isel(channel=rows[0])
        names = {"long_name": spec.label, "standard_name": spec.standard_name, "short_name": spec.short}
        array = array.rename(init_time="time", lead_time="prediction_timedelta")
        arrays[spec.long] = array.assign_attrs(units=spec.unit, **names)
    ds = xr.Dataset(arrays).drop_encoding()
    for axis, unit, standard in (("latitude", "degrees_north", "latitude"), ("longitude", "degrees_east", "longitude")):
        ds[axis].attrs = {"units": unit, "standard_name": standard, "long_name": axis}
    if "level" in ds:
        ds["level"].attrs = {"units": "hPa", "long_name": "pressure level", "positive": "down"}
    ds["time"].attrs = {"long_name": "initial time of forecast", "standard_name": "forecast_reference_time"}
    ds["prediction_timedelta"].attrs = {"long_name": "time since initial time", "standard_name": "forecast_period"}
    ds["time"].encoding = {"units": "hours since 1970-01-01", "dtype": "int64"}
    ds["prediction_timedelta"].encoding = {"units": "hours", "dtype": "int64"}
    contract = forecast.attrs.get("contract", {})
    title = forecast.attrs.get("title", f"Forecasts of {contract.get('model', 'a model')}")
    ds.attrs = {"title": title, "Conventions": "CF-1.11", _CONTRACT: json.dumps(contract)}
    return ds


def run_export(config: WeatherConfig, *, target: Path | None = None) -> Path:
    """Write the forecasts of a configuration as a Zarr store (format 2) in WeatherBench 2's layout.

    A run that was killed resumes at the last piece of init times; under its final name the store is complete.

    Args:
        config: the experiment; its forecast stage must be complete.
        target: folder to write; `export/<name>-weatherbench2-<forecast>.zarr` below the experiment's when absent.

    Returns:
        The folder.

    Raises:
        ValueError: the forecasts are missing, or the disk is too small.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    source = config.paths.forecast
    digest = source.stem.rpartition("-")[2]
    path = target or config.root / "export" / f"{config.name}-weatherbench2-{digest}.zarr"
    if path.exists():
        console.print(f"export: complete, {path}", markup=False)
        return path
    forecast = open_store(source, stage="python -m pipeline forecast")
    catalogue.require_channel_names(forecast, store=source)
    files.free_space_check(path, int(forecast["state"].nbytes))
    with files.lock(path.with_name(f"{path.stem}.lock")):
        write_weatherbench(forecast, path, console=console)
    files.write_json(path.with_name(f"{path.stem}.json"), provenance.collect(config, stage="export"))
    console.print(f"export: {path}", markup=False)
    return path


def write_weatherbench(forecast: xr.Dataset, path: Path, *, console: Console | None = None) -> None:
    """Write forecasts to a Zarr store, a few init times at a time, and rename it when it is complete.

    Args:
        forecast: as `open_forecast` returns it.
        path: folder `<name>.zarr`.
        console: for the progress bar; silent when absent.
    """
    ds = to_weatherbench(forecast)
    temporary = path.with_name(f".{path.name}.new")
    note = temporary.with_suffix(".json")
    length = ds.sizes["time"]
    key = {"contract": ds.attrs[_CONTRACT], "init_times": ds["time"].values.astype(str).tolist()}
    saved = files.read_json(note) if note.exists() and temporary.exists() else {}
    done = int(saved["done"]) if saved.get("key") == key else 0
    if not done:
        shutil.rmtree(temporary, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        sizes: Any = {"time": _SLAB, "prediction_timedelta": 1}
        empty = ds.map(lambda a: a.copy(data=_nothing(a, sizes)), keep_attrs=True)
        encoding = {v: {"chunks": [min(sizes.get(d, n), n) for d, n in ds[v].sizes.items()]} for v in ds}
        _quietly(lambda: empty.to_zarr(temporary, mode="w", zarr_format=2, compute=False, encoding=encoding))
    with terminal_progress("init times", on=console) as progress:
        task = progress.add_task("export", total=length, completed=done)
        for start in range(done, length, _SLAB):
            stop = min(start + _SLAB, length)
            part = ds.isel(time=slice(start, stop)).load()
            kept = part.drop_vars([c for c in part.coords if "time" not in part[c].dims])
            region: Any = {"time": slice(start, stop)}
            _quietly(lambda kept=kept, region=region: kept.to_zarr(temporary, region=region, zarr_format=2))
            files.write_json(note, {"key": key, "done": stop})
            progress.advance(task, stop - start)
    temporary.rename(path)
    files.sync(path.parent)
    note.unlink(missing_ok=True)


def _quietly(action: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*[Cc]onsolidated.*")
        return action()


def _nothing(array: xr.DataArray, sizes: dict[str, int]) -> Any:
    import dask.array

    chunks = [sizes.get(str(d), n) for d, n in array.sizes.items()]
    return dask.array.zeros(array.shape, dtype=np.float32, chunks=chunks)


def _open(path: Path) -> xr.Dataset:
    try:
        open_: Any = xr.open_zarr if path.is_dir() else xr.open_dataset
        ds: xr.Dataset = _quietly(lambda: open_(path, chunks={}, decode_timedelta=True))
    except (OSError, ValueError, KeyError) as error:
        reason = "neither" if "IO backends" in str(error) else str(error)
        raise ValueError(f"forecast must be a Zarr store or a NetCDF file, got {path}: {reason}") from None
    return ds


def _named(ds: xr.Dataset, path: Path) -> xr.Dataset:
    """The dataset with this project's names of dimensions, sorted axes, and complete coordinates."""
    faults, renamed = [], {}
    for ours, spellings in _SPELLINGS.items():
        found = [str(d) for d in ds.dims if str(d).lower() in spellings and str(d) not in renamed]
        found.sort(key=lambda d: spellings.index(d.lower()))
        if found:
            renamed[found[0]] = ours
        elif ours != "level":
            faults.append(f"no dimension for {ours} (known spellings: {', '.join(spellings)})")
    further = [str(d) for d in ds.dims if str(d) not in renamed]
    ensemble = [d for d in further if d.lower() in ("number", "realization", "member", "ensemble", "sample")]
    if ensemble:
        faults.append(f"dimension {ensemble[0]} of ensemble members (take one, or their mean)")
    if faults:
        raise ValueError(
            f"forecast {path} must have WeatherBench 2's dimensions, got {', '.join(map(str, ds.dims))}:\n"
            + "\n".join(f"  {f}" for f in faults)
        )
    ds = ds.rename({a: b for a, b in renamed.items() if a != b})
    unlabelled = [d for d in renamed.values() if d not in ds.coords]
    if unlabelled:
        raise ValueError(f"forecast {path} must label every dimension, got no coordinate for {', '.join(unlabelled)}")
    if not np.issubdtype(ds["init_time"].dtype, np.datetime64):
        raise ValueError(f"init times of {path} must be dates, got {ds['init_time'].dtype}; write units with them")
    if not np.issubdtype(ds["lead_time"].dtype, np.timedelta64):
        spelling = next(theirs for theirs, ours in renamed.items() if ours == "lead_time")
        raise ValueError(
            f"lead times of {path} must carry a unit of time, got {ds['lead_time'].dtype} "
            f"{ds['lead_time'].values[:3].tolist()}; write units = 'hours' with {spelling}"
        )
    axes = {"init_time": ds["init_time"].values.astype("datetime64[ns]")}
    hours = lead_hours(ds["lead_time"].values)
    axes["lead_time"] = hours.astype("timedelta64[h]").astype("timedelta64[ns]")
    lon = np.asarray(ds["longitude"].values, np.float64)
    axes["longitude"] = np.where(lon < -1e-6, lon + 360.0, np.where(lon >= 360.0 - 1e-6, lon - 360.0, lon))
    axes["latitude"] = np.asarray(ds["latitude"].values, np.float64)
    if "level" in ds.dims:
        axes["level"] = np.round(units.pressure_levels(ds["level"], origin=path)).astype(np.int64)
    for axis, values in axes.items():
        unique, counts = np.unique(values, return_counts=True)
        if (counts > 1).any():
            raise ValueError(f"{axis} of {path} must be unique, got {unique[counts > 1][0]} more than once")
    ds = ds.assign_coords(axes)
    for axis, values in axes.items():
        if not np.all(values[1:] > values[:-1]):
            ds = ds.isel({axis: np.argsort(values, kind="stable")})
    return ds


def _stacked(ds: xr.Dataset, path: Path, channels: Sequence[str] | None) -> xr.Dataset:
    """All variables that are channels, side by side in catalogue order, in canonical units."""
    wanted = None if channels is None else {catalogue.parse_channel(c).variable for c in channels}
    found: dict[str, xr.DataArray] = {}
    left_out: dict[str, str] = {}
    for raw in map(str, ds.data_vars):
        spec = units.variable_named(raw)
        shape = {"init_time", "lead_time", "latitude", "longitude"} | ({"level"} if spec and spec.levels else set())
        if spec is None or spec.static:
            left_out[raw] = "not in the catalogue"
        elif wanted is not None and spec.short not in wanted:
            left_out[raw] = "not scored"
        elif set(ds[raw].dims) != shape:
            left_out[raw] = f"has dimensions {ds[raw].dims}"
        elif spec.short in found:
            left_out[raw] = f"a second {spec.short}"
        else:
            found[spec.short] = _in_unit(ds[raw], spec, path)
    parts: list[xr.DataArray] = []
    names: list[catalogue.Channel] = []
    keep = None if channels is None else set(channels)
    for spec in catalogue.CATALOGUE:
        if spec.short not in found:
            continue
        levels: list[int | None] = [None] if not spec.levels else ds["level"].values.tolist()
        some = [c for c in (catalogue.Channel(spec.short, p) for p in levels) if keep is None or c.name in keep]
        array = found[spec.short]
        array = (
            array.sel(level=[c.level for c in some]).rename(level="channel")
            if spec.levels
            else array.expand_dims("channel", axis=2)
        )
        if some:
            parts.append(array.drop_vars("channel", errors="ignore").transpose(*FORECAST_DIMS))
            names += some
    if not parts:
        raise ValueError(f"forecast {path} must hold a variable of the catalogue, got {left_out or 'none'}")
    state = xr.concat(parts, "channel", coords="minimal", compat="override", join="exact").astype(np.float32)
    state = state.chunk({"channel": -1, "latitude": -1, "longitude": -1})
    _plausible(state, names, path)
    coords = {
        "channel": [c.name for c in names],
        "variable": ("channel", [c.variable for c in names]),
        "level": ("channel", np.array([-1 if c.level is None else c.level for c in names], np.int32)),
        "unit": ("channel", [c.spec.unit for c in names]),
    }
    state = state.drop_vars([c for c in state.coords if c not in FORECAST_DIMS])
    state.attrs |= {"long_name": "forecast state", "units": "see coordinate unit"}
    title = str(ds.attrs.get("title", f"Forecasts of {path.stem}"))
    return xr.Dataset({"state": state}, coords, {"title": title, "left_out": json.dumps(left_out)})


def _in_unit(array: xr.DataArray, spec: catalogue.Variable, path: Path) -> xr.DataArray:
    """The variable in its canonical unit; without a unit it is taken to be that, as WeatherBench 2's are."""
    to_canonical = units.conversion(spec, str(array.attrs.get("units", "")), name=str(array.name), origin=path)
    return to_canonical(array.astype(np.float64)) if to_canonical.changes else array


def _plausible(state: xr.DataArray, channels: Sequence[catalogue.Channel], path: Path) -> None:
    """Refuse a first field out of range: metres for geopotential, degrees Celsius, g/kg without a word of it."""
    first: NDArray[np.float32] = state.isel(init_time=0, lead_time=0).values
    for values, channel in zip(first, channels, strict=True):
        low, high = catalogue.plausible_range(channel)
        least, most = float(values.min()), float(values.max())
        if not (low <= least and most <= high):
            raise ValueError(
                f"{channel.name} of {path} must lie within {low:g} .. {high:g} {channel.spec.unit}, got "
                f"{least:g} .. {most:g} in its first field; check its unit, and that nothing is missing"
            )
