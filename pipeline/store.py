"""Zarr v3 stores written in whole slabs that survive a kill at any moment.

Contract: a store is a Zarr group whose large arrays share their first dimension (the slab dimension:
time, or init_time). One slab is one shard of every array. A slab is written whole, read back and
compared, flushed, and only then recorded in `<name>.manifest.json` beside the store. A run that was
killed resumes at the first unrecorded slab and ends bit-identical to one that was not. Every store
carries its `contract` (JSON attribute); two stores are the same only if their contracts are. A writer
that finds a store damaged says so and writes again what is damaged; a reader refuses it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from pipeline import damage, files, manifest
from pipeline.console import say
from pipeline.contract import contract_differences as contract_differences
from pipeline.contract import contract_digest as contract_digest
from pipeline.contract import require_same_contract as require_same_contract
from pipeline.damage import verify_store as verify_store
from pipeline.manifest import SCHEMA as SCHEMA
from pipeline.manifest import lock_path
from pipeline.manifest import manifest_path as manifest_path
from pipeline.opening import finished as finished
from pipeline.opening import open_store as open_store
from pipeline.opening import read_manifest as read_manifest
from pipeline.opening import strike
from pipeline.slabs import ArraySpec as ArraySpec
from pipeline.slabs import Slab as Slab
from pipeline.slabs import slabs as slabs

if TYPE_CHECKING:
    import xarray as xr


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
        command: str | None = None,
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
            command: what a user runs to have it written, e.g. "python -m pipeline regrid"; said when it is damaged.
        """
        self.path = path
        self.arrays = dict(arrays)
        self.coords = coords
        self.slab_dim = slab_dim
        self.slab_size = slab_size
        self.contract = json.loads(json.dumps({"schema": SCHEMA, **contract}))
        self.attrs = dict(attrs or {})
        self.command = command
        self.length = int(coords.sizes[slab_dim])
        self._stack = ExitStack()
        self._held = False

    @contextmanager
    def held(self) -> Iterator[SlabStore]:
        """Hold the lock already while the first slab is being made; nothing else is touched.

        Raises:
            ValueError: another run writes this store.
        """
        with files.lock(lock_path(self.path)):
            self._held = True
            try:
                yield self
            finally:
                self._held = False

    def __enter__(self) -> SlabStore:
        if not self._held:
            self._stack.enter_context(files.lock(lock_path(self.path)))
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        files.clear_abandoned(self.path.parent)
        if not self.path.exists():
            with files.replacing(self.path) as folder:
                self._build(folder)
            self._manifest = self._new_manifest()
            manifest.save(self.path, self._manifest)
        else:
            self._manifest = self._agreed_manifest() or self._manifest_again()
            if damaged := damage.damaged_slabs(self.path, self._manifest):
                strike(self.path, self._manifest, damaged)
            self._clear_unrecorded()
        self._group = zarr.open_group(self.path, mode="r+")

    def _agreed_manifest(self) -> dict[str, Any] | None:
        """The manifest of the store that is there; None if it cannot be trusted, but the store is this one.

        Raises:
            ValueError: the store is another one.
        """
        content, faults = manifest.inspect(self.path)
        ours = not faults and content["contract"] == self.contract and content["axis"] == self._axis()
        if not ours and self._is_there():
            faults = faults or [f"{manifest_path(self.path).name} must belong to the store, got that of another one"]
            say(f"store {self.path}: {'; '.join(faults)}; it is made again from the store")
            return None
        if faults:
            raise ValueError(
                f"store {self.path} must be that of this configuration, got one of which neither manifest nor "
                f"contract says so: {'; '.join(faults)}; move it away, or use another directory"
            )
        remedy = "use another directory or name, or move the old store away"
        us, them = f"store {self.path}", "this configuration"
        require_same_contract(content["contract"], self.contract, us=us, them=them, remedy=remedy)
        if not ours:
            raise ValueError(
                f"store {self.path} must have the same {self.slab_dim} and slabs as this configuration, got "
                f"{content['axis']} against {self._axis()}; use another directory, or move the store away"
            )
        if listed := manifest.metadata_faults(self.path, content):
            say(f"store {self.path}: {'; '.join(listed)}; written again")
            before, content["metadata"] = content.get("metadata"), self._restore_small_files()
            if content["metadata"] != before:  # a layout of another version may not fit the shards
                strike(self.path, content, damage.damaged_slabs(self.path, content, digests=True))
        return content

    def _is_there(self) -> bool:
        """Whether the store itself, whatever its manifest says, is the one that this writer describes."""
        if manifest.contract_of(self.path) != self.contract:
            return False
        try:
            group: Any = zarr.open_group(self.path, mode="r")
            with files.scratch(self.path) as folder:
                self._build(folder)
                new: Any = zarr.open_group(folder, mode="r")
                same_axis = np.array_equal(group[self.slab_dim][:], new[self.slab_dim][:])
                return same_axis and all(_layout(group[name]) == _layout(new[name]) for name in self.arrays)
        except Exception:  # any complaint of Zarr's about what may be half of anything
            return False

    def _new_manifest(self) -> dict[str, Any]:
        return {
            "contract": self.contract,
            "digest": contract_digest(self.contract),
            "slab_dim": self.slab_dim,
            "axis": self._axis(),
            "slabs": {},
            "complete": False,
            "facts": {},
            "command": self.command,
            "metadata": manifest.small_files(self.path, arrays=self.arrays),
            "shards": {},
        }

    def _manifest_again(self) -> dict[str, Any]:
        """A manifest made from what the store holds: every slab whose shards are there and whole is recorded."""
        metadata = self._restore_small_files()
        self._manifest = self._new_manifest() | {"metadata": metadata}
        for slab in self.slabs():
            if all(manifest.shard_files(self.path, arrays=[name], slab=slab.index) for name in self.arrays):
                try:
                    values = damage.read_slab(self.path, {"start": slab.start, "stop": slab.stop}, arrays=self.arrays)
                except ValueError:
                    continue
                self._enter(slab, digest=damage.slab_digest(values))
        missing = [str(slab.index) for slab in self.pending()]
        more = [f"and {len(missing) - 10} more"] if len(missing) > 10 else []
        again = f"; written again: {', '.join([*missing[:10], *more])}" if missing else ""
        say(f"store {self.path}: {len(self._manifest['slabs'])} of {len(self.slabs())} slabs are whole{again}")
        manifest.save(self.path, self._manifest)
        return self._manifest

    def _restore_small_files(self) -> dict[str, str]:
        """Write metadata, coordinates and small arrays as they must be; returns their digests."""
        with files.scratch(self.path) as folder:
            self._build(folder)
            listed = manifest.small_files(folder, arrays=self.arrays)
            for name in listed:
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(self.path / name)
                files.sync(self.path / name)
        return listed

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

    def _build(self, folder: Path) -> None:
        """Make the empty store in a new folder."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
            encoding = {
                name: {"units": "hours since 1970-01-01", "dtype": "int64"}
                for name in self.coords.variables
                if np.issubdtype(self.coords[name].dtype, np.datetime64)
            }
            self.coords.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
            group = zarr.open_group(folder, mode="r+")
            group.attrs.update({**self.attrs, "contract": self.contract})
            for name, spec in self.arrays.items():
                self._create_array(group, name, spec)
        consolidate(folder)

    def _create_array(self, group: zarr.Group, name: str, spec: ArraySpec) -> None:
        group.create_array(
            name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunks,
            shards=spec.shard(self.slab_size),
            dimension_names=spec.dims,
            compressors=(zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec()),
            fill_value=np.nan if np.issubdtype(np.dtype(spec.dtype), np.floating) else 0,
            attributes=dict(spec.attrs),
        )

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
        values = {}
        for name, spec in self.arrays.items():
            values[name] = np.ascontiguousarray(data[name], dtype=spec.dtype)
            expected = (len(slab), *spec.shape[1:])
            if values[name].shape != expected:
                raise ValueError(f"slab of {name!r} must have shape {expected}, got {values[name].shape}")
        for name, array in values.items():
            target: Any = self._group[name]
            target[slab.slice] = array
            back = np.ascontiguousarray(target[slab.slice])
            if not np.array_equal(back.view(np.uint8), array.view(np.uint8)):
                raise ValueError(
                    f"slab {slab.index} of {name!r} in {self.path} must read back as written; check the disk"
                )
        for file in manifest.shard_files(self.path, arrays=self.arrays, slab=slab.index):
            files.sync(self.path / file)
        self.record(slab, digest=damage.slab_digest(values), note=note)

    def record(self, slab: Slab, *, digest: str, note: Mapping[str, Any] | None = None) -> None:
        """Enter a verified slab in the manifest."""
        self._enter(slab, digest=digest, note=note)
        manifest.save(self.path, self._manifest)

    def _enter(self, slab: Slab, *, digest: str, note: Mapping[str, Any] | None = None) -> None:
        entry: dict[str, Any] = {"start": slab.start, "stop": slab.stop, "sha256": digest}
        if note:
            entry["note"] = dict(note)
        index = str(slab.index)
        sizes = manifest.shard_files(self.path, arrays=self._in_slabs, slab=slab.index)
        struck = self._manifest.pop("struck", {})
        if struck.pop(index, digest) != digest:
            say(
                f"store {self.path}: slab {index} now holds other values than before it was damaged, since what it is "
                "made from has changed; outputs of later stages come from the former ones"
            )
        self._manifest |= {"struck": struck} if struck else {}
        for key, new in (("slabs", entry), ("shards", sizes)):
            entries = {**self._manifest.get(key, {}), index: new}
            self._manifest[key] = dict(sorted(entries.items(), key=lambda item: int(item[0])))

    @cached_property
    def _in_slabs(self) -> list[str]:
        """The arrays whose shards are slabs; in old archives a shard may be completed by the slab after its own."""
        group: Any = zarr.open_group(self.path, mode="r")
        return [name for name in self.arrays if group[name].shards[0] == self.slab_size]

    def finish(self, facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Mark the store complete and return its manifest.

        Args:
            facts: what a reader should know (missing times, seconds taken); no part of the contract.
        """
        assert not self.pending(), "finish called with slabs pending"
        if not self.complete:
            self._manifest["facts"] = json.loads(json.dumps(dict(facts or {})))
            self._manifest["complete"] = True
            manifest.save(self.path, self._manifest)
        return dict(self._manifest)


def consolidate(folder: Path) -> None:
    """Put the metadata of all arrays of a finished group beside its own, so that `xr.open_zarr` opens it silently."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a Zarr V3 specification.*")
        warnings.filterwarnings("ignore", message=".*Consolidated metadata is currently not part.*")
        zarr.consolidate_metadata(folder)


def _layout(array: Any) -> tuple[Any, ...]:
    return array.shape, array.chunks, array.shards, array.dtype, array.metadata.codecs
