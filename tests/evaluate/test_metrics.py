"""Every score against algebra, and against other people's implementations where the conventions agree."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import types

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate import metrics
from pipeline.grid import Grid

ALL = [getattr(metrics, name) for name in metrics.METRICS if name != "skill_persistence"]


def labelled(values: np.ndarray, grid: Grid, **attrs: str) -> xr.DataArray:
    """(init_time, lead_time, latitude, longitude) with real labels."""
    init = np.datetime64("2003-01-01", "ns") + np.arange(values.shape[0]) * np.timedelta64(1, "D")
    lead = (np.arange(values.shape[1]) + 1) * np.timedelta64(24, "h").astype("timedelta64[ns]")
    coords = {"init_time": init, "lead_time": lead, "latitude": grid.latitude, "longitude": grid.longitude}
    return xr.DataArray(values, coords, list(coords), attrs=attrs)


@pytest.fixture
def trio() -> tuple[xr.DataArray, xr.DataArray, xr.DataArray, np.ndarray]:
    """Forecast, truth and climatology on a 6 x 10 grid, 5 init times, 2 leads; and the area weights."""
    rng = np.random.default_rng(3)
    grid = Grid(np.linspace(-75, 75, 6), np.arange(10) * 36.0)
    f, o, c = (labelled(rng.normal(2.0, 3.0, (5, 2, 6, 10)), grid) for _ in range(3))
    return f, o, c, grid.area_weights


def test_scores_by_hand() -> None:
    """Two init times on two cells of known area, every score worked out on paper; catches any slip in a formula."""
    grid = Grid([-45.0, 45.0], [0.0, 180.0])
    one = np.array([[1.0, 1.0], [1.0, 1.0]])
    f = labelled(np.stack([3.0 * one, np.array([[0.0, 2.0], [4.0, 2.0]])])[:, None], grid)
    o = labelled(np.stack([1.0 * one, np.array([[1.0, 1.0], [1.0, 5.0]])])[:, None], grid)
    c = labelled(np.zeros((2, 1, 2, 2)), grid)
    # errors: 2 2 2 2 | -1 1 3 -3; all areas equal
    assert metrics.mse(f, o).item() == pytest.approx((4 + (1 + 1 + 9 + 9) / 4) / 2)
    assert metrics.rmse(f, o).item() == pytest.approx(np.sqrt((4 + 5) / 2))
    assert metrics.mean_rmse(f, o).item() == pytest.approx((2 + np.sqrt(5)) / 2)
    assert metrics.mae(f, o).item() == pytest.approx((2 + 2) / 2)
    assert metrics.bias(f, o).item() == pytest.approx((2 + 0) / 2)
    second = (0 * 1 + 2 * 1 + 4 * 1 + 2 * 5) / np.sqrt((4 + 16 + 4) * (1 + 1 + 1 + 25))
    assert metrics.acc(f, o, climatology=c).item() == pytest.approx((1 + second) / 2)
    assert metrics.skill(f, o, climatology=c).item() == pytest.approx(1 - (4 + 5) / (1 + 7))
    spread_f, spread_o = (0 + (4 + 0 + 4 + 0) / 4) / 2, (0 + (1 + 1 + 1 + 9) / 4) / 2
    assert metrics.activity(f, o, climatology=c).item() == pytest.approx(np.sqrt(spread_f / spread_o))


def test_means_are_area_weighted(trio) -> None:
    """Against NumPy with the exact cell areas; catches an unweighted mean and cos(latitude) on other grids."""
    f, o, c, w = trio
    error, fa, oa = (f - o).values, (f - c).values, (o - c).values
    mean = lambda x: (x * w).mean(axis=(2, 3))  # noqa: E731
    np.testing.assert_allclose(metrics.mse(f, o), mean(error**2).mean(0), rtol=1e-13)
    np.testing.assert_allclose(metrics.rmse(f, o), np.sqrt(mean(error**2).mean(0)), rtol=1e-13)
    np.testing.assert_allclose(metrics.mae(f, o), mean(abs(error)).mean(0), rtol=1e-13)
    np.testing.assert_allclose(metrics.bias(f, o), mean(error).mean(0), rtol=1e-12)
    ratio = mean(fa * oa) / np.sqrt(mean(fa**2) * mean(oa**2))
    np.testing.assert_allclose(metrics.acc(f, o, climatology=c), ratio.mean(0), rtol=1e-12)
    cf, co = fa - mean(fa)[..., None, None], oa - mean(oa)[..., None, None]
    centred = mean(cf * co) / np.sqrt(mean(cf**2) * mean(co**2))
    np.testing.assert_allclose(metrics.pearson(f, o, climatology=c), centred.mean(0), rtol=1e-10)
    skill = 1 - mean(error**2).mean(0) / mean(oa**2).mean(0)
    np.testing.assert_allclose(metrics.skill(f, o, climatology=c), skill, rtol=1e-12)


def test_pooled_acc_by_plain_loops(trio) -> None:
    """Every cell of every init time in plain loops, WeatherBench-X's convention: three sums, one ratio; catches a mean
    of ratios, a lead that enters another's sum, weights left out, and a mask that counts."""
    f, o, c, w = trio
    mask = f.isel(lead_time=0, drop=True) > 0.5
    expected = {None: np.empty(2), "masked": np.empty(2)}
    for kind, found in expected.items():
        for lead in range(2):
            product = of_forecast = of_truth = 0.0
            for t in range(5):
                counted = [(i, j) for i in range(6) for j in range(10) if kind is None or bool(mask[t, i, j])]
                area = sum(w[i, j] for i, j in counted)  # each init time counts once, whatever the mask leaves
                for i, j in counted:
                    a = float(f[t, lead, i, j]) - float(c[t, lead, i, j])
                    b = float(o[t, lead, i, j]) - float(c[t, lead, i, j])
                    product += w[i, j] * a * b / area
                    of_forecast += w[i, j] * a * a / area
                    of_truth += w[i, j] * b * b / area
            found[lead] = product / (of_forecast * of_truth) ** 0.5
    np.testing.assert_allclose(metrics.acc_pooled(f, o, climatology=c), expected[None], rtol=1e-12)
    masked = metrics.acc_pooled(f, o, climatology=c, mask=mask.broadcast_like(f))
    np.testing.assert_allclose(masked, expected["masked"], rtol=1e-12)
    assert abs(metrics.acc_pooled(f, o, climatology=c) - metrics.acc(f, o, climatology=c)).min() > 1e-3
    one = {"init_time": [2]}
    alone = metrics.acc_pooled(f[one], o[one], climatology=c[one])
    np.testing.assert_allclose(alone, metrics.acc(f[one], o[one], climatology=c[one]), rtol=1e-12)


