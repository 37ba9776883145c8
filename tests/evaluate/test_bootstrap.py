"""Intervals that cover what they promise, from blocks as long as the weather's memory."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate import bootstrap


def red_noise(num: int, columns: int, phi: float, seed: int) -> np.ndarray:
    """AR(1) series of unit variance, shape (num, columns)."""
    rng = np.random.default_rng(seed)
    x = np.empty((num, columns))
    x[0] = rng.standard_normal(columns)
    for i in range(1, num):
        x[i] = phi * x[i - 1] + np.sqrt(1 - phi * phi) * rng.standard_normal(columns)
    return x


def coverage(x: np.ndarray, truth: float, *, block: int | None = None) -> float:
    """Share of the columns whose 95% interval holds the truth."""
    hits = 0
    for i, column in enumerate(x.T):
        length = block or bootstrap.block_length(column)
        weights = bootstrap.resample_weights(len(column), block=length, resamples=400, seed=i)
        low, high = bootstrap.interval([column[:, None]], lambda v: v, weights=weights, block=length)
        hits += bool(low[0] <= truth <= high[0])
    return hits / x.shape[1]


def test_block_length_grows_with_memory() -> None:
    """White noise needs single draws, red noise long blocks, and a constant series must not divide by zero."""
    lengths = [bootstrap.block_length(red_noise(400, 30, phi, 1)) for phi in (0.0, 0.5, 0.87)]
    assert lengths[0] <= 6 < lengths[1] < lengths[2] <= 100
    assert bootstrap.block_length(np.ones((50, 2))) == 1
    assert bootstrap.block_length(red_noise(50, 3, 0.99, 0)) == 50 // bootstrap.FEWEST_BLOCKS
    assert bootstrap.block_length(np.ones(5), shortest=3) == 3


def test_resample_weights_draw_whole_blocks() -> None:
    """Rows sum to one and are made of consecutive init times: catches an ordinary bootstrap in disguise."""
    weights = bootstrap.resample_weights(20, block=6, resamples=50, seed=2)
    np.testing.assert_allclose(weights.sum(1), 1.0)
    assert weights.shape == (50, 20)
    single = bootstrap.resample_weights(20, block=20, resamples=5)
    np.testing.assert_allclose(single, 1 / 20)
    neighbours = np.mean([np.corrcoef(weights[:, i], weights[:, i + 1])[0, 1] for i in range(5, 14)])
    assert neighbours > 0.5
    again = bootstrap.resample_weights(20, block=6, resamples=50, seed=2)
    np.testing.assert_array_equal(weights, again)
    with pytest.raises(ValueError, match="block length must lie between 1 and the number of init times 20, got 21"):
        bootstrap.resample_weights(20, block=21)


def test_few_blocks_give_no_interval() -> None:
    """Eight init times that overlap say next to nothing: NaN, never a narrow band."""
    x = np.arange(8.0)[:, None]
    weights = bootstrap.resample_weights(8, block=8)
    low, high = bootstrap.interval([x], lambda v: v, weights=weights, block=8)
    assert np.isnan([low, high]).all()
    assert bootstrap.expansion(50, block=10) > bootstrap.expansion(1000, block=10) > 1.0


def test_interval_of_a_ratio_uses_the_same_draws() -> None:
    """Skill of a model that is always 10% better is certain although both errors swing: catches unpaired draws."""
    errors = np.exp(red_noise(300, 1, 0.8, 4))
    weights = bootstrap.resample_weights(300, block=20)
    low, high = bootstrap.interval([0.9 * errors, errors], lambda a, b: 1 - a / b, weights=weights, block=20)
    np.testing.assert_allclose([low[0], high[0]], 0.1, atol=1e-12)
    low, high = bootstrap.interval([errors], lambda a: a, weights=weights, block=20)
    assert high[0] - low[0] > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("phi", [0.0, 0.6, 0.87])
def test_coverage_with_the_memory_of_daily_z500(phi: float) -> None:
    """95% intervals cover 92 to 97% from 300 init times on (sampling error 0.9%); single draws cover far less."""
    x = red_noise(400, 600, phi, 11)
    assert 0.92 <= coverage(x, 0.0) <= 0.97
    if phi > 0.8:
        assert coverage(x, 0.0, block=1) < 0.6  # what pretending independence would give


def test_sign_test_finds_the_signal_and_not_the_noise() -> None:
    """With the false discovery rate held, pure noise stays blank almost everywhere; a clear signal does not."""
    rng = np.random.default_rng(0)
    blocks = rng.standard_normal((20, 30, 40))
    blocks[:, :10] += 1.5
    found = bootstrap.sign_test(blocks, counts=np.full(20, 10))
    assert found[:10].mean() > 0.9
    assert found[10:].mean() < 0.1
    assert not bootstrap.sign_test(blocks[:2], counts=[10, 10]).any()
    short = bootstrap.sign_test(np.concatenate([blocks, 1e6 * np.ones((1, 30, 40))]), counts=[10] * 20 + [1])
    np.testing.assert_array_equal(short, found)  # a stump of a block is left out


@pytest.mark.parametrize("draws", [2, 7, 1000])
def test_quantiles_of_what_is_in_order_are_numpys(draws: int) -> None:
    """Catches a place that is off by one, another interpolation, and NaN that counts as the largest value."""
    values = np.random.default_rng(draws).standard_normal((draws, 3, 4))
    values[0, 1, 2] = np.nan
    for share in (0.0, 0.025, 0.4, 0.975, 1.0):
        found = bootstrap.quantile(np.sort(values, axis=0), share)
        assert np.array_equal(found, np.quantile(values, share, axis=0), equal_nan=True)
