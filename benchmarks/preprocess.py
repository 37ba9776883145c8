"""The whole regrid stage at true size against the least it could cost: reading and decompressing the same chunks.

Claim: from a local 0.25 degree archive with ARCO-ERA5's chunks (one time, all 37 levels, Blosc), 80 channels to 5.625
degrees by bilinear weights, on 2 cores: at most 1.25 times the floor. Memory at most 3 GB, the same for 8 and 24 times.

The floor reads every chunk file whole and decompresses it into a buffer that is used again, one thread a core, and does
nothing else. Ours is `run_regrid`, from opening the archive to the receipt: checking, regridding, writing, reading
back, flushing. The naive script is what one writes first: xarray, a loop over variables and levels, `interp`,
`to_zarr`; it takes `--naive-times` times and is scaled to all. All run one after the other, each in a process of
its own, from the page cache, the floor before and after ours.

    python benchmarks/preprocess.py                       # 8 and 24 times; 10 GB of disk, deleted at the end
    python benchmarks/preprocess.py --times 4 --naive-times 0
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.support import archive
from benchmarks.support.process import peak_bytes

ROOT = Path(__file__).resolve().parent.parent


def end_of(times: int) -> str:
    last = np.datetime64(archive.FIRST, "h") + np.timedelta64(6 * (times - 1), "h")
    return f"{last}:00"


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
        period = {"start": archive.FIRST, "end": end_of(times)}
        config = parse(
            {
                "name": "bench",
                "directory": folder,
                "source": {"kind": "arco", "url": str(path), "label": "made up"},
                "data": {
                    "period": period,
                    "slab_times": 8,
                    "splits": {
                        "train": {"start": archive.FIRST, "end": f"{archive.FIRST}T00:00"},
                        "test": {"start": f"{archive.FIRST}T06:00", "end": period["end"]},
                    },
                },
            }
        )
        began, cpu = time.perf_counter(), time.process_time()
        run_regrid(config)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": wall, "processor_s": cpu, "peak_GB": peak_bytes() / 1e9}


def naive(path: Path, times: int) -> dict[str, float]:
    """The script a user would write."""
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
    return {"seconds": time.perf_counter() - began, "processor_s": time.process_time() - cpu, "times": times,
            "peak_GB": peak_bytes() / 1e9}  # fmt: skip


def fresh(part: str, path: Path, times: int) -> dict[str, float]:
    # As a module: run as a script, this file would hide the package of the same name.
    command = [
        sys.executable,
        "-m",
        "benchmarks.preprocess",
        "--part",
        part,
        "--folder",
        str(path),
        "--times",
        str(times),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(part, times, json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, nargs="+", default=[8, 24])
    parser.add_argument("--naive-times", type=int, default=1, help="0 leaves the naive script out")
    parser.add_argument("--folder", type=Path, help="make the archive here and keep it")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--part", choices=("floor", "ours", "naive"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        parts = {"floor": floor, "ours": ours, "naive": naive}
        print(json.dumps(parts[options.part](options.folder, options.times[0])))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        path = archive.make(folder / f"arco-{max(options.times)}.zarr", steps=max(options.times))
        for times in options.times:
            fresh("floor", path, times)  # once for the page cache
            floors, stages = [fresh("floor", path, times)], []
            for _ in range(options.repeats):
                stages.append(fresh("ours", path, times))
                floors.append(fresh("floor", path, times))
            best = min(f["seconds"] for f in floors)
            row: dict[str, Any] = {
                "times": times,
                "floor_s": best,
                "ours_s": min(s["seconds"] for s in stages),
                "peak_GB": max(s["peak_GB"] for s in stages),
                "floor": floors,
                "ours": stages,
            }
            row["times_the_floor"] = round(row["ours_s"] / best, 3)
            rows.append(row)
        if options.naive_times:
            row = rows[0]
            found = fresh("naive", path, options.naive_times)
            found["seconds_scaled"] = found["seconds"] / options.naive_times * row["times"]
            row |= {"naive": found, "times_faster_than_naive": round(found["seconds_scaled"] / row["ours_s"], 1)}
    for row in rows:
        print({k: v for k, v in row.items() if not isinstance(v, (list, dict))})
    if max(options.times) >= 8:
        from benchmarks.support.measure import write

        print(write("preprocess", {"what": __doc__.splitlines()[0], "cores": os.cpu_count(), "rows": rows}))


if __name__ == "__main__":
    main()
