"""The plan of the stage that makes the store of images: what it will read, write and need, before it starts.

Contract: bytes, memory and disk come from headers and settings, modelled; the disk that compression saves and the time
are scaled from one tile that is made, compressed and thrown away, and say so. Nothing is written but the plan itself,
as JSON beside the receipts.
"""

from __future__ import annotations

import os
import shutil
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numcodecs.zstd
import numpy as np

from pipeline import files, manifest
from pipeline.console import duration, say
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import TRAIT_UNITS, ImageSize, TilePlace, arrays, tile_places
from pipeline.imaging.sections import ImagesSource, SimulationSource
from pipeline.imaging.splits import assign
from pipeline.store import Slab, slabs
from pipeline.words import counted, size
from preprocess.imaging.collection import Collection, collect
from preprocess.imaging.writing import Arrays

_LIBRARIES = 300_000_000
"""Bytes of a process that has loaded NumPy, xarray and Zarr, measured."""
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class ImagesPlan:
    """Everything that headers and settings tell about a run; bytes are those of decompressed arrays."""

    label: str
    files: int
    images: int
    train_images: int
    validation_images: int
    test_images: int
    bands: int
    first_nm: float
    last_nm: float
    tile: int
    tiles: int
    tiles_left: int
    padded_share: float
    bands_left_out: int
    bytes_read: int
    bytes_written: int
    workers: int
    memory_bytes: int
    disk_free_bytes: int


def run_plan(config: ImagingConfig) -> None:
    """Print the plan of the simulate or the ingest stage and write it to <results>/plan-ingest.json.

    Raises:
        ValueError: the disk has less than the store needs after compression; see also `collect`.
    """
    stage = config.store_stage
    if isinstance(config.source, SimulationSource):
        plan, make = _simulated(config)
    else:
        plan, make = _of_files(config)
    lines, content = describe(plan, stage=stage), asdict(plan)
    needed = plan.bytes_written
    if plan.tiles_left:
        estimate = content["estimate"] = estimate_run(plan, make)
        needed = estimate["disk_bytes"]
        tiles, threads = counted(plan.tiles_left, "tile"), counted(plan.workers, "thread")
        each = f"{estimate['seconds_a_tile']:.2g} s for each of {tiles} on {threads}"
        lines += [
            f"disk: about {size(needed)} after compression ({estimate['what']}), {size(plan.disk_free_bytes)} free",
            f"time: about {duration(estimate['seconds'])}, {each} ({estimate['what']})",
        ]
    for line in lines:
        say(f"plan: {line}")
    path = config.root / "plan-ingest.json"
    files.write_json(path, content)
    say(f"plan: written to {path}")
    files.free_space_check(config.paths.store, needed)


def _simulated(config: ImagingConfig) -> tuple[ImagesPlan, Callable[[Slab], Arrays]]:
    from preprocess.imaging.simulate import LABEL, Maker, image_name

    assert isinstance(config.source, SimulationSource)
    side = config.source.size
    images = [ImageSize(image_name(i), side, side) for i in range(config.source.images)]
    maker = Maker(config, images)
    wavelengths = maker.resample.wavelengths
    return _plan(config, images, wavelengths, label=LABEL, traits=len(TRAIT_UNITS)), maker


def _of_files(config: ImagingConfig) -> tuple[ImagesPlan, Callable[[Slab], Arrays]]:
    from preprocess.imaging.ingest import Maker

    assert isinstance(config.source, ImagesSource)
    collection = collect(config)
    images = [picture.size for picture in collection.pictures]
    plan = _plan(config, images, collection.wavelengths, label=config.source.label, collection=collection)
    return plan, Maker(collection.pictures, tile_places(images, tile=config.data.tile), tile=config.data.tile)


