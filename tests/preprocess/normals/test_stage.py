"""Normals weight cells by area and times equally, know only the training periods, and place every date."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import store
from pipeline.config import Config
from pipeline.weather.climatology import SLOTS, Normals, day_slots
from preprocess.normals import stage as stage
from preprocess.normals.moments import Moments, climatology_kernel, merge
from preprocess.normals.stage import run_normals
from preprocess.normals.sums import sums_path
from tests.preprocess.normals.conftest import GRID, NAMES, WEIGHTS, Configure, days, noise, run, stepping

pytestmark = pytest.mark.slow


def test_area_weighted_moments(prepare: Callable[..., Config]) -> None:
    """Catches cells weighted equally, times by their number in a slab, or the spread taken of the mean."""
    times = days("2001-01-01", "2001-05-01")
    fields = noise(times)
    mask = np.random.default_rng(1).uniform(size=GRID.shape)
    found = run(prepare(times, fields, train={"start": "2001-01-11", "end": "2001-04-20"}, statics=mask))
    chosen = fields[10:110].astype(np.float64)
    mean = np.einsum("tcyx,yx->c", chosen, WEIGHTS) / 100
    spread = np.sqrt(np.einsum("tcyx,yx->c", (chosen - mean[:, None, None]) ** 2, WEIGHTS) / 100)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(found.std, spread, rtol=1e-12)
    plain = chosen.std(axis=(0, 2, 3))
    assert np.all(np.abs(plain / spread - 1) > 0.01), "the test could not tell weighted from plain"
    mask32 = mask.astype(np.float32).astype(np.float64)
    average = (mask32 * WEIGHTS).sum()
    np.testing.assert_allclose(found.static_mean, [average], rtol=1e-12)
    np.testing.assert_allclose(found.static_std, [np.sqrt((((mask32 - average) ** 2) * WEIGHTS).sum())], rtol=1e-12)
    assert found.channels == tuple(NAMES)


def test_only_training_periods_are_read(prepare: Callable[..., Config]) -> None:
    """Catches a climatology that has seen the test period, or the gap between two training periods."""
    times = days("2001-01-01", "2002-03-01")
    fields = noise(times)
    inside = ((times >= np.datetime64("2001-01-05")) & (times < np.datetime64("2001-07-01"))) | (
        (times >= np.datetime64("2001-07-20")) & (times < np.datetime64("2002-01-20"))
    )
    poisoned = np.where(inside[:, None, None, None], fields, np.float32(1e9))
    train = [{"start": "2001-01-05", "end": "2001-06-30"}, {"start": "2001-07-20", "end": "2002-01-19"}]
    found = run(prepare(times, poisoned, train=train))
    assert found.contract["times"] == inside.sum()
    assert found.contract["years"] == [2001, 2002]
    assert np.abs(found.mean).max() < 1e3
    assert np.abs(found.climatology_at(days("2003-01-01", "2004-01-01"))).max() < 1e3


def test_a_seasonal_cycle_is_found_at_each_hour(prepare: Callable[..., Config]) -> None:
    """Catches hours mixed, days shifted, or a window of another shape: a harmonic is damped by a known factor."""
    times = days("2000-01-01", "2001-01-01", hours=12)
    angle = 2 * np.pi * (day_slots(times) - 1) / SLOTS
    noon = (times - times.astype("datetime64[D]")) == np.timedelta64(12, "h")
    cycle = np.where(noon, 10.0, -4.0) + np.where(noon, 7.0, 3.0) * np.cos(angle - 0.4)
    shape = np.random.default_rng(2).uniform(0.5, 1.5, size=(3, 8, 16))
    fields = (250.0 + cycle[:, None, None, None] * shape).astype(np.float32)
    found = run(prepare(times, fields, train={"start": "2000-01-01", "end": "2000-12-31"}, normals={"window_days": 41}))
    distance = np.arange(-20, 21)
    weight = 1 - np.abs(distance) / 21
    damping = (weight * np.cos(2 * np.pi * distance / SLOTS)).sum() / weight.sum()
    assert found.kind == "day of year x hour"
    asked = np.array(["1999-01-01T00", "1999-01-01T12", "2004-02-29T12", "2003-12-31T00"], "datetime64[h]")
    at = 2 * np.pi * (day_slots(asked) - 1) / SLOTS - 0.4
    level = np.where([False, True, True, False], 10.0, -4.0)
    size = np.where([False, True, True, False], 7.0, 3.0)
    expected = 250.0 + (level + damping * size * np.cos(at))[:, None, None, None] * shape
    np.testing.assert_allclose(found.climatology_at(asked), expected, rtol=0, atol=1e-4)


def test_29_february(prepare: Callable[..., Config]) -> None:
    """Catches an empty slot 60 where no training year is a leap year, and 1 March moved by one day."""
    times = days("2001-01-01", "2002-01-01")
    ramp = (day_slots(times) - 1).astype(np.float32)
    fields = np.broadcast_to(ramp[:, None, None, None], (times.size, 3, 8, 16)).copy()
    found = run(prepare(times, fields, train={"start": "2001-01-01", "end": "2001-12-31"}, normals={"window_days": 3}))
    asked = np.array(["2001-02-28", "2000-02-29", "2001-03-01", "2000-03-01", "2001-07-01"], "datetime64[D]")
    got = found.climatology_at(asked)[:, 0, 0, 0]
    # Weights 1/2, 1, 1/2: at slot 59 the day after is absent, at slot 60 the day itself.
    expected = [(0.5 * 57 + 58) / 1.5, 0.5 * (58 + 60), (60 + 0.5 * 61) / 1.5, (60 + 0.5 * 61) / 1.5, 182.0]
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_less_than_a_year_gives_a_plain_mean_that_says_so(
    prepare: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches a seasonal cycle invented for months without data."""
    times = days("2001-10-01", "2001-10-21", hours=6)
    fields = noise(times)
    config = prepare(times, fields, train={"start": "2001-10-03", "end": "2001-10-14T18:00"})
    found = run(config)
    assert found.kind == "mean by hour of day (training covers only 12 days of the year)"
    assert found.kind in capsys.readouterr().err
    assert json.loads(config.paths.receipt("normals").read_text())["facts"]["climatology"] == found.kind
    chosen = fields[8:56].astype(np.float64)
    for hour, when in ((0, "2001-04-01T00"), (3, "2001-10-05T18")):
        got = found.climatology_at(np.array([when], "datetime64[h]"))[0]
        np.testing.assert_allclose(got, chosen[hour::4].mean(axis=0), rtol=1e-5)


