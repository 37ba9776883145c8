"""Baselines with fitted numbers: what they learn, from where, and that nothing of the test years reaches them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from evaluate.baselines import fit, linear, simple
from evaluate.baselines.damped import DampingSums
from evaluate.baselines.excluded_window import ExcludedWindow
from evaluate.scoring import tables
from evaluate.scoring.stores import ScoringOptions, score_stores
from pipeline.config import Config
from pipeline.store import open_store
from pipeline.weather.climatology import Normals

pytestmark = pytest.mark.slow

LEADS = [24, 168]


def inputs(config: Config) -> tuple[xr.Dataset, Normals, list[str]]:
    """Store, normals and channel names."""
    truth = open_store(config.paths.store)
    return truth, Normals.open(config.paths.normals), list(map(str, truth["channel"].values))


def all_fits(truth: xr.Dataset, normals: Normals, channels: list[str], **more) -> dict[str, fit.Fit]:
    """Both fits."""
    return fit.fit(fit.NAMES, fit.Training(truth, normals, LEADS, channels), **more)


def test_damping_sums_give_the_least_squares_factor() -> None:
    """Against a weighted regression by hand; catches weights of one and a product over its own square."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 2, 6)).astype(np.float32)
    y = (np.array([0.8, -0.3])[:, None] * x + rng.normal(size=x.shape)).astype(np.float32)
    area = np.linspace(0.2, 2.0, 6)
    sums = DampingSums(leads=2, channels=2, area=area)
    for a, b in zip(x, y, strict=True):
        sums.add(a, [a, b])
    np.testing.assert_allclose(sums.factors[0], 1.0, rtol=1e-6)
    for channel in range(2):
        root = np.sqrt(np.tile(area, 40))
        by_hand = np.linalg.lstsq((root * x[:, channel].ravel())[:, None], root * y[:, channel].ravel(), rcond=None)[0]
        np.testing.assert_allclose(sums.factors[1, channel], by_hand[0], rtol=1e-5)


def test_patterns_are_the_leading_singular_vectors() -> None:
    """The method of snapshots against a plain SVD; catches eigenvalues in the wrong order and rows not normed."""
    rng = np.random.default_rng(1)
    snapshots = (rng.normal(size=(30, 4)) * [9, 5, 3, 2]) @ rng.normal(size=(4, 50)) + 0.1 * rng.normal(size=(30, 50))
    found = linear.leading_patterns(snapshots.astype(np.float32), count=3)
    _, _, expected = np.linalg.svd(snapshots, full_matrices=False)
    np.testing.assert_allclose(np.abs((found * expected[:3]).sum(axis=1)), 1.0, atol=1e-3)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-3)


def test_regression_finds_a_linear_system_and_damps_noise() -> None:
    """A known matrix comes back where there is signal, and a heavy ridge is chosen where there is none."""
    rng = np.random.default_rng(2)
    matrix = rng.normal(size=(5, 5)) / 4
    x = rng.normal(size=(600, 5))
    times = np.arange(600)
    strength, share = linear.choose_strength(x, x @ matrix, starts=times, ends=times + 3)
    np.testing.assert_allclose(linear.ridge(x, x @ matrix, strength=strength), matrix, atol=1e-6)
    assert share > 0.999
    noise = rng.normal(size=(120, 5))
    strength, share = linear.choose_strength(x[:120], noise, starts=times[:120], ends=times[:120] + 3)
    assert strength > 10.0
    assert abs(share) < 0.02


def test_cross_validation_leaves_out_what_touches_the_block() -> None:
    """A series that repeats after the lead: pairs across the block's edge would tell its answer."""
    seen = []
    x = np.arange(20.0)[:, None]
    original = linear.ridge
    try:
        linear.ridge = lambda a, b, *, strength: seen.append(a[:, 0].copy()) or original(a, b, strength=strength)
        linear.choose_strength(x, x, starts=np.arange(20), ends=np.arange(20) + 2, folds=4)
    finally:
        linear.ridge = original
    per_fold = seen[:: len(linear.STRENGTHS)]
    np.testing.assert_array_equal(per_fold[1], [0, 1, 2, *range(12, 20)])  # block 5..9 runs until 11


