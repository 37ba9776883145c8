"""Pieces of stores read past zarr: the same values, only the bytes needed, and damage found."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.shards import Reader

SHAPE, SHARD, CHUNK = (11, 7, 3, 5), (4, 8, 3, 5), (2, 4, 3, 5)
CODECS = (zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec())


def make(path: Path, *, compressors: Any = CODECS, shards: Any = SHARD) -> np.ndarray:
    """An array whose third shard was never written, nor the last chunk of the second one's first row."""
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    values[8:] = np.nan
    values[4:6, 4:] = np.nan
    group = zarr.open_group(path, mode="w")
    array = group.create_array(
        "state", shape=SHAPE, dtype="float32", chunks=CHUNK, shards=shards, compressors=compressors, fill_value=np.nan
    )
    array[:8] = values[:8]
    return values


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    path = tmp_path_factory.mktemp("shards") / "a.zarr"
    return path, make(path)


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_piece_is_what_zarr_gives(stored: tuple[Path, np.ndarray], data: st.DataObject) -> None:
    """Catches a chunk in the wrong place, a cut off by one, a fill value that is not one."""
    path, values = stored
    reader = Reader(path, "state")
    assert reader.direct
    edges = [sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in SHAPE]
    piece = tuple(slice(a, b) for a, b in edges)[: data.draw(st.integers(1, 4))]
    np.testing.assert_array_equal(reader.read(*piece), values[piece])
    np.testing.assert_array_equal(reader.read(*piece), reader.array[piece])
    first, second = (np.array(sorted(data.draw(st.sets(st.integers(0, n - 1), min_size=1)))) for n in SHAPE[:2])
    np.testing.assert_array_equal(reader.pick(piece[0], second), values[piece[0]][:, second])
    np.testing.assert_array_equal(reader.pick(first, second), values[np.ix_(first, second)])
    room = np.zeros((2, len(first), len(second), *SHAPE[2:]), np.float32)
    reader.pick(first, second, out=room[1])
    np.testing.assert_array_equal(room[1], values[np.ix_(first, second)])
    assert not room[0].any()


@pytest.mark.parametrize("other", [{"compressors": None}, {"shards": None}, {"compressors": zarr.codecs.BloscCodec()}])
def test_other_layouts_are_read_through_zarr(tmp_path: Path, other: dict[str, Any]) -> None:
    """Catches bytes taken for what they are not."""
    values = make(tmp_path / "b.zarr", **other)
    reader = Reader(tmp_path / "b.zarr", "state")
    assert not reader.direct
    np.testing.assert_array_equal(reader.read(slice(1, 9)), values[1:9])
    np.testing.assert_array_equal(reader.pick(slice(1, 9), np.array([0, 6])), values[1:9][:, [0, 6]])


def test_only_the_chunks_asked_for_are_read(stored: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a rank that reads the bytes of other ranks' channels."""
    path, values = stored
    reader, original, sizes = Reader(path, "state"), os.pread, []

    def counting(file: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return original(file, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    found = reader.pick(slice(2, 4), np.array([5, 6]))
    np.testing.assert_array_equal(found, values[2:4][:, [5, 6]])
    assert len([size for size in sizes if size > 4]) == 2  # the index and one chunk, whose checksum is read by itself
    reader.pick(slice(0, 2), np.array([0]))
    assert len([size for size in sizes if size > 4]) == 3  # the index is known by now
    reader.pick(np.array([0, 7]), np.array([0]))  # rows of the first and the fourth chunk, the latter in another shard
    assert len([size for size in sizes if size > 4]) == 6


@pytest.mark.parametrize("where", ["chunk", "index", "cut"])
def test_damage_is_found_and_named(stored: tuple[Path, np.ndarray], tmp_path: Path, where: str) -> None:
    """Catches a flipped bit or a cut file that trains."""
    path = tmp_path / "c.zarr"
    shutil.copytree(stored[0], path)
    file = path / "state" / "c" / "0" / "0" / "0" / "0"
    content = bytearray(file.read_bytes())
    if where == "cut":
        content = content[:40]
    else:
        content[9 if where == "chunk" else -9] ^= 1
    file.write_bytes(content)
    reader = Reader(path, "state")
    with pytest.raises(ValueError, match=r"a checksum does not fit in state/c/0/0/0/0; delete it and run"):
        reader.read(slice(0, 4))
    np.testing.assert_array_equal(reader.read(slice(4, 11)), stored[1][4:])


def test_a_store_written_anew_is_read_anew(tmp_path: Path) -> None:
    """Catches an index kept from a file that has been replaced since."""
    values = make(tmp_path / "d.zarr")
    reader = Reader(tmp_path / "d.zarr", "state")
    np.testing.assert_array_equal(reader.read(slice(0, 4)), values[:4])
    writer: Any = zarr.open_group(tmp_path / "d.zarr", mode="r+")["state"]
    writer[:4] = 1.0
    assert (reader.read(slice(0, 4)) == 1.0).all()


def test_threads_share_a_reader(stored: tuple[Path, np.ndarray]) -> None:
    """Catches state that two reads at once spoil."""
    reader = Reader(stored[0], "state")
    with ThreadPoolExecutor(8) as pool:
        for place, found in enumerate(pool.map(lambda i: reader.read(slice(i % 8, i % 8 + 1)), range(200))):
            np.testing.assert_array_equal(found, stored[1][place % 8][None])
