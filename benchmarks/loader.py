"""The loader against the floor, which only decompresses the same bytes with zarr, and against climate-learn's loader.

Claims: shuffled samples straight from the store, normalised, with targets, come at 0.8 of the floor's rate at least,
and five times as fast as from climate-learn's loader of .npz files, on the same data and channels.

The floor reads the same times in the same order, init and valid, with one call of zarr each, on the same number of
threads. `memory` is the loader after the store has been read into memory, as training does where it fits.
climate-learn reads .npz shards (written here, one month each, uncompressed like its own), shuffles in a buffer and
normalises; one lead only, since its direct forecasting task has a single one.

    python -m pipeline train --config workflows/config/demo.yaml    # or make demo: the store to read
    python benchmarks/loader.py
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.climatelearn import import_climate_learn
from benchmarks.support.measure import write
from benchmarks.support.process import in_fresh_process, options, parser
from model.training.prefetch import Prefetch
from model.weather.fields import Fields
from model.weather.samples import Order, make_batch
from pipeline.config import load
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig as Config
from pipeline.weather.times import find_pairs

Start = Callable[[], Iterator[int]]
"""Starts reading; yields the sizes of the batches."""
LEAD = 168
BUFFER = 64
"""Size of climate-learn's shuffle buffer; its default of 10,000 samples would need six gigabytes."""


