"""The stores that the reconstruct stage writes: what they hold, and what makes each that store.

Contract: see `model.imaging.reconstruct`; where several ranges of bands are hidden from a tile, `band_window` is (tile,
window, bound). `tile` is the number of a tile in the store of images; with several repeats each number comes as often,
all tiles of the first repeat before those of the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.imaging.inference import Job
from pipeline.imaging.config import SIMULATED
from pipeline.store import ArraySpec, SlabStore, contract_digest

if TYPE_CHECKING:
    import xarray as xr

SLAB_TILES = 8
"""Tiles written together as one shard."""
CHUNK_BANDS = 25
COMMAND = "python -m pipeline reconstruct"


def reconstruction_store(job: Job) -> SlabStore:
    """The store of reconstructions, to be written."""
    import xarray as xr

    count, bands, side = len(job.tiles), job.store.bands, job.store.tile
    grid = job.network.grid
    coords = _places(job, job.tiles)
    hidden = job.config.masking.bands
    bounds = np.full((count, 1 if hidden is None else hidden.windows, 2), np.nan)
    for row, windows in enumerate(job.windows(slice(None))):
        bounds[row, : len(windows)] = np.reshape(windows, (-1, 2))
    dims = ("tile", "window", "bound") if bounds.shape[1] > 1 else ("tile", "bound")
    coords = coords.assign(
        repeat=("tile", job.repeats),
        band_window=(dims, bounds if bounds.shape[1] > 1 else bounds[:, 0], {"units": "nm"}),
        wavelength=("band", job.store.wavelengths, {"units": "nm"}),
    )
    coords = coords.assign_coords(band=("band", np.array(bands)), bound=["low", "high"])
    assert isinstance(coords, xr.Dataset)
    masking = job.config.masking.model_dump(mode="json") | {"seed": job.config.reconstruct.seed}
    contract = _contract(job, "reconstructions", masking=masking, split=job.config.reconstruct.split)
    chunk = min(CHUNK_BANDS, len(bands))
    reflectance = {"long_name": "reconstructed reflectance", "units": "1"}
    arrays = {
        "reconstruction": ArraySpec(
            ("tile", "band", "y", "x"), (count, len(bands), side, side), (1, chunk, side, side), attrs=reflectance
        ),
        "hidden": ArraySpec(("tile", "py", "px"), (count, *grid), (1, *grid), dtype="bool"),
    }
    return SlabStore(
        job.path[0],
        arrays=arrays,
        coords=coords,
        slab_dim="tile",
        slab_size=SLAB_TILES,
        contract=contract,
        attrs=_attributes(job, "Reconstructions"),
        command=COMMAND,
    )


def features_store(job: Job) -> SlabStore:
    """The store of features, to be written."""
    tiles = np.arange(len(job.store.places))
    grid, width = job.network.grid, job.network.config.width
    spec = ArraySpec(("tile", "py", "px", "feature"), (len(tiles), *grid, width), (1, *grid, width))
    return SlabStore(
        job.path[1],
        arrays={"features": spec, "features_untrained": spec},
        coords=_places(job, tiles),
        slab_dim="tile",
        slab_size=SLAB_TILES,
        contract=_contract(job, "features"),
        attrs=_attributes(job, "Features"),
        command=COMMAND,
    )


def _places(job: Job, tiles: Any) -> xr.Dataset:
    """Which tiles these are, and of which images."""
    import xarray as xr

    places = [job.store.places[tile] for tile in tiles]
    return xr.Dataset(
        {
            "image": ("tile", np.array([place.image for place in places])),
            "row": ("tile", np.array([place.row for place in places], dtype=np.int64)),
            "column": ("tile", np.array([place.column for place in places], dtype=np.int64)),
        },
        coords={"tile": np.asarray(tiles, dtype=np.int64)},
    )


def _contract(job: Job, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "store": job.store.digest,
        "trained_on": contract_digest(job.trained_on),
        "checkpoint": job.digest,
        "patch": job.network.config.patch,
        **more,
    }


def _attributes(job: Job, what: str) -> dict[str, Any]:
    data = SIMULATED if job.store.label == "simulated" else job.store.label
    return {"title": f"{what} by {job.config.name} of {data}", "source": job.store.label}
