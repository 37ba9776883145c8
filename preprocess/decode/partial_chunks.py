"""Reading some levels of a Zarr chunk without decompressing the others.

Contract: a codec pipeline for zarr-python that gives the same values as its own. A Blosc buffer is a row of
blocks that are compressed one by one; of a chunk that is compressed so, only the blocks are decompressed that
hold the rows asked for, straight into the caller's array. Of ARCO-ERA5's 37 levels the default channels need
15. Everything else (other codecs, filters, selections of another shape) goes the usual way.

The layout of a Blosc buffer is c-blosc's README_CHUNK_FORMAT.rst: 16 bytes of header (sizes at bytes 4, 8 and
12), the start of every block as int32, then the blocks, in any order.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numcodecs
import numcodecs.blosc
import numpy as np
import zarr
import zarr.registry
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec
from zarr.codecs._v2 import V2Codec
from zarr.core.codec_pipeline import BatchedCodecPipeline, fill_value_or_default
from zarr.storage import LocalStore, WrapperStore

_HEADER = 16
_VERSION = 2
"""Of the Blosc format; buffers of another are left to the library."""
_PIECE = 4 << 20
"""Bytes decompressed at once, so that they are still in the processor's cache when they are copied."""
_COPY = 0b10
"""Flag of a buffer that is not compressed."""

Bytes = NDArray[np.uint8]


def enable() -> None:
    """Let zarr arrays opened from here on, in this process, be read in part."""
    zarr.registry.register_pipeline(PartialPipeline)
    zarr.config.set({"codec_pipeline.path": f"{__name__}.{PartialPipeline.__qualname__}"})


@dataclass(frozen=True)
class PartialPipeline(BatchedCodecPipeline):
    """zarr's pipeline, reading rows of Blosc chunks alone."""

    async def read_batch(self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()) -> None:
        """Fill `out`; see `zarr.abc.codec.CodecPipeline`."""
        usual = []
        for item in batch_info:
            getter, spec, chunk_selection, out_selection, *_ = item
            rows = _rows(chunk_selection, spec.shape) if self._is_blosc(spec) else None
            target = None if rows is None else _target(out.as_ndarray_like(), out_selection, rows, spec)
            if rows is None or target is None:
                usual.append(item)
                continue
            if not await _fill(getter, spec, rows, target):
                target[...] = fill_value_or_default(spec)
        if usual:
            try:
                await super().read_batch(usual, out, drop_axes)
            except RuntimeError as error:
                raise _damaged([item[0] for item in usual], error) from error

    def _is_blosc(self, spec: Any) -> bool:
        if spec.order != "C" or not spec.dtype.to_native_dtype().isnative:
            return False
        if isinstance(self.array_bytes_codec, V2Codec):
            codec = self.array_bytes_codec
            return isinstance(codec.compressor, numcodecs.Blosc) and not codec.filters
        kinds = [type(codec) for codec in self]
        return kinds == [BytesCodec, BloscCodec]


async def _fill(getter: Any, spec: Any, rows: Sequence[int], target: NDArray[Any]) -> bool:
    """Fill the target from a chunk; False if the chunk is not there."""
    store = getattr(getter, "store", None)
    while isinstance(store, WrapperStore):
        store = store._store
    # Errors of a file are raised by the store, which knows what it holds.
    if isinstance(store, LocalStore) and await asyncio.to_thread(_from_file, store.root / getter.path, rows, target):
        return True
    buffer = await getter.get(spec.prototype)
    if buffer is None:
        return False
    data = buffer.as_numpy_array().view(np.uint8)
    try:
        await asyncio.to_thread(decode_rows, Stored.in_memory(data), rows, target)
    except (RuntimeError, ValueError, IndexError) as error:
        raise _damaged([getter], error) from error
    return True


def _damaged(getters: Sequence[Any], error: Exception) -> ValueError:
    """The error for chunks that came whole but cannot be decompressed."""
    named = [getattr(getter.store, "what", str)(getter.path) for getter in getters]
    return ValueError(
        f"{', '.join(named)} must be a chunk that can be decompressed, got damaged bytes ({error}); "
        "run the same command again, and report it to the archive's maintainers if it persists"
    )


