"""Time and memory of scoring a year of six-hourly forecasts, against the floor of reading the two stores.

Claim: RMSE, bias and ACC (and with them MSE, MAE, centred ACC, activity and skill) of 78 channels x 3 leads x 32 x 64
cells at 1460 init times, for the model and two baselines in nine regions, take at most 1.2 times as long as reading the
forecast store and the truth once through xarray and zarr-python, and less than 2 GB of memory. The same bytes through
our own reader, which scoring uses, are a second floor.

    python benchmarks/score.py                  # writes about 4 GB below a temporary folder, some minutes
    python benchmarks/score.py --init-times 200 # a quick look
    python benchmarks/score.py --xskillscore    # the same scores by xskillscore on a part of the init times
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
import zarr.codecs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support import process
from benchmarks.support.process import peak_bytes
from pipeline.grid import Grid
from pipeline.store import ArraySpec, SlabStore, open_store
from pipeline.weather import climatology, variables
from pipeline.weather.climatology import Normals

GRID = Grid.regular(5.625)
CHANNELS = variables.channels()[0]
LEADS = (168, 336, 720)
STEP = np.timedelta64(6, "h")


def coordinates() -> dict[str, Any]:
    """Coordinates both stores share."""
    return {
        "channel": [c.name for c in CHANNELS],
        "unit": ("channel", [c.spec.unit for c in CHANNELS]),
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }


def field(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise that compresses about as badly as weather."""
    scale = np.array([max(abs(variables.plausible_range(c)[1]), 1.0) for c in CHANNELS], np.float32)[:, None, None]
    return np.asarray((1.0 + 0.01 * rng.standard_normal(shape, dtype=np.float32)) * scale, np.float32)