def _plan(
    config: ImagingConfig,
    images: Sequence[ImageSize],
    wavelengths: np.ndarray,
    *,
    label: str,
    traits: int = 0,
    collection: Collection | None = None,
) -> ImagesPlan:
    """What a run will read, write and need."""
    tile, path = config.data.tile, config.paths.store
    places = tile_places(images, tile=tile)
    large = arrays(tiles=len(places), bands=wavelengths.size, tile=tile, traits=traits)
    written = sum(int(np.prod(a.shape, dtype=np.int64)) * np.dtype(a.dtype).itemsize for a in large.values())
    splits = assign([image.name for image in images], config.data.splits)
    workers = config.compute.threads or len(os.sched_getaffinity(0))
    pixels = sum(image.rows * image.columns for image in images)
    pictures = [] if collection is None else collection.pictures
    read = sum(p.rows * p.columns * len(p.resample.used) * p.raw.dtype.itemsize for p in pictures)
    return ImagesPlan(
        label=label,
        files=0 if collection is None else collection.files,
        images=len(images),
        train_images=len(splits.train),
        validation_images=len(splits.validation),
        test_images=len(splits.test),
        bands=wavelengths.size,
        first_nm=float(wavelengths[0]),
        last_nm=float(wavelengths[-1]),
        tile=tile,
        tiles=len(places),
        tiles_left=_tiles_left(config, places),
        padded_share=round(1 - pixels / (len(places) * tile * tile), 4),
        bands_left_out=0 if collection is None else len(collection.left_out),
        bytes_read=read,
        bytes_written=written,
        workers=workers,
        memory_bytes=_memory(config, written // len(places), workers=workers),
        disk_free_bytes=shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free,
    )


def _tiles_left(config: ImagingConfig, places: Sequence[TilePlace]) -> int:
    """Tiles of the slabs that are not recorded."""
    recorded = manifest.inspect(config.paths.store)[0].get("slabs", {}) if config.paths.store.exists() else {}
    return sum(len(slab) for slab in slabs(len(places), config.data.slab_tiles) if str(slab.index) not in recorded)


def _memory(config: ImagingConfig, tile_bytes: int, *, workers: int) -> int:
    """Libraries, the slabs being made, the one being written and its copy, three tiles of doubles a thread."""
    slab = config.data.slab_tiles * tile_bytes
    return _LIBRARIES + (workers + 2) * slab + workers * 3 * 2 * tile_bytes


def estimate_run(plan: ImagesPlan, make: Callable[[Slab], Arrays]) -> dict[str, Any]:
    """Make and compress a tile and scale it up.

    Args:
        plan: of the run.
        make: makes the arrays of a slab.

    Returns:
        Seconds of one tile on one thread and of the whole run, and bytes after compression.
    """
    make(Slab(0, 0, 1))  # loads tables and opens files
    middle = plan.tiles // 2
    started = clock.perf_counter()
    made = make(Slab(0, middle, middle + 1))
    making = clock.perf_counter() - started
    started = clock.perf_counter()
    packed = sum(len(numcodecs.zstd.compress(np.ascontiguousarray(a).tobytes(), _ZSTD_LEVEL)) for a in made.values())
    packing = clock.perf_counter() - started
    return {
        "what": "scaled from one tile, not a measured run; the disk's own speed is not in it",
        "seconds_a_tile": round(making + packing, 4),
        "seconds": round(plan.tiles_left * (making / plan.workers + packing), 1),
        "disk_bytes": plan.tiles_left * packed,
    }


def describe(plan: ImagesPlan, *, stage: str) -> list[str]:
    """The plan in sentences."""
    given = f"{counted(plan.files, 'file')}, " if plan.files else ""
    splits = (
        f"{plan.train_images} for training, {plan.validation_images} for validation, {plan.test_images} for the test"
    )
    padding = f"{100 * plan.padded_share:.3g}% of their pixels are padding"
    left_out = f", {counted(plan.bands_left_out, 'band')} of the files left out" if plan.bands_left_out else ""
    read = f"to read: {size(plan.bytes_read)}" if plan.bytes_read else "to read: nothing"
    return [
        f"{stage} of {plan.label}: {given}{counted(plan.images, 'image')} ({splits})",
        f"{counted(plan.bands, 'band')}, {plan.first_nm:g} .. {plan.last_nm:g} nm{left_out}",
        f"{counted(plan.tiles, 'tile')} of {plan.tile} x {plan.tile} pixels, {plan.tiles_left} left; {padding}",
        read,
        f"to write: {size(plan.bytes_written)} before compression",
        f"memory: about {size(plan.memory_bytes)} with {counted(plan.workers, 'thread')} (modelled)",
    ]
