"""Opening stores that are written: refused unless they are as they were written, and lazily read.

Contract: every stage that reads a store goes through `read_manifest` or `open_store`, which compare manifest, contract,
small files and the sizes of shards; every stage that writes one asks `finished` whether anything is left to do, which
strikes damaged slabs from the record, so that the writer makes them again and nothing else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import damage, files, manifest
from pipeline.console import say
from pipeline.words import counted

if TYPE_CHECKING:
    import xarray as xr


def strike(path: Path, content: dict[str, Any], damaged: Iterable[damage.Damage]) -> None:
    """Strike damaged slabs from the record of a store, whose lock is held, and say which.

    Args:
        path: of the store.
        content: of its manifest; changed, here and on the disk.
        damaged: the slabs.
    """
    for slab in damaged:
        say(f"store {path}: {slab}; written again")
        content.setdefault("struck", {})[str(slab.slab)] = content["slabs"].pop(str(slab.slab))["sha256"]
        content.get("shards", {}).pop(str(slab.slab), None)
        content["complete"] = False
    manifest.save(path, content)


def finished(path: Path, *, verify: bool = False, mend: bool = True) -> bool:
    """Whether a store is complete and as it was written; if not, its writer makes again what is missing or damaged.

    Damaged slabs are struck from the record, and said.

    Args:
        path: of the store.
        verify: read every slab and compare its values with the record, not only the sizes of the files.
        mend: strike damaged slabs from the record; False where another rank does it.

    Raises:
        ValueError: another run writes the store.
    """
    content, faults = manifest.inspect(path)
    if not path.exists() or faults or manifest.metadata_faults(path, content):
        return False
    damaged = damage.damaged_slabs(path, content, digests=verify)
    if damaged and mend:
        with files.lock(manifest.lock_path(path)):
            strike(path, content, damaged)
    return bool(content["complete"]) and not damaged


def read_manifest(path: Path, *, stage: str = manifest.UNKNOWN, growing: bool = False) -> dict[str, Any]:
    """The manifest of a finished store that is as it was written, judged by all that can be known without reading it.

    Args:
        path: folder of the store.
        stage: what to run when it is not there.
        growing: whether the store may be one that is still being written.

    Raises:
        ValueError: no store there, another layout version, not finished, or a manifest, small file or shard that is
            missing or not the one that was written.
    """
    if not path.exists():
        raise ValueError(f"store must exist, got nothing at {path}; run {stage} first")
    content, faults = manifest.inspect(path)
    if faults:
        raise ValueError(damage.refusal(path, faults, content, stage=stage))
    found = content["contract"].get("schema")
    if found != manifest.SCHEMA:
        raise ValueError(f"store {path} must have layout version {manifest.SCHEMA}, got {found}; write it again")
    if not content["complete"] and not growing:
        raise ValueError(
            f"store {path} must be finished, got {counted(len(content['slabs']), 'slab')} recorded; run {stage} again"
        )
    faults = [*manifest.metadata_faults(path, content), *map(str, damage.damaged_slabs(path, content))]
    if faults:
        raise ValueError(damage.refusal(path, faults, content, stage=stage))
    return content


def open_store(path: Path, *, stage: str = manifest.UNKNOWN, chunks: Any = None, growing: bool = False) -> xr.Dataset:
    """Open a finished store for reading.

    Args:
        path: folder of the store.
        stage: what to run when it is not there.
        chunks: None reads lazily without Dask; {} gives Dask blocks of one slab.
        growing: whether the store may be one that is still being written; slabs that are not recorded must not be read.

    Returns:
        The dataset; `ds.attrs["contract"]` is the contract. Its large arrays are read by `pipeline.shards`.

    Raises:
        ValueError: see `read_manifest`.
    """
    import xarray as xr

    from pipeline.lazy import through_reader

    content = read_manifest(path, stage=stage, growing=growing)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        ds: xr.Dataset = through_reader(xr.open_zarr(path, chunks=None, consolidated=False, zarr_format=3), path)
    if chunks is not None:
        slab = content["axis"]["slab_size"]
        ds = ds.chunk(chunks or {content["slab_dim"]: slab})
    return ds