def test_maps_sum_over_init_times(trio) -> None:
    """A map of ACC is a ratio of sums over init times; the mean of per-time ratios would be +-1 everywhere."""
    f, o, c, _ = trio
    fa, oa = (f - c).values, (o - c).values
    expected = (fa * oa).sum(0) / np.sqrt((fa**2).sum(0) * (oa**2).sum(0))
    found = metrics.acc(f, o, climatology=c, dims=("init_time",))
    assert found.dims == ("lead_time", "latitude", "longitude")
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(metrics.rmse(f, o, dims=("init_time",)), np.sqrt(((f - o) ** 2).mean("init_time")))
    error = ((f - o) ** 2).mean("init_time") / ((o - c) ** 2).mean("init_time")
    np.testing.assert_allclose(metrics.skill(f, o, climatology=c, dims=("init_time",)), 1 - error)


def test_weights_follow_the_grid_not_the_cosine() -> None:
    """On a grid with rows on the poles cos(latitude) gives the poles nothing; their cells have an area."""
    grid = Grid.regular(30.0, poles=True)
    error = np.zeros((1, 1, *grid.shape))
    error[..., 0, :] = 1.0
    f, o = labelled(error, grid), labelled(np.zeros_like(error), grid)
    cap = (1 - np.cos(np.deg2rad(15.0))) / 2  # share of the sphere within 15 degrees of a pole
    assert metrics.mse(f, o).item() == pytest.approx(cap, rel=1e-12)
    cosine = np.cos(np.deg2rad(grid.latitude)).clip(0)
    assert (cosine[:, None] * error[0, 0]).sum() / (cosine.sum() * 12) == pytest.approx(0.0, abs=1e-12)


def test_perfect_forecast_and_climatology(trio) -> None:
    """Ends of every scale; catches a division by zero turned into infinity or into a silent zero."""
    _, o, c, _ = trio
    assert np.all(metrics.rmse(o, o) == 0)
    np.testing.assert_allclose(metrics.acc(o, o, climatology=c), 1.0)
    np.testing.assert_allclose(metrics.skill(o, o, climatology=c), 1.0)
    np.testing.assert_allclose(metrics.activity(o, o, climatology=c), 1.0)
    np.testing.assert_allclose(metrics.skill(c, o, climatology=c), 0.0)
    assert np.isnan(metrics.acc(c, o, climatology=c)).all()
    np.testing.assert_allclose(metrics.activity(c, o, climatology=c), 0.0)


