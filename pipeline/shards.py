"""Contiguous pieces of a store's arrays, read at the speed of the decompressor.

Contract: the same values as zarr-python gives, bit for bit. Its way to a chunk inside a shard goes through an
event loop and a scheduler, which for the small chunks of a training store (100 kB) take four times as long as
the decompression. Here a chunk is one read at the place that the shard's index tells, its checksum, and one
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
from typing import Any

import google_crc32c
import numcodecs.zstd
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec, ShardingCodecIndexLocation, ZstdCodec
from zarr.codecs.bytes import Endian
from zarr.core.chunk_key_encodings import DefaultChunkKeyEncoding
from zarr.storage import LocalStore

_NEVER_WRITTEN = (1 << 64) - 1
_CHECKSUM = 4

Index = NDArray[np.int64]
Place = tuple[int, ...]


@dataclass(frozen=True)
class _Shard:
    """The index of a shard file, and what the file was when it was read."""

    identity: tuple[int, int, int]
    index: NDArray[np.uint64]


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
        self._folder = store / name
        self._shards: dict[Place, _Shard] = {}
        self.direct = _readable(self.array)
        if self.direct:
            self._chunk: Place = tuple(self.array.chunks)
            self._per_shard = tuple(s // c for s, c in zip(self.array.shards, self._chunk, strict=True))
            self._dtype = np.dtype(self.array.dtype)

    def read(self, *selection: slice) -> NDArray[Any]:
        """The values of a piece, a new array.

        Args:
            selection: a slice of step one for each leading dim; dims left out are whole.

        Raises:
            ValueError: nothing or every other value asked for, or a damaged chunk, naming file and place.
        """
        if not self.direct:
            return np.asarray(self.array[selection])
        spans = [_span(s, size) for s, size in zip(selection, self.shape, strict=False)]
        spans += [(0, size) for size in self.shape[len(spans) :]]
        out: NDArray[Any] = np.empty([stop - start for start, stop in spans], self._dtype)
        ranges = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, self._chunk, strict=True)]
        by_shard: dict[Place, list[Place]] = {}
        for chunk in itertools.product(*ranges):
            shard = tuple(c // n for c, n in zip(chunk, self._per_shard, strict=True))
            by_shard.setdefault(shard, []).append(chunk)
        for shard, chunks in by_shard.items():
            self._fill(out, spans, shard, chunks)
        return out

    def pick(self, *selection: slice | Index) -> NDArray[Any]:
        """The values at some positions, a new array; only the chunks that hold one are read.

        Args:
            selection: for each leading dim a slice of step one, or increasing positions; dims left out are whole.
                Each dim is selected by itself, as by `np.ix_`.

        Raises:
            ValueError: see `read`.
        """
        if not self.direct:
            return np.asarray(self.array.oindex[selection])
        runs = [list(_runs(s, size)) for s, size in zip(selection, self._chunk, strict=False)]
        if all(len(found) == 1 and found[0][2] is None for found in runs):
            return self.read(*(found[0][1] for found in runs))
        spans = [
            _span(s, n) if isinstance(s, slice) else (0, len(s)) for s, n in zip(selection, self.shape, strict=False)
        ]
        out = np.empty([b - a for a, b in spans] + list(self.shape[len(spans) :]), self._dtype)
        for piece in itertools.product(*runs):
            values = self.read(*(span for _, span, _ in piece))
            for axis, (_, _, inside) in enumerate(piece):
                values = values if inside is None else np.take(values, inside, axis=axis)
            out[tuple(place for place, _, _ in piece)] = values
        return out

    def _fill(self, out: NDArray[Any], spans: list[tuple[int, int]], shard: Place, chunks: list[Place]) -> None:
        path = self._folder.joinpath("c", *map(str, shard))
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            for chunk in chunks:
                target, _, _ = self._target(out, spans, chunk)
                target[...] = self.array.fill_value
            return
        try:
            index = self._index(file, shard, path)
            for chunk in chunks:
                target, inside, whole = self._target(out, spans, chunk)
                offset, length = index[tuple(c % n for c, n in zip(chunk, self._per_shard, strict=True))].tolist()
                if offset == _NEVER_WRITTEN:
                    target[...] = self.array.fill_value
                    continue
                direct = whole and target.flags.c_contiguous
                into = target if direct else np.empty(self._chunk, self._dtype)
                self._decompress(_checked(os.pread(file, length, offset), path=path, chunk=chunk), into, path, chunk)
                if not direct:
                    target[...] = into[inside]
        finally:
            os.close(file)

    def _decompress(self, content: bytes, into: NDArray[Any], path: Path, chunk: Place) -> None:
        try:
            numcodecs.zstd.decompress(content, into)
        except RuntimeError as error:
            raise _damaged(path, chunk) from error

    def _target(
        self, out: NDArray[Any], spans: list[tuple[int, int]], chunk: Place
    ) -> tuple[NDArray[Any], tuple[slice, ...], bool]:
        """Where a chunk goes in the result, which part of it, and whether that is all of it."""
        inside, outside = [], []
        for (start, stop), place, size in zip(spans, chunk, self._chunk, strict=True):
            first, last = max(start, place * size), min(stop, (place + 1) * size)
            inside.append(slice(first - place * size, last - place * size))
            outside.append(slice(first - start, last - start))
        whole = all(s.stop - s.start == size for s, size in zip(inside, self._chunk, strict=True))
        return out[tuple(outside)], tuple(inside), whole

    def _index(self, file: int, shard: Place, path: Path) -> NDArray[np.uint64]:
        status = os.fstat(file)
        identity = (status.st_ino, status.st_mtime_ns, status.st_size)
        known = self._shards.get(shard)
        if known is None or known.identity != identity:
            size = math.prod(self._per_shard) * 16 + _CHECKSUM
            raw = os.pread(file, size, max(0, status.st_size - size))
            if len(raw) != size:
                raise _damaged(path, None)
            pairs = np.frombuffer(_checked(raw, path=path, chunk=None), "<u8").reshape(*self._per_shard, 2)
            known = self._shards[shard] = _Shard(identity, pairs)
        return known.index


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


def _span(selected: slice, size: int) -> tuple[int, int]:
    start, stop, step = selected.indices(size)
    if step != 1 or stop <= start:
        raise ValueError(f"slice must have step one and hold something, got {selected} of {size}")
    return start, stop


def _checked(raw: bytes, *, path: Path, chunk: Place | None) -> bytes:
    """The content before its CRC32C."""
    content = raw[:-_CHECKSUM]
    if google_crc32c.value(content) != int.from_bytes(raw[-_CHECKSUM:], "little"):
        raise _damaged(path, chunk)
    return content


def _damaged(path: Path, chunk: Place | None) -> ValueError:
    where = "the index of the shard" if chunk is None else f"chunk {chunk}"
    return ValueError(
        f"store must be as it was written, got a checksum that does not fit {where} in {path}; "
        "check it with python -m pipeline validate"
    )
