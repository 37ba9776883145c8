"""How much departures from the climatology change over a step: the unit of a model that predicts changes.

Contract: for every two training times t and t + s that make a pair (`pipeline.weather.times.find_pairs`), the change is
(x(t + s) - c(t + s)) - (x(t) - c(t)), with the climatology c as it was written. Its change_std is the root of the
mean square over all pairs, cells weighted by area and pairs equally, in float64; the mean change is not taken off, as
it is nearly zero. A field is read once, and its departure is held until the last pair that needs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.weather.sections import Period
from pipeline.weather.times import Pairs, Times, find_pairs
from preprocess.normals.moments import Array
from preprocess.normals.reading import Tick, Training


def step_pairs(times: Times, *, step_hours: Sequence[int], periods: Sequence[Period | Mapping[str, str]]) -> Pairs:
    """All pairs of training times that lie a step apart.

    Args:
        times: the store's times, increasing.
        step_hours: lengths of the steps [h], at least one.
        periods: of training.

    Raises:
        ValueError: a step without a pair.
    """
    for hours in step_hours:
        try:
            find_pairs(times, lead_hours=[hours], periods=periods)
        except ValueError as error:
            raise ValueError(
                f"data.splits.train must hold times of the store one step (training.step_hours) apart, got none "
                f"{hours} h apart; drop the step or lengthen data.splits.train"
            ) from error
    return find_pairs(times, lead_hours=step_hours, periods=periods)


def change_std(anomalies: Iterable[tuple[int, Array]], *, pairs: Pairs, weights: Array) -> Array:
    """Root of the mean square of the changes.

    Args:
        anomalies: for each of `pairs.used_times`, in order, its position and its departure (channel, cell) from the
            climatology; held while a pair needs it, so each must be an array of its own.
        pairs: their leads are the steps.
        weights: cell areas that sum to 1, shape (cell,).

    Returns:
        Shape (step, channel).
    """
    exists = pairs.valid >= 0
    starts: dict[int, list[tuple[int, int]]] = {}
    for row, step in np.argwhere(exists).tolist():
        starts.setdefault(int(pairs.valid[row, step]), []).append((step, int(pairs.init[row])))
    last = dict(zip(pairs.init.tolist(), pairs.valid.max(axis=1).tolist(), strict=True))
    held: dict[int, Array] = {}
    square: list[Array | float] = [0.0] * len(pairs.lead_hours)
    for index, anomaly in anomalies:
        for step, start in starts.get(index, ()):
            change = anomaly - held[start]
            square[step] += np.einsum("cx,cx,x->c", change, change, weights)
            if last[start] == index:
                del held[start]
        if index in last:
            held[index] = anomaly
    return np.asarray(np.sqrt(np.stack(square) / exists.sum(axis=0)[:, None]))


def read_change_std(
    training: Training, climatology: NDArray[np.float32], *, columns: range, pairs: Pairs, tick: Tick
) -> Array:
    """The same for some channels of a store, in one pass over it.

    Args:
        training: what is read.
        climatology: of these channels, as written (day of year, hour, channel, latitude, longitude).
        columns: positions of the channels.
        pairs: see `step_pairs`.
        tick: called after each time.

    Returns:
        Shape (step, channel).
    """
    normal = climatology.reshape(*climatology.shape[:3], -1)
    slots, hours = training.places()

    def anomalies() -> Iterator[tuple[int, Array]]:
        for index, field in training.fields(pairs.used_times, columns=columns):
            field -= normal[slots[index], hours[index]]
            yield index, field
            tick()

    return change_std(anomalies(), pairs=pairs, weights=training.weights)


def require_changes(found: Array, *, step_hours: Sequence[int], names: Sequence[str], mean: Array, std: Array) -> None:
    """Refuse channels whose departures from the climatology stay as they are over a step.

    Args:
        found: from `change_std`, shape (step, channel).
        step_hours: its steps.
        names: its channels.
        mean: of the channels; what float32 rounds off a field of this size counts as no change.
        std: of the channels; so does a millionth of it, as in `Normals.require_anomalies`.

    Raises:
        ValueError: there is one, or the changes are not finite.
    """
    least = np.maximum(1e-6 * std, np.finfo(np.float32).eps * np.abs(mean))
    for hours, changes in zip(step_hours, found, strict=True):
        none: NDArray[np.bool_] = ~(np.isfinite(changes) & (changes > least))
        if none.any():
            raise ValueError(
                f"departures from the climatology must change over {hours} h (training.step_hours), got none in "
                f"{', '.join(np.asarray(names)[none])}: a model with steps counts in units of this change; "
                "lengthen data.splits.train, drop the step, or leave the channel out of data.channels"
            )
