"""A longer period appends: what another store of the same contract holds is neither read nor written again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import store
from pipeline.config import Config
from preprocess.ingest.stage import run_regrid
from preprocess.sources import Archive
from tests.preprocess.stores import tree
from tests.stores import rewrite_manifest

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]


def shards(config: Config) -> dict[str, Path]:
    return {p.parts[-4]: p for p in (config.paths.store / "state" / "c").rglob("*") if p.is_file()}


@pytest.fixture
def source(atmosphere: Callable[..., xr.Dataset], time_axis: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    path = tmp_path / "source.nc"
    atmosphere(times=time_axis(16)).to_netcdf(path)
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every time that is read from the source."""
    times: list[str] = []
    original = Archive.dataset

    def dataset(self: Archive, wanted: Any = None) -> xr.Dataset:
        times.extend(str(t)[:13] for t in wanted)
        return original(self, wanted)

    monkeypatch.setattr(Archive, "dataset", dataset)
    return times


def until(configure: Configure, source: Path, end: str, *, name: str = "out", **data: Any) -> Config:
    return configure([source], name=name, period={"start": data.pop("start", "2001-01-01"), "end": end}, **data)


def test_a_longer_period_reads_only_its_own_times(source: Path, configure: Configure, asked: list[str]) -> None:
    """Catches old slabs read or written again, an old store changed, and bytes unlike those of one run."""
    short = until(configure, source, "2001-01-03T00:00")
    run_regrid(short)
    before, files = tree(short), {k: p.stat() for k, p in shards(short).items()}
    long = until(configure, source, "2001-01-04T18:00")
    assert long.paths.store != short.paths.store
    asked.clear()
    run_regrid(long)
    # Slabs of 4: 0 and 1 are whole in the old store; 2 has one of its times there.
    assert asked == ["2001-01-03T06", "2001-01-03T12", "2001-01-03T18", *(f"2001-01-04T{h:02}" for h in (0, 6, 12, 18))]
    assert tree(short) == before
    for index in "01":
        after = shards(long)[index].stat()
        assert (after.st_ino, after.st_mtime_ns) == (files[index].st_ino, files[index].st_mtime_ns)
    fresh = until(configure, source, "2001-01-04T18:00", name="fresh")
    run_regrid(fresh)
    assert tree(long) == tree(fresh)


def test_a_shorter_or_shifted_period(source: Path, configure: Configure, asked: list[str]) -> None:
    """Catches slabs taken for others because their numbers agree."""
    long = until(configure, source, "2001-01-04T18:00")
    run_regrid(long)
    asked.clear()
    cases = [
        ("2001-01-01", "2001-01-03T00:00"),
        ("2001-01-02", "2001-01-04T12:00"),
        ("2001-01-01T18:00", "2001-01-03T00:00"),
    ]
    for start, end in cases:
        splits = {
            "train": {"start": start, "end": "2001-01-02T00:00" if "T" in start else f"{start}T06:00"},
            "test": {"start": "2001-01-02T12:00", "end": "2001-01-03T00:00"},
        }
        other = until(configure, source, end, start=start, splits=splits)
        run_regrid(other)
        assert asked == []
        fresh = until(configure, source, end, start=start, splits=splits, name=f"fresh{start[-2:]}")
        run_regrid(fresh)
        assert tree(other) == tree(fresh)
        asked.clear()


def test_another_slab_length_is_cut_from_the_old_store(source: Path, configure: Configure, asked: list[str]) -> None:
    """Catches a shard linked into a store whose shards have another shape."""
    run_regrid(until(configure, source, "2001-01-03T00:00"))
    asked.clear()
    other = until(configure, source, "2001-01-03T06:00", slab_times=3)
    run_regrid(other)
    assert asked == ["2001-01-03T06"]
    fresh = until(configure, source, "2001-01-03T06:00", slab_times=3, name="fresh")
    run_regrid(fresh)
    assert tree(other) == tree(fresh)


def test_other_settings_share_nothing(source: Path, configure: Configure, asked: list[str]) -> None:
    """Catches fields of another method or other channels taken over."""
    run_regrid(until(configure, source, "2001-01-03T00:00"))
    for data in (
        {"regrid": {"resolution": 22.5, "method": "conservative"}},
        {"regrid": {"resolution": 30.0}},
        {"channels": {"variables": ["z", "t", "t2m"], "levels": [500, 850], "statics": []}},
        {"step_hours": 12},
    ):
        asked.clear()
        config = until(configure, source, "2001-01-03T06:00", **data)
        run_regrid(config)
        assert len(asked) == store.read_manifest(config.paths.store)["facts"]["times"]


def test_a_damaged_old_store_is_not_taken_over(source: Path, configure: Configure) -> None:
    """Catches damage that spreads: a flipped byte, or a slab that is not what its manifest says."""
    short = until(configure, source, "2001-01-03T00:00")
    run_regrid(short)
    shard = shards(short)["0"]
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"slab 0 \(2001-01-01T00:00 .. 2001-01-01T18:00\): a checksum"):
        run_regrid(until(configure, source, "2001-01-03T18:00"))
    content[200] ^= 1
    shard.write_bytes(bytes(content))
    rewrite_manifest(short.paths.store, lambda content: content["slabs"]["1"].update(sha256="0" * 32))
    with pytest.raises(ValueError, match=r"slab 1 .*: its values do not match their recorded digest"):
        run_regrid(until(configure, source, "2001-01-03T12:00"))
