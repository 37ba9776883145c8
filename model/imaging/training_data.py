"""What one rank reads: its bands of the tiles of some images, normalised, and in which order samples come.

Contract: straight from the store, no copy in another format. Reflectance is held in memory when it fits, which is
decided once; otherwise tiles are read while the step before is computed. Both give the same bits. Invalid values are
zero, the mean of the band, and marked. The order depends on the seed and the position alone; every tile is used once an
epoch.

Letters: T tiles of the store, N asked for, K bands read, Y/X pixels of a tile, L patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.imaging.architecture import hiding_of
from model.imaging.masks import Hiding, Index, Windows, band_windows, in_windows, some_of, visible_patches
from model.imaging.passes import Pass, passes
from model.imaging.tiles import Tiles
from model.training.host_memory import memory_for_fields
from pipeline.console import console, terminal_progress
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals

_WAYS = 8
"""To lay down a square: four turns, each also mirrored."""
_TURN_STREAM = 2
_VALIDATION = 1 << 40
"""Added to the number of a tile for the masks of validation, which no training sample has."""


class Reflectance:
    """Normalised reflectance of some bands of a store.

    Args:
        store: of images.
        normals: of its training images.
        bands: names of the bands read; None for all.
        readers: threads that read.
    """

    def __init__(
        self, store: ImageStore, normals: ImageNormals, *, bands: Sequence[str] | None = None, readers: int = 4
    ) -> None:
        self.store, self.bands = store, tuple(bands or store.bands)
        place = {name: i for i, name in enumerate(store.bands)}
        self._rows = np.array([place[name] for name in self.bands], dtype=np.int64)
        std = normals.std[self._rows]
        self._mean = normals.mean[self._rows].astype(np.float32)[:, None, None]
        self._factor = (1.0 / np.where(std > 0, std, 1.0)).astype(np.float32)[:, None, None]
        self._reader = store.reader("reflectance")
        self._memory: Tensor | None = None
        self._whole = np.zeros(len(store.places), dtype=bool)
        self._place = np.full(len(store.places), -1, dtype=np.int64)
        self._pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="read")

    def bytes_needed(self, tiles: Index) -> int:
        """Memory that `load` takes."""
        return len(tiles) * len(self.bands) * self.store.tile**2 * 4

    def load(self, tiles: Index, *, progress: bool) -> None:
        """Read some tiles into memory.

        Args:
            tiles: numbers of tiles.
            progress: show a bar.
        """
        tiles = np.unique(tiles)
        memory = torch.empty((len(tiles), len(self.bands), self.store.tile, self.store.tile))
        with terminal_progress("tiles", on=console if progress else None) as bar:
            found = self._pool.map(lambda i: self._read(int(tiles[i]), memory[i].numpy()), range(len(tiles)))
            self._whole[tiles] = list(bar.track(found, total=len(tiles), description="reading the store"))
        self._place[tiles] = np.arange(len(tiles))
        self._memory = memory

    def read(self, tiles: Index, *, ways: Index | None = None) -> tuple[Tensor, Tensor]:
        """Normalised reflectance, zero where invalid, and where it is valid; (N, K, Y, X) each.

        Args:
            tiles: numbers of tiles, in any order.
            ways: (N,) in which of eight ways each tile is laid down, see `laid`; None for as it is.
        """
        x = torch.empty((len(tiles), len(self.bands), self.store.tile, self.store.tile))
        ways = np.zeros_like(tiles) if ways is None else ways
        whole = list(self._pool.map(self._place_tile, tiles.tolist(), ways.tolist(), x))
        if all(whole):
            return x, torch.ones(x.shape, dtype=torch.bool)
        valid = ~x.isnan()
        return x.nan_to_num_(nan=0.0), valid

    def _place_tile(self, tile: int, way: int, out: Tensor) -> bool:
        """One tile, laid down, into (K, Y, X), NaN where invalid; whether all of it is valid."""
        if self._memory is not None and self._place[tile] >= 0:
            out.copy_(laid(self._memory[self._place[tile]], way))
            return bool(self._whole[tile])
        if way == 0:
            return self._read(tile, out.numpy())
        as_it_is = torch.empty_like(out)
        whole = self._read(tile, as_it_is.numpy())
        out.copy_(laid(as_it_is, way))
        return whole

    def _read(self, tile: int, out: NDArray[np.float32]) -> bool:
        """One tile into (K, Y, X), NaN where invalid; whether all of it is valid."""
        values = self._reader.pick(slice(tile, tile + 1), self._rows)[0]
        np.subtract(values, self._mean, out=out)
        out *= self._factor
        return bool(np.isfinite(values).all())


class Order:
    """The endless sequence of training samples: tiles in a new order every epoch.

    Args:
        tiles: numbers of tiles.
        seed: another seed, another order.
    """

    def __init__(self, tiles: Index, *, seed: int) -> None:
        self.tiles, self.seed = tiles, seed
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def samples(self, numbers: Index) -> Index:
        """The tiles of some samples of the sequence; they may span epochs."""
        epochs, places = np.divmod(numbers, len(self.tiles))
        return np.array([self._epoch(int(e))[p] for e, p in zip(epochs, places, strict=True)], dtype=np.int64)

    def _draw(self, epoch: int) -> Index:
        return np.random.default_rng([self.seed, epoch]).permutation(self.tiles)


class ImagingData:
    """Samples of a configuration, as this rank sees them.

    Args:
        config: the experiment.
        store: of images.
        normals: of its training images.
        channels: bands of this rank.
        rank: position on the data axis.
        ranks: its length.
        pin: batches in page-locked memory, for a GPU.
    """

    def __init__(
        self,
        config: ImagingConfig,
        *,
        store: ImageStore,
        normals: ImageNormals,
        channels: Sequence[str],
        rank: int,
        ranks: int,
        pin: bool,
    ) -> None:
        self.options, self.rank, self.ranks, self.pin = config.training, rank, ranks, pin
        self.store = store
        self.reflectance = Reflectance(store, normals, bands=channels)
        self.maker = SampleMaker(store, hiding_of(config.masking), patch=config.model.patch, channels=channels)
        splits = normals.splits
        self.order = Order(store.tiles_of(splits.train), seed=self.options.seed)
        self.validation = spread(store.tiles_of(splits.validation), self.options.validation_samples)

    @property
    def samples(self) -> int:
        """Tiles of the training images, each used once in an epoch."""
        return len(self.order.tiles)

    def hold(self, *, processes: int, progress: bool) -> None:
        """Read into memory what fits.

        Args:
            processes: that share this machine's memory.
            progress: show a bar.
        """
        wanted = np.union1d(self.order.tiles, self.validation)
        if self.reflectance.bytes_needed(wanted) <= memory_for_fields(processes=processes):
            self.reflectance.load(wanted, progress=progress)

    def batch(self, step: int) -> Tiles:
        """This data rank's part of a step's global batch; the step decides which bands are hidden."""
        part = self.options.batch_size // self.ranks
        numbers = np.arange(part) + step * self.options.batch_size + self.rank * part
        ways = ways_of(numbers, seed=self.options.seed)
        x, valid = self.reflectance.read(self.order.samples(numbers), ways=ways)
        made = self.maker.tiles(x, valid, numbers=numbers, windows=self.maker.windows(step), training=True)
        return made.pinned() if self.pin else made

    def fixed_passes(self, *, at_once: int) -> list[Pass]:
        """The validation tiles, each with the mask that belongs to it, in passes that are the same on every rank."""
        windows = [self.maker.windows(int(tile) + _VALIDATION) for tile in self.validation]
        return passes(windows, at_once=at_once, rank=self.rank, ranks=self.ranks)

    def fixed(self, one: Pass) -> Tiles:
        """The samples of a pass over the validation tiles."""
        tiles = self.validation[one.positions]
        x, valid = self.reflectance.read(tiles)
        return self.maker.tiles(x, valid, numbers=tiles + _VALIDATION, windows=one.windows)

    def describe(self, step: int) -> str:
        """The samples of a step's global batch, as messages name them."""
        size = self.options.batch_size
        tiles = self.order.samples(np.arange(size) + step * size)
        places = [self.store.places[tile] for tile in tiles]
        return ", ".join(f"{place.image} at row {place.row}, column {place.column}" for place in places)


