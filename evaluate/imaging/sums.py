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
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.imaging.baselines.models import NAMES, Baselines, Cube, Seen
from evaluate.imaging.colour import Rendering
from evaluate.imaging.reading import Reconstructions, Sample
from evaluate.imaging.scores import REGIONS, region_masks, spectral_angle, ssim_map
from pipeline.store import ArraySpec, SlabStore, open_store

Array = NDArray[np.float64]

NETWORK = "network"
MODELS = (NETWORK, *NAMES)
SLAB_IMAGES = 8
"""Images whose sums are written together: what a killed run computes again, at most."""
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

    def image(self, samples: Iterable[Sample]) -> dict[str, NDArray[Any]]:
        """Sums of an image over its tiles, each without the dim `image`."""
        total: dict[str, NDArray[Any]] = {}
        for sample in samples:
            for name, values in self.tile(sample).items():
                join = {"smallest": np.fmin, "largest": np.fmax}.get(name, np.add)
                total[name] = join(total[name], values) if name in total else values
        return total

    def tile(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Sums of a tile."""
        seen = sample.seen
        guesses = {NETWORK: sample.guess, **self.baselines.guess(seen)}
        found = [tile_sums(seen, guesses[model]) for model in MODELS]
        sums = {name: np.stack([one[name] for one in found]) for name in found[0]}
        sums["similarity"] = similarities(seen, [guesses[model] for model in MODELS], self.rendering)
        valid = seen.truth[seen.valid]
        ends = (valid.min(), valid.max()) if valid.size else (np.nan, np.nan)
        return sums | tile_counts(seen) | {"smallest": np.asarray(ends[0]), "largest": np.asarray(ends[1])}


def tile_counts(seen: Seen) -> dict[str, NDArray[Any]]:
    """How many values each region of a tile has in each band, and how many pixels with a spectral angle."""
    counts, pixels = [], []
    for there, bands in region_masks(seen.hidden, seen.window).values():
        counts.append((seen.valid & there).sum(axis=(1, 2)) * bands)
        pixels.append(int(np.isfinite(_angles(seen, seen.truth, there, bands)).sum()))
    return {"count": np.stack(counts), "pixels": np.asarray(pixels)}


def similarities(seen: Seen, guesses: Sequence[Cube], rendering: Rendering) -> Array:
    """Sum of SSIM over the hidden pixels of a tile of which the visible ones are the truth, shape (model,)."""
    usable = seen.hidden & seen.valid.all(axis=0)
    truth = np.nan_to_num(rendering(seen.truth))
    found = []
    for guess in guesses:
        completed = np.where(usable[:, :, None], rendering(guess), truth)
        found.append(float(ssim_map(completed, truth)[usable].sum()))
    return np.asarray(found)


def tile_sums(seen: Seen, guess: Cube) -> dict[str, NDArray[Any]]:
    """Sums of errors of one model over one tile."""
    bands, size = seen.window.size, seen.hidden.size
    error = np.where(seen.valid, guess - seen.truth, 0.0).reshape(bands, size)
    sides = np.stack([seen.hidden.ravel(), ~seen.hidden.ravel()], axis=1).astype(np.float64)
    squared, absolute = (error * error) @ sides, np.abs(error) @ sides
    masks = region_masks(seen.hidden, seen.window)
    column = {"hidden": 0, "window": 1, "both": 0}
    angles = [np.nansum(_angles(seen, guess, there, which)) for there, which in masks.values()]
    return {
        "squared": np.stack([squared[:, column[name]] * bands for name, (_, bands) in masks.items()]),
        "absolute": np.stack([absolute[:, column[name]] * bands for name, (_, bands) in masks.items()]),
        "angle": np.asarray(angles),
    }


def _angles(seen: Seen, guess: Cube, there: NDArray[np.bool_], bands: NDArray[np.bool_]) -> Array:
    """Spectral angles of the pixels of a region, shape (pixel,); NaN where the truth has no direction."""
    if not bands.any() or not there.any():
        return np.empty(0)
    which = np.ix_(bands, there.ravel())
    flat = (x.reshape(len(bands), -1)[which] for x in (guess, seen.truth, seen.valid))
    return spectral_angle(*flat)


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
