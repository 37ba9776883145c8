"""The plan of the regrid stage: what a run will read, write, need and take, before it does.

Contract: all but the probe is found from metadata. The probe makes one time of the slab that a run would begin with,
and throws it away; seconds and the compression of what is read and written are scaled from it, so they are
estimates and say so. Nothing is written but the plan itself, as JSON beside the receipts.
"""

from __future__ import annotations

import os
import resource
import shutil
import time as clock
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import files, store
from pipeline.console import say, stamp
from pipeline.weather import climatology
from pipeline.weather.config import WeatherConfig
from preprocess.ingest.gridding import Fields, Gridder, open_archive
from preprocess.ingest.stage import gaps, select_times
from preprocess.sources import Archive

Counted = dict[str, Any]


def run_plan(config: WeatherConfig) -> None:
    """Print the plan of the regrid stage and write it to <results>/plan-preprocess.json.

    Raises:
        ValueError: the disk has less than the stores need; see also `open_source`.
    """
    archive = open_archive(config)
    content = what(config, archive)
    for line in lines(content):
        say(f"plan: {line}")
    if content["slabs_left"]:
        content["estimate"] = estimate(config, archive, content)
        for line in estimate_lines(content["estimate"]):
            say(f"plan: {line}")
    path = config.root / "plan-preprocess.json"
    files.write_json(path, content)
    say(f"plan: written to {path}")
    files.free_space_check(config.paths.store, content["disk_needed_bytes"])


def what(config: WeatherConfig, archive: Archive) -> Counted:
    """Everything that metadata tell about a run, JSON-ready; bytes are those of decompressed float32 arrays."""
    data = config.data
    times, missing = select_times(archive.times, data)
    slabs = store.slabs(times.size, data.slab_times)
    done = _recorded(config.paths.store, slabs)
    left = sum(len(slab) for slab in slabs if slab.index not in done)
    useful, through_chunks = (n * left for n in bytes_read(archive))
    channels, grid = len(data.channels.dynamic), data.regrid.grid
    state = times.size * channels * grid.size * 4
    hours = np.unique(climatology.hours_of_day(times)).size
    normals = climatology.SLOTS * hours * channels * grid.size * 4
    sums = 2 * normals if data.normals.keep_sums else 0
    free = shutil.disk_usage(_existing(config.paths.store)).free
    still = sum(len(slab) for slab in slabs if slab.index not in done) * channels * grid.size * 4
    return {
        "label": archive.label,
        "source_grid": str(archive.grid),
        "target_grid": str(grid),
        "channels": channels,
        "first": stamp(times[0]),
        "last": stamp(times[-1]),
        "step_hours": data.step_hours,
        "times": int(times.size),
        "missing_times": int(missing.size),
        "missing": gaps(missing, step_hours=data.step_hours),
        "slabs": len(slabs),
        "slabs_left": len(slabs) - len(done),
        "times_a_slab": data.slab_times,
        "bytes_read_useful": int(useful),
        "bytes_read_through_chunks": int(through_chunks),
        "bytes_written": int(state),
        "memory_per_worker_bytes": memory_per_worker(config, archive),
        "workers": _workers(config),
        "disk_needed_bytes": int(still + normals + sums),
        "disk_of": {"store": int(state), "normals": int(normals), "sums": int(sums)},
        "disk_free_bytes": int(free),
    }


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
        item = piece.survey.fields[short]
        array = piece.raw[item.name]
        plane = 4 * archive.grid.size
        useful += plane * max(1, len(levels))
        if not levels or item.level_dim not in array.dims:
            through += plane * max(1, len(levels))
            continue
        whole = array.sizes[item.level_dim]
        deep = int(array.encoding.get("preferred_chunks", {}).get(item.level_dim, 1))
        through += plane * sum(min(deep, whole - i * deep) for i in {item.levels.index(p) // deep for p in levels})
    return useful, through


def memory_per_worker(config: WeatherConfig, archive: Archive) -> int:
    """Bytes that a worker needs at most: libraries, what its threads hold of the source, and three slabs."""
    threads = config.compute.threads or (_processors() if config.compute.scheduler == "threads" else 1)
    one_thread = max(2 * useful + through for useful, through in (_sizes(archive, short) for short in archive.series))
    slab = config.data.slab_times * len(config.data.channels.dynamic) * config.data.regrid.grid.size * 4
    return int(0.4e9 + threads * one_thread + 3 * slab)


def estimate(config: WeatherConfig, archive: Archive, content: Counted) -> Counted:
    """Make one time and scale it up.

    Returns:
        Seconds of one time on one worker, of the whole run, and the peak memory of this process.
    """
    times, _ = select_times(archive.times, config.data)
    task = Fields(config, archive, Gridder(archive, config, quiet=True))
    task(times[:1])  # opens files and loads the weights
    began = clock.perf_counter()
    task(times[-1:])
    one = clock.perf_counter() - began
    left = content["bytes_read_useful"] / max(1, bytes_read(archive)[0])
    return {
        "what": "scaled from one time; not a measured run",
        "seconds_a_time": round(one, 3),
        "seconds": round(one * left / content["workers"], 1),
        "bytes_a_second_and_worker": int(bytes_read(archive)[1] / max(one, 1e-9)),
        "peak_memory_of_probe_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def lines(content: Counted) -> list[str]:
    """The plan in words."""
    over = content["bytes_read_through_chunks"] / max(1, content["bytes_read_useful"])
    missing = content["missing"]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    read, through = size(content["bytes_read_useful"]), size(content["bytes_read_through_chunks"])
    written, slabs, left = size(content["bytes_written"]), content["slabs"], content["slabs_left"]
    needed, free = size(content["disk_needed_bytes"]), size(content["disk_free_bytes"])
    return [
        f"{content['label']}, {content['channels']} channels, {content['source_grid']} to {content['target_grid']}",
        f"{content['times']} times every {content['step_hours']} h, {content['first']} .. {content['last']}",
        f"missing: {content['missing_times']} times" + (f": {', '.join(missing[:3])}{more}" if missing else ""),
        f"to read: {read} of fields, {through} through the source's chunks ({over:.2f} times as much)",
        f"to write: {written} before compression in {slabs} slabs of {content['times_a_slab']} times, {left} left",
        f"memory: up to {size(content['memory_per_worker_bytes'])} for each of {content['workers']} worker(s)",
        f"disk: {needed} needed (store, normals and their sums), {free} free",
    ]


def estimate_lines(found: Counted) -> list[str]:
    """The estimate in words."""
    one = found["seconds_a_time"]
    return [f"time: about {duration(found['seconds'])}, {one:.2f} s a time on one worker ({found['what']})"]


def size(count: float) -> str:
    """Bytes for people.

    >>> size(45_600_000_000_000)
    '45.6 TB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(4000)
    '1.1 hours'
    """
    for limit, name, length in ((120, "seconds", 1), (7200, "minutes", 60), (172800, "hours", 3600)):
        if seconds < limit:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds / 86400:.1f} days"


def _recorded(path: Path, slabs: list[store.Slab]) -> set[int]:
    """Slabs that are there already."""
    manifest = store.manifest_path(path)
    if not manifest.exists() or not path.exists():
        return set()
    held = files.read_json(manifest)["slabs"]
    return {slab.index for slab in slabs if str(slab.index) in held}


def _workers(config: WeatherConfig) -> int:
    if config.compute.scheduler == "threads":
        return 1
    return config.compute.workers or (8 if config.compute.scheduler == "slurm" else _processors())


def _processors() -> int:
    return len(os.sched_getaffinity(0))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
