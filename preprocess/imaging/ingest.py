"""The ingest stage: from files of hyperspectral images to the store of tiles.

Contract: all images are checked together before anything is written (`preprocess.imaging.collection`). Then one slab of
tiles after the other is read, calibrated, brought to the bands of the store and written; memory is bounded by the slabs
that are being made. What is not valid is NaN and marked, never filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline import provenance
from pipeline.console import say
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import TilePlace, tile_places
from pipeline.imaging.sections import ImagesSource
from pipeline.imaging.splits import assign
from pipeline.store import Slab
from pipeline.words import counted
from preprocess.imaging.collection import Collection, collect
from preprocess.imaging.complete import complete_ingest
from preprocess.imaging.picture import Picture
from preprocess.imaging.writing import Arrays, Content, fill, image_writer


def run_ingest(config: ImagingConfig, *, verify: bool = False) -> None:
    """Read all images and write the store; resumes after a kill.

    Args:
        config: the experiment.
        verify: where the store is there, compare every slab with its digest; damaged ones are written again.

    Raises:
        ValueError: the images are simulated, or cannot be used; see `collect`.
    """
    if not isinstance(config.source, ImagesSource):
        raise ValueError(
            f"source.kind must be images for this stage, got {config.source.kind!r}; run python -m pipeline simulate"
        )
    if done := complete_ingest(config, verify=verify):
        say(done)
        return
    collection = collect(config)
    assign([picture.name for picture in collection.pictures], config.data.splits)  # refused now, not after an hour
    write_collection(config, collection, command="python -m pipeline ingest")


def write_collection(config: ImagingConfig, collection: Collection, *, command: str) -> None:
    """Write the store of checked images, and the receipt.

    Args:
        config: the experiment.
        collection: its images.
        command: that a user runs to have this store written.
    """
    _report(collection)
    images = [picture.size for picture in collection.pictures]
    source = {"label": collection.label, "kind": "images"}
    content = Content(images, collection.wavelengths, source, (), collection.fwhm, collection.left_out)
    writer = image_writer(config, content, command=command)
    facts = describe(collection, config)
    with writer.held():
        maker = Maker(collection.pictures, tile_places(images, tile=config.data.tile), tile=config.data.tile)
        fill(writer, maker, stage="ingest", facts=facts, workers=config.compute.threads)
    provenance.write_receipt(config, stage="ingest", outputs=[writer.path], facts=facts)
    tiles = counted(writer.length, "tile")
    bands = counted(collection.wavelengths.size, "band")
    say(f"ingest: {counted(len(images), 'image')}, {tiles} of {bands}, written to {writer.path}")


class Maker:
    """Makes the arrays of a slab.

    Args:
        pictures: the images.
        places: all tiles, in the order of the store.
        tile: rows and columns of a tile, pixels.
    """

    def __init__(self, pictures: Sequence[Picture], places: Sequence[TilePlace], *, tile: int) -> None:
        self.pictures = {picture.name: picture for picture in pictures}
        self.places, self.tile = places, tile

    def __call__(self, slab: Slab) -> Arrays:
        """All arrays of some tiles."""
        chosen = self.places[slab.start : slab.stop]
        tiles = [self.pictures[p.image].tile(p.row, p.column, size=self.tile) for p in chosen]
        return {
            "reflectance": np.stack([values for values, _ in tiles]),
            "valid": np.stack([valid for _, valid in tiles]),
        }


def describe(collection: Collection, config: ImagingConfig) -> dict[str, Any]:
    """What a reader of the store should know, JSON-ready."""
    wavelengths = collection.wavelengths
    return {
        "files": collection.files,
        "images": len(collection.pictures),
        "tile": config.data.tile,
        "bands": int(wavelengths.size),
        "first_nm": float(wavelengths[0]),
        "last_nm": float(wavelengths[-1]),
        "bands_left_out": collection.left_out,
        "blocks_left_out": collection.empty,
    }


def _report(collection: Collection) -> None:
    """One line for each thing worth knowing about the files."""
    wavelengths = collection.wavelengths
    span = f"{wavelengths[0]:g} .. {wavelengths[-1]:g} nm"
    blocks = len(collection.pictures)
    cut = f" cut into {counted(blocks, 'block')}" if blocks != collection.files else ""
    say(f"ingest: {counted(collection.files, 'file')}{cut}, {counted(wavelengths.size, 'band')}, {span}")
    if left_out := collection.left_out:
        shown = ", ".join(f"{entry['wavelength']:g}" for entry in left_out[:6])
        more = f" and {len(left_out) - 6} more" if len(left_out) > 6 else ""
        say(f"ingest: {counted(len(left_out), 'band')} left out, {left_out[0]['reason']}: {shown}{more} nm")
    if empty := collection.empty:
        say(f"ingest: {counted(len(empty), 'block')} left out, first {empty[0]}")
