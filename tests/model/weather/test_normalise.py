"""Scaling between physical fields and what the network sees."""

from __future__ import annotations

import numpy as np
import pytest

from model.weather.normalise import Scaling, standardise_static

MEAN, STD = np.array([250.0, 5e4]), np.array([10.0, 3e3])


@pytest.fixture
def scaling() -> Scaling:
    return Scaling(("t850", "z500"), MEAN, STD)


def fields(seed: int, *shape: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((*shape, 2, 3, 5))
    return (MEAN[:, None, None] + STD[:, None, None] * noise).astype(np.float32)


def test_standardise_is_algebra(scaling: Scaling) -> None:
    """Catches a mean or spread applied along the wrong axis."""
    state = fields(0, 4)
    out = scaling.standardise(state)
    for c in range(2):
        assert np.allclose(out[:, c], (state[:, c] - MEAN[c]) / STD[c], atol=1e-5)
    assert out.dtype == np.float32


def test_physical_inverts_anomaly(scaling: Scaling) -> None:
    """Catches an anomaly scaled one way and unscaled another."""
    state, climatology = fields(1, 4), fields(2, 4)
    back = scaling.physical(scaling.anomaly(state, climatology), climatology)
    assert np.allclose(back, state, rtol=2e-6)


def test_zero_anomaly_is_the_climatology_to_the_bit(scaling: Scaling) -> None:
    """Catches a denormalisation through the mean, whose rounding would give climatology a score of its own."""
    climatology = fields(3, 4)
    assert np.array_equal(scaling.physical(np.zeros_like(climatology), climatology), climatology)


@pytest.mark.parametrize("bad", [0.0, np.nan, -1.0])
def test_a_spread_that_is_none_is_refused_by_name(bad: float) -> None:
    """Catches a division by zero that would surface as a loss of infinity hours later."""
    with pytest.raises(ValueError, match="z500"):
        Scaling(("t850", "z500"), MEAN, np.array([10.0, bad]))


def test_constant_static_becomes_zero() -> None:
    """Catches NaNs from an all-ocean land-sea mask."""
    field = np.stack([np.full((3, 5), 7.0), np.arange(15.0).reshape(3, 5)]).astype(np.float32)
    out = standardise_static(field, mean=np.array([7.0, 7.0]), std=np.array([0.0, 2.0]))
    assert np.array_equal(out[0], np.zeros((3, 5)))
    assert np.allclose(out[1], (field[1] - 7.0) / 2.0)
