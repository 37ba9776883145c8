"""The one writer of forecast stores: the model's, climate-learn's networks', and those of the simulated atmosphere.

Contract: dimensions (init_time, lead_time, channel, latitude, longitude), physical fields in canonical units. Every
contract has the same entries; what made the forecasts is described by those that the writer adds. A forecast that was
fitted on nothing has no normals and no training periods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.store import ArraySpec, SlabStore, contract_digest
from pipeline.weather.climatology import Normals
from pipeline.weather.times import Times

CHUNK_CHANNELS = 16
"""Channels of one chunk, the smallest piece that can be read alone."""
SLAB_INITS = 16
"""Init times written together, fewer where they would take more memory than SLAB_BYTES."""
SLAB_BYTES = 2**30


def forecast_store(
    path: Path,
    *,
    like: xr.Dataset,
    init_times: Times,
    lead_hours: Sequence[int],
    model: str,
    normals: Normals | None,
    title: str,
    trained_on: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    calibration: NDArray[np.float32] | None = None,
    slab_inits: int = SLAB_INITS,
    command: str = "python -m pipeline forecast",
    **made_by: Any,
) -> SlabStore:
    """Describe a forecast store; nothing is touched before its context is entered.

    Args:
        path: folder `<name>.zarr`.
        like: a store's coordinates of the channels predicted and of the grid, with its contract.
        init_times: of the forecasts.
        lead_hours: leads [h].
        model: what tables and figures call it.
        normals: those that the model was fitted with; None where it was not fitted.
        title: of the store, in its attributes.
        trained_on: contract of the training store; that of `like` by default.
        source: what the data are, for the contract; that of `like` by default.
        calibration: (lead, channel, latitude) factors by which the anomalies were scaled; None for none.
        slab_inits: most init times written together.
        command: what a user runs to have it written.
        made_by: further entries of the contract, e.g. a checkpoint's digest.
    """
    contract = like.attrs["contract"]
    leads = np.asarray(lead_hours, dtype=np.int64)
    coords = _coords(like, init_times, leads, calibration=calibration)
    spec = _state_spec(coords)
    return SlabStore(
        path,
        arrays={"state": spec},
        coords=coords,
        slab_dim="init_time",
        slab_size=max(1, min(slab_inits, SLAB_BYTES // (4 * int(np.prod(spec.shape[1:]))))),
        contract={
            "kind": "forecast",
            "channels": [str(name) for name in like["channel"].values],
            "grid": contract["grid"],
            "source": dict(source or contract["source"]),
            "lead_hours": leads.tolist(),
            "store": contract_digest(trained_on or contract),
            "normals": normals.digest if normals else None,
            "train": normals.contract.get("train", []) if normals else [],
            "model": model,
            **made_by,
        },
        attrs={"title": title},
        command=command,
    )


def _coords(
    like: xr.Dataset, init_times: Times, leads: NDArray[np.int64], *, calibration: NDArray[np.float32] | None
) -> xr.Dataset:
    """Times, channels, grid, and the factors of a calibrated forecast."""
    kept = ("channel", "variable", "level", "unit", "latitude", "longitude")
    coords = xr.Dataset(
        coords={
            "init_time": ("init_time", init_times.astype("datetime64[ns]")),
            "lead_time": ("lead_time", leads.astype("timedelta64[h]").astype("timedelta64[ns]")),
            **{name: like[name].variable for name in kept},
        }
    )
    coords["lead_time"].encoding = {"units": "hours", "dtype": "int64"}
    if calibration is not None:
        coords = coords.assign_coords(calibration=(("lead_time", "channel", "latitude"), calibration))
        coords["calibration"].attrs = {"long_name": "factor of the anomaly from the climatology", "units": "1"}
    return coords


def _state_spec(coords: xr.Dataset) -> ArraySpec:
    """The array of the forecasts: chunks of one init time, one lead and some channels."""
    dims = ("init_time", "lead_time", "channel", "latitude", "longitude")
    shape = tuple(int(coords.sizes[name]) for name in dims)
    return ArraySpec(
        dims=dims,
        shape=shape,
        chunks=(1, 1, min(CHUNK_CHANNELS, shape[2]), *shape[3:]),
        attrs={"long_name": "forecast state", "units": "see coordinate unit"},
    )
