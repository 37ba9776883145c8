"""Export of a training store to the sharded .npz layout that ClimaX and climate-learn read.

Contract: folders train, val and test hold one file for each year, or for each unbroken part of one: their readers pair
times by position, so a file never spans a missing time. An array in it is (time, 1, latitude, longitude), float32,
called by the ERA5 long name and the level ("geopotential_500"); static fields are repeated along time. normalize_mean
and normalize_std are plain means over cells, as those programs make them, over all training times together, whatever
the lengths of the years. climatology.npz, in every folder, is the mean of the training times, so that nothing of val
and test is in what they are scored against. Every .npz is written whole or not at all, and one that is there is not
written again.

It lies beside the sub-packages, as validate does, because it works on the store that they end in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import files, store
from pipeline.console import progress, say
from pipeline.grid import Grid
from pipeline.shards import Reader
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import Period
from pipeline.weather.times import inside
from pipeline.weather.variables import BY_SHORT, STANDARD_GRAVITY, parse_channel, require_channel_names
from pipeline.words import counted
from preprocess.normals.moments import Array, Moments, merge
from preprocess.normals.sums import years_of
from preprocess.npz import write_npz

SPLITS = ("train", "val", "test")


def run_export(config: WeatherConfig) -> None:
    """Write the training store as .npz files to <results>/export-<hash>.

    Raises:
        ValueError: there is no finished store, or a split has none of its times.
    """
    folder = config.paths.export
    manifest = store.read_manifest(config.paths.store, stage="python -m pipeline regrid")
    about = {"digest": manifest["digest"], "axis": manifest["axis"]}
    marker = folder / "export.json"
    if marker.exists() and files.read_json(marker)["store"] == about:
        say(f"export: complete in {folder}")
        return
    group: Any = zarr.open_group(config.paths.store, mode="r")
    state = Reader(config.paths.store, "state")
    opened = store.open_store(config.paths.store)
    require_channel_names(opened, store=config.paths.store)
    times = opened["time"].values
    splits = config.splits
    shards = {
        name: list(parts(times, periods, step_hours=config.data.step_hours))
        for name, periods in zip(SPLITS, (splits.train, splits.validation, [splits.test]), strict=True)
    }
    if not shards["train"]:
        raise ValueError("data.splits.train must hold times of the store, got none; see data.period")
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(group["latitude"][:], group["longitude"][:])
    statics = static_fields(group, grid)
    np.save(folder / "lat.npy", grid.latitude)
    np.save(folder / "lon.npy", grid.longitude)
    names = [long_name(str(c)) for c in group["channel"][:]]
    with progress("times") as bar:
        task = bar.add_task("export", total=sum(len(shard) for listed in shards.values() for shard in listed))
        for split, listed in shards.items():
            for shard in listed:
                path = folder / split / f"{shard.name}.npz"
                if not path.exists():
                    write_npz(path, _arrays(state, shard, names, statics))
                bar.advance(task, len(shard))
    mean, std, climatology = statistics(state, shards["train"], names)
    for name, field in statics.items():
        mean[name], std[name] = np.array([field.mean()]), np.array([field.std()])
    write_npz(folder / "normalize_mean.npz", mean.items())
    write_npz(folder / "normalize_std.npz", std.items())
    for split in SPLITS:
        write_npz(folder / split / "climatology.npz", climatology.items())
    counts = {split: len(listed) for split, listed in shards.items()}
    files.write_json(marker, {"store": about, "label": manifest["contract"]["source"]["label"], "files": counts})
    say(f"export: {counted(sum(counts.values()), 'file')} of {counted(len(names), 'channel')}, written to {folder}")


@dataclass(frozen=True)
class Shard:
    """Neighbouring times of one year: [start, stop) on the store's axis."""

    name: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def parts(times: NDArray[np.datetime64], periods: list[Period], *, step_hours: int) -> Iterator[Shard]:
    """The files of a split: years, cut where a time is missing or a period ends."""
    step = np.timedelta64(step_hours, "h")
    seen: dict[int, int] = {}
    for period in sorted(periods, key=lambda p: p.start):
        indices = np.flatnonzero(inside(times, [period]))
        years = years_of(times[indices])
        cuts = np.flatnonzero((np.diff(times[indices]) != step) | (np.diff(years) != 0)) + 1
        for run in np.split(indices, cuts) if indices.size else []:
            year = int(years_of(times[run])[0])
            number = seen.get(year, 0)
            seen[year] = number + 1
            yield Shard(f"{year}_{number}", int(run[0]), int(run[-1]) + 1)


def long_name(channel: str) -> str:
    """What ClimaX and climate-learn call a channel.

    >>> long_name("z500"), long_name("t2m")
    ('geopotential_500', '2m_temperature')
    """
    parsed = parse_channel(channel)
    return parsed.spec.long if parsed.level is None else f"{parsed.spec.long}_{parsed.level}"


def static_fields(group: Any, grid: Grid) -> dict[str, NDArray[np.float32]]:
    """Static fields by their names there: land_sea_mask, orography [m], lattitude (their spelling) [degrees]."""
    fields = {"lattitude": np.broadcast_to(grid.latitude[:, None], grid.shape).astype(np.float32)}
    held = zip(map(str, group["static_channel"][:]), group["static"][:], strict=True) if "static" in group else ()
    for name, values in held:
        long, values = ("orography", values / STANDARD_GRAVITY) if name == "orog" else (BY_SHORT[name].long, values)
        fields[long] = values.astype(np.float32)
    return fields


def statistics(
    state: Reader, shards: list[Shard], names: list[str]
) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
    """Mean and standard deviation (1,) and mean field (1, latitude, longitude) of each channel over all times.

    Args:
        state: array (time, channel, latitude, longitude).
        shards: the training times.
        names: of the channels.
    """
    shape = state.shape[1:]
    weights = np.full(int(np.prod(shape[1:])), 1.0 / np.prod(shape[1:]))
    total, moments = np.zeros(shape), []
    for shard in shards:
        for start in range(shard.start, shard.stop, state.array.shards[0]):
            for field in state.read(slice(start, min(start + state.array.shards[0], shard.stop))).astype(np.float64):
                total += field
                moments.append(Moments.of(field.reshape(shape[0], -1), weights=weights))
        moments = [merge(moments)]
    whole = merge(moments)
    mean, std = ({n: v[i : i + 1] for i, n in enumerate(names)} for v in (whole.mean, whole.std))
    return mean, std, {name: total[i : i + 1] / whole.count for i, name in enumerate(names)}


def _arrays(
    state: Reader, shard: Shard, names: list[str], statics: dict[str, NDArray[np.float32]]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Every array of a file; as many channels in memory as the store keeps in a chunk."""
    for name, field in statics.items():
        yield name, np.broadcast_to(field, (len(shard), 1, *field.shape))
    block = state.array.chunks[1]
    for first in range(0, len(names), block):
        values = state.read(slice(shard.start, shard.stop), slice(first, first + block))
        for i in range(values.shape[1]):
            yield names[first + i], values[:, i : i + 1]
