"""Whether stores of images keep the contract of docs/hyperspectral.md, whoever wrote them: every departure at once.

Contract: nothing is written and nothing repaired. A store of images is read once, slab by slab: layout, coordinates,
the manifest and its digests, that every value that is not valid is NaN and no other, and ranges. Of reconstructions and
features the manifest and the digests are checked.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline import manifest
from pipeline.contract import contract_digest
from pipeline.damage import large_arrays
from pipeline.departures import of_manifest, read_slabs, recorded_slabs, tell
from pipeline.imaging import image_store, normals
from pipeline.imaging.bands import band_names
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageSize, tile_places
from pipeline.words import counted

_PIXELS = ("tile", "band", "y", "x")
_DIMS = {"reflectance": _PIXELS, "valid": _PIXELS, "traits": ("tile", "trait", "y", "x")}
_LOWEST, _HIGHEST = -1.0, 10.0
"""Reflectance beyond these is a wrong scale; mirrors and noise stay within."""


def run_validate(config: ImagingConfig | None, paths: list[Path]) -> None:
    """Check stores, of a configuration or anyone's.

    Args:
        config: its stores are checked if no path is given.
        paths: folders of stores.

    Raises:
        ValueError: a store departs from the contract; all departures in one message.
    """
    if not paths:
        assert config is not None
        own = config.paths
        paths = [p for p in (own.store, own.normals, own.reconstruct, own.features) if p.exists()]
        if not paths:
            raise ValueError(
                f"store must exist, got nothing at {own.store}; run python -m pipeline {config.store_stage}"
            )
    tell({path: departures(path) for path in paths}, page="docs/hyperspectral.md")


def departures(path: Path) -> list[str]:
    """Every departure of a store, one line each; empty for a good one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds: xr.Dataset = xr.open_zarr(path, chunks=None, consolidated=False)
    except Exception as error:  # any complaint of any reader
        return [f"must be a Zarr group, got {type(error).__name__}: {error}"]
    contract = ds.attrs.get("contract")
    if not isinstance(contract, Mapping):
        return [f"attribute 'contract' must be a mapping, got {contract!r}"]
    if contract.get("kind") == normals.KIND:
        return [*_normals(path, ds)]
    content, faults = manifest.inspect(path)
    found = of_manifest(path, content, faults)
    if contract.get("kind") != image_store.KIND:
        slabs = read_slabs(path, content, recorded_slabs(content), large_arrays(path))
        return [*found, *(line for _, lines in slabs for line in lines)]
    layout = [*_layout(ds), *_coordinates(ds, contract)]
    return [*found, *layout, *([] if layout else _values(path, ds, content))]


def _layout(ds: xr.Dataset) -> Iterator[str]:
    for name, dims in _DIMS.items():
        if name not in ds and name != "traits":
            yield f"must hold the array {name!r}, got {', '.join(map(repr, ds.data_vars)) or 'no array'}"
        elif name in ds and ds[name].dims != dims:
            yield f"{name} must have dimensions {', '.join(dims)}, got {', '.join(map(str, ds[name].dims))}"
    for name in ("band", "wavelength", "image", "row", "column"):
        if name not in ds.variables:
            yield f"coordinate {name!r} must be there, got none"
    for name, kind in (("reflectance", "float32"), ("valid", "bool"), ("traits", "float32")):
        if name in ds and ds[name].dtype != kind:
            yield f"{name} must be {kind}, got {ds[name].dtype}"


def _coordinates(ds: xr.Dataset, contract: Mapping[str, Any]) -> Iterator[str]:
    """Bands and tiles are those of the contract."""
    if not {"band", "wavelength", "image", "row", "column"} <= set(ds.variables):
        return  # said already
    names, wavelengths = [str(name) for name in ds["band"].values], ds["wavelength"].values
    if names != contract.get("bands"):
        yield f"bands must be those of the contract, got {names[:4]} against {str(contract.get('bands'))[:60]}"
    if (np.diff(wavelengths) <= 0).any():
        yield "wavelengths must increase, got some that do not"
    elif names != band_names(wavelengths):
        yield f"bands must be called by their wavelengths, got {names[:4]} for {wavelengths[:4].tolist()}"
    try:
        images = [ImageSize(**entry) for entry in contract["images"]]
        expected = [(p.image, p.row, p.column) for p in tile_places(images, tile=int(contract["tile"]))]
    except (KeyError, TypeError, ValueError) as error:
        yield f"contract must list images with name, rows and columns, and the tile, got {error!r}"
        return
    columns = [ds[key].values for key in ("image", "row", "column")]
    found = [(str(name), int(row), int(column)) for name, row, column in zip(*columns, strict=True)]
    if found != expected:
        yield f"tiles must be those of the contract's images, {len(expected)}, got {len(found)} or other ones"
    for name in [str(n) for n in ds["trait"].values] if "trait" in ds else []:
        if name not in image_store.TRAIT_UNITS:
            yield f"traits must be of {', '.join(image_store.TRAIT_UNITS)}, got {name!r}"


def _values(path: Path, ds: xr.Dataset, content: Mapping[str, Any]) -> Iterator[str]:
    """Digests, validity and ranges, each slab read once."""
    slabs = recorded_slabs(content)
    covered = sum(stop - start for start, stop, _ in slabs.values())
    if covered != ds.sizes["tile"]:
        yield f"slabs must cover {ds.sizes['tile']} tiles, got {covered} recorded"
    low, high, unmarked, filled = np.inf, -np.inf, 0, 0
    having: set[str] = set()
    images = [str(name) for name in ds["image"].values]
    for (first, _, _), (parts, faults) in zip(
        slabs.values(), read_slabs(path, content, slabs, large_arrays(path)), strict=True
    ):
        yield from faults
        if not parts:
            continue
        values, valid = parts["reflectance"], parts["valid"]
        finite = np.isfinite(values)
        unmarked, filled = unmarked + int((valid & ~finite).sum()), filled + int((finite & ~valid).sum())
        low = min(low, float(values.min(where=finite, initial=np.inf)))
        high = max(high, float(values.max(where=finite, initial=-np.inf)))
        having |= {images[first + i] for i in np.flatnonzero(valid.any(axis=(1, 2, 3)))}
        if "traits" in parts and (parts["traits"] < 0).any():
            yield "traits must not be negative, got some that are"
    if unmarked:
        yield f"valid values must be finite, got {counted(unmarked, 'that is not', 'that are not')}"
    if filled:
        yield f"values that are not valid must be NaN, got {counted(filled, 'that is filled', 'that are filled')}"
    if low < _LOWEST or high > _HIGHEST:
        yield f"reflectance must lie within {_LOWEST:g} .. {_HIGHEST:g}, got {low:.4g} .. {high:.4g}"
    if empty := sorted(set(images) - having):
        yield f"images must have valid pixels, got none in {', '.join(empty[:3])}"


def _normals(path: Path, ds: xr.Dataset) -> Iterator[str]:
    """Numbers that a network can divide by, and a store that is there."""
    for name in normals.ARRAYS:
        if name not in ds.variables or not np.isfinite(ds[name].values).all():
            yield f"{name} must be there and finite"
    if "std" in ds.variables and not (ds["std"].values > 0).all():
        yield "std must be above 0 in every band"
    digest = ds.attrs["contract"].get("store")
    stores = [contract_digest(c) for p in path.parent.glob("images-*.zarr") if (c := manifest.contract_of(p))]
    if stores and digest not in stores:
        yield f"normals must be those of a store beside them, got the digest {digest} of another"
