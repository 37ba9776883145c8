"""The whole regrid stage at true size against the least it could cost: reading and decompressing the same chunks.

Claim: from a local 0.25 degree archive with ARCO-ERA5's chunks (one time, all 37 levels, Blosc), 80 channels to 5.625
degrees by bilinear weights, on 2 cores: at most 1.25 times the floor. Memory at most 3 GB, the same for 8 and 24 times.

The floor reads every chunk file completely and decompresses it into a reused buffer, one thread per core, and does
nothing else. Ours is `run_regrid`, from opening the archive to the receipt: checking, regridding, writing, reading
back, flushing. The naive script is a first attempt with xarray: a loop over variables and levels, `interp`, `to_zarr`;
it processes `--naive-times` times and is scaled to all. All run one after the other, each in a process of
its own, from the page cache, the floor before and after ours.

    python benchmarks/regrid.py                       # 8 and 24 times; 10 GB of disk, deleted at the end
    python benchmarks/regrid.py --times 4 --naive-times 0
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support import archive, process
from benchmarks.support.process import peak_bytes


def raw_config(path: Path, folder: str, times: int) -> dict[str, Any]:
    """A configuration that regrids the first times of the archive."""
    end = f"{np.datetime64(archive.FIRST, 'h') + np.timedelta64(6 * (times - 1), 'h')}:00"
    train = {"start": archive.FIRST, "end": f"{archive.FIRST}T00:00"}
    splits = {"train": train, "test": {"start": f"{archive.FIRST}T06:00", "end": end}}
    data = {"period": {"start": archive.FIRST, "end": end}, "slab_times": 8, "splits": splits}
    source = {"kind": "arco", "url": str(path), "label": "made up"}
    return {"name": "bench", "directory": folder, "source": source, "data": data}


def floor(path: Path, times: int) -> dict[str, float]:
    """Read and decompress."""
    import numcodecs.blosc

    files = archive.chunks(path, steps=times)
    local = threading.local()
    numcodecs.blosc.use_threads = False

    def one(file: Path) -> int:
        if not hasattr(local, "buffer"):
            local.buffer = np.zeros(37 * 721 * 1440 * 4, np.uint8)
        data = file.read_bytes()
        size = int(np.frombuffer(data[4:8], "<u4")[0])
        numcodecs.blosc.decompress(data, local.buffer[:size])
        return len(data)

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        compressed = sum(pool.map(one, files))
    return {
        "seconds": time.perf_counter() - began,
        "processor_s": time.process_time() - cpu,
        "compressed_GB": compressed / 1e9,
    }


def ours(path: Path, times: int) -> dict[str, float]:
    """The regrid stage."""
    from pipeline.config import parse
    from preprocess.ingest.stage import run_regrid

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        config = parse(raw_config(path, folder, times))
        began, cpu = time.perf_counter(), time.process_time()
        run_regrid(config)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": wall, "processor_s": cpu, "peak_GB": peak_bytes() / 1e9}


def naive(path: Path, times: int) -> dict[str, float]:
    """The script that a user might write first."""
    import warnings

    import xarray as xr

    from pipeline.grid import Grid
    from pipeline.weather.variables import BY_SHORT, LEVELS

    warnings.simplefilter("ignore")
    target = Grid.regular(5.625)
    began, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        ds = xr.open_zarr(path).isel(time=slice(0, times))
        ds = ds.pad(longitude=(0, 1), mode="wrap")
        ds["longitude"] = np.append(ds["longitude"].values[:-1], 360.0)
        fields = {}
        for short in (*archive.ON_LEVELS, *archive.SURFACE):
            array = ds[BY_SHORT[short].long]
            for level in LEVELS if short in archive.ON_LEVELS else (None,):
                one = array if level is None else array.sel(level=level, drop=True)
                name = short if level is None else f"{short}{level}"
                fields[name] = one.interp(latitude=target.latitude, longitude=target.longitude)
        xr.Dataset(fields).drop_encoding().to_zarr(Path(folder) / "naive.zarr", mode="w")
    seconds, processor = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "processor_s": processor, "peak_GB": peak_bytes() / 1e9}


PARTS = {"floor": floor, "ours": ours, "naive": naive}


def one(case: dict[str, Any]) -> dict[str, float]:
    """Measure one part."""
    return PARTS[case["part"]](Path(case["path"]), case["times"])


def fresh(part: str, path: Path, times: int) -> dict[str, Any]:
    """Measure one part in a process of its own."""
    measured = process.part(__file__, part=part, path=str(path), times=times)
    print(part, times, json.dumps(measured), flush=True)
    return measured


def row_of(path: Path, times: int, *, repeats: int) -> dict[str, Any]:
    """The stage and the floor, in turn."""
    fresh("floor", path, times)  # fills the page cache
    floors, stages = [fresh("floor", path, times)], []
    for _ in range(repeats):
        stages.append(fresh("ours", path, times))
        floors.append(fresh("floor", path, times))
    floor_s, ours_s = (min(run["seconds"] for run in runs) for runs in (floors, stages))
    row = {"times": times, "floor_s": floor_s, "ours_s": ours_s, "peak_GB": max(s["peak_GB"] for s in stages)}
    return row | {"floor": floors, "ours": stages, "times_the_floor": round(ours_s / floor_s, 3)}


def main() -> None:
    command = process.parser(__doc__)
    command.add_argument("--times", type=int, nargs="+", default=[8, 24])
    command.add_argument("--naive-times", type=int, default=1, help="0 leaves the naive script out")
    command.add_argument("--folder", type=Path, help="make the archive here and keep it")
    command.add_argument("--repeats", type=int, default=3)
    given = process.options(command, one)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = archive.make(folder / f"arco-{max(given.times)}.zarr", steps=max(given.times))
        rows = [row_of(path, times, repeats=given.repeats) for times in given.times]
        if given.naive_times:
            row, script = rows[0], fresh("naive", path, given.naive_times)
            script["times"] = given.naive_times
            script["seconds_scaled"] = script["seconds"] / given.naive_times * row["times"]
            row |= {"naive": script, "times_faster_than_naive": round(script["seconds_scaled"] / row["ours_s"], 1)}
    for row in rows:
        print({k: v for k, v in row.items() if not isinstance(v, (list, dict))})
    if max(given.times) >= 8:
        from benchmarks.support.measure import write  # loads torch, which the parts do not need

        print(write("regrid", {"what": __doc__.splitlines()[0], "cores": os.cpu_count(), "rows": rows}))


if __name__ == "__main__":
    main()
