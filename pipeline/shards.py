"""Contiguous pieces of a store's arrays, read at the speed of the decompressor.

Contract: the same values as zarr-python gives, bit for bit. Its way to a chunk inside a shard goes through an
event loop and a scheduler, which for the small chunks of a training store (100 kB) take longer than the
decompression. Here a chunk is one read at the place that the shard's index tells, its checksum, and one
decompression, straight into the result where the piece asked for holds the whole chunk; threads may share a
reader. Arrays of another layout (not local, other codecs) are read through zarr.

The layout of a shard is the Zarr v3 specification of the sharding codec: chunks in any order, then the index,
an (offset, length) pair of uint64 for every chunk in C order, then its CRC32C. A pair of all ones is a chunk
that was never written.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numcodecs.zstd
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec
from zarr.codecs.bytes import Endian
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.storage import LocalStore

from pipeline import manifest
from pipeline.damage import DamagedShardError, damaged_shard

_NEVER_WRITTEN = (1 << 64) - 1
_CHECKSUM = 4

Index = NDArray[np.int64]
Place = tuple[int, ...]


@dataclass(frozen=True)
class _Shard:
    """The index of a shard file, and what the file was when it was read."""

    identity: tuple[int, int, int]
    index: NDArray[np.uint64]


class _Cut(NamedTuple):
    """What one chunk gives to a selection, along one dim."""

    shard: int
    place: int
    """Of the chunk in its shard."""
    inside: slice
    there: slice
    """In the result."""


class Reader:
    """One array of a Zarr v3 group on the local file system.

    Attributes:
        array: the same array as zarr opens it.
        shape: of the array.
        direct: whether it is read past zarr.
    """

    def __init__(self, store: Path, name: str) -> None:
        """Open an array; only its metadata are read.

        Args:
            store: folder of the group.
            name: of the array.
        """
        group: Any = zarr.open_group(store, mode="r")
        self.array: Any = group[name]
        self.shape: Place = tuple(self.array.shape)
        self._store, self._name = store, name
        self._shards: dict[Place, _Shard] = {}
        self.direct = _readable(self.array)
        if self.direct:
            self._chunk: Place = tuple(self.array.chunks)
            self._per_shard = tuple(s // c for s, c in zip(self.array.shards, self._chunk, strict=True))
            self._dtype = np.dtype(self.array.dtype)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_shards": {}}  # another process reads the indices it needs

    def read(self, *selection: slice, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The values of a piece.

        Args:
            selection: a slice of step one for each leading dim; dims left out are whole.
            out: where to write; a new array for None.

        Raises:
            ValueError: nothing or every other value asked for, or a shard that is damaged or gone: file, slab, times,
                and the command that writes it again.
        """
        if not self.direct:
            return _into(out, np.asarray(self.array[selection]))
        whole = (slice(None),) * (len(self.shape) - len(selection))
        spans = [_span(s, size) for s, size in zip((*selection, *whole), self.shape, strict=True)]
        if out is None:
            out = np.empty([stop - start for start, stop in spans], self._dtype)
        axes = [
            list(_cuts(start, stop, chunk=chunk, per_shard=n))
            for (start, stop), chunk, n in zip(spans, self._chunk, self._per_shard, strict=True)
        ]
        by_shard: dict[Place, list[tuple[_Cut, ...]]] = {}
        for cuts in itertools.product(*axes):
            by_shard.setdefault(tuple(cut.shard for cut in cuts), []).append(cuts)
        for shard, parts in by_shard.items():
            self._fill(out, shard, parts)
        return out

    def pick(self, *selection: slice | Index, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The values at some positions; only the chunks that hold one are read.

        Args:
            selection: for each leading dim a slice of step one, or increasing positions; dims left out are whole.
                Each dim is selected by itself, as by `np.ix_`.
            out: where to write; a new array for None.

        Raises:
            ValueError: see `read`.
        """
        if not self.direct:
            return _into(out, np.asarray(self.array.oindex[selection]))
        runs = [list(_runs(s, size)) for s, size in zip(selection, self._chunk, strict=False)]
        if all(len(found) == 1 and found[0][2] is None for found in runs):
            return self.read(*(found[0][1] for found in runs), out=out)
        if out is None:
            ends = [_span(s, n) if isinstance(s, slice) else (0, len(s)) for s, n in zip(selection, self.shape)]
            out = np.empty([stop - start for start, stop in ends] + list(self.shape[len(ends) :]), self._dtype)
        for piece in itertools.product(*runs):
            values = self.read(*(span for _, span, _ in piece))
            for axis, (_, _, inside) in enumerate(piece):
                values = values if inside is None else np.take(values, inside, axis=axis)
            out[tuple(place for place, _, _ in piece)] = values
        return out

    def _fill(self, out: NDArray[Any], shard: Place, parts: list[tuple[_Cut, ...]]) -> None:
        """Read some chunks of a shard."""
        try:
            file = os.open(self._shard_file(shard), os.O_RDONLY)
        except FileNotFoundError:
            if self._recorded(shard[0]):
                raise self._damaged(shard, "there is no") from None
            for cuts in parts:
                out[tuple(cut.there for cut in cuts)] = self.array.fill_value
            return
        try:
            index = self._index(file, shard)
            for cuts in parts:
                target = out[tuple(cut.there for cut in cuts)]
                offset, length = index[tuple(cut.place for cut in cuts)].tolist()
                if offset == _NEVER_WRITTEN:
                    target[...] = self.array.fill_value
                    continue
                content = os.pread(file, length - _CHECKSUM, offset)
                self._check(content, os.pread(file, _CHECKSUM, offset + length - _CHECKSUM), shard)
                direct = target.shape == self._chunk and target.flags.c_contiguous
                into = target if direct else np.empty(self._chunk, self._dtype)
                numcodecs.zstd.decompress(content, into)
                if not direct:
                    target[...] = into[tuple(cut.inside for cut in cuts)]
        finally:
            os.close(file)

    def _index(self, file: int, shard: Place) -> NDArray[np.uint64]:
        status = os.fstat(file)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._shards.get(shard)
        if known is None or known.identity != identity:
            size = math.prod(self._per_shard) * 16 + _CHECKSUM
            raw = os.pread(file, size, max(0, status.st_size - size))
            self._check(raw[:-_CHECKSUM], raw[-_CHECKSUM:], shard)
            if len(raw) != size:
                raise self._damaged(shard, "the end is missing of")
            pairs = np.frombuffer(raw[:-_CHECKSUM], "<u8").reshape(*self._per_shard, 2)
            known = self._shards[shard] = _Shard(identity, pairs)
        return known.index

    def _check(self, content: bytes, checksum: bytes, shard: Place) -> None:
        if google_crc32c.value(content) != int.from_bytes(checksum, "little"):
            raise self._damaged(shard, "a checksum does not fit in")

    def _recorded(self, slab: int) -> bool:
        """Whether the store says that a slab was written; otherwise, what is not there holds the fill value."""
        return str(slab) in manifest.inspect(self._store)[0].get("slabs", {})

    def _damaged(self, shard: Place, what: str) -> DamagedShardError:
        return damaged_shard(self._store, self._shard_file(shard), slab=shard[0], what=what)

    def _shard_file(self, shard: Place) -> Path:
        return self._store.joinpath(self._name, "c", *map(str, shard))


def _readable(array: Any) -> bool:
    """Whether the array has the layout that the stores of this project have."""
    metadata, little = array.metadata, BytesCodec(endian=Endian.little)
    codecs = tuple(getattr(metadata, "codecs", ()))
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec) or not isinstance(array.store, LocalStore):
        return False
    inner = tuple(codecs[0].codecs)
    return (
        codecs[0].index_location is ShardingCodecIndexLocation.end
        and tuple(codecs[0].index_codecs) == (little, Crc32cCodec())
        and len(inner) == 3
        and isinstance(inner[1], ZstdCodec)
        and (inner[0], inner[2]) == (little, Crc32cCodec())
        and metadata.chunk_key_encoding == DefaultChunkKeyEncoding(separator="/")
    )


def _runs(selected: slice | Index, chunk: int) -> Iterator[tuple[slice, slice, Index | None]]:
    """Pieces of a selection that lie in neighbouring chunks: place in the result, span, positions inside unless all."""
    if isinstance(selected, slice):
        yield slice(None), selected, None
        return
    edges = np.flatnonzero(np.diff(selected // chunk) > 1) + 1
    for first, last in itertools.pairwise([0, *edges.tolist(), len(selected)]):
        low, high = int(selected[first]), int(selected[last - 1]) + 1
        yield slice(first, last), slice(low, high), None if last - first == high - low else selected[first:last] - low


def _into(out: NDArray[Any] | None, values: NDArray[Any]) -> NDArray[Any]:
    if out is None:
        return values
    out[...] = values
    return out


def _cuts(start: int, stop: int, *, chunk: int, per_shard: int) -> Iterator[_Cut]:
    for number in range(start // chunk, -(-stop // chunk)):
        first, last = max(start, number * chunk), min(stop, (number + 1) * chunk)
        inside = slice(first - number * chunk, last - number * chunk)
        shard, place = divmod(number, per_shard)
        yield _Cut(shard=shard, place=place, inside=inside, there=slice(first - start, last - start))


def _span(selected: slice, size: int) -> tuple[int, int]:
    start, stop, step = selected.indices(size)
    if step != 1 or stop <= start:
        raise ValueError(f"slice must have step one and hold something, got {selected} of {size}")
    return start, stop