def one(case: dict[str, Any]) -> dict[str, Any]:
    """Samples per second of one loader."""
    config = load(case["config"], case["set"])
    torch.set_num_threads(1)
    samples, batch = case["samples"], config.training.batch_size
    steps = range(max(1, samples // batch))
    began = time.perf_counter()
    if case["loader"] == "climate-learn":
        start = climate_learn(Path(case["shards"]), batch=batch)
    elif case["loader"] == "floor":
        start = floor(config, steps, threads=case["threads"])
    else:
        start = ours(config, steps, threads=case["threads"], memory=case["loader"] == "memory")
    ready = time.perf_counter() - began
    began, first, count = time.perf_counter(), 0.0, 0
    for size in start():
        count += size
        if not first:
            first = time.perf_counter() - began
        if count >= samples:
            break
    seconds = time.perf_counter() - began
    return {"samples_per_second": count / seconds, "first_batch_s": first, "ready_s": ready, "read": count}


def open_fields(config: Config, *, threads: int) -> Fields:
    normals = Normals.open(config.paths.normals)
    return Fields(config.paths.store, normals, network_input=config.model.network_input, readers=threads)


def ours(config: Config, steps: range, *, threads: int, memory: bool) -> Start:
    """The trainer's loader: fields from the store, or from memory once it has been read."""
    fields = open_fields(config, threads=threads)
    pairs = find_pairs(fields.times, lead_hours=[LEAD], periods=config.data.splits.train)
    order, batch = Order(pairs, seed=0), config.training.batch_size
    if memory:
        fields.load(pairs.used_times, progress=False)
    else:
        fields.hold_climatology()

    def start() -> Iterator[int]:
        for batch_ in Prefetch(lambda step: make_batch(fields, pairs, order.batch(step, size=batch)), steps):
            yield len(batch_.x)

    return start


def floor(config: Config, steps: range, *, threads: int) -> Start:
    """The same times in the same order, decompressed and dropped."""
    array: Any = zarr.open_group(config.paths.store, mode="r")["state"]
    times = open_fields(config, threads=1).times
    pairs = find_pairs(times, lead_hours=[LEAD], periods=config.data.splits.train)
    order, batch = Order(pairs, seed=0), config.training.batch_size

    def start() -> Iterator[int]:
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for step in steps:
                items = order.batch(step, size=batch)
                wanted = np.concatenate([pairs.init[items.start], pairs.valid[items.start, items.lead]])
                list(pool.map(lambda time: array[int(time)], wanted))
                yield batch

    return start


def climate_learn(shards: Path, *, batch: int) -> Start:
    """Its own training loader, in this process like ours."""
    import_climate_learn()
    from climate_learn.data.itermodule import IterDataModule

    names = json.loads((shards / "names.json").read_text())
    task = {"src": "era5", "history": 1, "window": 1, "pred_range": LEAD // names["step_hours"], "subsample": 1}
    reading = {"buffer_size": BUFFER, "batch_size": batch, "num_workers": 0}
    variables = (names["inputs"], names["outputs"])
    module = IterDataModule("direct-forecasting", str(shards), str(shards), *variables, **task, **reading)
    module.setup()

    def start() -> Iterator[int]:
        for x, _, _, _ in module.train_dataloader():
            yield len(x)

    return start


def write_shards(config: Config, folder: Path, *, shard: int, samples: int) -> None:
    """As many shards as the samples need, the way climate-learn reads them: (time, 1, lat, lon) for each variable."""
    store = zarr.open_group(config.paths.store, mode="r")
    state: Any = store["state"]
    channels = [str(name) for name in store["channel"][:]]  # type: ignore[index]
    fields = open_fields(config, threads=1)
    times = find_pairs(fields.times, lead_hours=[LEAD], periods=config.data.splits.train).used_times
    normals = fields.normals
    static = np.asarray(store["static"][:])  # type: ignore[index]
    inputs = [*channels, *fields.static_channels]
    for split in ("train", "val", "test"):
        (folder / split).mkdir(parents=True)
    each = shard - LEAD // config.data.step_hours
    number_of_shards = min(len(times) // shard, -(-(samples + BUFFER + config.training.batch_size) // each))
    for number, first in enumerate(range(0, number_of_shards * shard, shard)):
        values = state[int(times[first]) : int(times[first]) + shard]
        content = {name: values[:, i : i + 1] for i, name in enumerate(channels)}
        for i, name in enumerate(fields.static_channels):
            content[name] = np.broadcast_to(static[i], (shard, 1, *static.shape[1:]))
        for split in ("train",) if number else ("train", "val", "test"):
            np.savez(folder / split / f"{number:03d}.npz", **content)
    mean = dict(zip(inputs, [*normals.mean, *normals.static_mean], strict=True))
    std = dict(zip(inputs, [*normals.std, *normals.static_std], strict=True))
    for name, values in (("mean", mean), ("std", std)):
        np.savez(folder / f"normalize_{name}.npz", **{k: np.array([v]) for k, v in values.items()})
    grid = config.data.regrid.grid
    np.save(folder / "lat.npy", grid.latitude)
    np.save(folder / "lon.npy", grid.longitude)
    about = {"inputs": inputs, "outputs": channels, "step_hours": config.data.step_hours}
    (folder / "names.json").write_text(json.dumps(about))


def ratios_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Rates of the best runs, as multiples of the floor's and climate-learn's."""
    best: dict[str, float] = {}
    for row in rows:
        best[row["loader"]] = max(best.get(row["loader"], 0.0), row.get("samples_per_second", 0.0))
    ratios = {f"{name}_over_floor": best[name] / best["floor"] for name in ("store", "memory")}
    if best["climate-learn"]:
        ratios |= {f"{name}_over_climate_learn": best[name] / best["climate-learn"] for name in ("store", "memory")}
    return ratios


def share_waiting(config: Config) -> dict[str, float]:
    """How much of the configuration's training was spent waiting for data, if it has run."""
    if not config.paths.metrics.exists():
        return {}
    records = [json.loads(line) for line in config.paths.metrics.read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    seconds = steps[-1]["step"] * config.training.batch_size / steps[-1]["samples_per_second"]
    return {"share_of_training_spent_waiting": sum(s.get("wait_seconds", 0.0) for s in steps) / seconds}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--config", default="workflows/config/demo.yaml")
    command.add_argument("--set", nargs="*", default=[], help="settings, e.g. directory=/elsewhere/results/demo")
    command.add_argument("--samples", type=int, default=1024)
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--shard", type=int, default=62, help="times of an .npz file: a month of 12-hourly data")
    given = options(command, one)
    config = load(given.config, given.set)
    if not config.paths.store.exists():
        raise SystemExit(f"store must exist, got none at {config.paths.store}; run make demo first")
    folder = Path(tempfile.mkdtemp())
    rows = []
    try:
        write_shards(config, folder, shard=given.shard, samples=given.samples)
        for loader in ("floor", "store", "climate-learn", "memory") * 2:  # the best of two runs counts, for all
            samples = given.samples * 8 if loader == "memory" else given.samples
            case = {"loader": loader, "samples": samples, "threads": given.threads}
            places = {"config": given.config, "set": given.set, "shards": str(folder)}
            row = in_fresh_process(__file__, case | places)
            rows.append({k: v for k, v in row.items() if k not in places})
            print(json.dumps(rows[-1]), flush=True)
    finally:
        shutil.rmtree(folder)
    ratios = {name: round(value, 4) for name, value in (ratios_of(rows) | share_waiting(config)).items()}
    print(json.dumps(ratios, indent=1))
    print(write("loader", {"batch": config.training.batch_size, "ratios": ratios, "rows": rows}))


if __name__ == "__main__":
    main()
