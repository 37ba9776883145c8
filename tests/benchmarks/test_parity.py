"""Changes of scores between two trained networks, with the intervals of paired draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.paper.parity import change


def made_up(seed: int = 0) -> dict[str, np.ndarray]:
    """Scores of 3 seeds, 40 init times, 2 leads and 2 channels, which vary much from one init time to the next."""
    generator = np.random.default_rng(seed)
    shape = (3, 40, 2, 2)
    return {"mse": generator.uniform(1, 9, shape), "acc": generator.uniform(-0.2, 0.9, shape)}


def test_a_constant_factor_has_no_interval() -> None:
    """Catches draws that are not paired, and an RMSE whose root is taken of something else than each seed's mean."""
    flat = made_up()
    other = {"mse": flat["mse"] * 1.21, "acc": flat["acc"] - 0.05}
    found = change(flat, other, block=3)
    for name, right in (("MSE", 21.0), ("RMSE", 10.0), ("wACC", -0.05)):
        for values in found[name]:
            assert values == pytest.approx(np.full((2, 2), right), rel=1e-9)


def test_the_root_is_taken_of_the_mean_over_init_times() -> None:
    """Catches a root of each init time, and one of the mean over seeds: 1 and 3 become 2 and 3, a quarter more."""
    mse = np.array([[0.5, 1.5], [8.0, 10.0]]).reshape(2, 2, 1, 1)
    other = np.array([[2.0, 6.0], [9.0, 9.0]]).reshape(2, 2, 1, 1)
    acc = np.ones((2, 2, 1, 1))
    value, _, _ = change({"mse": mse, "acc": acc}, {"mse": other, "acc": acc}, block=1)["RMSE"]
    assert value == pytest.approx(np.full((1, 1), 25.0))


def test_intervals_hold_the_change_and_tell_noise_from_a_difference() -> None:
    """Catches intervals of one sample alone, ends in the wrong order, and draws that leave out seeds."""
    flat, noise = made_up(), made_up(1)
    value, low, high = change(flat, noise, block=1)["MSE"]
    assert (low < value).all()
    assert (value < high).all()
    assert ((low < 0) & (high > 0)).mean() >= 0.75
    better = {"mse": flat["mse"].copy(), "acc": flat["acc"]}
    better["mse"][0] *= 0.5  # one seed of three: a draw may leave it out
    value, low, high = change(flat, better, block=1)["MSE"]
    assert (value < -10).all()
    assert high == pytest.approx(np.zeros((2, 2)), abs=1e-9)