def test_factors_are_the_autocorrelation_of_the_made_up_weather(experiment: Config) -> None:
    """Red noise of four days: the factors are about exp(-lead / 4 days), and one week is not one day."""
    truth, normals, channels = inputs(experiment)
    found = all_fits(truth, normals, channels)["damped_persistence"]
    day = fit.fit(["damped_persistence"], fit.Training(truth, normals, [24], channels))
    assert set(day) == {"damped_persistence"}
    options = ScoringOptions(LEADS, ["z500"], baselines=["climatology", "persistence", *fit.NAMES])
    sums = score_stores({"tiny": open_store(experiment.paths.forecast)}, truth, normals, options).sums
    skill = tables.regional_scores(tables.Sample(sums, 10, resamples=10))["value"].sel(metric="skill", region="globe")
    one, seven = skill.sel(lead=24), skill.sel(lead=168)
    expected = np.exp(-2 / 4.0)  # skill of damped persistence is the square of the autocorrelation
    np.testing.assert_allclose(one.sel(model="damped_persistence").mean(), expected, atol=0.08)
    assert (one.sel(model="damped_persistence") > one.sel(model="persistence")).all()
    assert seven.sel(model="persistence").max() < -0.3
    assert (seven.sel(model="damped_persistence") > seven.sel(model="persistence") + 0.3).all()
    assert one.sel(model="linear").min() > 0.0  # six independent channels: sixty patterns hold little of each
    assert found.facts["init_times_fitted_on"] == 365 - 7


def test_anomalies_without_their_own_weather() -> None:
    """Three years of red noise under a climatology of the same years, and three years after them: two weeks apart,
    training anomalies know less of one another than test anomalies do, whose climatology's error lasts. Without their
    own weather they are alike; catches a correction of the wrong sign, or of the wrong size."""
    rng = np.random.default_rng(3)
    times = np.arange("2001-01-01", "2007-01-01", dtype="datetime64[D]").astype("datetime64[ns]")
    train = times < np.datetime64("2004-01-01")
    x = rng.normal(size=(times.size, 1, 400))
    for i in range(1, times.size):
        x[i] = 0.85 * x[i - 1] + np.sqrt(1 - 0.85**2) * x[i]
    slots = (times - times.astype("datetime64[Y]")).astype("timedelta64[D]").astype(int) % 365
    daily = np.stack([x[train & (slots == s)].mean(axis=0) for s in range(365)])
    kernel = np.clip(1 - np.minimum(np.arange(365), 365 - np.arange(365)) / 31, 0, None)
    smooth = np.stack([np.tensordot(np.roll(kernel, s) / kernel.sum(), daily, axes=1) for s in range(365)])
    anomalies = (x - smooth[slots]).astype(np.float32)
    stamps = times[train].astype(np.int64).tolist()
    window = ExcludedWindow(times[train], window_days=61, values=400)
    assert window.largest_share == pytest.approx(1 / 3, abs=0.02)
    for t, a in zip(stamps, anomalies[train], strict=True):
        window.add(t, a)
    better = np.stack([window.without(t, a) for t, a in zip(stamps, anomalies[train], strict=True)])

    def lagged(a: np.ndarray) -> float:
        return float((a[40:-54] * a[54:-40]).mean() / (a[40:-54] ** 2).mean())

    assert lagged(anomalies[train]) < lagged(anomalies[~train]) - 0.1
    assert lagged(better) == pytest.approx(lagged(anomalies[~train]), abs=0.03)


def test_one_long_period_needs_no_correction() -> None:
    """Forty years: a share of 1/40 each, and hardly a change; a hundred: none at all."""
    times = np.arange("1950-01-01", "2050-01-01", 5, dtype="datetime64[D]").astype("datetime64[ns]")
    window = ExcludedWindow(times, window_days=61, values=4)
    assert window.largest_share < 0.02
    field = np.ones((1, 4), np.float32)
    window.add(int(times[0].astype(np.int64)), field)
    assert window.without(int(times[0].astype(np.int64)), field) is field


def test_fits_see_training_years_only(experiment: Config) -> None:
    """Spoiling every value outside the training periods changes no fit; catches any leak from test years."""
    truth, normals, channels = inputs(experiment)
    before = all_fits(truth, normals, channels)
    values = truth["state"].values.copy()
    outside = truth["time"].values > np.datetime64("2001-12-31T23")
    values[outside] = np.nan
    after = all_fits(truth.assign(state=(truth["state"].dims, values)), normals, channels)
    assert {n: f.digest for n, f in before.items()} == {n: f.digest for n, f in after.items()}
    assert np.isnan(values).any()


