"""Sums that are kept: further years read themselves alone, and sums of other fields are not used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config
from pipeline.weather.climatology import day_slots
from preprocess.normals import stage as stage
from preprocess.normals.moments import DailySums
from preprocess.normals.sums import Sums, sums_path
from tests.preprocess.normals.conftest import GRID, WEIGHTS, days, noise, run

pytestmark = pytest.mark.slow


def copied(config: Config, other: Config) -> Config:
    """Put the store of one configuration under the name that another expects."""
    shutil.copytree(config.paths.store, other.paths.store)
    shutil.copyfile(store.manifest_path(config.paths.store), store.manifest_path(other.paths.store))
    return other


def until(config: Config, end: str, *, name: str | None = None, keep: bool = True) -> Config:
    """The same experiment with training until a date."""
    raw = config.model_dump(mode="json")
    raw["data"]["splits"]["train"][0]["end"] = end
    raw["data"]["normals"]["keep_sums"] = keep
    if name is not None:
        raw["directory"] = str(config.root.with_name(name))
    return configuration.parse(raw)


def test_a_further_year_reads_that_year_only(
    prepare: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a second pass over all years, and sums that differ from one pass by more than rounding."""
    times = days("2003-01-01", "2007-01-01")
    fields = noise(times) + np.float32(4e4)
    config = prepare(times, fields, train={"start": "2003-01-01", "end": "2004-12-31"})
    run(config)
    assert sums_path(config.paths.normals).exists()
    read: list[int] = []
    original = stage.Training.sums

    def sums(training: Any, *arguments: Any) -> Any:
        read.extend(int(i) for i in training.chosen)
        return original(training, *arguments)

    monkeypatch.setattr(stage.Training, "sums", sums)
    longer = until(config, "2006-12-31T23:00")
    assert longer.paths.store == config.paths.store
    assert longer.paths.normals != config.paths.normals
    found = run(longer)
    assert "2 of 4 years taken from" in capsys.readouterr().err
    assert read == list(range(366 + 365, times.size))
    alone = copied(config, until(config, "2006-12-31T23:00", name="alone", keep=False))
    once = run(alone)
    assert not sums_path(alone.paths.normals).exists()
    for key in ("mean", "std", "anomaly_std"):
        np.testing.assert_allclose(getattr(found, key), getattr(once, key), rtol=1e-12, atol=0)
    slots = np.array(["2004-02-29", "2005-07-01", "2006-12-31"], "datetime64[ns]")
    np.testing.assert_allclose(found.climatology_at(slots), once.climatology_at(slots), rtol=1e-6)
    ours, theirs = (DailySums.empty(hours=1, channels=3, cells=GRID.size) for _ in range(2))
    ours, _ = Sums(sums_path(longer.paths.normals), (2003, 2004, 2005, 2006)).block(range(3))
    for i in range(times.size):
        theirs.add(fields[i].reshape(3, -1).astype(np.float64), hour=0, slot=int(day_slots(times[i : i + 1])[0]) - 1)
    np.testing.assert_allclose(ours.total, theirs.total, rtol=1e-12)
    assert np.array_equal(ours.count, theirs.count)
    read.clear()
    run(until(config, "2005-12-31T23:00"))
    assert read == list(range(366 + 365, 366 + 2 * 365))


def test_sums_of_other_fields_are_not_used(prepare: Callable[..., Config]) -> None:
    """Catches sums of a store that was made anew since, under the same contract, taken for those of this one."""
    times = days("2003-01-01", "2005-01-01")
    first = prepare(times, noise(times), train={"start": "2003-01-01", "end": "2003-12-31"})
    run(first)
    shutil.rmtree(first.paths.store)
    second = prepare(times, noise(times, seed=9), train={"start": "2003-01-01", "end": "2004-12-31"})
    found = run(second)
    truth = (noise(times, seed=9).astype(np.float64).mean(axis=0) * WEIGHTS).sum(axis=(1, 2))
    np.testing.assert_allclose(found.mean, truth, rtol=1e-12)
