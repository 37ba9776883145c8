"""Sums of errors per image: what scores and their intervals are computed from, and what a killed run resumes from.

Contract: a store in slabs of a few images. Letters: M models, R regions, B bands.

    squared, absolute  (image, model, region, band)  sums over the pixels that count [reflectance squared, reflectance]
    count              (image, region, band)         of those pixels
    angle              (image, model, region)        sum of spectral angles over pixels [degrees]
    pixels             (image, region)               of those pixels
    similarity         (image, model)                sum of SSIM over hidden pixels
    smallest, largest  (image)                       reflectance of the truth
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.imaging.baselines.models import NAMES, Baselines, Cube, Mask, Seen
from evaluate.imaging.colour import Rendering
from evaluate.imaging.reading import Reconstructions, Sample
from evaluate.imaging.scores import REGIONS, angle_of_sums, ssim_map
from pipeline.store import ArraySpec, SlabStore, open_store

Array = NDArray[np.float64]

Sums = NDArray[Any]

NETWORK = "network"
MODELS = (NETWORK, *NAMES)
SLAB_IMAGES = 8
"""Images whose sums are written together: what a killed run computes again, at most."""
_REGION_PARTS = ((0, 0), (1, 1), (0, 1))
"""Hidden or visible pixels, visible or hidden bands, of each of REGIONS."""
_DIMS: dict[str, tuple[str, ...]] = {
    "squared": ("image", "model", "region", "band"),
    "absolute": ("image", "model", "region", "band"),
    "count": ("image", "region", "band"),
    "angle": ("image", "model", "region"),
    "pixels": ("image", "region"),
    "similarity": ("image", "model"),
    "smallest": ("image",),
    "largest": ("image",),
}


@dataclass(frozen=True, eq=False)
class Judge:
    """What is needed to judge a tile.

    Args:
        baselines: fitted.
        rendering: of the pictures that are compared.
    """

    baselines: Baselines
    rendering: Rendering

    def image(self, samples: Iterable[Sample]) -> dict[str, Sums]:
        """Sums of an image over its tiles, each without the dim `image`."""
        total: dict[str, Sums] = {}
        for sample in samples:
            for name, values in self.tile(sample).items():
                join = {"smallest": np.fmin, "largest": np.fmax}.get(name, np.add)
                total[name] = join(total[name], values) if name in total else values
        return total

    def tile(self, sample: Sample) -> dict[str, Sums]:
        """Sums of a tile."""
        seen, truth = sample.seen, Truth.of(sample.seen)
        guesses = {NETWORK: sample.guess, **self.baselines.guess(seen)}
        found = [truth.errors(guesses[model]) for model in MODELS]
        sums = {name: np.stack([one[name] for one in found]) for name in found[0]}
        sums["similarity"] = similarities(seen, [guesses[model] for model in MODELS], self.rendering)
        valid = seen.truth[seen.valid]
        ends = (valid.min(), valid.max()) if valid.size else (np.nan, np.nan)
        return sums | truth.counts() | {"smallest": np.asarray(ends[0]), "largest": np.asarray(ends[1])}


@dataclass(frozen=True, eq=False)
class Truth:
    """A tile, its pixels in a row, ready to be compared with several guesses.

    Args:
        values: reflectance, 0 where it is not valid, shape (band, pixel).
        valid: shape (band, pixel).
        sides: 1 for hidden and for visible pixels, shape (pixel, 2).
        kinds: 1 for visible and for hidden bands, shape (2, band).
    """

    values: Array
    valid: Mask
    sides: Array
    kinds: Array

    @classmethod
    def of(cls, seen: Seen) -> Truth:
        """That of a tile."""
        bands, hidden = len(seen.window), seen.hidden.ravel()
        valid = seen.valid.reshape(bands, -1)
        values = np.where(valid, seen.truth.reshape(bands, -1), 0.0).astype(np.float64)
        sides, kinds = np.stack([hidden, ~hidden], axis=1), np.stack([~seen.window, seen.window])
        return cls(values, valid, sides.astype(np.float64), kinds.astype(np.float64))

    @cached_property
    def power(self) -> Array:
        """Sum of squares of each pixel over the visible and over the hidden bands, shape (2, pixel)."""
        return self.kinds @ (self.values * self.values)

    def counts(self) -> dict[str, Sums]:
        """How many values each region has in each band, and how many pixels with a spectral angle."""
        valid, known = self.valid @ self.sides, (self.power > 0) @ self.sides
        count = [valid[:, side] * self.kinds[kind] for side, kind in _REGION_PARTS]
        return {"count": np.stack(count), "pixels": np.asarray([known[kind, side] for side, kind in _REGION_PARTS])}

    def errors(self, guess: Cube) -> dict[str, Sums]:
        """Sums of errors of one model.

        Args:
            guess: shape (band, y, x).
        """
        made = np.where(self.valid, guess.reshape(self.valid.shape), 0.0).astype(np.float64)
        error = made - self.values
        squared, absolute = (error * error) @ self.sides, np.abs(error) @ self.sides
        angles = angle_of_sums(self.kinds @ (made * self.values), self.kinds @ (made * made), self.power)
        total = np.nan_to_num(angles) @ self.sides
        return {
            "squared": np.stack([squared[:, side] * self.kinds[kind] for side, kind in _REGION_PARTS]),
            "absolute": np.stack([absolute[:, side] * self.kinds[kind] for side, kind in _REGION_PARTS]),
            "angle": np.asarray([total[kind, side] for side, kind in _REGION_PARTS]),
        }


def similarities(seen: Seen, guesses: Sequence[Cube], rendering: Rendering) -> Array:
    """Sum of SSIM over the hidden pixels of a tile of which the visible ones are the truth, shape (model,)."""
    usable = seen.hidden & seen.valid.all(axis=0)
    truth = np.nan_to_num(rendering(seen.truth))
    found = []
    for guess in guesses:
        completed = np.where(usable[:, :, None], rendering(guess), truth)
        found.append(float(ssim_map(completed, truth)[usable].sum()))
    return np.asarray(found)


def write_sums(
    path: Path,
    reconstructions: Reconstructions,
    judge: Judge,
    *,
    contract: Mapping[str, Any],
    tick: Callable[[int], None],
) -> xr.Dataset:
    """Sum the errors of all images, resuming where a killed run stopped.

    Args:
        path: of the store of sums.
        reconstructions: what is judged.
        judge: of tiles.
        contract: what decides the sums, besides the reconstructions.
        tick: told how many images are done.

    Returns:
        The sums, loaded.
    """
    names, bands = list(reconstructions.by_image), reconstructions.images.bands
    sizes = {"image": len(names), "model": len(MODELS), "region": len(REGIONS), "band": len(bands)}
    coords = xr.Dataset(
        coords={
            "image": np.arange(len(names)),
            "name": ("image", names),
            "model": list(MODELS),
            "region": list(REGIONS),
            "band": bands,
            "wavelength": ("band", reconstructions.images.wavelengths),
        }
    )
    arrays = {name: _spec(dims, sizes) for name, dims in _DIMS.items()}
    described: dict[str, Any] = {"kind": "reconstruction sums", "reconstructions": reconstructions.digest, **contract}
    with SlabStore(
        path,
        arrays=arrays,
        coords=coords,
        slab_dim="image",
        slab_size=SLAB_IMAGES,
        contract=described,
        command="python -m pipeline score",
    ) as store:
        tick(len(names) - sum(map(len, store.pending())))
        for slab in store.pending():
            rows = [reconstructions.by_image[name] for name in names[slab.slice]]
            found = []
            for of_image in rows:
                found.append(judge.image(map(reconstructions.read, of_image)))
                tick(1)
            store.write(slab, {name: np.stack([one[name] for one in found]) for name in _DIMS})
        store.finish({})
    return open_store(path).load()


def _spec(dims: Sequence[str], sizes: Mapping[str, int]) -> ArraySpec:
    shape = tuple(sizes[dim] for dim in dims)
    return ArraySpec(tuple(dims), shape, (1, *shape[1:]), dtype="float64")
