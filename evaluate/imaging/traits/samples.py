"""Labelled patches: features, mean spectrum and mean traits of every patch that is mostly leaf.

Contract: a patch counts where at least half of its pixels are leaf; spectra and traits are means over those pixels, so
that no method has to guess where the leaf is. Patches keep the number of their image: images are what is held out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from evaluate.imaging.reading import STAGE, Tiles, contract_for
from pipeline.imaging.image_store import ImageStore
from pipeline.shards import Reader

Array = NDArray[np.float64]

LEAF_SHARE = 0.5
"""Of the pixels of a patch that must be leaf."""
MOST_PATCHES = 200_000
"""More are thinned evenly, so that everything fits into memory."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of some images, N of them.

    Args:
        image: number of the image, shape (N,).
        tile: number of the tile.
        place: row and column in the grid of patches, shape (N, 2).
        inputs: by name, e.g. "features" or "spectra", shape (N, ...).
        traits: by name, shape (N,).
    """

    image: NDArray[np.int64]
    tile: NDArray[np.int64]
    place: NDArray[np.int64]
    inputs: dict[str, NDArray[np.float32]]
    traits: dict[str, Array]

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """Numbers of the images, each once."""
        return np.unique(self.image)

    def of(self, images: NDArray[np.int64]) -> Patches:
        """The patches of some images."""
        keep = np.isin(self.image, images)
        return Patches(
            self.image[keep],
            self.tile[keep],
            self.place[keep],
            {name: values[keep] for name, values in self.inputs.items()},
            {name: values[keep] for name, values in self.traits.items()},
        )


class Features:
    """A finished store of features, by number of the tile.

    Args:
        path: folder.
        images: the store of images.

    Raises:
        ValueError: not there, not finished, damaged, or of other images.
    """

    def __init__(self, path: Path, images: ImageStore) -> None:
        contract_for(path, images)
        numbers: Any = zarr.open_array(path / "tile", mode="r")[:]
        self._row = {int(tile): row for row, tile in enumerate(numbers)}
        group: Any = zarr.open_group(path, mode="r")
        self.names = [name for name in ("features", "features_untrained") if name in group]
        self._readers = {name: Reader(path, name) for name in self.names}

    def read(self, tile: int) -> dict[str, NDArray[np.float32]]:
        """Features of a tile by their name, each of shape (row, column, feature).

        Raises:
            ValueError: the store lacks the tile.
        """
        if tile not in self._row:
            raise ValueError(f"features must be there for every tile, got none of tile {tile}; run {STAGE} again")
        row = self._row[tile]
        return {name: reader.read(slice(row, row + 1))[0] for name, reader in self._readers.items()}


def read_patches(
    store: ImageStore,
    features: Features,
    *,
    images: Sequence[str],
    patch: int,
    traits: Sequence[str],
    tick: Callable[[], None] = lambda: None,
) -> Patches:
    """Labelled patches of some images.

    Args:
        store: the images, with their trait maps.
        features: of their tiles.
        images: names.
        patch: rows and columns of a patch, pixels.
        traits: names.
        tick: called after every tile.
    """
    numbers = {image.name: i for i, image in enumerate(store.images)}
    tiles, truth = Tiles(store), store.reader("traits")
    wanted = store.tiles_of(images)
    every = -(-len(wanted) * (store.tile // patch) ** 2 // MOST_PATCHES)
    columns: dict[str, list[NDArray[Any]]] = {}
    for tile in wanted.tolist():
        reflectance, valid = tiles.read(tile)
        maps = truth.read(slice(tile, tile + 1))[0][[store.traits.index(name) for name in traits]]
        found = _of_tile(reflectance, valid, maps, features.read(tile), patch=patch)
        found["image"] = np.full(len(found["place"]), numbers[store.places[tile].image])
        found["tile"] = np.full(len(found["place"]), tile)
        for name, values in found.items():
            columns.setdefault(name, []).append(values[::every])
        tick()
    joined = {name: np.concatenate(values) for name, values in columns.items()}
    labels = {name: joined["traits"][:, i] for i, name in enumerate(traits)}
    inputs = {name: joined[name] for name in ("spectra", *features.names)}
    return Patches(joined["image"], joined["tile"], joined["place"], inputs, labels)


def _of_tile(
    reflectance: NDArray[np.float32],
    valid: NDArray[np.bool_],
    maps: NDArray[np.float32],
    features: dict[str, NDArray[np.float32]],
    *,
    patch: int,
) -> dict[str, NDArray[Any]]:
    """Columns of the patches of one tile that are mostly leaf."""
    leaf: NDArray[np.bool_] = np.asarray(np.isfinite(maps).all(axis=0) & valid.all(axis=0))
    number = _patch_sums(leaf[None].astype(np.float64), patch=patch)[0]
    rows, columns = np.nonzero(number >= LEAF_SHARE * patch * patch)
    means = {
        name: (_patch_sums(np.where(leaf, values, 0.0), patch=patch)[:, rows, columns] / number[rows, columns]).T
        for name, values in (("spectra", reflectance), ("traits", maps))
    }
    return {
        "place": np.stack([rows, columns], axis=1),
        "spectra": means["spectra"].astype(np.float32),
        "traits": means["traits"].astype(np.float64),
        **{name: values[rows, columns] for name, values in features.items()},
    }


def _patch_sums(values: NDArray[np.floating], *, patch: int) -> Array:
    """Sums over patches: (channel, y, x) to (channel, row, column)."""
    channels, rows, columns = values.shape
    cut = values.reshape(channels, rows // patch, patch, columns // patch, patch)
    return np.asarray(cut.sum(axis=(2, 4), dtype=np.float64))
