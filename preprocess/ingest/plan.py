"""The plan of the regrid stage: what a run will read, write and need, before it starts.

Contract: all but the estimate of time comes from metadata. The estimate makes one time of the slab that a run would
begin with and throws it away; seconds are scaled from it and say so. Nothing is written but the plan itself, as JSON
beside the receipts.
"""

from __future__ import annotations

import os
import resource
import shutil
import time as clock
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline import files, store
from pipeline.console import say, stamp
from pipeline.weather import climatology
from pipeline.weather.config import WeatherConfig
from pipeline.words import counted, size, spanned
from preprocess.ingest.gridding import FieldReader, Gridder, open_archive
from preprocess.ingest.stage import gaps, store_times
from preprocess.sources import Archive


@dataclass(frozen=True)
class RegridPlan:
    """Everything that metadata tell about a run; bytes are those of decompressed float32 arrays."""

    label: str
    source_grid: str
    target_grid: str
    channels: int
    first: str
    last: str
    step_hours: int
    times: int
    missing_times: int
    missing: list[str]
    slabs: int
    slabs_left: int
    times_a_slab: int
    bytes_read_useful: int
    bytes_read_through_chunks: int
    bytes_written: int
    memory_per_worker_bytes: int
    workers: int
    disk_needed_bytes: int
    disk_of: dict[str, int]
    disk_free_bytes: int


def run_plan(config: WeatherConfig) -> None:
    """Print the plan of the regrid stage and write it to <results>/plan-preprocess.json.

    Raises:
        ValueError: the disk has less than the stores need; see also `open_source`.
    """
    archive = open_archive(config)
    plan = plan_regrid(config, archive)
    lines, content = describe(plan), asdict(plan)
    if plan.slabs_left:
        estimate = content["estimate"] = estimate_time(config, archive, plan)
        lines.append(
            f"time: about {duration(estimate['seconds'])}, {estimate['seconds_a_time']:.2f} s per time on one worker "
            f"({estimate['what']})"
        )
    for line in lines:
        say(f"plan: {line}")
    path = config.root / "plan-preprocess.json"
    files.write_json(path, content)
    say(f"plan: written to {path}")
    files.free_space_check(config.paths.store, plan.disk_needed_bytes)


def plan_regrid(config: WeatherConfig, archive: Archive) -> RegridPlan:
    """What a run will read, write and need."""
    data, path = config.data, config.paths.store
    times, missing = store_times(archive, data)
    slabs = store.slabs(times.size, data.slab_times)
    manifest = store.manifest_path(path)
    recorded = files.read_json(manifest)["slabs"] if manifest.exists() and path.exists() else {}
    left = [slab for slab in slabs if str(slab.index) not in recorded]
    times_left = sum(len(slab) for slab in left)
    useful, through_chunks = (n * times_left for n in bytes_read(archive))
    one_time = _bytes_per_time(config)
    normals = climatology.SLOTS * np.unique(climatology.hours_of_day(times)).size * one_time
    disk = {"store": times.size * one_time, "normals": normals, "sums": 2 * normals * data.normals.keep_sums}
    return RegridPlan(
        label=archive.label,
        source_grid=str(archive.grid),
        target_grid=str(data.regrid.grid),
        channels=len(data.channels.dynamic),
        first=stamp(times[0]),
        last=stamp(times[-1]),
        step_hours=data.step_hours,
        times=times.size,
        missing_times=missing.size,
        missing=gaps(missing, step_hours=data.step_hours),
        slabs=len(slabs),
        slabs_left=len(left),
        times_a_slab=data.slab_times,
        bytes_read_useful=useful,
        bytes_read_through_chunks=through_chunks,
        bytes_written=disk["store"],
        memory_per_worker_bytes=memory_per_worker(config, archive),
        workers=_workers(config),
        disk_needed_bytes=times_left * one_time + disk["normals"] + disk["sums"],
        disk_of=disk,
        disk_free_bytes=shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free,
    )


def _bytes_per_time(config: WeatherConfig) -> int:
    return 4 * len(config.data.channels.dynamic) * config.data.regrid.grid.size


