"""Reading a part of a chunk gives the same values as reading it whole, whoever compressed it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numcodecs
import numcodecs.blosc
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.decode import partial_chunks
from preprocess.decode.partial_chunks import Stored, decode_rows


def fields(rows: int, items: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.integers(-3, 4, (rows, items)), axis=1)
    return (250 + smooth / 64).astype(np.float32)


def decoded(buffer: bytes, rows: list[int], items: int) -> np.ndarray:
    out = np.full((len(rows), items), np.nan, np.float32)
    decode_rows(Stored.in_memory(np.frombuffer(buffer, np.uint8)), rows, out)
    return out


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 12),
    items=st.integers(1, 30000),
    block=st.sampled_from([0, 4096, 40000, 1 << 20]),
    cname=st.sampled_from(["lz4", "zstd", "blosclz", "zlib"]),
    level=st.sampled_from([0, 1, 5, 9]),
    shuffle=st.sampled_from([0, 1, 2]),
    data=st.data(),
)
def test_any_rows_of_any_buffer(
    rows: int, items: int, block: int, cname: str, level: int, shuffle: int, data: st.DataObject
) -> None:
    """Catches a block cut at the wrong byte, a short last block, blocks out of order, and buffers stored as copies."""
    values = fields(rows, items, seed=rows * items)
    codec = numcodecs.Blosc(cname=cname, clevel=level, shuffle=shuffle, blocksize=block)
    buffer = codec.encode(values)
    wanted = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows))
    np.testing.assert_array_equal(decoded(buffer, wanted, items), values[wanted])


def test_blocks_in_another_order() -> None:
    """Catches block ends taken from the next start: threads place blocks as they become ready."""
    values = fields(4, 200000, seed=3)
    buffer = bytearray(numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1, blocksize=65536).encode(values))
    head = np.frombuffer(bytes(buffer[:16]), "<u4")
    count = -(-int(head[1]) // int(head[2]))
    starts = np.frombuffer(bytes(buffer[16 : 16 + 4 * count]), "<i4")
    ends = np.append(starts[1:], head[3])
    assert count > 6
    order = [3, 0, 5, 1, *range(6, count), 4, 2]
    body, places = b"", np.empty(count, "<i4")
    for i in order:
        places[i] = 16 + 4 * count + len(body)
        body += bytes(buffer[starts[i] : ends[i]])
    turned = bytes(buffer[:16]) + places.tobytes() + body
    np.testing.assert_array_equal(np.frombuffer(numcodecs.blosc.decompress(turned), np.float32), values.ravel())
    for rows in ([0], [1, 2], [3], [3, 0]):
        np.testing.assert_array_equal(decoded(turned, rows, 200000), values[rows])


def test_only_the_blocks_asked_for_are_read() -> None:
    """Catches a reader that reads or decompresses everything after all: a damaged block elsewhere must not matter."""
    values = fields(8, 50000, seed=5)
    buffer = bytearray(numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1, blocksize=65536).encode(values))
    buffer[-20000:] = bytes(20000)
    np.testing.assert_array_equal(decoded(bytes(buffer), [0, 1, 2], 50000), values[:3])
    with pytest.raises(RuntimeError):
        decoded(bytes(buffer), [7], 50000)


@pytest.fixture
def pipeline() -> Iterator[None]:
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        partial_chunks.enable()
        yield


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.usefixtures("pipeline")
def test_arrays_read_as_ever(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches values in another place for any kind of selection, missing chunks, and a part that is never used."""
    values = np.stack([fields(7, 60 * 90, seed=i).reshape(7, 60, 90) for i in range(3)])
    codec = (
        numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1)
        if version == 2
        else zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)
    )
    zarr.create_array(
        tmp_path / "a",
        shape=(4, 7, 60, 90),
        chunks=(1, 7, 60, 90),
        dtype="float32",
        zarr_format=version,
        compressors=codec,
        fill_value=np.nan,
    )[:3] = values
    array = zarr.open_array(tmp_path / "a", mode="r")
    used: list[int] = []
    original = partial_chunks.decode_rows
    monkeypatch.setattr(
        partial_chunks, "decode_rows", lambda c, rows, out: used.append(len(rows)) or original(c, rows, out)
    )
    full = np.concatenate([values, np.full((1, 7, 60, 90), np.nan, np.float32)])
    every = slice(None)
    for key in [
        (slice(1, 2), [1, 3, 4, 6], every, every),
        ([2], [6, 0], every, every),
        (every, [2, 3], every, every),
        (slice(3, 4), [2, 3], every, every),
        (slice(0, 3), slice(1, 6, 2), every, every),
        (slice(0, 2), [2, 3], slice(5, 9), every),
        ([0, 2], [2], every, [4, 6, 80]),
    ]:
        index = np.ix_(*(np.arange(n)[k] for k, n in zip(key, full.shape, strict=True)))
        np.testing.assert_array_equal(array.oindex[key], full[index])
    np.testing.assert_array_equal(array[1, 3], full[1, 3])
    np.testing.assert_array_equal(array[...], full)
    assert {4, 2, 3} <= set(used)


@pytest.mark.usefixtures("pipeline")
def test_a_file_cut_short(tmp_path: Path) -> None:
    """Catches a chunk whose end is missing read as if it were there."""
    array = zarr.create_array(
        tmp_path / "a",
        shape=(1, 5, 100, 100),
        chunks=(1, 5, 100, 100),
        dtype="float32",
        zarr_format=2,
        compressors=numcodecs.Blosc(cname="lz4"),
    )
    array[:] = fields(5, 10000, seed=1).reshape(1, 5, 100, 100)
    chunk = tmp_path / "a" / "0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-7])
    with pytest.raises((RuntimeError, ValueError)):
        zarr.open_array(tmp_path / "a", mode="r").oindex[[0], [4], :, :]
