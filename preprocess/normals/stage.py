"""The normals stage: mean and standard deviation of every channel, and the climatology, of the training periods.

Contract: nothing outside `data.splits.train` is read. Everything is computed in float64 from partial
sums that merge exactly (`Moments`, `DailySums`), with cells weighted by their area, one block of channels after the
other. The climatology of a day of year and hour is the mean of the training fields at that hour, weighted by a triangle
of `window_days` days in all around that day, periodic over a year of 366 slots; every day of the training
years counts, so 29 February borrows from its neighbours. Where the training periods leave a day of the
year without any data inside the window, no seasonal cycle can be known: the climatology is then the
plain mean, and says so. The sums are kept (`preprocess.normals.sums`), so that further years read only themselves;
`training.step_hours` takes a second pass over all training times (`preprocess.normals.changes`), since a further year
changes the climatology of the others too. The layout of the output is in `pipeline.weather.climatology`, which reads
it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from pipeline import files, provenance, store
from pipeline.console import data_with_article, progress, say, stamp
from pipeline.grid import Grid
from pipeline.shards import Reader
from pipeline.weather import climatology as layout
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import Index, Pairs, Times, inside, stored_times
from pipeline.words import counted, spanned
from preprocess.normals.changes import read_change_std, require_changes, step_pairs
from preprocess.normals.moments import (
    Array,
    DailySums,
    Moments,
    Smoothing,
    anomaly_square,
    climatology_kernel,
    join,
    merge,
    smooth,
    yearly_arrays,
)
from preprocess.normals.reading import Training
from preprocess.normals.sums import Sums, SumsWriter, about, sums_path, years_of

SLOTS = layout.SLOTS

_SUMS_BYTES = 1 << 30
"""Memory for the daily sums of one block of channels."""

_ROUNDING = 1e-12
"""A standard deviation below this fraction of the mean is what rounding leaves of a constant."""


def run_normals(config: WeatherConfig) -> None:
    """Compute the normals of the training periods and write them to `config.paths.normals`."""
    path = config.paths.normals
    source = store.read_manifest(config.paths.store, stage="python -m pipeline regrid")["contract"]
    times = stored_times(config.paths.store)
    chosen = training_times(times, config)
    contract = _contract(config, source, times[chosen])
    steps, train = contract.get("step_hours"), config.splits.train
    pairs = step_pairs(times, step_hours=steps, periods=train) if steps else None
    with files.lock(path.with_name(f"{path.stem}.lock")):
        if path.exists():
            normals = layout.Normals.open(path)
            if normals.contract == contract:
                if not config.paths.receipt("normals").exists():
                    _receipt(config, normals)
                say(f"normals: complete in {path}")
                return
            say(f"normals: {path} was made from other data; it is computed again")
        files.free_space_check(path, _size(config.paths.store, times) * (3 if config.data.normals.keep_sums else 1))
        keep_sums = files.replacing(sums_path(path)) if config.data.normals.keep_sums else nullcontext()
        with files.replacing(path) as temporary, keep_sums as sums:
            _write(temporary, sums, config=config, contract=contract, times=times, chosen=chosen, pairs=pairs)
    normals = layout.Normals.open(path)
    _receipt(config, normals)
    say(f"normals: {counted(contract['times'], 'training time')}, climatology: {normals.kind}, written to {path}")


def training_times(times: NDArray[np.datetime64], config: WeatherConfig) -> NDArray[np.int64]:
    """Indices of the times inside the training periods.

    Raises:
        ValueError: there is none.
    """
    chosen = inside(times, config.splits.train)
    if not chosen.any():
        periods = ", ".join(f"{p.start:%Y-%m-%dT%H} .. {p.end:%Y-%m-%dT%H}" for p in config.splits.train)
        raise ValueError(
            f"data.splits.train must hold times of the store, got none within {periods}; "
            f"the store has {counted(times.size, 'time')}, {spanned(stamp(times[0]), stamp(times[-1]))}"
            if times.size
            else f"data.splits.train must hold times of the store, got an empty store for {periods}"
        )
    return np.flatnonzero(chosen)


def _contract(config: WeatherConfig, source: dict[str, Any], times: NDArray[np.datetime64]) -> dict[str, Any]:
    content = {
        "kind": "normals",
        "store": store.contract_digest(source),
        "source": source["source"],
        "train": [p.model_dump(mode="json") for p in config.splits.train],
        "years": np.unique(years_of(times)).tolist(),
        "window_days": config.data.normals.window_days,
        "kernel": "triangle",
        "times": int(times.size),
        "times_digest": hashlib.sha256(times.astype("<i8").tobytes()).hexdigest()[:16],
    }
    if config.training.step_hours:
        content["step_hours"] = sorted(config.training.step_hours)
    return dict(json.loads(json.dumps(content)))


def _receipt(config: WeatherConfig, normals: layout.Normals) -> None:
    keys = ("times", "years", "window_days")
    facts = {key: normals.contract[key] for key in keys} | {"climatology": normals.kind, "digest": normals.digest}
    provenance.write_receipt(config, stage="normals", outputs=[config.paths.normals], facts=facts)


def _size(path: Path, times: Times) -> int:
    hours, state = np.unique(layout.hours_of_day(times)).size, zarr.open_array(path / "state", mode="r")
    return int(SLOTS * hours * np.prod(state.shape[1:], dtype=np.int64) * 4)


def _write(
    path: Path,
    sums_kept: Path | None,
    *,
    config: WeatherConfig,
    contract: dict[str, Any],
    times: Times,
    chosen: Index,
    pairs: Pairs | None,
) -> None:
    """Compute everything and write it to a new folder, and the sums to another if they are kept."""
    source: Any = zarr.open_group(config.paths.store, mode="r")
    state, window_days = Reader(config.paths.store, "state"), config.data.normals.window_days
    grid = Grid(source["latitude"][:], source["longitude"][:])
    names = [str(name) for name in source["channel"][:]]
    hours = np.unique(layout.hours_of_day(times))
    content = about(contract["store"], state, times, chosen, hours=hours)
    kept = _kept_sums(config, content)
    if kept is not None:
        chosen = chosen[~np.isin(years_of(times[chosen]), kept.years)]
    training = Training(state, names, grid.area_weights.ravel() / grid.size, times, chosen, hours)
    group: Any = zarr.open_group(path, mode="w", zarr_format=3)
    climatology = _create_climatology(group, (SLOTS, hours.size, len(names), *grid.shape), chunk=state.array.chunks[1])
    digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode())
    parts: list[dict[int, Moments]] = []
    anomaly_std, change_std = np.empty(len(names)), np.empty((len(pairs.lead_hours) if pairs else 0, len(names)))
    keep = None
    if sums_kept is not None:
        keep = SumsWriter(sums_kept, shape=(hours.size, SLOTS, len(names), grid.size), content=content)
    blocks = _blocks(len(names), chunk=state.array.chunks[1], channel_bytes=8 * hours.size * SLOTS * grid.size)
    with progress("times") as bar:
        task = bar.add_task("normals", total=(chosen.size + (pairs.used_times.size if pairs else 0)) * len(blocks))
        tick = partial(bar.advance, task)
        for columns in blocks:
            sums, by_year = training.sums(columns, kept, tick)
            parts.append(by_year)
            if keep is not None:
                keep.write(columns, sums)
            total, smoothing = merge(list(by_year.values())), climatology_kernel(sums.count, window_days=window_days)
            square = _write_block(climatology, columns, sums, total, smoothing, weights=training.weights, digest=digest)
            anomaly_std[columns.start : columns.stop] = np.sqrt(np.clip(square, 0.0, None) / total.count)
            del sums
            if pairs:
                normal = Reader(path, "climatology").read(*[slice(None)] * 2, slice(columns.start, columns.stop))
                change_std[:, columns] = read_change_std(training, normal, columns=columns, pairs=pairs, tick=tick)

    yearly = join(parts)
    whole = merge(list(yearly.values()))
    _require_variation(whole, names)
    arrays = _small_arrays(source, grid, hours, yearly, anomaly_std)
    if pairs:
        arrays |= _change_arrays(pairs, change_std, whole, names)
    _write_arrays(group, arrays, digest)
    _describe(group, contract, smoothing.kind, whole.count, digest.hexdigest()[:16])
    store.consolidate(path)
    if keep is not None:
        keep.finish(yearly)
    if not smoothing.seasonal:
        say(f"normals: the climatology is the {smoothing.kind}; skill against it says less than against a seasonal one")


def _change_arrays(pairs: Pairs, change_std: Array, whole: Moments, names: list[str]) -> dict[str, Any]:
    """Steps and the standard deviation of changes over them, where every channel has one."""
    require_changes(change_std, step_hours=pairs.lead_hours, names=names, mean=whole.mean, std=whole.std)
    steps = np.array(pairs.lead_hours, np.int64)
    return {"step_hours": (("step",), steps), "change_std": (("step", "channel"), change_std)}


def _kept_sums(config: WeatherConfig, content: dict[str, Any]) -> Sums | None:
    """Sums of earlier normals that serve these."""
    kept = Sums.best(config.paths.normals.parent, content)
    if kept is not None:
        say(f"normals: {len(kept.years)} of {counted(len(content['years']), 'year')} taken from {kept.path.name}")
    return kept


def _describe(group: Any, contract: dict[str, Any], kind: str, count: int, digest: str) -> None:
    group.attrs.update(
        {
            "title": f"Normals of {data_with_article(contract['source']['label'])}",
            "schema": layout.SCHEMA,
            "contract": contract,
            "climatology_kind": kind,
            "count": count,
            "digest": digest,
        }
    )


def _blocks(channels: int, *, chunk: int, channel_bytes: int) -> list[range]:
    """Channels whose daily sums fit into memory together, whole chunks of the store each."""
    size = max(1, int(_SUMS_BYTES / channel_bytes) // chunk) * chunk
    return [range(first, min(first + size, channels)) for first in range(0, channels, size)]


def _write_block(
    target: Any, columns: range, sums: DailySums, total: Moments, smoothing: Smoothing, *, weights: Array, digest: Any
) -> Array:
    """Write the climatology of some channels; returns their sums of squared anomalies from it."""
    square = total.m2.copy()
    for hour in range(sums.total.shape[0]):
        fields, less = _smooth(sums, hour, smoothing, centre=total.mean, weights=weights)
        square += less
        target[:, hour, columns.start : columns.stop] = fields.reshape(SLOTS, -1, *target.shape[3:])
        digest.update(fields.data)
    return square


def _smooth(
    sums: DailySums, hour: int, smoothing: Smoothing, *, centre: Array, weights: Array
) -> tuple[NDArray[np.float32], Array]:
    """The climatology at one hour, (day of year, channel, cell), and what it takes off the sum of squares of each."""
    channels = sums.total.shape[2]
    fields, less = np.empty((SLOTS, channels, weights.size), np.float32), np.empty(channels)
    for i in range(channels):
        total, count = sums.total[hour, :, i], sums.count[hour]
        basis = (total, count) if smoothing.by_hour else (sums.total[:, :, i].sum(axis=0), sums.count.sum(axis=0))
        smoothed = smooth(*basis, kernel=smoothing.kernel)
        less[i] = anomaly_square(smoothed, total=total, count=count, centre=float(centre[i]), weights=weights)
        fields[:, i] = smoothed
    return fields, less


def _constant(sample: Moments) -> NDArray[np.bool_]:
    """Which channels do not vary but for rounding."""
    return np.asarray(~(sample.std > _ROUNDING * np.abs(sample.mean)))


def _require_variation(sample: Moments, names: list[str]) -> None:
    constant = np.flatnonzero(_constant(sample))
    if constant.size:
        raise ValueError(
            f"channel {names[constant[0]]!r} must vary over the training periods, got a constant; leave it out"
        )


def _write_arrays(group: Any, arrays: Mapping[str, tuple[tuple[str, ...], NDArray[Any]]], digest: Any) -> None:
    """Write small arrays with their dimensions; the digest takes in the floating-point ones."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        for name, (dims, values) in arrays.items():
            group.create_array(name, data=np.asarray(values), dimension_names=dims)
            if values.dtype.kind == "f":
                digest.update(np.ascontiguousarray(values).data)