def test_truth_and_climatology_on_time_axes(trio) -> None:
    """A truth with `time` is taken at the valid time, a climatology at its day and hour: catches an off-by-a-lead."""
    f, _, _, _ = trio
    times = np.datetime64("2003-01-01", "ns") + np.arange(8) * np.timedelta64(1, "D")
    rng = np.random.default_rng(0)
    field = xr.DataArray(
        rng.normal(size=(8, 6, 10)),
        {"time": times, "latitude": f["latitude"].values, "longitude": f["longitude"].values},
        ["time", "latitude", "longitude"],
    )
    by_hand = np.stack([[field.values[i + j + 1] for j in range(2)] for i in range(5)])
    expected = metrics.rmse(f, f.copy(data=by_hand))
    np.testing.assert_allclose(metrics.rmse(f, field), expected)
    daily = xr.DataArray(
        np.arange(366.0)[:, None, None, None] * np.ones((1, 1, 6, 10)),
        {"dayofyear": np.arange(1, 367), "hour": [0], "latitude": f["latitude"], "longitude": f["longitude"]},
        ["dayofyear", "hour", "latitude", "longitude"],
    )
    days = np.arange(5)[:, None] + np.arange(1, 3)[None]  # valid days after 1 January, slot - 1
    expected = metrics.acc(f, f.copy(data=by_hand), climatology=f.copy(data=days[..., None, None] + np.zeros((6, 10))))
    np.testing.assert_allclose(metrics.acc(f, field, climatology=daily), expected)


def test_mask_takes_cells_out(trio) -> None:
    """A masked cell, NaN or not, must not move the score; and a wholly masked init time does not count as zero."""
    f, o, _, w = trio
    mask = xr.ones_like(o, dtype=bool)
    mask[1, :, 2, 3] = False
    mask[4] = False
    spoiled = o.where(mask)
    keep = mask.values
    mean = ((f - o).values ** 2 * w * keep).sum((2, 3)) / np.maximum((w * keep).sum((2, 3)), 1e-300)
    np.testing.assert_allclose(metrics.mse(f, spoiled, mask=mask), mean[:4].mean(0), rtol=1e-12)
    with pytest.raises(ValueError, match="truth must be finite, got"):
        metrics.mse(f, spoiled)


def test_lazy_in_lazy_out(trio) -> None:
    """Dask arrays stay lazy and give the same numbers; a NaN in them is still refused when computed."""
    f, o, c, _ = trio
    lazy = [a.chunk({"init_time": 2}) for a in (f, o, c)]
    found = metrics.acc(lazy[0], lazy[1], climatology=lazy[2])
    assert found.chunks is not None
    np.testing.assert_allclose(found.compute(), metrics.acc(f, o, climatology=c), rtol=1e-13)
    broken = lazy[1].where(lazy[1]["longitude"] > 0)
    with pytest.raises(ValueError, match="finite"):
        metrics.rmse(lazy[0], broken).compute()


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.1, 50.0),
    shift=st.floats(-100.0, 100.0),
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 4), st.integers(2, 5), st.integers(3, 7)),
)
@pytest.mark.slow
def test_invariants(scale: float, shift: float, seed: int, shape: tuple[int, int, int]) -> None:
    """Scores move as they must under a change of unit: catches a missing square and an uncentred variance."""
    rng = np.random.default_rng(seed)
    num, rows, columns = shape
    grid = Grid(np.linspace(-80, 80, rows), np.arange(columns) * 360.0 / columns)
    f, o, c = (labelled(rng.normal(size=(num, 1, rows, columns)), grid) for _ in range(3))
    g, p, d = (scale * a + shift for a in (f, o, c))
    np.testing.assert_allclose(metrics.rmse(g, p), scale * metrics.rmse(f, o), rtol=1e-9)
    np.testing.assert_allclose(metrics.bias(g, p), scale * metrics.bias(f, o), rtol=1e-6, atol=1e-9)
    for score in (metrics.acc, metrics.skill, metrics.pearson, metrics.activity):
        np.testing.assert_allclose(score(g, p, climatology=d), score(f, o, climatology=c), rtol=1e-6, atol=1e-9)
    assert np.all(metrics.mean_rmse(f, o) <= metrics.rmse(f, o) * (1 + 1e-12))
    assert np.all(abs(metrics.acc(f, o, climatology=c)) <= 1 + 1e-12)


def test_dataset_needs_every_variable(trio) -> None:
    """A variable that the truth lacks is an error, not a silent drop."""
    f, o, _, _ = trio
    both = xr.Dataset({"a": f, "b": f})
    with pytest.raises(ValueError, match=r"truth must have every variable of the forecast, got none of \['b'\]"):
        metrics.rmse(both, xr.Dataset({"a": o}))
    found = metrics.rmse(both, xr.Dataset({"a": o, "b": o}))
    np.testing.assert_allclose(found["b"], metrics.rmse(f, o))


