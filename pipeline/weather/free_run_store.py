"""The store of a free run: one long roll-out, kept as a few numbers a step and fields of the channels that are shown.

Contract: written in blocks of `STEPS_TOGETHER` steps, each of which holds what the next one starts from, so that a run
that was killed goes on with the block it was in. Beside every number of the model stands the same of the truth at that
time, NaN where the training store does not have it. Steps after the last one are NaN.

    numbers (block, step, source, moment, channel)        float64; source: model, truth; moment: see MOMENTS
    outside (block, step, channel)                        share of cells outside the plausible range, before limits;
                                                          of moisture only those above it
    fields (block, step, shown, latitude, longitude)      canonical units, of the shown channels
    last (block, past, channel, latitude, longitude)      normalised anomalies after a block's last step
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.store import ArraySpec, SlabStore, open_store

STEPS_TOGETHER = 30
"""Steps of a block."""
SOURCES = ("model", "truth")
MOMENTS = ("mean", "variance", "departure")
"""Area-weighted over the globe: the mean, the variance, and the mean square of the departure from the climatology."""
COMMAND = "python -m pipeline free_run"


def moments(
    state: NDArray[np.float32], climatology: NDArray[np.float32], *, area: NDArray[np.floating]
) -> NDArray[np.float64]:
    """The moments of a state.

    Args:
        state: (V, H, W), canonical units.
        climatology: of the same time.
        area: (H, W) of the cells, any unit.

    Returns:
        (moment, V), in the order of MOMENTS: canonical units, and twice their square.
    """
    weight = np.asarray(area / area.sum(), dtype=np.float64)
    values = state.astype(np.float64)

    def over_globe(fields: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((fields * weight).sum(axis=(-2, -1)))

    mean = over_globe(values)
    variance = over_globe((values - mean[:, None, None]) ** 2)
    return np.stack([mean, variance, over_globe((values - climatology) ** 2)])


def free_run_store(
    path: Path,
    *,
    like: xr.Dataset,
    steps: int,
    past: int,
    shown: Sequence[str],
    contract: Mapping[str, Any],
    title: str,
) -> SlabStore:
    """Describe the store; nothing is touched before its context is entered.

    Args:
        path: folder `<name>.zarr`.
        like: coordinates of the channels predicted and of the grid.
        steps: of the run.
        past: states that a step is taken from.
        shown: channels whose fields are kept.
        contract: init_time, step_hours, and what made the run.
        title: of the store, in its attributes.
    """
    blocks = -(-steps // STEPS_TOGETHER)
    channels = int(like.sizes["channel"])
    grid = (int(like.sizes["latitude"]), int(like.sizes["longitude"]))
    kept = ("channel", "unit", "latitude", "longitude")
    coords = xr.Dataset(
        coords={
            "block": np.arange(blocks),
            "source": list(SOURCES),
            "moment": list(MOMENTS),
            "shown": list(shown),
            **{name: like[name].variable for name in kept},
        }
    )

    def spec(dims: tuple[str, ...], *sizes: int, dtype: str = "float32") -> ArraySpec:
        return ArraySpec(("block", *dims), (blocks, *sizes), (1, *sizes), dtype)

    run, place = STEPS_TOGETHER, ("latitude", "longitude")
    numbers = (run, len(SOURCES), len(MOMENTS), channels)
    return SlabStore(
        path,
        arrays={
            "numbers": spec(("step", "source", "moment", "channel"), *numbers, dtype="float64"),
            "outside": spec(("step", "channel"), run, channels),
            "fields": spec(("step", "shown", *place), run, len(shown), *grid),
            "last": spec(("past", "channel", *place), past, channels, *grid),
        },
        coords=coords,
        slab_dim="block",
        slab_size=1,
        contract={"kind": "free run", "steps": steps, **contract},
        attrs={"title": title},
        command=COMMAND,
    )


def read_free_run(path: Path) -> xr.Dataset:
    """A finished run by valid time: `numbers` (time, source, moment, channel), `outside` and `fields` likewise.

    Raises:
        ValueError: no finished store is there.
    """
    ds = open_store(path, stage=COMMAND)
    about = ds.attrs["contract"]
    hours = (1 + np.arange(about["steps"])) * about["step_hours"]
    times = np.datetime64(about["init_time"], "ns") + hours.astype("timedelta64[h]")
    joined: dict[str, Any] = {}
    for name in ("numbers", "outside", "fields"):
        values = ds[name].values
        flat = values.reshape(-1, *values.shape[2:])[: about["steps"]]
        joined[name] = (("time", *ds[name].dims[2:]), flat)
    coords = {name: ds[name] for name in ds.coords if name != "block"}
    return xr.Dataset(joined, coords={"time": times, **coords}, attrs=ds.attrs)
