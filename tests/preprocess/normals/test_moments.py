"""Sums that add up over any division of the data, and the window that smooths them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import Grid
from preprocess.normals.moments import Moments, merge, triangle

WEIGHTS = Grid.regular(22.5).area_weights / Grid.regular(22.5).size


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 39), max_size=4, unique=True),
    offset=st.sampled_from([0.0, 5e5]),
    seed=st.integers(0, 99),
)
def test_partial_sums_merge_to_the_one_pass_result(cuts: list[int], offset: float, seed: int) -> None:
    """Catches a merge that forgets the shift between means; geopotential's large mean would show cancellation."""
    sample = np.random.default_rng(seed).normal(size=(40, 2, 128)) * np.array([[1.0], [30.0]]) + offset
    weights = WEIGHTS.ravel()
    parts = [
        merge([Moments.of(x, weights=weights) for x in part]) for part in np.split(sample, sorted(cuts)) if len(part)
    ]
    whole = merge(parts)
    mean = np.einsum("tcx,x->c", sample, weights) / 40
    spread = np.sqrt(np.einsum("tcx,x->c", (sample - mean[:, None]) ** 2, weights) / 40)
    assert whole.count == 40
    np.testing.assert_allclose(whole.mean, mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole.std, spread, rtol=1e-10)


@pytest.mark.parametrize("window", [1, 2, 31, 61, 183])
def test_triangle(window: int) -> None:
    """Catches a window of another width, a lopsided one, or one that stops at New Year."""
    kernel = triangle(window)
    np.testing.assert_array_equal(kernel, kernel.T)
    np.testing.assert_array_equal(kernel[0], np.roll(kernel[200], -200))
    half = (window + 1) / 2
    assert kernel[0, 0] == 1.0
    assert np.count_nonzero(kernel[0]) == (window if window % 2 else window - 1) + (window % 2 == 0) * 2
    assert kernel[0, 1] == pytest.approx(max(0.0, 1 - 1 / half))
    assert kernel[0, -1] == kernel[0, 1]