def build(folder: Path, *, num: int) -> None:
    """Forecast store, training store and normals of `num` init times."""
    rng = np.random.default_rng(0)
    pieces = (1, 16, *GRID.shape)
    init = np.datetime64("2005-01-01T00", "ns") + np.arange(num) * STEP
    times = np.datetime64("2005-01-01T00", "ns") + np.arange(num + LEADS[-1] // 6) * STEP
    for name, dims, axes, size in (
        ("forecast", ("init_time", "lead_time"), {"init_time": init, "lead_time": ("lead_time", list(LEADS))}, 16),
        ("truth", ("time",), {"time": times}, 64),
    ):
        length = len(init) if name == "forecast" else len(times)
        inner = (len(LEADS),) if name == "forecast" else ()
        shape = (length, *inner, len(CHANNELS), *GRID.shape)
        spec = ArraySpec((*dims, "channel", "latitude", "longitude"), shape, (1,) * len(inner) + pieces)
        coords, path = xr.Dataset(coords={**axes, **coordinates()}), folder / f"{name}.zarr"
        slabs: dict[str, Any] = {"slab_dim": dims[0], "slab_size": size, "contract": {"kind": name}}
        with SlabStore(path, arrays={"state": spec}, coords=coords, **slabs) as store:
            for slab in store.pending():
                store.write(slab, {"state": field(rng, (len(slab), *shape[1:]))})
            store.finish()
    build_normals(folder / "normals.zarr")


def build_normals(path: Path) -> None:
    """A climatology on disk, laid out and cut as the normals stage does."""
    shape, names = (366, 4, len(CHANNELS), *GRID.shape), [c.name for c in CHANNELS]
    group = zarr.open_group(path, mode="w", zarr_format=3)
    arrays = {"channel": np.array(names), "static_channel": np.array([], "U1"), "hour": np.array([0, 6, 12, 18])}
    arrays |= {"latitude": GRID.latitude, "longitude": GRID.longitude}
    arrays |= {name: np.ones(len(CHANNELS)) for name in ("mean", "std", "anomaly_std")}
    arrays |= {name: np.ones(0) for name in ("static_mean", "static_std")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        for name, values in arrays.items():
            group.create_array(name, data=values)
    layout: dict[str, Any] = {"chunks": (1, 1, 16, *GRID.shape), "shards": (61, 1, 16, *GRID.shape)}
    codecs = (zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec())
    target: Any = group.create_array("climatology", shape=shape, dtype="float32", compressors=codecs, **layout)
    rng = np.random.default_rng(1)
    for start in range(0, 366, 61):
        target[start : start + 61] = field(rng, (61, *shape[1:]))
    group.attrs.update(schema=climatology.SCHEMA, contract={}, digest="made", climatology_kind="day of year x hour")


def floor(folder: Path) -> dict[str, float]:
    """Reading both stores once, slab by slab, as anyone's program would."""
    return read(xr.open_zarr(folder / f"{name}.zarr", chunks=None) for name in ("forecast", "truth"))


def own_floor(folder: Path) -> dict[str, float]:
    """The same through our own reader."""
    return read(open_store(folder / f"{name}.zarr") for name in ("forecast", "truth"))


def read(stores: Iterable[xr.Dataset]) -> dict[str, float]:
    """Read forecasts and truth, slab by slab."""
    began, cpu = time.perf_counter(), time.process_time()
    total = 0
    for ds, dim, size in zip(stores, ("init_time", "time"), (16, 64), strict=True):
        state = ds["state"]
        for start in range(0, state.sizes[dim], size):
            total += state.isel({dim: slice(start, start + size)}).values.nbytes
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu, "gigabytes": total / 1e9}


def ours(folder: Path) -> dict[str, float]:
    """Sums of all statistics, then every score of every region; intervals timed apart."""
    from evaluate.scoring import tables
    from evaluate.scoring.stores import ScoringOptions, score_stores

    normals = Normals.open(folder / "normals.zarr")
    before = peak_bytes()
    began, cpu = time.perf_counter(), time.process_time()
    forecasts, truth = {"ours": open_store(folder / "forecast.zarr")}, open_store(folder / "truth.zarr")
    scored = score_stores(forecasts, truth, normals, ScoringOptions(LEADS, ["z500", "t850", "t2m", "u10"]))
    tables.map_scores(scored.sums)
    sums, sums_cpu = time.perf_counter() - began, time.process_time() - cpu
    tables.regional_scores(tables.Sample(scored.sums, 60))
    return {
        "seconds": sums,
        "cpu_seconds": sums_cpu,
        "seconds_with_intervals": time.perf_counter() - began,
        "peak_gigabytes": peak_bytes() / 1e9,
        "of_which_libraries": before / 1e9,
    }


def theirs(folder: Path, *, num: int = 40) -> dict[str, float]:
    """RMSE, bias and centred ACC of the model over the globe by xskillscore, for the first `num` init times."""
    import xskillscore as xs

    forecast = open_store(folder / "forecast.zarr")["state"].isel(init_time=slice(0, num))
    truth = open_store(folder / "truth.zarr")["state"]
    normals = Normals.open(folder / "normals.zarr")
    began = time.perf_counter()
    f = forecast.load()
    valid = f["init_time"].values[:, None] + (np.array(LEADS) * np.timedelta64(1, "h"))[None, :]
    index = xr.DataArray(valid, dims=("init_time", "lead_time"))
    o = f.copy(data=truth.sel(time=index).transpose(*f.dims).values)
    c = f.copy(data=normals.climatology_at(valid.astype("datetime64[ns]")))
    weight = xr.DataArray(GRID.area_weights, {d: f[d] for d in ("latitude", "longitude")}, ["latitude", "longitude"])
    over = ["init_time", "latitude", "longitude"]
    whole = (weight * xr.ones_like(f["init_time"], dtype=float)).transpose(*over)
    xs.rmse(f, o, dim=over, weights=whole)
    (f - o).weighted(weight).mean(over)
    xs.pearson_r(f - c, o - c, dim=["latitude", "longitude"], weights=weight).mean("init_time")
    return {"seconds": time.perf_counter() - began, "init_times": num}


PARTS = {"floor": floor, "own_floor": own_floor, "ours": ours, "theirs": theirs}


def one(case: dict[str, Any]) -> dict[str, float]:
    """Measure one part."""
    return PARTS[case["part"]](Path(case["folder"]))


def fresh(part: str, folder: Path) -> dict[str, float]:
    """Measure one part in a process of its own, so that its memory is only its own."""
    return process.part(__file__, part=part, folder=str(folder))


def main() -> None:
    command = process.parser(__doc__)
    command.add_argument("--init-times", type=int, default=1460)
    command.add_argument("--folder", type=Path, help="keep the stores here")
    command.add_argument("--xskillscore", action="store_true")
    given = process.options(command, one)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        if not (folder / "normals.zarr").exists():
            build(folder, num=given.init_times)
        fresh("floor", folder)  # fills the page cache
        result: dict[str, Any] = {"floor": fresh("floor", folder), "ours": fresh("ours", folder)}
        if given.xskillscore:
            result["xskillscore"] = theirs_ = fresh("theirs", folder)
            scaled = theirs_["seconds"] * given.init_times / theirs_["init_times"]
            result["times_faster_than_xskillscore"] = scaled / result["ours"]["seconds"]
        result |= {"floor_again": fresh("floor", folder), "own_floor": fresh("own_floor", folder)}
    fair = 0.5 * (result["floor"]["seconds"] + result["floor_again"]["seconds"])
    result |= {"times_the_floor": result["ours"]["seconds"] / fair, "init_times": given.init_times}
    result["times_the_own_floor"] = result["ours"]["seconds"] / result["own_floor"]["seconds"]
    print(json.dumps(result, indent=1))
    if given.init_times >= 1460:
        from benchmarks.support.measure import write  # loads torch, which the parts do not need

        print(write("score", result))


if __name__ == "__main__":
    main()