def test_hours_without_training_data() -> None:
    """Catches a division by zero, or NaN, where an hour is never trained on."""
    count = np.zeros((2, SLOTS), np.int64)
    count[0] = 1
    _, by_hour, _, kind = climatology_kernel(count, window_days=61)
    assert not by_hour
    assert kind == "mean over all times (training covers only 366 days of the year)"
    count[1, ::20] = 1
    assert climatology_kernel(count, window_days=61)[1:] == (True, True, "day of year x hour")
    assert climatology_kernel(count, window_days=9)[1:] == (
        True,
        False,
        "mean by hour of day (training covers only 366 days of the year)",
    )


def test_spread_of_the_anomaly(prepare: Callable[..., Config]) -> None:
    """Catches an anomaly spread that differs from the one computed field by field."""
    times = days("2000-01-01", "2002-01-01")
    fields = noise(times) + (20 * np.cos(2 * np.pi * day_slots(times) / SLOTS))[:, None, None, None].astype(np.float32)
    found = run(prepare(times, fields, train={"start": "2000-01-01", "end": "2001-12-30"}))
    anomaly = fields[:-1].astype(np.float64) - found.climatology_at(times[:-1])
    spread = np.sqrt(np.einsum("tcyx,yx->c", anomaly**2, WEIGHTS) / (times.size - 1))
    np.testing.assert_allclose(found.anomaly_std, spread, rtol=1e-6)
    assert found.anomaly_std[0] < 0.8 * found.std[0]


