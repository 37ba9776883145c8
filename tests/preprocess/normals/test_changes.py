"""The root mean square change over a step is that of a loop over all pairs of times."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from preprocess.normals.changes import change_std, require_changes, step_pairs

PERIODS = [
    {"start": "2001-01-02T00:00", "end": "2001-01-09T18:00"},
    {"start": "2001-01-10T06:00", "end": "2001-01-20T00:00"},
]
"""A pair may begin in the first and end in the second, but not lie between the two."""


def six_hourly(*, without: tuple[int, ...] = ()) -> np.ndarray:
    return np.delete(np.arange("2001-01-01", "2001-01-25", np.timedelta64(6, "h"), "datetime64[ns]"), without)


def inside(time: np.datetime64) -> bool:
    return any(np.datetime64(p["start"]) <= time <= np.datetime64(p["end"]) for p in PERIODS)


def naive(times: np.ndarray, anomalies: np.ndarray, weights: np.ndarray, hours: int) -> np.ndarray:
    """All pairs of times, whatever lies between them."""
    square, count = np.zeros(anomalies.shape[1]), 0
    for i, first in enumerate(times):
        for j, second in enumerate(times):
            if second - first == np.timedelta64(hours, "h") and inside(first) and inside(second):
                count += 1
                for channel in range(anomalies.shape[1]):
                    change = anomalies[j, channel] - anomalies[i, channel]
                    square[channel] += sum(float(w) * float(d) ** 2 for w, d in zip(weights, change, strict=True))
    assert count > 0
    return np.sqrt(square / count)


@pytest.mark.parametrize("steps", [(24,), (6, 24, 60), (48, 12, 216)])
def test_changes_are_those_of_a_loop_over_all_pairs(steps: tuple[int, ...]) -> None:
    """Catches steps counted instead of times compared, pairs across gaps or outside the training periods, a field let
    go before the last pair that needs it, steps or channels mixed up, and cells weighted equally.
    """
    times = six_hourly(without=(0, 9, 10, 11, 30, 47, 70))
    dice = np.random.default_rng(5)
    anomalies = dice.normal(size=(times.size, 3, 5)).cumsum(axis=0) * np.array([[1.0], [700.0], [1e-6]])
    weights = dice.uniform(0.1, 1.0, size=5) ** 2
    weights /= weights.sum()
    pairs = step_pairs(times, step_hours=steps, periods=PERIODS)
    found = change_std(((i, anomalies[i]) for i in pairs.used_times.tolist()), pairs=pairs, weights=weights)
    expected = np.stack([naive(times, anomalies, weights, hours) for hours in steps])
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_field_is_held_for_the_longest_step_only() -> None:
    """Catches the departures of all training times kept in memory."""
    times = six_hourly()
    pairs = step_pairs(times, step_hours=(6, 24), periods=PERIODS)
    alive: set[int] = set()
    most = 0

    def anomalies() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal most
        for index in pairs.used_times.tolist():
            field = np.full((1, 2), float(index))
            alive.add(index)
            weakref.finalize(field, alive.remove, index)
            most = max(most, len(alive))
            yield index, field

    change_std(anomalies(), pairs=pairs, weights=np.array([0.3, 0.7]))
    assert 4 <= most <= 7


def test_a_step_without_pairs_is_named() -> None:
    """Catches a division by zero, and a message that speaks of leads or leaves open which step it is."""
    with pytest.raises(
        ValueError, match=r"one step \(training.step_hours\) apart, got none 480 h apart; drop the step"
    ):
        step_pairs(six_hourly(), step_hours=(24, 480), periods=PERIODS)


def test_channels_without_changes_are_named() -> None:
    """Catches a unit of zero: exactly, by rounding of a large mean, or not a number; and a small one refused."""
    mean, std = np.array([5e5, 1e-6, 280.0]), np.array([3e3, 1e-6, 20.0])
    facts = {"step_hours": (6, 24), "names": ("z50", "q50", "t2m"), "mean": mean, "std": std}
    good = np.array([[50.0, 1e-9, 0.5], [200.0, 1e-8, 2.0]])
    require_changes(good, **facts)
    for value in (0.0, np.nan, 1e-5):
        bad = good.copy()
        bad[1, 2] = value
        with pytest.raises(ValueError, match=r"change over 24 h .* got none in t2m: "):
            require_changes(bad, **facts)
    good[0, :] = [0.01, 0.0, 1.0]
    with pytest.raises(ValueError, match=r"change over 6 h .* got none in z50, q50: "):
        require_changes(good, **facts)
