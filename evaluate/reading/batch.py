"""A batch of init times: the truth, the climatology and the stored forecasts that belong to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.weather.times import Times

Field = NDArray[np.float32]
"""One state, shape (channel, cell)."""


@dataclass
class Batch:
    """Everything known about a few init times.

    Args:
        start: position of the first init time among all of them.
        init_times: shape (T,), datetime64[ns].
        valid_times: shape (T, L).
        states: truth by time (int64 ns).
        normals: climatology by time, likewise.
        forecasts: stored forecasts by model name, shape (T, L, channel, cell).
    """

    start: int
    init_times: Times
    valid_times: Times
    states: dict[int, Field] = field(repr=False)
    normals: dict[int, Field] = field(repr=False)
    forecasts: dict[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)

    def truth(self, t: int, lead: int) -> Field:
        """The state at the valid time."""
        return self.states[key(self.valid_times[t, lead])]

    def climatology(self, t: int, lead: int) -> Field:
        """The climatology at the valid time."""
        return self.normals[key(self.valid_times[t, lead])]


Predictor = Callable[[Batch, int, int], Field]
"""(batch, init time, lead) -> the forecast; times and leads by position."""


def key(time: np.datetime64) -> int:
    """A time as int64 nanoseconds."""
    return int(time.astype("datetime64[ns]").astype(np.int64))
