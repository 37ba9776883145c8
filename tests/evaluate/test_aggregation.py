"""Sums that merge exactly, in labelled states and in the streamed kernel."""

from __future__ import annotations

import operator
from functools import reduce
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

from evaluate.aggregation import AggregationState
from evaluate.statistics import STATISTICS, Pair


def arrays(num: int = 12) -> tuple[dict[str, xr.DataArray], xr.DataArray]:
    """Two statistics over 12 init times and a weight on the cells."""
    rng = np.random.default_rng(1)
    coords = {"init_time": np.arange(num), "latitude": np.arange(5.0), "longitude": np.arange(7.0)}
    make = lambda: xr.DataArray(rng.normal(size=(num, 5, 7)), coords, list(coords))  # noqa: E731
    weight = xr.DataArray(rng.random((5, 7)), dims=("latitude", "longitude"))
    return {"a": make(), "b": make()}, weight


@pytest.mark.parametrize("cuts", [(1,), (5,), (1, 2, 3), (4, 5, 11)])
def test_any_split_gives_the_same_means(cuts: tuple[int, ...]) -> None:
    """Batches, workers and blocks: catches averages of averages, which depend on the split."""
    values, weight = arrays()
    dims = ["init_time", "latitude", "longitude"]
    whole = AggregationState.of(values, weight=weight, dims=dims)
    edges = [0, *cuts, 12]
    parts = [
        AggregationState.of({k: v[a:b] for k, v in values.items()}, weight=weight, dims=dims)
        for a, b in pairwise(edges)
    ]
    merged = reduce(operator.add, parts).means()
    for name, mean in whole.means().items():
        np.testing.assert_allclose(merged[name], mean, rtol=1e-14)
        np.testing.assert_allclose(mean, np.average(values[name].mean("init_time"), weights=weight), rtol=1e-13)
    naive = np.mean([p.means()["a"].item() for p in parts])
    if len(set(np.diff(edges))) > 1:
        assert abs(naive - whole.means()["a"].item()) > 1e-6  # the defective way is visible here


def test_concat_keeps_init_times_apart() -> None:
    """States of batches lie side by side in order, and truth statistics without `model` stay as they are."""
    values, weight = arrays()
    dims = ["latitude", "longitude"]
    whole = AggregationState.of(values, weight=weight, dims=dims)
    halves = [
        AggregationState.of({k: v[s] for k, v in values.items()}, weight=weight, dims=dims)
        for s in (slice(0, 5), slice(5, 12))
    ]
    joined = AggregationState.concat(halves, "init_time")
    xr.testing.assert_allclose(joined.sums, whole.sums)
    assert joined.means()["a"].dims == ("init_time",)


def test_states_that_do_not_fit_are_refused() -> None:
    """xarray would fill what is missing with NaN, or drop it."""
    values, weight = arrays()
    a = AggregationState.of(values, weight=weight, dims=["init_time"])
    with pytest.raises(ValueError, match="same statistics"):
        a + AggregationState.of({"a": values["a"]}, weight=weight, dims=["init_time"])
    moved = {k: v.assign_coords(latitude=v["latitude"] + 1) for k, v in values.items()}
    with pytest.raises(ValueError, match="share their coordinates"):
        a + AggregationState.of(moved, weight=weight, dims=["init_time"])
    with pytest.raises(ValueError, match=r"dims must be dimensions of the forecast, got .'member'."):
        AggregationState.of(values, weight=weight, dims=["member"])


def test_statistics_by_hand() -> None:
    """Each un-reduced statistic on one cell; catches swapped operands, which sums can hide."""
    f, o, c = 7.0, 4.0, 5.0
    pair = Pair(np.array(f - o), np.array(f - c), np.array(o - c))
    expected = {"error": 3, "absolute_error": 3, "squared_error": 9, "forecast_anomaly": 2, "truth_anomaly": -1}
    expected |= {"forecast_anomaly_squared": 4, "anomaly_product": -2, "truth_anomaly_squared": 1}
    assert {name: float(s.compute(pair)) for name, s in STATISTICS.items()} == expected
