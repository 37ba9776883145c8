"""The one writer of stores of images, for files and for simulated images.

Contract: slabs of whole tiles, in the order of `pipeline.imaging.image_store`; the next slabs are made while one is
written. A killed run resumes at the first slab that is not recorded and ends with the same bytes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline import files
from pipeline.console import progress
from pipeline.imaging import image_store
from pipeline.imaging.bands import band_names
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageSize, TilePlace
from pipeline.store import Slab, SlabStore

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Content:
    """What a store is about, besides its pixels.

    Attributes:
        images: in order.
        wavelengths: of the bands [nm].
        source: for the contract, with `label`.
        traits: names of the trait maps; empty for none.
        fwhm: widths of the bands [nm]; None where they are not known.
        left_out: bands of the files that are not used.
    """

    images: Sequence[ImageSize]
    wavelengths: NDArray[np.float64]
    source: Mapping[str, Any]
    traits: Sequence[str] = ()
    fwhm: NDArray[np.float64] | None = None
    left_out: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def image_writer(config: ImagingConfig, content: Content, *, command: str) -> SlabStore:
    """Describe the store of an experiment; nothing is touched before its context is entered.

    Args:
        config: the experiment.
        content: what the store is about.
        command: what a user runs to have it written.
    """
    tile, names = config.data.tile, band_names(content.wavelengths)
    places = image_store.tile_places(content.images, tile=tile)
    arrays = image_store.arrays(tiles=len(places), bands=len(names), tile=tile, traits=len(content.traits))
    return SlabStore(
        config.paths.store,
        arrays=arrays,
        coords=_coordinates(places, names, content, tile=tile),
        slab_dim="tile",
        slab_size=config.data.slab_tiles,
        contract={
            "kind": image_store.KIND,
            "bands": names,
            "tile": tile,
            "images": [{"name": i.name, "rows": i.rows, "columns": i.columns} for i in content.images],
            "traits": list(content.traits),
            "left_out": [dict(entry) for entry in content.left_out],
            "source": dict(content.source),
        },
        attrs={"title": f"Hyperspectral images: {content.source['label']}", "Conventions": "CF-1.11"},
        command=command,
    )


def fill(
    writer: SlabStore,
    make: Callable[[Slab], Arrays],
    *,
    stage: str,
    facts: Mapping[str, Any],
    workers: int | None = None,
) -> None:
    """Make and write every slab that is not there yet, and finish the store.

    Args:
        writer: entered with `held`.
        make: makes the arrays of a slab; called by several threads.
        stage: what the progress bar says.
        facts: for the manifest.
        workers: threads that make slabs; one a processor if absent.
    """
    if not writer.path.exists():
        files.free_space_check(writer.path, store_bytes(writer))
    first = None
    if not writer.path.exists():
        first = make(writer.slabs()[0])  # passes every check before the store is made
    with progress("tiles") as bar, writer as opened:
        pending = opened.pending()
        done = opened.length - sum(len(slab) for slab in pending)
        task = bar.add_task(stage, total=opened.length, completed=done)
        if first is not None:
            opened.write(pending[0], first)
            bar.advance(task, len(pending.pop(0)))
        for slab, arrays in _ahead(make, pending, workers=workers or len(os.sched_getaffinity(0))):
            opened.write(slab, arrays)
            bar.advance(task, len(slab))
        opened.finish(facts)


def store_bytes(writer: SlabStore) -> int:
    """Bytes of all arrays before compression."""
    return sum(int(np.prod(a.shape, dtype=np.int64)) * np.dtype(a.dtype).itemsize for a in writer.arrays.values())


def _ahead(make: Callable[[Slab], Arrays], slabs: Sequence[Slab], *, workers: int) -> Iterator[tuple[Slab, Arrays]]:
    """Slabs in order; while one is used, as many as there are workers are being made."""
    waiting: deque[tuple[Slab, Future[Arrays]]] = deque()
    left = iter(slabs)
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="make") as pool:
        try:
            for slab in left:
                waiting.append((slab, pool.submit(make, slab)))
                if len(waiting) == workers:
                    break
            while waiting:
                slab, future = waiting.popleft()
                arrays = future.result()
                for following in left:
                    waiting.append((following, pool.submit(make, following)))
                    break
                yield slab, arrays
        finally:
            for _, future in waiting:
                future.cancel()


def _coordinates(places: Sequence[TilePlace], names: Sequence[str], content: Content, *, tile: int) -> xr.Dataset:
    pixels = np.arange(tile)
    coords: dict[str, Any] = {
        "tile": np.arange(len(places)),
        "band": list(names),
        "wavelength": ("band", content.wavelengths, {"units": "nm", "long_name": "wavelength"}),
        "image": ("tile", [place.image for place in places]),
        "row": ("tile", [place.row for place in places], {"comment": "of the tile's first pixel in its image"}),
        "column": ("tile", [place.column for place in places], {"comment": "of the tile's first pixel in its image"}),
        "y": pixels,
        "x": pixels,
    }
    if content.fwhm is not None:
        coords["fwhm"] = ("band", content.fwhm, {"units": "nm", "long_name": "full width at half maximum"})
    if content.traits:
        coords["trait"] = list(content.traits)
        coords["trait_unit"] = ("trait", [image_store.TRAIT_UNITS[name] for name in content.traits])
    return xr.Dataset(coords=coords)