def test_pairs_stay_inside_training_periods(experiment: Config) -> None:
    """A pair that ends between two periods, after the last one, or in a gap of the store, is none."""
    truth, normals, channels = inputs(experiment)
    periods = [
        {"start": "2001-01-01T00:00", "end": "2001-01-20T23:00"},
        {"start": "2001-01-22T00:00", "end": "2001-02-28T23:00"},
    ]
    normals = dataclasses.replace(normals, contract={**normals.contract, "train": periods})
    training = fit.Training(truth.isel(time=[i for i in range(59) if i != 40]), normals, [24, 168], channels)
    days = training.init.astype("datetime64[D]").astype(str).tolist()
    assert "2001-01-13" in days
    assert not {"2001-01-14", "2001-01-20", "2001-02-09", "2001-02-03", "2001-02-22"} & set(days)
    with pytest.raises(ValueError, match="every lead must have at least one pair of times, got none for 2160 h"):
        fit.fit(["linear"], fit.Training(truth.isel(time=slice(0, 59)), normals, [24 * 90], channels))


def test_damped_persistence_takes_pairs_at_each_lead(experiment: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """No start has every lead: each factor comes from the pairs of its own lead, as if it were fitted alone; catches a
    baseline refused though it can be fitted, and factors of other leads' pairs. A regression needs starts with all."""
    truth, normals, channels = inputs(experiment)
    days = [0, 1, 10, 11, 20, 50, 90, 120]  # a day or thirty days apart, no start with both
    apart = truth.isel(time=[*days, *range(370, 400)])
    both = fit.Training(apart, normals, [24, 720], channels)
    assert [(leads, init.size) for leads, init in both.groups] == [([24], 2), ([720], 2)]
    alone = [fit.Training(apart, normals, [lead], channels) for lead in (24, 720)]
    names = ["damped_persistence"]
    assert np.isfinite(fit._fit(names, both)["damped_persistence"]["factors"]).all()
    monkeypatch.setattr("evaluate.baselines.excluded_window.NEGLIGIBLE", 2.0)  # so that no other start matters
    found = fit._fit(names, both)["damped_persistence"]["factors"]
    each = [fit._fit(names, training)["damped_persistence"]["factors"] for training in alone]
    np.testing.assert_array_equal(found, np.concatenate(each))
    assert len(np.unique(found)) == found.size == 2 * len(channels)
    with pytest.raises(ValueError, match=r"must have 30 training states in 1.5 GB, got 0 of 0"):
        fit.fit(["linear"], both)


def test_fits_are_kept_and_made_anew_for_other_settings(experiment: Config, tmp_path: Path, monkeypatch) -> None:
    """The file is used when nothing changed, and not when the leads did."""
    truth, normals, channels = inputs(experiment)
    first = all_fits(truth, normals, channels, folder=tmp_path)
    fresh = fit._fit
    monkeypatch.setattr(fit, "_fit", None)
    again = all_fits(truth, normals, channels, folder=tmp_path)
    assert {n: (f.digest, f.facts) for n, f in first.items()} == {n: (f.digest, f.facts) for n, f in again.items()}
    monkeypatch.setattr(fit, "_fit", fresh)
    other = fit.fit(["linear"], fit.Training(truth, normals, [48], channels), folder=tmp_path)
    assert other["linear"].digest != first["linear"].digest
    assert len(other["linear"].facts["ridge_strength"]) == 1


def test_linear_forecast_does_not_depend_on_the_batch(experiment: Config) -> None:
    """The same forecast alone and among others; catches a cache that mixes batches."""
    truth, normals, channels = inputs(experiment)
    from evaluate.reading.align import Alignment
    from evaluate.reading.reader import Reader

    predictor = all_fits(truth, normals, channels)["linear"].predictor
    init = truth["time"].values[400:406]

    def forecasts(size: int) -> np.ndarray:
        alignment = Alignment(init, np.array(LEADS))
        reader = Reader(truth, normals, {}, channels=channels, alignment=alignment, batch_size=size)
        return np.stack([predictor(b, t, 1) for b in reader.batches() for t in range(len(b.init_times))])

    np.testing.assert_allclose(forecasts(6), forecasts(1), rtol=1e-5, atol=1e-3)


def test_a_state_too_large_for_memory_is_refused() -> None:
    """A quarter degree: a plain message before any work, not a crash."""
    with pytest.raises(ValueError, match=r"leave .linear. out of evaluation"):
        linear.snapshot_count(5000, values=78 * 721 * 1440)
    assert linear.snapshot_count(5000, values=78 * 32 * 64) == linear.SNAPSHOTS


def test_names_agree() -> None:
    """Every baseline of the configuration can be made."""
    assert set(simple.NAMES) == {*simple.PREDICTORS, *fit.NAMES}
