"""Which reconstruction belongs to which tile, read one tile at a time.

Contract: a store of reconstructions holds, along `tile`, `reconstruction` (tile, band, y, x) in reflectance, `hidden`
(tile, row, column) over the grid of patches, and `band_window` (tile, ..., 2), the hidden ranges of wavelengths, both
ends included [nm], NaN for none. Its coordinate `tile` holds numbers of tiles of the store of images; a number that
occurs several times is a tile that was reconstructed with several masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from evaluate.imaging.baselines.models import Cube, Mask, Seen
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals
from pipeline.imaging.sections_model import Masking
from pipeline.shards import Reader
from pipeline.store import contract_digest, read_manifest

STAGE = "python -m pipeline reconstruct"


@dataclass(frozen=True, eq=False)
class Sample:
    """A tile, what of it was hidden, and what the network made of it.

    Args:
        seen: the tile with what was hidden.
        guess: the network's reflectance, shape (band, y, x).
        tile: its number in the store of images.
    """

    seen: Seen
    guess: Cube
    tile: int


class Tiles:
    """Reads tiles of a store of images.

    Args:
        store: the images.
    """

    def __init__(self, store: ImageStore) -> None:
        self.store = store
        self._reflectance, self._valid = store.reader("reflectance"), store.reader("valid")

    def read(self, tile: int) -> tuple[Cube, Mask]:
        """Reflectance and where it is valid, each of shape (band, y, x)."""
        one = slice(tile, tile + 1)
        return self._reflectance.read(one)[0], self._valid.read(one)[0].astype(bool)


class Reconstructions:
    """A finished store of reconstructions beside the images that it belongs to.

    Attributes:
        contract: of the reconstructions.
        tiles: numbers of the tiles, shape (row,).
    """

    def __init__(self, path: Path, images: ImageStore) -> None:
        """Open them.

        Args:
            path: folder of the reconstructions.
            images: the store of images.

        Raises:
            ValueError: not there, not finished, damaged, or of other images.
        """
        self.path, self.images = path, images
        self.contract = contract_for(path, images)
        self.tiles = np.asarray(_small(path, "tile"), np.int64)
        self._windows = np.asarray(_small(path, "band_window"), np.float64).reshape(len(self.tiles), -1, 2)
        self._hidden = np.asarray(_small(path, "hidden"), bool)
        self._guess, self._truth = Reader(path, "reconstruction"), Tiles(images)

    @property
    def digest(self) -> str:
        """Hash of the contract."""
        return contract_digest(self.contract)

    @property
    def patch(self) -> int:
        """Rows and columns of a patch, pixels."""
        return int(self.images.tile // self._hidden.shape[1])

    @cached_property
    def by_image(self) -> dict[str, list[int]]:
        """Rows of each image, in the order of the store of images."""
        found: dict[str, list[int]] = {}
        for row in np.argsort(self.tiles, kind="stable").tolist():
            found.setdefault(self.images.places[self.tiles[row]].image, []).append(row)
        return found

    def hidden(self, row: int) -> Mask:
        """Pixels of hidden patches, shape (y, x)."""
        return pixels_of(self._hidden[row], patch=self.patch)

    def window(self, row: int) -> Mask:
        """Hidden bands, shape (band,)."""
        known = self.images.wavelengths
        found = np.zeros(len(known), bool)
        for low, high in self._windows[row]:
            found |= (known >= low) & (known <= high)
        return found

    def read(self, row: int) -> Sample:
        """A reconstructed tile beside the truth."""
        tile = int(self.tiles[row])
        truth, valid = self._truth.read(tile)
        guess = self._guess.read(slice(row, row + 1))[0]
        return Sample(Seen(truth, valid, self.hidden(row), self.window(row)), guess, tile)


def contract_for(path: Path, images: ImageStore) -> Mapping[str, Any]:
    """The contract of a finished store that the network wrote for these images.

    Raises:
        ValueError: not there, not finished, damaged, or of other images.
    """
    contract: Mapping[str, Any] = read_manifest(path, stage=STAGE)["contract"]
    if contract.get("store") != images.digest:
        raise ValueError(
            f"store {path} must be of the images {images.path} ({images.digest}), got those of "
            f"{contract.get('store')}; run {STAGE} again"
        )
    return contract


def pixels_of(patches: Mask, *, patch: int) -> Mask:
    """Pixels of the patches of a mask over the grid of patches."""
    return np.asarray(patches.repeat(patch, axis=0).repeat(patch, axis=1))


def training_tiles(
    config: ImagingConfig, images: ImageStore, normals: ImageNormals, *, most: int, seed: int
) -> Iterator[Seen]:
    """Some tiles of training images, evenly chosen, with masks drawn as the experiment's.

    Args:
        config: the experiment.
        images: the store of images.
        normals: which say which images are for training.
        most: tiles.
        seed: of the masks.
    """
    numbers = images.tiles_of(normals.splits.train)
    chosen = numbers[np.unique(np.linspace(0, len(numbers) - 1, most).round().astype(int))]
    tiles, generator = Tiles(images), np.random.default_rng(seed)
    for tile in chosen.tolist():
        truth, valid = tiles.read(tile)
        patches = draw_patches(config.masking.patches, side=images.tile // config.model.patch, generator=generator)
        window = draw_window(config.masking, images.wavelengths, generator=generator)
        yield Seen(truth, valid, pixels_of(patches, patch=config.model.patch), window)


def draw_patches(share: float, *, side: int, generator: np.random.Generator) -> Mask:
    """Hidden patches of a tile with `side` x `side` of them; one at least stays visible."""
    order = generator.permutation(side * side)
    return np.asarray((order < min(round(share * side * side), side * side - 1)).reshape(side, side))


def draw_window(masking: Masking, wavelengths: NDArray[np.float64], *, generator: np.random.Generator) -> Mask:
    """Hidden bands of a tile."""
    found = np.zeros(len(wavelengths), bool)
    if masking.bands is None or generator.random() >= masking.bands.share:
        return found
    for _ in range(masking.bands.windows):
        starts = wavelengths[wavelengths + masking.bands.nanometres <= wavelengths[-1]]
        low = generator.choice(starts) if starts.size else wavelengths[0]
        found |= (wavelengths >= low) & (wavelengths <= low + masking.bands.nanometres)
    found[-1] &= not found.all()
    return found


def _small(path: Path, name: str) -> Any:
    return zarr.open_array(path / name, mode="r")[:]
