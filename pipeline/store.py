"""Zarr v3 stores written in whole slabs that survive a kill at any moment.

Contract: a store is a Zarr group whose large arrays share their first dimension (the slab dimension:
time, or init_time). One slab is one shard of every array. A slab is written whole, read back and
compared, flushed, and only then recorded in `<name>.manifest.json` beside the store. A run that was
killed resumes at the first unrecorded slab and ends bit-identical to one that was not. Every store
carries its `contract` (JSON attribute); two stores are the same only if their contracts are.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.contract import contract_differences as contract_differences
from pipeline.contract import contract_digest as contract_digest
from pipeline.contract import require_same_contract as require_same_contract
from pipeline.words import counted

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 1
"""Version of the store layout; a store of another version is refused."""


@dataclass(frozen=True)
class ArraySpec:
    """A large array of a store.

    Args:
        dims: names of the dimensions, the slab dimension first.
        shape: full shape.
        chunks: shape of the smallest piece that can be read alone; the shard is one slab, everything else whole.
        dtype: NumPy dtype name.
        attrs: attributes, e.g. units.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str = "float32"
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def shard(self, slab_size: int) -> tuple[int, ...]:
        """Shape of one shard: a slab long, every other dimension rounded up to whole chunks."""
        whole = [-(-size // chunk) * chunk for size, chunk in zip(self.shape[1:], self.chunks[1:], strict=True)]
        return (-(-slab_size // self.chunks[0]) * self.chunks[0], *whole)


@dataclass(frozen=True)
class Slab:
    """A piece of the slab dimension, [start, stop)."""

    index: int
    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """For indexing."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def manifest_path(path: Path) -> Path:
    """Where the manifest of a store lies."""
    return path.with_name(f"{path.stem}.manifest.json")


def slabs(length: int, size: int) -> list[Slab]:
    """The slabs of a dimension."""
    return [Slab(i, start, min(start + size, length)) for i, start in enumerate(range(0, length, size))]


class SlabStore:
    """A store open for writing. Use as a context manager: it holds the store's lock."""

    def __init__(
        self,
        path: Path,
        *,
        arrays: Mapping[str, ArraySpec],
        coords: xr.Dataset,
        slab_dim: str,
        slab_size: int,
        contract: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
    ) -> None:
        """Describe a store; nothing is touched before the context is entered.

        Args:
            path: folder `<name>.zarr`.
            arrays: the large arrays by name.
            coords: coordinates and small whole arrays (static fields), with the slab dimension's full axis.
            slab_dim: name of the shared first dimension.
            slab_size: its length per slab.
            contract: what makes this store this store.
            attrs: further attributes that are no part of the contract (title, provenance).
        """
        self.path = path
        self.arrays = dict(arrays)
        self.coords = coords
        self.slab_dim = slab_dim
        self.slab_size = slab_size
        self.contract = json.loads(json.dumps({"schema": SCHEMA, **contract}))
        self.attrs = dict(attrs or {})
        self.length = int(coords.sizes[slab_dim])
        self._stack = ExitStack()
        self._held = False

    @contextmanager
    def held(self) -> Iterator[SlabStore]:
        """Hold the lock already while the first slab is being made; nothing else is touched.

        Raises:
            ValueError: another run writes this store.
        """
        with files.lock(self._lock_path):
            self._held = True
            try:
                yield self
            finally:
                self._held = False

    @property
    def _lock_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}.lock")

    def __enter__(self) -> SlabStore:
        if not self._held:
            self._stack.enter_context(files.lock(self._lock_path))
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        manifest = manifest_path(self.path)
        if manifest.exists() and self.path.exists():
            self._manifest: dict[str, Any] = files.read_json(manifest)
            found, remedy = self._manifest["contract"], "use another directory or name, or move the old store away"
            us, them = f"store {self.path}", "this configuration"
            require_same_contract(found, self.contract, us=us, them=them, remedy=remedy)
            if self._manifest["axis"] != self._axis():
                raise ValueError(
                    f"store {self.path} must have the same {self.slab_dim} and slabs as this configuration, got "
                    f"{self._manifest['axis']} against {self._axis()}; use another directory, or move the store away"
                )
            self._clear_unrecorded()
        else:
            self._create()
            self._manifest = {
                "contract": self.contract,
                "digest": contract_digest(self.contract),
                "slab_dim": self.slab_dim,
                "axis": self._axis(),
                "slabs": {},
                "complete": False,
                "facts": {},
            }
            files.write_json(manifest, self._manifest)
        import zarr

        self._group = zarr.open_group(self.path, mode="r+")

    def _axis(self) -> dict[str, Any]:
        """What the manifest says of the slab dimension, so that its slabs always mean the same."""
        values = self.coords[self.slab_dim].values
        if np.issubdtype(values.dtype, np.datetime64):
            values = values.astype("datetime64[s]")
        digest = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
        ends = {"first": str(values[0]), "last": str(values[-1])}
        return {"length": self.length, **ends, "digest": digest, "slab_size": self.slab_size}

    def _clear_unrecorded(self) -> None:
        """Delete what a killed run left of slabs that it did not record; it may be half of anything."""
        for name in self.arrays:
            for entry in (self.path / name / "c").glob("*"):
                if entry.name not in self._manifest["slabs"]:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def _create(self) -> None:
        """Build the empty store under a temporary name, then rename: it exists whole or not at all."""
        import zarr
        import zarr.codecs

        temporary = self.path.with_name(f".{self.path.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
            encoding = {
                name: {"units": "hours since 1970-01-01", "dtype": "int64"}
                for name in self.coords.variables
                if np.issubdtype(self.coords[name].dtype, np.datetime64)
            }
            self.coords.to_zarr(temporary, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
        group = zarr.open_group(temporary, mode="r+")
        group.attrs.update({**self.attrs, "contract": self.contract})
        for name, spec in self.arrays.items():
            shard = spec.shard(self.slab_size)
            group.create_array(
                name,
                shape=spec.shape,
                dtype=spec.dtype,
                chunks=spec.chunks,
                shards=shard,
                dimension_names=spec.dims,
                compressors=(zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec()),
                fill_value=np.nan if np.issubdtype(np.dtype(spec.dtype), np.floating) else 0,
                attributes=dict(spec.attrs),
            )
        if self.path.exists():
            shutil.rmtree(self.path)
        temporary.rename(self.path)
        files.sync(self.path.parent)

    @property
    def facts(self) -> dict[str, Any]:
        """What `finish` recorded."""
        return dict(self._manifest["facts"])

    @property
    def complete(self) -> bool:
        """Whether every slab is recorded and the store was finished."""
        return bool(self._manifest["complete"])

    def slabs(self) -> list[Slab]:
        """All slabs."""
        return slabs(self.length, self.slab_size)

    def pending(self) -> list[Slab]:
        """Slabs not recorded yet, in order."""
        return [s for s in self.slabs() if str(s.index) not in self._manifest["slabs"]]

    def write(self, slab: Slab, data: Mapping[str, NDArray[Any]], *, note: Mapping[str, Any] | None = None) -> None:
        """Write one slab of every array, verify it on disk, and record it.

        Args:
            slab: which one.
            data: arrays by name, each of shape (len(slab), ...).
            note: facts about the slab kept with its record.

        Raises:
            ValueError: an array is missing, has another shape, or reads back different.
            OSError: the disk is full; the slab stays unrecorded.
        """
        if set(data) != set(self.arrays):
            raise ValueError(f"slab must hold {sorted(self.arrays)}, got {sorted(data)}")
        for name in self.arrays:
            for half in (self.path / name / "c" / str(slab.index)).rglob("*.partial"):
                half.unlink()  # zarr's name for what a kill cut short
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            spec = self.arrays[name]
            values = np.ascontiguousarray(data[name], dtype=spec.dtype)
            if values.shape != (len(slab), *spec.shape[1:]):
                raise ValueError(f"slab of {name!r} must have shape {(len(slab), *spec.shape[1:])}, got {values.shape}")
            target: Any = self._group[name]
            target[slab.slice] = values
            back = np.ascontiguousarray(target[slab.slice])
            if not np.array_equal(back.view(np.uint8), values.view(np.uint8)):
                raise ValueError(
                    f"slab {slab.index} of {name!r} in {self.path} must read back as written; check the disk"
                )
            digest.update(values.view(np.uint8).data)
            for file in self._shard_files(name, slab):
                files.sync(file)
        self.record(slab, digest=digest.hexdigest()[:32], note=note)

    def record(self, slab: Slab, *, digest: str, note: Mapping[str, Any] | None = None) -> None:
        """Enter a verified slab in the manifest."""
        entry: dict[str, Any] = {"start": slab.start, "stop": slab.stop, "sha256": digest}
        if note:
            entry["note"] = dict(note)
        self._manifest["slabs"][str(slab.index)] = entry
        self._manifest["slabs"] = dict(sorted(self._manifest["slabs"].items(), key=lambda item: int(item[0])))
        files.write_json(manifest_path(self.path), self._manifest)

    def finish(self, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Mark the store complete and return its manifest.

        Args:
            facts: what a reader should know (missing times, seconds taken); no part of the contract.
        """
        assert not self.pending(), "finish called with slabs pending"
        if not self.complete:
            self._manifest["facts"] = json.loads(json.dumps(dict(facts or {})))
            self._manifest["complete"] = True
            files.write_json(manifest_path(self.path), self._manifest)
        return dict(self._manifest)

    def _shard_files(self, name: str, slab: Slab) -> Iterator[Path]:
        folder = self.path / name / "c" / str(slab.index)
        yield from (p for p in folder.rglob("*") if p.is_file())


def read_manifest(path: Path, *, stage: str = "the stage that writes it") -> dict[str, Any]:
    """The manifest of a finished store.

    Raises:
        ValueError: no store there, another layout version, or not finished.
    """
    manifest = manifest_path(path)
    if not manifest.exists() or not path.exists():
        raise ValueError(f"store must exist, got nothing at {path}; run {stage} first")
    content: dict[str, Any] = files.read_json(manifest)
    found = content.get("contract", {}).get("schema")
    if found != SCHEMA:
        raise ValueError(f"store {path} must have layout version {SCHEMA}, got {found}; write it again")
    if not content["complete"]:
        raise ValueError(
            f"store {path} must be finished, got {counted(len(content['slabs']), 'slab')} recorded; run {stage} again"
        )
    return content


def open_store(path: Path, *, stage: str = "the stage that writes it", chunks: Any = None) -> xr.Dataset:
    """Open a finished store for reading.

    Args:
        path: folder of the store.
        stage: what to run when it is not there.
        chunks: None reads lazily without Dask; {} gives Dask blocks of one slab.

    Returns:
        The dataset; `ds.attrs["contract"]` is the contract.

    Raises:
        ValueError: see `read_manifest`.
    """
    import xarray as xr

    manifest = read_manifest(path, stage=stage)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        ds: xr.Dataset = xr.open_zarr(path, chunks=chunks or None, consolidated=False, zarr_format=3)
    if chunks == {}:
        slab = manifest["slabs"]["0"]
        ds = ds.chunk({manifest["slab_dim"]: slab["stop"] - slab["start"]})
    return ds


def verify_store(path: Path) -> list[str]:
    """Read every recorded slab and compare it with its recorded digest.

    Returns:
        One line per fault, empty when the store is sound.
    """
    import zarr

    manifest = files.read_json(manifest_path(path))
    group = zarr.open_group(path, mode="r")
    names = sorted(n for n, a in group.arrays() if a.shards is not None)
    faults = []
    for index, entry in manifest["slabs"].items():
        digest = hashlib.sha256()
        try:
            for name in names:
                array: Any = group[name]
                values = np.ascontiguousarray(array[entry["start"] : entry["stop"]])
                digest.update(values.view(np.uint8).data)
        except Exception as error:  # any codec's complaint means the same to the user
            faults.append(f"slab {index} of {path} cannot be read: {error}")
            continue
        if digest.hexdigest()[:32] != entry["sha256"]:
            faults.append(f"slab {index} of {path} does not match its recorded digest")
    return faults
