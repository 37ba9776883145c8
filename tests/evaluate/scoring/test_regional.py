"""Sums over regions against float64, cell by cell."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.scoring.regional import RegionalSums
from evaluate.scoring.regions import region_weights
from evaluate.statistics import MODEL_STATISTICS, STATISTICS, TRUTH_STATISTICS, Pair
from pipeline.grid import Grid


@pytest.mark.parametrize("resolution", [22.5, 15.0, 5.625, 3.0])
def test_sums_agree_with_float64(resolution: float) -> None:
    """Every statistic of every region, with pieces shorter and longer than a segment; catches a region that gets
    another's cells, a weight that is not the area, and statistics in each other's place."""
    grid = Grid.regular(resolution)
    rng = np.random.default_rng(5)
    regions = region_weights(grid, land_sea_mask=(rng.random(grid.shape) < 0.3).astype(np.float32))
    o, c, f, g = (5e4 + 300.0 * rng.standard_normal((7, grid.size)).astype(np.float32) for _ in range(4))
    sums = RegionalSums(regions)
    found = sums(o, c, [f, c, g])
    weights = regions.values.reshape(regions.sizes["region"], -1).T
    scale = (np.abs(o.astype(np.float64) - c) ** 2 @ weights).max()
    for m, forecast in enumerate((f, c, g)):
        x = [a.astype(np.float64) for a in (forecast - o, forecast - c, o - c)]
        for name in (*MODEL_STATISTICS, *TRUTH_STATISTICS):
            exact = np.asarray(STATISTICS[name].compute(Pair(*x))) @ weights
            ours = found.models[name][m] if name in MODEL_STATISTICS else found.truth[name]
            positive = name.endswith("squared") or name in ("squared_error", "absolute_error")
            limit = {"rtol": 1e-6} if positive else {"rtol": 0.0, "atol": 1e-6 * scale}
            np.testing.assert_allclose(ours, exact, err_msg=name, **limit)
    np.testing.assert_allclose(sums.totals, weights.sum(axis=0), rtol=1e-7)


def test_a_constant_error_is_its_own_mean() -> None:
    """Catches totals that are not the sums of the very weights that were used."""
    grid = Grid.regular(7.5)
    sums = RegionalSums(region_weights(grid))
    zero = np.zeros((1, grid.size), np.float32)
    found = sums(zero, zero.copy(), [zero + np.float32(3.25)])
    np.testing.assert_allclose(found.models["error"][0] / sums.totals, 3.25, rtol=1e-7)


def test_weights_that_differ_between_regions_are_refused() -> None:
    """One order of cells serves all regions only if a cell weighs the same in each."""
    regions = region_weights(Grid.regular(30.0))
    regions[1] *= 2.0
    with pytest.raises(ValueError, match="region weights must be the cell's area"):
        RegionalSums(regions)
