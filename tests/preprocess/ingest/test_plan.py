"""The plan tells what a run will take, counts what the run then does, and refuses what cannot fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipeline import store
from pipeline.config import Config, parse
from pipeline.words import size
from preprocess.ingest import plan
from preprocess.ingest.plan import bytes_read, duration, run_plan
from preprocess.ingest.stage import run_regrid
from preprocess.sources import open_source

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]


@pytest.fixture
def archive(atmosphere: Callable[..., xr.Dataset], time_axis: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """Ten times of six levels, one time and all levels a chunk; times 3 and 4 are missing."""
    levels = (100, 200, 300, 500, 700, 850)
    ds = atmosphere(times=time_axis(10), levels=levels).isel(time=[0, 1, 2, 5, 6, 7, 8, 9])
    sizes = {"z": (1, 6, 19, 36), "t": (1, 6, 19, 36), "t2m": (1, 19, 36), "u10": (1, 19, 36)}
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={n: {"chunks": c} for n, c in sizes.items()})
    return tmp_path / "a.zarr"


def planned(config: Config) -> dict[str, object]:
    run_plan(config)
    found: dict[str, object] = json.loads((config.root / "plan-preprocess.json").read_text())
    return found


def test_counts(archive: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches bytes of all levels taken for useful ones, gaps counted as times, and slabs of another length."""
    period = {"start": "2001-01-01", "end": "2001-01-03T06:00"}
    config = configure([archive], period=period, slab_times=3)
    found = planned(config)
    plane = 4 * 19 * 36
    assert found["bytes_read_useful"] == 8 * 6 * plane
    assert found["bytes_read_through_chunks"] == 8 * 14 * plane
    assert found["bytes_written"] == 8 * 6 * 128 * 4
    assert (found["times"], found["missing_times"], found["slabs"]) == (8, 2, 3)
    assert found["missing"] == ["2001-01-01T18:00 .. 2001-01-02T00:00 (2 times)"]
    text = capsys.readouterr().err
    for word in (
        "2.33 times as much",
        "missing: 2 times: 2001-01-01T18:00",
        "3 slabs of 3 times, 3 left",
        "not a measured run",
    ):
        assert word in " ".join(text.split()), word
    assert not config.paths.store.exists()
    assert bytes_read(open_source(config)) == (6 * plane, 14 * plane)


def test_what_is_there_is_not_planned_again(archive: Path, configure: Configure) -> None:
    """Catches a plan that forgets finished slabs."""
    config = configure([archive], slab_times=3)
    run_regrid(config)
    found = planned(config)
    assert (found["slabs_left"], found["bytes_read_useful"]) == (0, 0)
    assert "estimate" not in found


def test_a_disk_too_small(archive: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a plan that fits on paper only; the numbers must be written nevertheless."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    config = configure([archive], slab_times=3)
    with pytest.raises(ValueError, match=r"disk must hold 0\.01 GB"):
        run_plan(config)
    assert json.loads((config.root / "plan-preprocess.json").read_text())["disk_free_bytes"] == 100_000


def test_workers_and_memory(archive: Path, configure: Configure) -> None:
    """Catches time divided by threads that share one worker, and memory that does not grow with threads."""
    config = configure([archive], slab_times=3)
    raw = config.model_dump(mode="json")
    several = parse({**raw, "compute": {"scheduler": "processes", "workers": 3, "threads": 2}})
    source = open_source(config)
    assert plan.plan_regrid(several, source).workers == 3
    one = parse({**raw, "compute": {"scheduler": "processes", "workers": 3, "threads": 1}})
    assert plan.memory_per_worker(several, source) > plan.memory_per_worker(one, source)


def test_words() -> None:
    """Catches units off by a thousand or by sixty."""
    assert [size(n) for n in (12, 4.56e4, 7e8, 1.9e13)] == ["12 B", "45.6 kB", "700 MB", "19 TB"]
    assert [duration(s) for s in (50, 3000, 90000, 500000)] == [
        "50.0 seconds",
        "50.0 minutes",
        "25.0 hours",
        "5.8 days",
    ]
