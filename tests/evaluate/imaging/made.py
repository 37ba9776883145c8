"""A small experiment with hyperspectral images, written through the project's own stores, with a made-up network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from pipeline import config as configuration
from pipeline import files, provenance
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import KIND, TRAIT_UNITS, ImageStore, arrays, tile_places
from pipeline.imaging.image_store import ImageSize as Size
from pipeline.imaging.normals import KIND as NORMALS
from pipeline.imaging.splits import assign
from pipeline.store import ArraySpec, SlabStore, contract_digest

WAVELENGTHS = np.linspace(450.0, 860.0, 23)
TRAITS = ("chlorophyll", "water")


@dataclass(frozen=True)
class Made:
    """One made-up image: reflectance (band, y, x), traits (trait, y, x), NaN where there is no leaf."""

    reflectance: np.ndarray
    traits: np.ndarray


def imaging_config(directory: Path, **changes: Any) -> ImagingConfig:
    """An experiment; keys of blocks may be given as block__key."""
    raw: dict[str, Any] = {
        "task": "reconstruct",
        "name": "made",
        "directory": str(directory),
        "source": {"kind": "simulation", "size": 20},
        "data": {"tile": 20, "splits": {"train": 0.6, "validation": 0.1, "test": 0.3}},
        "model": {"patch": 5, "width": 8, "heads": 2, "depth": 1},
        "masking": {"patches": 0.75, "bands": {"share": 0.5, "nanometres": 80}},
        "evaluation": {"traits": list(TRAITS), "few_labels": [3], "bootstrap": 50, "images_shown": 2},
    }
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        node = raw
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    found = configuration.parse(raw)
    assert isinstance(found, ImagingConfig)
    return found


def made_image(index: int, *, size: tuple[int, int] = (26, 34), wavelengths: np.ndarray = WAVELENGTHS) -> Made:
    """A disc of a leaf whose green and red edge follow its chlorophyll, on a dark ground."""
    random = np.random.default_rng([7, index])
    y, x = np.mgrid[: size[0], : size[1]] / max(size)
    centre = 0.3 + 0.4 * random.random(2)
    leaf = np.hypot(y - centre[0], x - centre[1]) < 0.33
    chlorophyll = np.clip(20 + 40 * random.random() + 15 * np.sin(5 * x + 3 * y + random.random() * 6), 5, None)
    water = 0.008 + 0.004 * random.random() + 0.001 * np.cos(4 * y)
    edge = 1 / (1 + np.exp(-(wavelengths[:, None, None] - 700 - 0.4 * chlorophyll) / 15))
    green = 0.1 * np.exp(-(((wavelengths - 550) / 40) ** 2))[:, None, None] * np.exp(-chlorophyll / 40)
    shade = 0.8 + 0.2 * np.sin(6 * x + random.random())
    spectra = shade * (0.05 + green + (0.4 - 5 * water) * edge)
    ground = 0.03 + 0.01 * wavelengths[:, None, None] / 800 * np.ones_like(x)
    noise = 0.004 * random.standard_normal(spectra.shape)
    reflectance = np.where(leaf, spectra, ground) + noise
    traits = np.where(leaf, np.stack([chlorophyll, np.broadcast_to(water, x.shape)]), np.nan)
    return Made(reflectance.astype(np.float32), traits.astype(np.float32))


def write_images(
    config: ImagingConfig,
    images: Sequence[Made],
    *,
    wavelengths: np.ndarray = WAVELENGTHS,
    traits: Sequence[str] = TRAITS,
    spoil: Callable[[np.ndarray, np.ndarray], None] = lambda _reflectance, _valid: None,
) -> ImageStore:
    """The store of images, as simulate or ingest would write it; `spoil` may change tiles and their validity."""
    tile, bands = config.data.tile, [f"b{w:06.1f}" for w in wavelengths]
    sizes = [Size(f"plant{i:02d}", *image.reflectance.shape[1:]) for i, image in enumerate(images)]
    places = tile_places(sizes, tile=tile)
    by_name = {size.name: image for size, image in zip(sizes, images, strict=True)}
    coords = xr.Dataset(
        coords={
            "tile": np.arange(len(places)),
            "band": bands,
            "wavelength": ("band", wavelengths),
            "image": ("tile", [p.image for p in places]),
            "row": ("tile", [p.row for p in places]),
            "column": ("tile", [p.column for p in places]),
            **({"trait": list(traits), "trait_unit": ("trait", [TRAIT_UNITS[t] for t in traits])} if traits else {}),
        }
    )
    contract = {
        "kind": KIND,
        "bands": bands,
        "tile": tile,
        "source": {"kind": config.source.kind, "label": "simulated leaves"},
        "images": [vars(size) for size in sizes],
        "traits": list(traits),
    }
    specs = arrays(tiles=len(places), bands=len(bands), tile=tile, traits=len(traits))
    described: dict[str, Any] = {"slab_dim": "tile", "slab_size": 4, "contract": contract}
    with SlabStore(config.paths.store, arrays=specs, coords=coords, **described) as store:
        for slab in store.pending():
            cut = [
                _cut(by_name[places[i].image], places[i].row, places[i].column, tile)
                for i in range(slab.start, slab.stop)
            ]
            reflectance, maps = (np.stack(part) for part in zip(*cut, strict=True))
            valid = np.isfinite(reflectance)
            spoil(reflectance, valid)
            data = {"reflectance": np.where(valid, reflectance, np.nan), "valid": valid}
            store.write(slab, data | ({"traits": maps} if traits else {}))
        store.finish()
    provenance.write_receipt(
        config, stage=config.store_stage, outputs=[config.paths.store], facts={"images": len(sizes)}
    )
    return ImageStore.of(config)


def _cut(image: Made, row: int, column: int, tile: int) -> tuple[np.ndarray, np.ndarray]:
    """A tile of an image, padded with NaN."""
    found = []
    for values in (image.reflectance, image.traits):
        piece = values[:, row : row + tile, column : column + tile]
        pad = [(0, 0), *((0, tile - n) for n in piece.shape[1:])]
        found.append(np.pad(piece, pad, constant_values=np.nan))
    return found[0], found[1]


def write_normals(config: ImagingConfig, store: ImageStore) -> None:
    """Normals of the training images, as the normals stage would write them."""
    splits = assign([image.name for image in store.images], config.data.splits)
    picked = store.reader("reflectance").pick(store.tiles_of(splits.train))
    values = picked.transpose(1, 0, 2, 3).reshape(len(store.bands), -1).astype(np.float64)
    numbers = {
        "wavelength": store.wavelengths,
        "mean": np.nanmean(values, axis=1),
        "std": np.nanstd(values, axis=1),
        "minimum": np.nanmin(values, axis=1),
        "maximum": np.nanmax(values, axis=1),
        "count": np.isfinite(values).sum(axis=1),
    }
    contract = {"kind": NORMALS, "store": store.digest, "bands": store.bands, "splits": splits.describe()}
    group = zarr.create_group(config.paths.normals, overwrite=True)
    for name, array in numbers.items():
        group.create_array(name, data=np.asarray(array))
    group.attrs.update({"contract": contract, "digest": contract_digest(contract)})
    provenance.write_receipt(config, stage="normals", outputs=[config.paths.normals], facts={})


def write_reconstructions(
    config: ImagingConfig,
    store: ImageStore,
    *,
    error: float = 0.01,
    guess: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
) -> None:
    """Reconstructions of the split: the truth with noise, or what `guess` makes of it; masks from the tile's number."""
    splits = assign([image.name for image in store.images], config.data.splits)
    tiles, tile, patch = store.tiles_of(splits.of(config.reconstruct.split)), store.tile, config.model.patch
    tiles = np.tile(tiles, config.reconstruct.repeats)
    side, reader = tile // patch, store.reader("reflectance")
    hidden, window = np.zeros((len(tiles), side, side), bool), np.full((len(tiles), 2), np.nan)
    bands, known = config.masking.bands, store.wavelengths
    for row in range(len(tiles)):
        random = np.random.default_rng([3, row])
        hidden[row] = (random.permutation(side * side) < round(config.masking.patches * side * side)).reshape(
            side, side
        )
        if bands and row % 2 == 0:
            low = random.choice(known[known + bands.nanometres <= known[-1]])
            window[row] = low, low + bands.nanometres
    coords = xr.Dataset(
        {"hidden": (("tile", "py", "px"), hidden), "band_window": (("tile", "end"), window)},
        coords={"tile": tiles, "band": store.bands},
    )
    shape = (len(tiles), len(store.bands), tile, tile)
    spec = ArraySpec(("tile", "band", "y", "x"), shape, (1, *shape[1:]))
    contract = {"kind": "reconstructions", "store": store.digest, "bands": store.bands, "checkpoint": "0123"}
    described: dict[str, Any] = {"slab_dim": "tile", "slab_size": 4, "contract": contract}
    with SlabStore(config.paths.reconstruct, arrays={"reconstruction": spec}, coords=coords, **described) as written:
        for slab in written.pending():
            truth = np.nan_to_num(_rows(reader, tiles[slab.slice]))
            random = np.random.default_rng([4, slab.index])
            made = truth + error * random.standard_normal(truth.shape) if guess is None else guess(truth, random)
            written.write(slab, {"reconstruction": made})
        written.finish()
    provenance.write_receipt(config, stage="reconstruct", outputs=[config.paths.reconstruct], facts={})


