"""Fifty years of real weather: what is known about persistence must come out of our formulas.

NCEP/NCAR reanalysis 1, daily 1961-2010, Iberia (6 x 9 points); its last 36 days are missing at two variables.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks.real_data import daily_climatology, read
from evaluate import metrics
from evaluate.baselines import simple
from evaluate.baselines.damped import DampingSums
from evaluate.reading import align

pytestmark = pytest.mark.slow

LEADS = [24, 168, 336, 720]


@pytest.fixture(scope="module")
def z500(shared_reference: Path) -> xr.DataArray:
    """Geopotential at 500 hPa, its missing end still in it."""
    return read("Z500", folder=shared_reference / "real" / "ncep_r1_iberia_daily")


def regional_mean(truth: xr.DataArray) -> xr.DataArray:
    """The box mean on every point, so that each cell of a map of scores is the score of the mean."""
    return xr.ones_like(truth) * truth.mean(("latitude", "longitude"))


def test_missing_days_need_a_mask(z500: xr.DataArray) -> None:
    """36 days of NaN are refused without an explicit mask, and with it give the score of the days that are there."""
    assert int(z500.isnull().any(("latitude", "longitude")).sum()) == 36
    late = z500.sel(time=slice("2010-09-01", None))
    init = late["time"].values[:-1]
    forecast = simple.persistence_forecast(late, init_times=init, leads=[24]).fillna(0.0)
    with pytest.raises(ValueError, match="truth must be finite, got 1944 of 6534"):
        metrics.rmse(forecast, late)
    there = late.notnull() & late.shift(time=1).notnull()
    with_mask = metrics.rmse(forecast, late, mask=there)
    whole = late.dropna("time")
    plain = simple.persistence_forecast(whole, init_times=whole["time"].values[:-1], leads=[24])
    assert with_mask.item() == pytest.approx(metrics.rmse(plain, whole).item(), rel=1e-12)


def test_persistence_has_the_known_memory(z500: xr.DataArray) -> None:
    """Anomaly autocorrelation of the box mean at 1, 7, 14, 30 days: .87 .18 .08 .04, and RMSE follows from it."""
    truth = regional_mean(z500.isel(time=slice(0, -36)))
    climatology = daily_climatology(truth, window=1)
    init = truth["time"].values[:-30]
    forecast = simple.persistence_forecast(truth, init_times=init, leads=LEADS)
    memory = metrics.acc(forecast, truth, climatology=climatology, dims=("init_time",)).mean(metrics.SPACE)
    # the anomaly of the state at the init time differs from persistence's, whose climatology is the valid day's, so
    # take the climatology's own change out first
    at_init = simple.climatology_forecast(climatology, init_times=init, leads=[0]).isel(lead_time=0, drop=True)
    at_valid = simple.climatology_forecast(climatology, init_times=init, leads=LEADS)
    anomaly_kept = forecast - at_init + at_valid
    exact = metrics.acc(anomaly_kept, truth, climatology=climatology, dims=("init_time",)).mean(
        ("latitude", "longitude")
    )
    np.testing.assert_allclose(exact, [0.87, 0.18, 0.08, 0.04], atol=0.006)
    assert np.all(memory <= exact + 0.01)
    mse_climatology = metrics.mse(at_valid, truth)
    mse_kept = metrics.mse(anomaly_kept, truth)
    np.testing.assert_allclose(mse_kept / mse_climatology, 2 * (1 - exact.values), rtol=0.01)
    np.testing.assert_allclose(
        metrics.skill(anomaly_kept, truth, climatology=climatology), 2 * exact.values - 1, atol=0.01
    )


def test_climatology_wins_from_a_week_on(z500: xr.DataArray) -> None:
    """Out of sample (climatology 1961-1990, scored 1991-2009): persistence wins at a day, climatology from a week."""
    climatology = daily_climatology(z500.sel(time=slice("1961", "1990")), window=31)
    truth = z500.sel(time=slice("1991", "2009"))
    init = truth["time"].values[:-30]
    forecast = simple.persistence_forecast(truth, init_times=init, leads=LEADS)
    skill = metrics.skill(forecast, truth, climatology=climatology)
    assert skill[0] > 0.4
    assert np.all(skill[1:] < -0.4)
    itself = simple.climatology_forecast(climatology, init_times=init, leads=LEADS)
    np.testing.assert_allclose(metrics.skill(itself, truth, climatology=climatology), 0.0, atol=1e-12)
    rmse = metrics.rmse(forecast, truth)
    assert np.all(np.diff(rmse) > 0)


def test_damping_is_the_autocorrelation(z500: xr.DataArray) -> None:
    """The fitted factor of damped persistence is the regression on the initial anomaly, and beats both parents."""
    years = z500.sel(time=slice("1961", "1990"))
    climatology = daily_climatology(years, window=31)

    def anomalies(truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray]:
        init = truth["time"].values[:-30]
        field = simple.persistence_forecast(truth, init_times=init, leads=LEADS)
        at_init = simple.climatology_forecast(climatology, init_times=init, leads=[0]).isel(lead_time=0, drop=True)
        at_valid = simple.climatology_forecast(climatology, init_times=init, leads=LEADS)
        return field, field - at_init, at_valid

    _, start, at_valid = anomalies(years)
    end = align.at_valid_time(years, start) - at_valid
    sums = DampingSums(leads=len(LEADS), channels=1, area=np.ones(54))
    for a, b in zip(start.transpose("init_time", ...).values, end.transpose("init_time", ...).values, strict=True):
        sums.add(a[0].reshape(1, 54), list(b.reshape(-1, 1, 54)))
    factors = xr.DataArray(sums.factors[:, 0], {"lead_time": start["lead_time"]}, ["lead_time"])
    np.testing.assert_allclose(factors, [0.80, 0.15, 0.07, 0.02], atol=0.03)
    test = z500.sel(time=slice("1991", "2009"))
    field, start, at_valid = anomalies(test)
    damped = at_valid + factors * start
    errors = [metrics.mse(f.transpose("init_time", "lead_time", ...), test).values for f in (damped, field, at_valid)]
    assert np.all(errors[0] <= errors[1])
    assert np.all(errors[0] <= errors[2] * 1.002)
    assert errors[0][0] < 0.7 * errors[2][0]