def _small_arrays(
    source: Any, grid: Grid, hours: NDArray[np.int64], yearly: dict[int, Moments], anomaly_std: Array
) -> dict[str, tuple[tuple[str, ...], NDArray[Any]]]:
    """Everything but the climatology: dimensions and values by name."""
    whole, by_year = merge(list(yearly.values())), yearly_arrays(yearly)
    statics = np.asarray(source["static"][:], dtype=np.float64) if "static" in source else np.empty((0, *grid.shape))
    static = Moments.of(statics.reshape(statics.shape[0], grid.size), weights=grid.area_weights.ravel() / grid.size)
    static_std, constant = static.std, _constant(static)
    if constant.any():
        say(f"normals: {counted(int(constant.sum()), 'constant static field')}; standard deviation written as 1")
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
        "year_count": (("year",), by_year["year_count"]),
        "year_mean": (("year", "channel"), by_year["year_mean"]),
        "year_m2": (("year", "channel"), by_year["year_m2"]),
    }


def _create_climatology(group: Any, shape: tuple[int, ...], *, chunk: int) -> Any:
    days = 61  # a sixth of the year: shards of a few MB
    return group.create_array(
        "climatology",
        shape=shape,
        dtype="float32",
        chunks=(1, 1, chunk, *shape[3:]),
        shards=(days, 1, chunk, *shape[3:]),
        dimension_names=("dayofyear", "hour", "channel", "latitude", "longitude"),
        compressors=(zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()),
        fill_value=np.nan,
    )
