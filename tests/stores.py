"""Small stores written through the project's own writer, for any test that needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import manifest, provenance
from pipeline.damage import large_arrays
from pipeline.store import ArraySpec, SlabStore, contract_digest
from pipeline.weather.config import WeatherConfig

Span = tuple[str, str]
SMALL_STEPS: dict[str, Any] = {
    "variables": ["z", "t", "t2m", "u10"],
    "levels": [500, 850],
    "step_hours": 6,
    "slab_times": 4,
    "regrid": {"resolution": 22.5},
}
"""Of small six-hourly stores."""
TRUTH_DIMS = ("time", "channel", "latitude", "longitude")


def write_store(
    path: Path,
    ds: xr.Dataset,
    contract: Mapping[str, Any],
    *,
    slab_size: int = 16,
    chunk: tuple[int, ...] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """A finished store of one large array, `state`, whose first dimension is cut into slabs.

    Args:
        path: folder `<name>.zarr`.
        ds: `state`, its coordinates, and whole small arrays.
        contract: of the store.
        slab_size: length of a slab.
        chunk: shape of the smallest piece; one position of the first dimension when absent.
        facts: that its manifest tells.
    """
    state = ds["state"]
    dims = tuple(map(str, state.dims))
    spec = ArraySpec(dims, state.shape, chunk or (1, *state.shape[1:]))
    described: dict[str, Any] = {"slab_dim": dims[0], "slab_size": slab_size, "contract": contract}
    with SlabStore(path, arrays={"state": spec}, coords=ds.drop_vars("state"), **described) as store:
        for slab in store.pending():
            store.write(slab, {"state": state.values[slab.slice]})
        store.finish(facts or {})


@contextmanager
def interrupted(*, at_slab: int) -> Iterator[None]:
    """In it a user stops what writes stores, before the slab with this number, counted from 1, is written."""
    original, calls = SlabStore.write, 0

    def dying(self: SlabStore, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == at_slab:
            raise KeyboardInterrupt
        original(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SlabStore, "write", dying)
        with pytest.raises(KeyboardInterrupt):
            yield


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Make the manifest of a store another one that is sound: as if the store had been written so.

    Args:
        path: of the store.
        change: alters the manifest's content; shards may have been altered before.
    """
    content, _ = manifest.inspect(path)
    change(content)
    content["digest"] = contract_digest(content["contract"])
    large = large_arrays(path)
    for index in content["slabs"]:
        content["shards"][index] = manifest.shard_files(path, arrays=large, slab=int(index))
    manifest.save(path, content | {"metadata": manifest.small_files(path, arrays=large)})


def write_training_store(
    config: WeatherConfig, times: np.ndarray, state: np.ndarray, static: np.ndarray, **options: Any
) -> xr.Dataset:
    """The training store of a configuration as `regrid` would write it, with its receipt.

    Args:
        config: the experiment.
        times: datetime64, shape (T,).
        state: shape (T, channel, latitude, longitude).
        static: shape (static channel, latitude, longitude).
        options: chunk and facts of `write_store`.

    Returns:
        What was written.
    """
    channels, statics = config.data.channels.dynamic, [c.name for c in config.data.channels.static]
    grid, names = config.data.regrid.grid, [c.name for c in channels]
    ds = xr.Dataset(
        {
            "state": (TRUTH_DIMS, state.astype(np.float32)),
            "static": (("static_channel", "latitude", "longitude"), static.astype(np.float32)),
        },
        coords={
            "time": times,
            "channel": names,
            "variable": ("channel", [c.variable for c in channels]),
            "level": ("channel", [c.level or -1 for c in channels]),
            "unit": ("channel", [c.spec.unit for c in channels]),
            "static_channel": statics,
            "latitude": grid.latitude,
            "longitude": grid.longitude,
        },
    )
    label = "simulated" if config.simulated else getattr(config.source, "label", "")
    contract = {
        "kind": "training store",
        "channels": names,
        "static_channels": statics,
        "grid": grid.describe(),
        "step_hours": config.data.step_hours,
        "source": {"kind": config.source.kind, "label": label},
        "regrid": {"method": "bilinear", "engine": "builtin"},
    }
    write_store(config.paths.store, ds, contract, slab_size=config.data.slab_times, **options)
    facts = dict(options.get("facts") or {})
    provenance.write_receipt(config, stage="regrid", outputs=[config.paths.store], facts=facts)
    return ds


def data_block(period: Span, *, train: Span, test: Span, validation: Span | None = None, **more: Any) -> dict[str, Any]:
    """The configuration's block `data`.

    Args:
        period: start and end of the store's times.
        train: start and end of the training period; likewise `test` and `validation`.
        more: further keys; `variables`, `levels` and `statics` become the channels.
    """
    spans = {"train": train, "test": test} | ({"validation": validation} if validation else {})
    channels = {key: more.pop(key) for key in ("variables", "levels", "statics") if key in more}
    splits = {name: dict(zip(("start", "end"), span, strict=True)) for name, span in spans.items()}
    block = {"period": dict(zip(("start", "end"), period, strict=True)), "splits": splits}
    return block | ({"channels": channels} if channels else {}) | more