def test_blocks_of_channels_change_nothing(prepare: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches channels mixed up where memory forces several passes, and partial sums not merged over years."""
    times = days("2001-01-01", "2002-03-01")
    config = stepping(prepare(times, noise(times), train={"start": "2001-01-01", "end": "2002-02-20"}), 24, 72)
    whole = run(config)
    before = {str(p.relative_to(whole.path)): p.read_bytes() for p in whole.path.rglob("*") if p.is_file()}
    shutil.rmtree(whole.path)
    shutil.rmtree(sums_path(whole.path))
    monkeypatch.setattr(stage, "_SUMS_BYTES", 1)
    again = run(config)
    for name in ("mean", "std", "anomaly_std"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    for hours in (24, 72):
        np.testing.assert_array_equal(again.change_std(hours), whole.change_std(hours))
    after = {str(p.relative_to(again.path)): p.read_bytes() for p in again.path.rglob("*") if p.is_file()}
    assert [k for k in before if "climatology/c" in k and before[k] != after[k]] == []
    with xr.open_zarr(again.path, consolidated=False) as ds:
        counts, means, m2 = (ds[f"year_{n}"].values for n in ("count", "mean", "m2"))
        assert ds["year"].values.tolist() == [2001, 2002]
        assert counts.tolist() == [365, 51]
        merged = merge([Moments(int(n), m, s) for n, m, s in zip(counts, means, m2, strict=True)])
        np.testing.assert_allclose(merged.std, again.std, rtol=1e-13)


def contents(normals: Normals) -> dict[str, np.ndarray]:
    """Every array of normals but the climatology."""
    group: Any = zarr.open_group(normals.path, mode="r")
    return {name: array[:] for name, array in group.arrays() if name != "climatology"}


def test_changes_over_steps(prepare: Callable[..., Config]) -> None:
    """Catches changes of the fields instead of their departures, another climatology than the one written, pairs across
    a gap, years left out where their sums are taken over, and other normals where there are no steps.
    """
    times = np.delete(days("2001-11-01", "2002-02-01", hours=12), [40, 41, 42, 77])
    noon = (times - times.astype("datetime64[D]")) == np.timedelta64(12, "h")
    fields = noise(times) + np.where(noon, 30.0, 0.0).astype(np.float32)[:, None, None, None]
    train = [{"start": "2001-11-03", "end": "2001-12-10"}, {"start": "2001-12-20", "end": "2002-01-20"}]
    config = prepare(times, fields, train=train)
    plain = run(config).in_memory()
    assert plain.step_hours == ()
    assert "step_hours" not in plain.contract
    found = run(stepping(config, 48, 12)).in_memory()
    assert found.path != plain.path
    assert found.contract == plain.contract | {"step_hours": [12, 48]}
    assert found.digest != plain.digest
    np.testing.assert_array_equal(found.climatology_at(times), plain.climatology_at(times))
    before, after = contents(plain), contents(found)
    assert set(after) - set(before) == {"step_hours", "change_std"}
    assert [name for name, values in before.items() if not np.array_equal(values, after[name])] == []

    usable = np.zeros(times.size, bool)
    for period in config.data.splits.train:
        usable |= (times >= np.datetime64(period.start)) & (times <= np.datetime64(period.end))
    anomaly = fields.astype(np.float64) - found.climatology_at(times)
    for hours in (12, 48):
        there = {time: i for i, time in enumerate(times) if usable[i]}
        ends = [(i, there.get(time + np.timedelta64(hours, "h"))) for time, i in there.items()]
        changes = np.stack([anomaly[j] - anomaly[i] for i, j in ends if j is not None])
        expected = np.sqrt(np.einsum("tcyx,yx->c", changes**2, WEIGHTS) / len(changes))
        np.testing.assert_allclose(found.change_std(hours), expected, rtol=1e-12)


def test_steps_without_changes_are_refused(prepare: Callable[..., Config]) -> None:
    """Catches a unit of zero where anomalies are not zero, and steps without pairs; nothing may be written."""
    times = days("2001-10-01", "2001-10-13")
    fields = noise(times)
    fields[:, 1] = 280.123 + 7.7 * (np.arange(times.size) % 2)[:, None, None]
    config = prepare(times, fields, train={"start": "2001-10-02", "end": "2001-10-12"})
    steps = stepping(config, 24, 48)
    with pytest.raises(ValueError, match=r"must change over 48 h \(training.step_hours\), got none in t2m: "):
        run_normals(steps)
    assert not steps.paths.normals.exists()
    assert not steps.paths.receipt("normals").exists()
    with pytest.raises(ValueError, match=r"training.rollout must fit into data.splits.train, .*, got 1 step of 480 h"):
        stepping(config, 24, 480)


def test_finished_normals_are_left_alone_until_the_store_changes(
    prepare: Callable[..., Config], capsys: pytest.CaptureFixture[str]
) -> None:
    """Catches normals computed again for nothing, or kept when the store's times have changed."""
    times = days("2001-01-01", "2001-03-01")
    train = {"start": "2001-01-01", "end": "2001-02-20"}
    config = prepare(times, noise(times), train=train)
    first = run(config)
    stamp = (first.path / "zarr.json").stat().st_mtime_ns
    config.paths.receipt("normals").unlink()
    run_normals(config)
    assert (first.path / "zarr.json").stat().st_mtime_ns == stamp
    assert config.paths.receipt("normals").exists()
    assert "complete in" in capsys.readouterr().err
    shutil.rmtree(config.paths.store)
    store.manifest_path(config.paths.store).unlink()
    fewer = np.delete(times, 5)
    prepare(fewer, noise(fewer), train=train)
    assert run(config).contract["times"] == first.contract["times"] - 1
    assert not list(config.paths.normals.parent.glob(".*"))


def test_refusals(prepare: Callable[..., Config], configure: Configure) -> None:
    """Catches normals of nothing, of NaN or of a constant, and each time nothing may be written."""
    times = days("2001-01-01", "2001-03-01")
    train = {"start": "2001-01-01", "end": "2001-02-20"}
    gap = noise(times)
    gap[7, 1, 2, 3] = np.nan
    config = prepare(times, gap, train=train, name="gap")
    with pytest.raises(ValueError, match="finite, got NaN in channel 't2m' at 2001-01-08T00:00"):
        run_normals(config)
    assert not config.paths.normals.exists()
    constant = noise(times)
    constant[:, 2] = 4.0
    config = prepare(times, constant, train=train, name="constant")
    with pytest.raises(ValueError, match="channel 'u10' must vary"):
        run_normals(config)
    assert not config.paths.normals.exists()
    sparse = np.concatenate([times[:3], times[20:]])
    config = prepare(sparse, noise(sparse), train={"start": "2001-01-05", "end": "2001-01-09"}, name="empty")
    with pytest.raises(ValueError, match=r"none within 2001-01-05T00 .. 2001-01-09T23; the store has 42 times"):
        run_normals(config)
    with pytest.raises(ValueError, match="run python -m pipeline regrid first"):
        run_normals(configure(["x.nc"], name="absent"))


def test_a_constant_static_field(
    prepare: Callable[..., Config], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Catches a spread of zero that would divide a mask of an all-ocean planet."""
    times = days("2001-01-01", "2001-03-01")
    found = run(
        prepare(times, noise(times), train={"start": "2001-01-01", "end": "2001-02-20"}, statics=np.zeros((8, 16)))
    )
    assert found.static_std.tolist() == [1.0]
    assert "1 constant static field;" in capsys.readouterr().err