def _from_file(path: Path, rows: Sequence[int], target: NDArray[Any]) -> bool:
    """Fill the target from a file, of which only the blocks needed are read; False if that fails."""
    try:
        with path.open("rb", buffering=0) as file:
            decode_rows(Stored.in_file(file.fileno()), rows, target)
    except (OSError, RuntimeError, ValueError):
        return False
    return True


class Stored(NamedTuple):
    """A compressed chunk, in memory or in a file, of which pieces can be read."""

    read: Callable[[int, int], Bytes]
    """Gives bytes [start, stop); raises ValueError where the chunk ends before."""
    size: int

    @classmethod
    def in_memory(cls, data: Bytes) -> Stored:
        """All of it at hand."""
        return cls(lambda start, stop: data[start:stop], data.size)

    @classmethod
    def in_file(cls, file: int) -> Stored:
        """Read from an open file's descriptor as needed."""

        def read(start: int, stop: int) -> Bytes:
            piece = np.frombuffer(os.pread(file, stop - start, start), np.uint8)
            if piece.size != stop - start:
                raise ValueError(f"chunk must hold {stop} bytes, got {start + piece.size}; fetch the file again")
            return piece

        return cls(read, os.fstat(file).st_size)


def decode_rows(chunk: Stored, rows: Sequence[int], out: NDArray[Any]) -> None:
    """Decompress some rows of a Blosc buffer.

    Args:
        chunk: compressed array, its rows in C order.
        rows: numbers of the rows wanted, in any order.
        out: where they go, shape (len(rows), items of a row), C-contiguous.

    Raises:
        RuntimeError, ValueError: the buffer is damaged.
    """
    into = out.view(np.uint8).reshape(-1)
    size = into.size // len(rows)
    blocks = _Blocks.of(chunk)
    if blocks is None:
        values = np.frombuffer(numcodecs.blosc.decompress(chunk.read(0, chunk.size)), np.uint8)
        into.reshape(-1, size)[...] = values.reshape(-1, size)[list(rows)]
        return
    if list(rows) == list(range(blocks.length // size)) and blocks.length == into.size:
        numcodecs.blosc.decompress(np.ascontiguousarray(chunk.read(0, chunk.size)), into)
        return
    scratch = np.empty(0, np.uint8)
    at = 0
    for first, last in _runs(rows, longest=max(1, _PIECE // size)):
        start, stop = first * size, (last + 1) * size
        frame, offset, length = blocks.frame(chunk, start, stop)
        if scratch.size < length:
            scratch = np.empty(length, np.uint8)
        numcodecs.blosc.decompress(frame, scratch[:length])
        into[at : at + stop - start] = scratch[start - offset : stop - offset]
        at += stop - start


def _runs(rows: Sequence[int], *, longest: int) -> Iterator[tuple[int, int]]:
    """(first, last) of neighbouring rows, in order."""
    first = last = rows[0]
    for row in rows[1:]:
        if row != last + 1 or row - first >= longest:
            yield first, last
            first = row
        last = row
    yield first, last


@dataclass(frozen=True)
class _Blocks:
    """Where the blocks of a Blosc buffer lie.

    Args:
        head: the buffer's first 16 bytes.
        length: number of bytes when decompressed.
        block: the same of one block; the last may be shorter.
        starts, ends: where each block lies in the buffer.
    """

    head: Bytes
    length: int
    block: int
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, chunk: Stored) -> _Blocks | None:
        """The blocks of a buffer; None for one that is not cut into blocks in the known way."""
        if chunk.size < _HEADER:
            return None
        head = chunk.read(0, _HEADER)
        length, block, stored = (int(x) for x in head[4:].copy().view("<u4"))
        if head[0] != _VERSION or head[2] & _COPY or stored != chunk.size or not 0 < block <= length:
            return None
        count = -(-length // block)
        first = _HEADER + 4 * count
        if stored < first:
            return None
        starts = chunk.read(_HEADER, first).copy().view("<i4").astype(np.int64)
        order = np.argsort(starts)
        ends = np.empty_like(starts)
        ends[order] = np.append(starts[order[1:]], stored)
        if starts.min() < first or starts.max() >= stored:
            return None
        return cls(head, length, block, starts, ends)

    def frame(self, chunk: Stored, start: int, stop: int) -> tuple[Bytes, int, int]:
        """A Blosc buffer of the blocks that hold bytes [start, stop) of the array.

        Returns:
            (buffer, first byte of the array it holds, number of bytes when decompressed).
        """
        first, last = start // self.block, (stop - 1) // self.block
        first = max(0, min(first, self.starts.size - 2))  # the last block may be short and must not stand alone
        starts, ends = self.starts[first : last + 1], self.ends[first : last + 1]
        sizes = ends - starts
        head = _HEADER + 4 * starts.size
        frame = np.empty(head + int(sizes.sum()), np.uint8)
        length = min(self.length, (last + 1) * self.block) - first * self.block
        frame[:4] = self.head[:4]
        frame[4:_HEADER] = np.array([length, self.block, frame.size], "<u4").view(np.uint8)
        places = head + np.cumsum(sizes) - sizes
        frame[_HEADER:head] = places.astype("<i4").view(np.uint8)
        if np.array_equal(starts[1:], ends[:-1]):
            frame[head:] = chunk.read(int(starts[0]), int(ends[-1]))
        else:  # several threads compressed it, each block placed when it was ready
            for i, place in enumerate(places):
                frame[place : place + sizes[i]] = chunk.read(int(starts[i]), int(ends[i]))
        return frame, first * self.block, length


def _rows(selection: tuple[Any, ...], shape: tuple[int, ...]) -> list[int] | None:
    """Numbers of the rows a selection takes of a chunk, None if it does not take whole rows.

    Rows are along the first dimension longer than one; the dimensions after it are taken whole.
    """
    axis = _row_axis(shape)
    if len(selection) != len(shape) or axis is None:
        return None
    parts = [_indices(part, n) for part, n in zip(selection, shape, strict=True)]
    if any(p is None or p.size != n for p, n in zip(parts[:axis], shape[:axis], strict=True)):
        return None
    rest = zip(parts[axis + 1 :], shape[axis + 1 :], strict=True)
    whole = all(p is not None and np.array_equal(p, np.arange(n)) for p, n in rest)
    rows = parts[axis]
    return rows.tolist() if rows is not None and whole else None


def _row_axis(shape: tuple[int, ...]) -> int | None:
    return next((i for i, n in enumerate(shape) if n > 1), None)


def _target(out: NDArray[Any], selection: Any, rows: Sequence[int], spec: Any) -> NDArray[Any] | None:
    """The part of the caller's array that the rows fill, as (row, item), None if it is not one piece."""
    selection = selection if isinstance(selection, tuple) else (selection,)
    axis = _row_axis(spec.shape)
    if len(selection) != out.ndim or axis is None:
        return None
    slices = []
    for part, n in zip(selection, out.shape, strict=True):
        indices = _indices(part, n)
        if indices is None or not indices.size or np.any(np.diff(indices) != 1):
            return None
        slices.append(slice(int(indices[0]), int(indices[-1]) + 1))
    view = out[tuple(slices)]
    size = len(rows) * int(np.prod(spec.shape[axis + 1 :], dtype=np.int64))
    if not view.flags.c_contiguous or view.size != size or view.dtype != spec.dtype.to_native_dtype():
        return None
    return view.reshape(len(rows), -1)


def _indices(part: Any, length: int) -> NDArray[np.int64] | None:
    """The indices that one axis of a selection takes."""
    if isinstance(part, slice):
        return np.arange(length)[part]
    if isinstance(part, (int, np.integer)):
        return np.array([int(part)])
    if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and part.size == max(part.shape, default=1):
        return part.ravel()
    return None
