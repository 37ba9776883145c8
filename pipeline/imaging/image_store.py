"""The store of hyperspectral images: its arrays, its contract, and how every stage opens it.

Contract: a Zarr v3 store in slabs of whole tiles. Letters: T tiles, C bands, Y, X pixels of a tile.

    reflectance (tile, band, y, x)  float32, NaN where not valid
    valid       (tile, band, y, x)  bool
    traits      (tile, trait, y, x) float32, only where they are known; NaN where there is no leaf
    wavelength  (band)  float64 [nm]; band: names, e.g. b0640.0, which are the names of the channels
    fwhm        (band)  float64 [nm], where the files say it
    image, row, column (tile)  name of the image, and where in it the tile begins [pixels]; tile: 0, 1, ...
    trait, trait_unit  (trait)

Tiles are in the order of the images, and inside an image row by row. A remainder at the right and the lower edge of an
image is padded with pixels that are not valid. The attribute `contract` holds kind, bands, tile, source, the images
with their sizes, and bands left out with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract import contract_digest
from pipeline.opening import read_manifest

if TYPE_CHECKING:
    from pipeline.imaging.config import ImagingConfig
    from pipeline.shards import Reader
    from pipeline.store import ArraySpec

KIND = "image store"
CHUNK_BYTES, CHUNK_PARTS = 400_000, 8
"""A chunk, the smallest piece that can be read alone, holds one tile and bands of this size at most, and at most this
part of all bands, so that each channel rank reads its own."""
TRAIT_UNITS = {
    "chlorophyll": "ug cm-2",
    "carotenoids": "ug cm-2",
    "anthocyanins": "ug cm-2",
    "water": "cm",
    "dry_matter": "g cm-2",
    "structure": "1",
    "brown": "1",
}
"""Traits that maps may be of, in the order of stores."""


@dataclass(frozen=True)
class ImageSize:
    """An image of a store.

    Args:
        name: unique in the store.
        rows: height, pixels.
        columns: width, pixels.
    """

    name: str
    rows: int
    columns: int


@dataclass(frozen=True)
class TilePlace:
    """A tile: the image it is cut from and where it begins there, pixels."""

    image: str
    row: int
    column: int


def tile_places(images: Sequence[ImageSize], *, tile: int) -> list[TilePlace]:
    """All tiles of some images in the order of the store."""
    return [
        TilePlace(image.name, row, column)
        for image in images
        for row in range(0, image.rows, tile)
        for column in range(0, image.columns, tile)
    ]


def arrays(*, tiles: int, bands: int, tile: int, traits: int = 0) -> dict[str, ArraySpec]:
    """The large arrays of a store of images."""
    from pipeline.store import ArraySpec

    dims, shape = ("tile", "band", "y", "x"), (tiles, bands, tile, tile)
    most = min(CHUNK_BYTES // (4 * tile * tile), -(-bands // CHUNK_PARTS))
    chunk = (1, max(1, most), tile, tile)
    found = {
        "reflectance": ArraySpec(dims, shape, chunk, attrs={"long_name": "reflectance", "units": "1"}),
        "valid": ArraySpec(dims, shape, (1, bands, tile, tile), dtype="bool"),
    }
    if traits:
        spec = ArraySpec(("tile", "trait", "y", "x"), (tiles, traits, tile, tile), (1, traits, tile, tile))
        found["traits"] = spec
    return found


@dataclass(frozen=True, eq=False)
class ImageStore:
    """A finished store of images, opened for reading.

    Args:
        path: folder.
        contract: see `pipeline.contract`.
    """

    path: Path
    contract: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, *, stage: str = "python -m pipeline ingest") -> ImageStore:
        """Open a store.

        Args:
            path: folder.
            stage: the command that writes it, for messages.

        Raises:
            ValueError: it is not there, not finished, damaged, or no store of images.
        """
        contract = read_manifest(path, stage=stage)["contract"]
        if contract.get("kind") != KIND:
            raise ValueError(f"store {path} must be a store of images, got {contract.get('kind')!r}")
        return cls(path, contract)

    @classmethod
    def of(cls, config: ImagingConfig) -> ImageStore:
        """The store of an experiment."""
        return cls.open(config.paths.store, stage=f"python -m pipeline {config.store_stage}")

    @property
    def digest(self) -> str:
        """Hash of the contract."""
        return contract_digest(self.contract)

    @property
    def label(self) -> str:
        """What titles and figures call the data."""
        return str(self.contract["source"]["label"])

    @property
    def bands(self) -> list[str]:
        """Names of the bands, which are the channels."""
        return list(self.contract["bands"])

    @property
    def tile(self) -> int:
        """Rows and columns of a tile, pixels."""
        return int(self.contract["tile"])

    @property
    def images(self) -> list[ImageSize]:
        """The images, in the order of the store."""
        return [ImageSize(**entry) for entry in self.contract["images"]]

    @property
    def traits(self) -> list[str]:
        """Names of the trait maps; empty where there are none."""
        return list(self.contract.get("traits", []))

    @cached_property
    def wavelengths(self) -> NDArray[np.float64]:
        """Of the bands [nm], shape (band,)."""
        import zarr

        values: Any = zarr.open_array(self.path / "wavelength", mode="r")[:]
        return np.asarray(values, np.float64)

    @cached_property
    def places(self) -> list[TilePlace]:
        """Of all tiles, in order."""
        return tile_places(self.images, tile=self.tile)

    def tiles_of(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Numbers of the tiles of some images, increasing."""
        wanted = set(names)
        return np.flatnonzero([place.image in wanted for place in self.places])

    def reader(self, name: str) -> Reader:
        """Reads pieces of the array `reflectance`, `valid` or `traits` at the speed of the decompressor."""
        from pipeline.shards import Reader

        return Reader(self.path, name)
