"""The fields of the training periods as the normals read them, and the sums of one pass over them.

Contract: each slab is read once for a block of channels; fields come in the order of their times, float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.console import stamp
from pipeline.shards import Reader
from pipeline.weather import climatology as layout
from pipeline.weather.times import Index, Times
from preprocess.normals.moments import Array, DailySums, Moments
from preprocess.normals.sums import Sums, years_of

Tick = Callable[[], None]


@dataclass(frozen=True)
class Training:
    """The training times of a store that are to be read.

    Attributes:
        state: the store's fields (time, channel, latitude, longitude).
        names: of the channels.
        weights: cell areas that sum to 1, shape (cell,).
        times: the whole time axis.
        chosen: positions of the times that go into the sums.
        hours: hours of day on the axis.
    """

    state: Reader
    names: list[str]
    weights: Array
    times: Times
    chosen: Index
    hours: NDArray[np.int64]

    def fields(self, indices: Index, *, columns: range) -> Iterator[tuple[int, Array]]:
        """Fields (channel, cell) of some channels at increasing positions on the time axis, with the position."""
        slab = indices // self.state.array.shards[0]
        for wanted in (indices[slab == number] for number in np.unique(slab)):
            fields = self.state.read(slice(wanted[0], wanted[-1] + 1), slice(columns.start, columns.stop))
            for index in wanted.tolist():
                yield index, fields[index - wanted[0]].reshape(len(columns), -1).astype(np.float64)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each time of the axis lies in a climatology: positions of its day of the year and its hour of day."""
        return layout.day_slots(self.times) - 1, np.searchsorted(self.hours, layout.hours_of_day(self.times))

    def sums(self, columns: range, kept: Sums | None, tick: Tick) -> tuple[DailySums, dict[int, Moments]]:
        """Sums and yearly moments of some channels, on top of those kept."""
        by_year: dict[int, Moments] = {}
        sums = DailySums.empty(hours=self.hours.size, channels=len(columns), cells=self.weights.size)
        if kept is not None:
            sums, by_year = kept.block(columns)
        years, (slots, hours) = years_of(self.times), self.places()
        for index, field in self.fields(self.chosen, columns=columns):
            moment = Moments.of(field, weights=self.weights)
            if not np.isfinite(moment.m2).all():
                name, time = self.names[columns[np.isfinite(moment.m2).argmin()]], stamp(self.times[index])
                raise ValueError(f"training store must be finite, got NaN in channel {name!r} at {time}; remake it")
            year = int(years[index])
            by_year[year] = by_year[year] + moment if year in by_year else moment
            sums.add(field, hour=int(hours[index]), slot=int(slots[index]))
            tick()
        return sums, dict(sorted(by_year.items()))
