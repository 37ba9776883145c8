"""The normals stage: mean and standard deviation of every band over the valid pixels of the training images.

Contract: no other image is read. Sums are in float64, image by image, and merge (`BandSums`); those of each image are
kept beside the result (image_count, image_mean, image_m2), so that normals of other training images follow by adding.
The layout of the output is in `pipeline.imaging.normals`, which reads it.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import files, provenance, store
from pipeline.console import progress, say
from pipeline.imaging import normals as layout
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.splits import SplitNames, assign
from pipeline.words import counted
from preprocess.imaging.complete import complete_normals

Array = NDArray[np.float64]
_ROUNDING = 1e-12
"""A standard deviation below this fraction of the mean is what rounding leaves of a constant."""


@dataclass(frozen=True, eq=False)
class BandSums:
    """Sums over some pixels; arrays have shape (band,). Adding two gives those over both.

    Attributes:
        count: number of valid values.
        mean: of them; 0 where there is none.
        m2: sum of squared departures from the mean.
        minimum: of them; inf where there is none.
        maximum: of them; -inf where there is none.
    """

    count: NDArray[np.int64]
    mean: Array
    m2: Array
    minimum: Array
    maximum: Array

    @classmethod
    def of(cls, values: NDArray[Any], valid: NDArray[np.bool_]) -> BandSums:
        """Sums of values (tile, band, y, x), those that are valid."""
        flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1).astype(np.float64)
        good = np.moveaxis(valid, 1, 0).reshape(flat.shape)
        count = good.sum(axis=1, dtype=np.int64)
        mean = np.where(good, flat, 0.0).sum(axis=1) / np.maximum(count, 1)
        m2 = np.where(good, (flat - mean[:, None]) ** 2, 0.0).sum(axis=1)
        low, high = np.where(good, flat, np.inf).min(axis=1), np.where(good, flat, -np.inf).max(axis=1)
        return cls(count, mean, m2, low, high)

    def __add__(self, other: BandSums) -> BandSums:
        """Sums over both (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        apart = other.mean - self.mean
        return BandSums(
            count,
            self.mean + apart * share,
            self.m2 + other.m2 + apart**2 * self.count * share,
            np.minimum(self.minimum, other.minimum),
            np.maximum(self.maximum, other.maximum),
        )

    @property
    def std(self) -> Array:
        """Standard deviation (of the population)."""
        return np.sqrt(self.m2 / np.maximum(self.count, 1))


def run_normals(config: ImagingConfig) -> None:
    """Compute the normals and write them to `config.paths.normals`.

    Raises:
        ValueError: the store is not finished, the splits do not fit it, or a band has no valid or only equal values.
    """
    path = config.paths.normals
    if done := complete_normals(config):
        say(done)
        return
    images = ImageStore.of(config)
    splits = assign([image.name for image in images.images], config.data.splits)
    contract = _contract(images, splits)
    with files.lock(path.with_name(f"{path.stem}.lock")):
        sums = image_sums(images, splits.train)
        total = reduce(add, sums)
        _require_variation(total, images)
        with files.replacing(path) as folder:
            digest = _write(folder, contract, images, sums, total)
    facts = {"train_images": len(splits.train), "digest": digest, "values": int(total.count.sum())}
    provenance.write_receipt(config, stage="normals", outputs=[path], facts=facts)
    counts = f"{counted(len(splits.train), 'training image')}, {counted(len(images.bands), 'band')}"
    say(f"normals: {counts}, written to {path}")


def image_sums(images: ImageStore, names: Sequence[str]) -> list[BandSums]:
    """The sums of each of some images, tile by tile."""
    reflectance, valid = images.reader("reflectance"), images.reader("valid")
    found = []
    tiles = images.tiles_of(names).size
    with progress("tiles") as bar:
        task = bar.add_task("normals", total=tiles)
        for name in names:
            parts = []
            for tile in images.tiles_of([name]).tolist():
                span = slice(tile, tile + 1)
                parts.append(BandSums.of(reflectance.read(span), valid.read(span)))
                bar.advance(task)
            found.append(reduce(add, parts))
    return found


def _contract(images: ImageStore, splits: SplitNames) -> dict[str, Any]:
    return {
        "kind": layout.KIND,
        "store": images.digest,
        "bands": images.bands,
        "source": dict(images.contract["source"]),
        "splits": splits.describe(),
    }


def _require_variation(total: BandSums, images: ImageStore) -> None:
    for fault, bad in (
        ("valid pixels", total.count == 0),
        ("values that vary", ~(total.std > _ROUNDING * np.abs(total.mean))),
    ):
        if bad.any():
            band = images.bands[int(bad.argmax())]
            raise ValueError(
                f"band {band} must have {fault} in the training images, got none; leave it out with data.bands"
            )


def _write(
    folder: Path, contract: dict[str, Any], images: ImageStore, sums: Sequence[BandSums], total: BandSums
) -> str:
    """Write everything to a new folder; returns the digest."""
    group: Any = zarr.open_group(folder, mode="w", zarr_format=3)
    arrays: dict[str, tuple[tuple[str, ...], NDArray[Any]]] = {
        "band": (("band",), np.array(images.bands)),
        "image": (("image",), np.array(contract["splits"]["train"])),
        "wavelength": (("band",), images.wavelengths),
        "mean": (("band",), total.mean),
        "std": (("band",), total.std),
        "minimum": (("band",), total.minimum),
        "maximum": (("band",), total.maximum),
        "count": (("band",), total.count),
    }
    for name in ("count", "mean", "m2"):
        arrays[f"image_{name}"] = (("image", "band"), np.stack([getattr(part, name) for part in sums]))
    digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        for name, (dims, values) in arrays.items():
            group.create_array(name, data=values, dimension_names=dims)
            if values.dtype.kind in "fi":
                digest.update(np.ascontiguousarray(values).data)
    short = digest.hexdigest()[:16]
    title = f"Normals of hyperspectral images: {contract['source']['label']}"
    group.attrs.update({"title": title, "contract": contract, "digest": short})
    store.consolidate(folder)
    return short
