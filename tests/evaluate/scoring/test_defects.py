"""The six defects of the reference codes: each defective formula is tried here and gives another number than ours."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evaluate import metrics
from evaluate.reading import align
from evaluate.scoring.stores import ScoringOptions, score_stores
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.store import open_store
from pipeline.weather.climatology import Normals, day_slots
from preprocess.regrid import regrid_weights
from tests.evaluate.conftest import second_year_until


@pytest.mark.slow
def test_1_normals_use_every_training_year(build_experiment, tmp_path) -> None:
    """ClimaX resets its list under the wrong key, so that pressure levels are normalised by the last year alone."""
    train = [{"start": "2001-01-01", "end": "2001-06-30"}, {"start": "2002-01-01", "end": "2002-02-28"}]
    years = {"train": train, "test": {"start": "2002-03-01", "end": "2002-07-31"}}
    config = build_experiment(tmp_path, data__splits=years)
    truth, normals = open_store(config.paths.store)["state"], Normals.open(config.paths.normals)
    weights = xr.DataArray(config.data.regrid.grid.area_weights, dims=("latitude", "longitude"))
    first, last = truth.sel(time=slice("2001-01-01", "2001-06-30")), truth.sel(time=slice("2002-01-01", "2002-02-28"))
    ours = xr.concat([first, last], "time").weighted(weights).mean(("time", "latitude", "longitude"))
    defective = last.weighted(weights).mean(("time", "latitude", "longitude"))
    np.testing.assert_allclose(normals.mean, ours, rtol=1e-5)
    assert np.all(abs(defective.values - normals.mean) > 1e-3 * normals.std)


def test_2_the_last_day_of_a_leap_year_is_scored() -> None:
    """ClimaX drops 31 December of leap years and climate-learn a day or two of every year."""
    days = np.arange("2004-12-01", "2005-01-10", dtype="datetime64[D]").astype("datetime64[ns]")
    found = align.common_init_times({"model": days[:-7]}, days, leads=[168])
    assert np.datetime64("2004-12-31") in found.init_times
    assert np.datetime64("2004-12-31") in found.valid_times
    assert len(found.init_times) == 33
    assert not found.dropped
    assert day_slots(days[30:32]).tolist() == [366, 1]
    defective = days[day_slots(days) <= 365]  # a year cut to 365 days
    assert len(align.common_init_times({"model": days[:-7]}, defective, leads=[168]).init_times) == 31


def test_3_climatology_comes_from_training_years() -> None:
    """With the test years' own mean as climatology, ACC loses what the model knows about a warmer decade."""
    rng = np.random.default_rng(0)
    grid = Grid.regular(30.0)
    init = np.datetime64("2010-01-01", "ns") + np.arange(60) * np.timedelta64(1, "D")
    coords = {"init_time": init, "latitude": grid.latitude, "longitude": grid.longitude}
    warm = 2.0 + rng.normal(size=(60, *grid.shape))
    o = xr.DataArray(warm, coords, list(coords))
    f = xr.DataArray(2.0 + 0.5 * (warm - 2.0) + 0.87 * rng.normal(size=warm.shape), coords, list(coords))
    training = xr.zeros_like(o.isel(init_time=0, drop=True))
    ours = metrics.acc(f, o, climatology=training)
    defective = metrics.acc(f, o, climatology=o.mean("init_time"))
    assert ours.item() == pytest.approx((4 + 0.5) / np.sqrt(5 * 5), abs=0.02)
    assert defective.item() == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_4_pairs_cross_shards(build_experiment, tmp_path) -> None:
    """ClimaX never pairs across its 1095-hour shards: at 30 days two thirds of the starts are lost, unevenly."""
    leads = {"forecast": {"lead_hours": [720], "init_step_hours": 24}, "training": {"lead_hours": [720]}}
    config: Config = build_experiment(tmp_path, data__slab_times=8, **second_year_until("2002-04-30"), **leads)
    forecast, truth = open_store(config.paths.forecast), open_store(config.paths.store)
    normals = Normals.open(config.paths.normals)
    found = score_stores({"tiny": forecast}, truth, normals, ScoringOptions([720], ["z500"]))
    assert len(found.alignment.init_times) == 120 - 30
    np.testing.assert_array_equal(np.diff(found.alignment.init_times), np.timedelta64(24, "h"))
    shard = 1095 // 24  # days
    defective = sum(1 for i in range(120 - 30) if i // shard == (i + 30) // shard)
    assert defective < 0.4 * 90


def test_5_the_root_comes_last_and_acc_does_not_know_batches() -> None:
    """Mean of roots is smaller than RMSE; ACC pooled over a batch is another number for every batch size."""
    rng = np.random.default_rng(1)
    grid = Grid.regular(30.0)
    size = np.array([1.0, 1.0, 5.0, 9.0])[:, None, None]
    coords = {"init_time": np.arange(4), "latitude": grid.latitude, "longitude": grid.longitude}
    o = xr.DataArray(size * rng.normal(size=(4, *grid.shape)), coords, list(coords))
    f = o + size * rng.normal(size=(4, *grid.shape))
    w = grid.area_weights
    square = ((f - o).values ** 2 * w).mean((1, 2))
    assert metrics.rmse(f, o).item() == pytest.approx(np.sqrt(square.mean()))
    assert metrics.mean_rmse(f, o).item() == pytest.approx(np.sqrt(square).mean())
    assert metrics.mean_rmse(f, o).item() < 0.85 * metrics.rmse(f, o).item()
    zero = xr.zeros_like(o)

    def pooled(batch: int) -> float:
        parts = []
        for i in range(0, 4, batch):
            a, b = f.values[i : i + batch], o.values[i : i + batch]
            parts.append((w * a * b).sum() / np.sqrt((w * a * a).sum() * (w * b * b).sum()))
        return float(np.mean(parts))

    ours = metrics.acc(f, o, climatology=zero).item()
    assert ours == pytest.approx(pooled(1))
    assert len({round(pooled(b), 3) for b in (1, 2, 4)}) == 3
    halves = [metrics.acc(f[i : i + 2], o[i : i + 2], climatology=zero[i : i + 2]).item() for i in (0, 2)]
    assert np.mean(halves) == pytest.approx(ours)


@pytest.mark.slow
def test_6_bilinear_and_conservative_are_never_compared(experiment: Config) -> None:
    """Bilinear reads 4 source cells, conservative all: forecasts of one are no forecasts of the other."""
    source, target = Grid.regular(1.0, poles=True), Grid.regular(22.5)
    reads = {m: np.diff(regrid_weights(source, target, method=m).indptr).min() for m in ("bilinear", "conservative")}
    assert reads["bilinear"] <= 4 < 400 < reads["conservative"]
    forecast, truth = open_store(experiment.paths.forecast), open_store(experiment.paths.store)
    contract = truth.attrs["contract"]
    issued = {**forecast.attrs["contract"], "regrid": contract["regrid"]}
    same = forecast.assign_attrs(contract=issued)
    assert align.store_faults(same, truth, leads=[24], name="tiny") == []
    other = truth.assign_attrs(contract={**contract, "regrid": {**contract["regrid"], "method": "conservative"}})
    (fault,) = align.store_faults(same, other, leads=[24], name="tiny")
    assert (fault.kind, fault.reason) == ("store", "regrid: method: bilinear against conservative")