def bytes_read(archive: Archive) -> tuple[int, int]:
    """Bytes of one time: those of the fields wanted, and those of all chunks that hold them, both decompressed.

    A chunk of several times counts by its share, since a slab reads its times together.
    """
    sizes = [_sizes(archive, short) for short in archive.series]
    return sum(useful for useful, _ in sizes), sum(through for _, through in sizes)


def _sizes(archive: Archive, short: str) -> tuple[int, int]:
    useful = through = 0
    for levels, table in archive.series[short]:
        piece = archive.pieces[int(table.piece[0])]
        field = piece.survey.fields[short]
        array = piece.raw[field.name]
        wanted = read = max(1, len(levels))
        if levels and field.level_dim in array.dims:
            size = array.sizes[field.level_dim]
            chunk = int(array.encoding.get("preferred_chunks", {}).get(field.level_dim, 1))
            read = sum(min(chunk, size - i * chunk) for i in {field.levels.index(p) // chunk for p in levels})
        useful += 4 * archive.grid.size * wanted
        through += 4 * archive.grid.size * read
    return useful, through


def memory_per_worker(config: WeatherConfig, archive: Archive) -> int:
    """Bytes that a worker needs at most: libraries, what its threads hold of the source, and three slabs."""
    threads = config.compute.threads or (_processors() if config.compute.scheduler == "threads" else 1)
    one_thread = max(2 * useful + through for useful, through in (_sizes(archive, short) for short in archive.series))
    return int(0.4e9 + threads * one_thread + 3 * config.data.slab_times * _bytes_per_time(config))


def estimate_time(config: WeatherConfig, archive: Archive, plan: RegridPlan) -> dict[str, Any]:
    """Make one time and scale it up.

    Returns:
        Seconds of one time on one worker, of the whole run, and the peak memory of this process.
    """
    times, _ = store_times(archive, config.data)
    read = FieldReader(config, archive, Gridder(archive, config, quiet=True))
    read(times[:1])  # opens files and loads the weights
    started = clock.perf_counter()
    read(times[-1:])
    one = clock.perf_counter() - started
    useful, through_chunks = bytes_read(archive)
    return {
        "what": "scaled from one time; not a measured run",
        "seconds_a_time": round(one, 3),
        "seconds": round(one * plan.bytes_read_useful / max(1, useful) / plan.workers, 1),
        "bytes_a_second_and_worker": int(through_chunks / max(one, 1e-9)),
        "peak_memory_of_probe_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def describe(plan: RegridPlan) -> list[str]:
    """The plan in sentences."""
    ratio = plan.bytes_read_through_chunks / max(1, plan.bytes_read_useful)
    more = f" and {len(plan.missing) - 3} more" if len(plan.missing) > 3 else ""
    read, through = size(plan.bytes_read_useful), size(plan.bytes_read_through_chunks)
    every = f" every {plan.step_hours} h" if plan.times > 1 else ""
    slabs = f"{counted(plan.slabs, 'slab')} of {counted(plan.times_a_slab, 'time')}, {plan.slabs_left} left"
    memory, needed, free = map(size, (plan.memory_per_worker_bytes, plan.disk_needed_bytes, plan.disk_free_bytes))
    return [
        f"{plan.label}, {counted(plan.channels, 'channel')}, {plan.source_grid} to {plan.target_grid}",
        f"{counted(plan.times, 'time')}{every}, {spanned(plan.first, plan.last)}",
        f"missing: {counted(plan.missing_times, 'time')}"
        + (f": {', '.join(plan.missing[:3])}{more}" if plan.missing else ""),
        f"to read: {read} of fields, {through} through the source's chunks ({ratio:.2f} times as much)",
        f"to write: {size(plan.bytes_written)} before compression in {slabs}",
        f"memory: up to {memory} for each of {counted(plan.workers, 'worker')}",
        f"disk: {needed} needed (store, normals and their sums), {free} free",
    ]


def duration(seconds: float) -> str:
    """Seconds as messages print them.

    >>> duration(4000)
    '1.1 hours'
    """
    for limit, name, length in ((120, "seconds", 1), (7200, "minutes", 60), (172800, "hours", 3600)):
        if seconds < limit:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds / 86400:.1f} days"


def _workers(config: WeatherConfig) -> int:
    if config.compute.scheduler == "threads":
        return 1
    return config.compute.workers or (8 if config.compute.scheduler == "slurm" else _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0))