class SampleMaker:
    """Draws what is hidden from samples.

    Args:
        store: of images.
        hiding: how much is hidden.
        patch: side of a patch [pixels].
        channels: bands of this rank.
    """

    def __init__(self, store: ImageStore, hiding: Hiding, *, patch: int, channels: Sequence[str]) -> None:
        self.hiding, self.patches = hiding, (store.tile // patch) ** 2
        self.wavelengths = [float(value) for value in store.wavelengths]
        self._bands, self._channels = store.bands, channels

    def windows(self, number: int) -> Windows:
        """Ranges of wavelengths hidden from a sample, or from a step [nm]."""
        return band_windows(self.hiding, number, wavelengths=self.wavelengths)

    def tiles(self, x: Tensor, valid: Tensor, *, numbers: Index, windows: Windows, training: bool = False) -> Tiles:
        """Samples with their masks.

        Args:
            x: (N, K, Y, X).
            valid: likewise.
            numbers: (N,) of the samples, which decide the patches hidden.
            windows: ranges of wavelengths hidden from all of them [nm].
            training: predict some of what is hidden only, where the configuration says so.
        """
        visible, hidden = visible_patches(self.hiding, numbers, patches=self.patches)
        names = frozenset(np.array(self._bands)[in_windows(self.wavelengths, windows)].tolist())
        predicted = np.tile(np.arange(self.patches), (len(numbers), 1)) if names else hidden
        if training:
            predicted = some_of(self.hiding, numbers, predicted)
        hides = (predicted[:, :, None] != visible[:, None]).all(axis=2)
        return Tiles(
            x=x,
            valid=valid,
            visible=torch.from_numpy(visible),
            predicted=torch.from_numpy(predicted),
            hides=torch.from_numpy(hides),
            band_hidden=torch.tensor([name in names for name in self._channels]),
            hidden=names,
        )


def laid(tile_KYX: Tensor, way: int) -> Tensor:
    """A tile laid down in one of eight ways: turned by right angles, from 4 on also mirrored."""
    turned = torch.rot90(tile_KYX, way % 4, (1, 2))
    return turned.flip(2) if way >= 4 else turned


def ways_of(numbers: Index, *, seed: int) -> Index:
    """In which of eight ways each sample's tile is laid down, drawn from (seed, number of the sample)."""
    drawn = [np.random.default_rng([seed, _TURN_STREAM, int(number)]).integers(_WAYS) for number in numbers]
    return np.array(drawn, dtype=np.int64)


def spread(tiles: Index, count: int) -> Index:
    """At most some of the tiles, evenly spaced."""
    if len(tiles) <= count:
        return tiles
    return tiles[np.linspace(0, len(tiles) - 1, count).round().astype(np.int64)]