def _rows(reader: Any, tiles: np.ndarray) -> np.ndarray:
    return np.stack([reader.read(slice(t, t + 1))[0] for t in tiles.tolist()])


def write_features(config: ImagingConfig, store: ImageStore, *, size: int = 12) -> None:
    """Features of all tiles: projections of the mean spectrum of each patch, smooth ones for the trained network."""
    patch, side, number = config.model.patch, store.tile // config.model.patch, len(store.places)
    random = np.random.default_rng(5)
    smooth = np.cos(np.outer(np.arange(size), np.linspace(0, np.pi, len(store.bands))))
    rough = random.standard_normal((size, len(store.bands)))
    reader, shape = store.reader("reflectance"), (number, side, side, size)
    spec = ArraySpec(("tile", "py", "px", "feature"), shape, (1, *shape[1:]))
    coords = xr.Dataset(coords={"tile": np.arange(number)})
    described: dict[str, Any] = {
        "slab_dim": "tile",
        "slab_size": 16,
        "contract": {"kind": "features", "store": store.digest},
    }
    both = {"features": spec, "features_untrained": spec}
    with SlabStore(config.paths.features, arrays=both, coords=coords, **described) as written:
        for slab in written.pending():
            values = np.nan_to_num(_rows(reader, np.arange(slab.start, slab.stop)))
            means = values.reshape(*values.shape[:2], side, patch, side, patch).mean(axis=(3, 5))
            cut = np.moveaxis(means, 1, -1)
            noise = random.standard_normal((*cut.shape[:3], size))
            data = {"features": cut @ smooth.T + 0.005 * noise, "features_untrained": cut @ rough.T + 0.05 * noise}
            written.write(slab, data)
        written.finish()


def write_training_log(path: Path, *, seed: int = 0) -> None:
    """A metrics.jsonl as training leaves it."""
    import json

    random, lines = np.random.default_rng(seed), []
    for step in range(1, 121):
        loss = 0.1 + 0.9 * np.exp(-step / 25) + 0.02 * random.random()
        lines.append({"kind": "train", "step": step, "loss": loss, "learning_rate": 5e-4})
        if step % 20 == 0:
            lines.append({"kind": "validation", "step": step, "loss": 0.12 + 0.9 * np.exp(-step / 25)})
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def build(directory: Path, *, images: int = 14, traits: Sequence[str] = TRAITS, **changes: Any) -> ImagingConfig:
    """A whole experiment, ready to be scored."""
    config = imaging_config(directory, **changes)
    store = write_images(config, [made_image(i) for i in range(images)], traits=traits)
    write_normals(config, store)
    write_reconstructions(config, store)
    write_features(config, store)
    write_training_log(config.paths.metrics)
    provenance.write_receipt(config, stage="train", outputs=[config.paths.metrics], facts={"steps": 120})
    return config
