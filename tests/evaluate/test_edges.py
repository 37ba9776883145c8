"""Edges of patches in fields."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evaluate.edges import edge_ratio


def fields(shape: tuple[int, int], *, times: int = 2) -> xr.DataArray:
    values = np.random.default_rng(4).standard_normal((times, 3, *shape))
    dims = ("init_time", "channel", "latitude", "longitude")
    coords = {"latitude": np.linspace(-80, 80, shape[0]), "channel": ["z500", "t850", "t2m"]}
    return xr.DataArray(values, dims=dims, coords=coords)


def test_ratio_equals_a_loop() -> None:
    """Catches edges shifted by a cell, a date line left out, poles joined, and a mean of ratios."""
    given, patch = fields((6, 9)), 3
    found = edge_ratio(given.transpose("longitude", "channel", "latitude", "init_time"), patch=patch)
    assert found.sel(axis="latitude").dims == ("channel",)
    for channel in range(3):
        jumps: dict[tuple[str, bool], list[float]] = {}
        for field in given.values[:, channel]:
            for i in range(6):
                for j in range(9):
                    if i < 5:
                        jumps.setdefault(("latitude", i in (2,)), []).append((field[i + 1, j] - field[i, j]) ** 2)
                    along = jumps.setdefault(("longitude", j in (2, 5, 8)), [])
                    along.append((field[i, (j + 1) % 9] - field[i, j]) ** 2)
        for axis in ("latitude", "longitude"):
            right = np.mean(jumps[axis, True]) / np.mean(jumps[axis, False])
            assert float(found.isel(channel=channel).sel(axis=axis)) == pytest.approx(right, rel=1e-12)


def test_patches_are_seen_and_constants_have_no_ratio() -> None:
    """Catches a measure that calls blocks smooth, and a division by zero."""
    blocks = fields((4, 6)).isel(latitude=[0, 0, 1, 1], longitude=[0, 0, 1, 1, 2, 2])
    assert np.isnan(edge_ratio(blocks, patch=2)).all()
    noisy = blocks + 0.1 * fields((4, 6), times=1).isel(init_time=0, drop=True).values
    assert (edge_ratio(noisy, patch=2) > 10).all()
    assert np.isnan(edge_ratio(fields((4, 8)), patch=4).sel(axis="latitude")).all()


@pytest.mark.parametrize(("shape", "patch"), [((4, 6), 4), ((4, 6), 1)])
def test_patches_that_do_not_fit_are_refused(shape: tuple[int, int], patch: int) -> None:
    """Catches edges looked for where there are none."""
    with pytest.raises(ValueError, match=f"got 4 x 6 cells and patches of {patch}"):
        edge_ratio(fields(shape), patch=patch)