@pytest.mark.parametrize("score", ALL)
def test_renamed_latitude_is_refused(score, trio) -> None:
    """The reference code falls back to a weight of 1 when latitude has another name; here every score refuses."""
    f, o, c, _ = trio
    f, o, c = (a.rename(latitude="lat") for a in (f, o, c))
    with pytest.raises(ValueError, match="latitude"):
        score(f, o, climatology=c, dims=("init_time",))


def test_missing_climatology_is_refused(trio) -> None:
    """ACC without a climatology would be another score."""
    f, o, _, _ = trio
    with pytest.raises(ValueError, match="climatology must be given for acc"):
        metrics.acc(f, o)


def test_units_follow_the_score(trio) -> None:
    """RMSE keeps the unit, MSE squares it, ratios have none."""
    f, o, c, _ = trio
    f, o, c = (a.assign_attrs(units="K") for a in (f, o, c))
    assert metrics.rmse(f, o).attrs["units"] == "K"
    assert metrics.mse(f, o).attrs["units"] == "(K)^2"
    assert metrics.acc(f, o, climatology=c).attrs["units"] == "1"


def test_against_xskillscore(trio) -> None:
    """An independent implementation with weights: RMSE, MSE, MAE, bias and the centred correlation to 1e-6."""
    xs = pytest.importorskip("xskillscore")
    f, o, c, w = trio
    weights = (xr.DataArray(w, dims=("latitude", "longitude")) * xr.ones_like(f)).isel(lead_time=0, drop=True)
    over = ["init_time", "latitude", "longitude"]
    np.testing.assert_allclose(metrics.rmse(f, o), xs.rmse(f, o, dim=over, weights=weights), rtol=1e-6)
    np.testing.assert_allclose(metrics.mse(f, o), xs.mse(f, o, dim=over, weights=weights), rtol=1e-6)
    np.testing.assert_allclose(metrics.mae(f, o), xs.mae(f, o, dim=over, weights=weights), rtol=1e-6)
    unweighted = metrics.bias(f, o, dims=("init_time",))
    np.testing.assert_allclose(unweighted, xs.me(f, o, dim="init_time"), rtol=1e-6)
    space = ["latitude", "longitude"]
    each = xs.pearson_r(f - c, o - c, dim=space, weights=weights.isel(init_time=0, drop=True))
    np.testing.assert_allclose(metrics.pearson(f, o, climatology=c), each.mean("init_time"), rtol=1e-6)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """climate_learn.metrics.functional, without running the package's own __init__ (it needs torchvision's ops)."""
    try:
        folder = importlib.metadata.distribution("climate-learn").locate_file("climate_learn")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("climate-learn is not installed (extra: baselines)")
    package = types.ModuleType("climate_learn")
    package.__path__ = [str(folder)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "climate_learn", package)
    return importlib.import_module("climate_learn.metrics.functional")


def test_against_climate_learn(theirs, trio) -> None:
    """Where conventions agree to 1e-6 (MSE, mean of roots, MAE); where they differ, each against its own definition."""
    import torch

    f, o, c, _ = trio
    grid = Grid.from_dataset(f)
    cosine = np.cos(np.deg2rad(grid.latitude))
    w = torch.from_numpy(cosine / cosine.mean()).view(1, 1, -1, 1)
    p, t = (torch.from_numpy(a.values[:, :1].copy()) for a in (f, o))
    first = {"lead_time": 0}
    # the grid's cells are all 30 degrees high, but for its polar rows cos(latitude) is not the area: use theirs there
    area = torch.from_numpy(grid.area_weights).view(1, 1, *grid.shape)
    agree = {"mse": metrics.mse(f, o), "mae": metrics.mae(f, o), "rmse": metrics.mean_rmse(f, o)}
    for name, ours in agree.items():
        found = getattr(theirs, name)(p, t, lat_weights=area)[0].item()
        assert found == pytest.approx(ours.isel(first).item(), rel=1e-6), name
    rooted = theirs.rmse(p, t, lat_weights=area)[0].item()
    assert rooted < metrics.rmse(f, o).isel(first).item() * (1 - 1e-4)  # mean of roots is not the RMSE
    opposite = theirs.mean_bias(p, t)[0].item()
    plain = -(f - o).isel(first).mean().item()  # unweighted, truth minus forecast
    assert opposite == pytest.approx(plain, rel=1e-5)
    pooled = theirs.acc(p, t, torch.from_numpy(c.values[:, :1].copy()), lat_weights=area)[0].item()
    parts = [(a[i : i + 1] for a in (p, t, torch.from_numpy(c.values[:, :1].copy()))) for i in range(5)]
    single = np.mean([theirs.acc(*part, lat_weights=area)[0] for part in parts])
    assert abs(pooled - single) > 1e-3  # theirs depends on the batch size
    assert w.mean().item() == pytest.approx(1.0)
