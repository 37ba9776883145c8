"""Normals of the training periods: mean and spread of every channel, and the climatology.

Contract: nothing outside `data.splits.train` is read. Everything is computed in float64 from partial
sums that merge exactly (`Moments`, `DailySums`), with cells weighted by their area. The climatology of
a day of year and hour is the mean of the training fields at that hour, weighted by a triangle of
`window_days` days in all around that day, periodic over a year of 366 slots; every day of the training
years counts, so 29 February borrows from its neighbours. Where the training periods leave a day of the
year without any data inside the window, no seasonal cycle can be known: the climatology is then the
plain mean, and says so. The sums are kept (`preprocess.normals.sums`), so that further years read only themselves. The
layout of the output is in `pipeline.weather.climatology`, which reads it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from pipeline import files, provenance, store
from pipeline.console import data_with_article, progress, say, stamp
from pipeline.grid import Grid
from pipeline.weather import climatology as layout
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import inside
from preprocess.normals.moments import (  # fmt: skip
    Array,
    DailySums,
    Moments,
    anomaly_square,
    climatology_kernel,
    join,
    merge,
    smooth,
)
from preprocess.normals.sums import Sums, SumsWriter, about, sums_path, years_of

SLOTS = layout.SLOTS

_SUMS_BYTES = 1 << 30
"""Memory for the daily sums of one block of channels."""

_ROUNDING = 1e-12
"""A spread below this share of the mean is what rounding leaves of a constant."""


def run_normals(config: WeatherConfig) -> None:
    """Compute the normals of the training periods and write them to `config.paths.normals`."""
    path = config.paths.normals
    ds = store.open_store(config.paths.store, stage="python -m pipeline regrid")
    times = ds["time"].values.astype("datetime64[ns]")
    chosen = training_times(times, config)
    contract = _contract(config, ds.attrs["contract"], times[chosen])
    with files.lock(path.with_name(f"{path.stem}.lock")):
        if path.exists():
            found = layout.Normals.open(path)
            if found.contract == contract:
                if not config.paths.receipt("normals").exists():
                    _receipt(config, found)
                say(f"normals: complete in {path}")
                return
            say(f"normals: {path} was made from other data; making it anew")
        files.free_space_check(path, _size(ds) * (3 if config.data.normals.keep_sums else 1))
        temporary = path.with_name(f".{path.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        _write(temporary, config=config, contract=contract, times=times, chosen=chosen)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        files.sync(path.parent)
    normals = layout.Normals.open(path)
    _receipt(config, normals)
    say(f"normals: {contract['times']} training times, climatology: {normals.kind}, written to {path}")


def training_times(times: NDArray[np.datetime64], config: WeatherConfig) -> NDArray[np.int64]:
    """Indices of the times inside the training periods.

    Raises:
        ValueError: there is none.
    """
    found = inside(times, config.data.splits.train)
    if not found.any():
        periods = ", ".join(f"{p.start:%Y-%m-%dT%H} .. {p.end:%Y-%m-%dT%H}" for p in config.data.splits.train)
        raise ValueError(
            f"data.splits.train must hold times of the store, got none within {periods}; "
            f"the store has {times.size} times, {stamp(times[0])} .. {stamp(times[-1])}"
            if times.size
            else f"data.splits.train must hold times of the store, got an empty store for {periods}"
        )
    return np.flatnonzero(found)


def _contract(config: WeatherConfig, source: dict[str, Any], times: NDArray[np.datetime64]) -> dict[str, Any]:
    content = {
        "kind": "normals",
        "store": store.contract_digest(source),
        "source": source["source"],
        "train": [p.model_dump(mode="json") for p in config.data.splits.train],
        "years": sorted({int(y) for y in times.astype("datetime64[Y]").astype(np.int64) + 1970}),
        "window_days": config.data.normals.window_days,
        "kernel": "triangle",
        "times": int(times.size),
        "times_digest": hashlib.sha256(times.astype("<i8").tobytes()).hexdigest()[:16],
    }
    return dict(json.loads(json.dumps(content)))


def _receipt(config: WeatherConfig, normals: layout.Normals) -> None:
    keys = ("times", "years", "window_days")
    facts = {key: normals.contract[key] for key in keys} | {"climatology": normals.kind, "digest": normals.digest}
    provenance.write_receipt(config, stage="normals", outputs=[config.paths.normals], facts=facts)


def _size(ds: Any) -> int:
    hours = np.unique(layout.hours_of_day(ds["time"].values)).size
    return int(SLOTS * hours * np.prod(ds["state"].shape[1:], dtype=np.int64) * 4)


def _write(
    path: Path,
    *,
    config: WeatherConfig,
    contract: dict[str, Any],
    times: NDArray[np.datetime64],
    chosen: NDArray[np.int64],
) -> None:
    """Compute everything and write it to a new folder."""
    source: Any = zarr.open_group(config.paths.store, mode="r")
    state = source["state"]
    grid = Grid(source["latitude"][:], source["longitude"][:])
    weights = grid.area_weights.ravel() / grid.size
    names = [str(name) for name in source["channel"][:]]
    hour_of, slot_of = layout.hours_of_day(times), layout.day_slots(times) - 1
    hours = np.unique(hour_of)

    held = about(contract["store"], state, times, chosen, hours=hours)
    start = Sums.best(config.paths.normals.parent, held)
    if start is not None:
        say(f"normals: {len(start.years)} of {len(held['years'])} years are taken from {start.path.name}")
        chosen = chosen[~np.isin(years_of(times[chosen]), start.years)]

    group: Any = zarr.open_group(path, mode="w", zarr_format=3)
    target = _create_climatology(group, channels=len(names), hours=hours.size, grid=grid, chunk=state.chunks[1])
    digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode())
    moments: dict[int, list[Moments]] = {int(year): [] for year in sorted(held["years"], key=int)}
    anomaly_std = np.empty(len(names))
    kind = ""

    per_channel = hours.size * SLOTS * grid.size * 8
    block = max(1, int(_SUMS_BYTES / per_channel) // state.chunks[1]) * state.chunks[1]
    keep = None
    if config.data.normals.keep_sums:
        shape = (int(hours.size), SLOTS, len(names), grid.size)
        keep = SumsWriter(sums_path(config.paths.normals), shape=shape, content=held)
    blocks = [range(i, min(i + block, len(names))) for i in range(0, len(names), block)]
    with progress("times") as bar:
        task = bar.add_task("normals", total=chosen.size * len(blocks))
        for columns in blocks:
            sums = DailySums.empty(hours=hours.size, channels=len(columns), cells=grid.size)
            by_year: dict[int, Moments] = {}
            if start is not None:
                sums, by_year = start.block(columns)
            for index, field in _training_fields(state, chosen, columns, slab=state.shards[0]):
                moment = Moments.of(field, weights=weights)
                _require_finite(moment, names=[names[c] for c in columns], time=times[index])
                year = int(years_of(times[index]))
                by_year[year] = by_year[year] + moment if year in by_year else moment
                sums.add(field, hour=int(np.searchsorted(hours, hour_of[index])), slot=int(slot_of[index]))
                bar.advance(task)
            by_year = {year: by_year[year] for year in moments}
            for year, moment in by_year.items():
                moments[year].append(moment)
            if keep is not None:
                keep.write(columns, sums, by_year)
            total = merge(list(by_year.values()))
            kernel, by_hour, kind = climatology_kernel(sums.count, window_days=config.data.normals.window_days)
            square = total.m2.copy()
            for hour in range(hours.size):
                fields = np.empty((SLOTS, len(columns), grid.size), np.float32)
                for i in range(len(columns)):
                    own, count = sums.total[hour, :, i], sums.count[hour]
                    basis = (own, count) if by_hour else (sums.total[:, :, i].sum(axis=0), sums.count.sum(axis=0))
                    smoothed = smooth(*basis, kernel=kernel)
                    square[i] += anomaly_square(
                        smoothed, total=own, count=count, centre=float(total.mean[i]), weights=weights
                    )
                    fields[:, i] = smoothed
                target[:, hour, columns.start : columns.stop] = fields.reshape(SLOTS, -1, *grid.shape)
                digest.update(fields.data)
            anomaly_std[columns.start : columns.stop] = np.sqrt(np.clip(square, 0.0, None) / total.count)
            del sums

    yearly = {year: join(parts) for year, parts in moments.items()}
    whole = merge(list(yearly.values()))
    for name, spread, mean in zip(names, whole.std, whole.mean, strict=True):
        if not spread > _ROUNDING * abs(mean):
            raise ValueError(f"channel {name!r} must vary over the training periods, got a constant; leave it out")
    arrays = _small_arrays(source, grid=grid, hours=hours, whole=whole, yearly=yearly, anomaly_std=anomaly_std)
    for name, (dims, values) in arrays.items():
        _put(group, name, dims, values)
        if values.dtype.kind == "f":
            digest.update(np.ascontiguousarray(values).data)
    group.attrs.update(
        {
            "title": f"Normals of {data_with_article(contract['source']['label'])}",
            "schema": layout.SCHEMA,
            "contract": contract,
            "climatology_kind": kind,
            "count": whole.count,
            "digest": digest.hexdigest()[:16],
        }
    )
    for file in sorted(path.rglob("*")):
        files.sync(file)
    if keep is not None:
        keep.finish()
    if kind != "day of year x hour":
        say(f"normals: the climatology is the {kind}; skill against it says less than against a seasonal one")


def _training_fields(
    state: Any, chosen: NDArray[np.int64], columns: range, *, slab: int
) -> Iterator[tuple[int, Array]]:
    """(time index, field (channel, cell)) of every training time, reading each slab once."""
    for number in np.unique(chosen // slab):
        wanted = chosen[chosen // slab == number]
        values = state[wanted[0] : wanted[-1] + 1, columns.start : columns.stop]
        for index in wanted:
            yield int(index), values[index - wanted[0]].reshape(len(columns), -1).astype(np.float64)


def _require_finite(moment: Moments, *, names: list[str], time: np.datetime64) -> None:
    bad = np.flatnonzero(~np.isfinite(moment.m2))
    if bad.size:
        raise ValueError(
            f"training store must be finite, got NaN in channel {names[bad[0]]!r} at {stamp(time)}; remake it"
        )


def _small_arrays(
    source: Any, *, grid: Grid, hours: NDArray[np.int64], whole: Moments, yearly: dict[int, Moments], anomaly_std: Array
) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    statics = np.asarray(source["static"][:], dtype=np.float64) if "static" in source else np.empty((0, *grid.shape))
    static = Moments.of(statics.reshape(statics.shape[0], grid.size), weights=grid.area_weights.ravel() / grid.size)
    static_std = static.std
    constant = [i for i, spread in enumerate(static_std) if not spread > _ROUNDING * abs(static.mean[i])]
    if constant:
        say(f"normals: {len(constant)} static field(s) are constant; their spread is written as 1")
        static_std[constant] = 1.0
    static_names = source["static_channel"][:] if "static_channel" in source else np.empty(0, dtype="U1")
    return {
        "channel": (("channel",), source["channel"][:]),
        "static_channel": (("static_channel",), static_names),
        "dayofyear": (("dayofyear",), np.arange(1, SLOTS + 1)),
        "hour": (("hour",), hours),
        "latitude": (("latitude",), grid.latitude),
        "longitude": (("longitude",), grid.longitude),
        "year": (("year",), np.array(list(yearly), np.int64)),
        "mean": (("channel",), whole.mean),
        "std": (("channel",), whole.std),
        "anomaly_std": (("channel",), anomaly_std),
        "static_mean": (("static_channel",), static.mean),
        "static_std": (("static_channel",), static_std),
        "year_count": (("year",), np.array([m.count for m in yearly.values()], np.int64)),
        "year_mean": (("year", "channel"), np.stack([m.mean for m in yearly.values()])),
        "year_m2": (("year", "channel"), np.stack([m.m2 for m in yearly.values()])),
    }


def _create_climatology(group: Any, *, channels: int, hours: int, grid: Grid, chunk: int) -> Any:
    days = 61  # a sixth of the year: shards of a few MB
    return group.create_array(
        "climatology",
        shape=(SLOTS, hours, channels, *grid.shape),
        dtype="float32",
        chunks=(1, 1, chunk, *grid.shape),
        shards=(days, 1, chunk, *grid.shape),
        dimension_names=("dayofyear", "hour", "channel", "latitude", "longitude"),
        compressors=(zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()),
        fill_value=np.nan,
    )


def _put(group: Any, name: str, dims: tuple[str, ...], values: NDArray[Any]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        group.create_array(name, data=np.asarray(values), dimension_names=dims)
