"""The one rule for times: which lie in a period, which pairs (init time, lead) exist, which init times are issued.

Contract: times are found by value and never by counting steps, so no pair crosses a gap. A pair exists when the store
has its init time, its valid time and the earlier times that a network reads, and all of them lie inside the given
periods: no valid time of training falls into validation or test.

Letters: T times of the store, S starts, E leads, N earlier times, K steps in a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.weather.sections import Data, Period
from pipeline.words import counted

Times = NDArray[np.datetime64]
Index = NDArray[np.int64]


def stored_times(path: Path) -> Times:
    """The times of a training store, read without xarray, which takes longer to load than all checks of a stage.

    Args:
        path: folder of the store.

    Returns:
        Shape (T,), datetime64[ns].
    """
    import zarr

    from pipeline.store import open_store

    axis = zarr.open_array(path / "time", mode="r")
    unit, _, start = str(axis.attrs["units"]).partition(" since ")
    if unit != "hours":  # as no store of this version is written
        return open_store(path)["time"].values.astype("datetime64[ns]")
    hours = np.asarray(axis[:], dtype="timedelta64[h]")
    return (np.datetime64(start, "ns") + hours).astype("datetime64[ns]")


def find_times(times: Times, wanted: Times) -> Index:
    """Positions of times among increasing ones, by value; -1 for those that are not there."""
    found = np.minimum(np.searchsorted(times, wanted), len(times) - 1)
    return np.where(times[found] == wanted, found, -1).astype(np.int64)


def wanted_span(data: Data) -> tuple[np.datetime64, np.datetime64]:
    """First and last time of the store to be written."""
    assert data.period is not None  # of files only, as the configuration checks
    first, end = (np.datetime64(t, "ns") for t in (data.period.start, data.period.end))
    step = np.timedelta64(data.step_hours, "h")
    return first, first + (end - first) // step * step


def inside(times: Times, periods: Sequence[Period | Mapping[str, str]]) -> NDArray[np.bool_]:
    """Which times lie in one of some periods, both ends included; in the shape of `times`.

    Args:
        times: any.
        periods: as configured, or {"start": ISO time, "end": ISO time} as contracts hold them.
    """
    found = np.zeros(times.shape, dtype=bool)
    for period in periods:
        start, end = (period["start"], period["end"]) if isinstance(period, Mapping) else (period.start, period.end)
        found |= (times >= np.datetime64(start, "ns")) & (times <= np.datetime64(end, "ns"))
    return found


@dataclass(frozen=True)
class Pairs:
    """Starts, and where the valid time of each lead lies.

    Attributes:
        times: the store's times.
        lead_hours: (E,) lead times [h].
        init: (S,) positions of the starts in `times`, increasing.
        path: (S, E, K) positions of the times 1, ..., K leads after the start, -1 where one of them does not exist.
        earlier: (S, N) positions of the N earlier times read with each start.
    """

    times: Times
    lead_hours: tuple[int, ...]
    init: Index
    path: Index
    earlier: Index

    def __len__(self) -> int:
        return len(self.init)

    @property
    def valid(self) -> Index:
        """(S, E) positions of the valid times, one lead after the start; -1 where the pair does not exist."""
        return self.path[:, :, 0]

    @property
    def used_times(self) -> Index:
        """Positions of all times that some pair touches, increasing."""
        return np.unique(np.concatenate([self.init, self.path[self.path >= 0], self.earlier.ravel()]))

    def describe(self, start: int, lead: int) -> str:
        """A pair as messages print it."""
        init = np.datetime_as_string(self.times[self.init[start]], unit="m")
        return f"{init} +{self.lead_hours[lead]} h"


def find_pairs(
    times: Times,
    *,
    lead_hours: Sequence[int],
    periods: Sequence[Period | Mapping[str, str]],
    history_hours: Sequence[int] = (),
    all_leads: bool = False,
    steps: int = 1,
) -> Pairs:
    """All pairs of some periods.

    Args:
        times: the store's times, increasing.
        lead_hours: leads [h].
        periods: init, valid and earlier times lie in one of these, not necessarily the same.
        history_hours: how much earlier the other states are that the network reads [h].
        all_leads: keep only starts for which every lead exists, instead of those with at least one.
        steps: K, how often each lead is to be taken in a row; all of these times exist then.

    Raises:
        ValueError: a lead without a single pair, or no start with all leads.
    """
    times = times.astype("datetime64[ns]")
    usable = inside(times, periods)
    path, earlier = _partners(times, usable, lead_hours=lead_hours, history_hours=history_hours, steps=steps)
    has = path[:, :, 0] >= 0
    empty = [str(hours) for column, hours in enumerate(lead_hours) if not has[:, column].any()]
    behind = f" with the states {', '.join(map(str, history_hours))} h earlier" if history_hours else ""
    row = f" taken {steps} times in a row" if steps > 1 else ""
    spans = ", ".join(_span(p) for p in periods)
    if empty:
        raise ValueError(
            f"every lead must have at least one pair of times{behind}, got none for {', '.join(empty)} h{row} in "
            f"{spans} ({counted(int(usable.sum()), 'time')} of the store); lengthen the period or drop the lead"
        )
    init = np.flatnonzero(has.all(axis=1) if all_leads else has.any(axis=1))
    if not len(init):
        raise ValueError(f"some start must have all leads {list(lead_hours)} h, got none in {spans}")
    return Pairs(times=times, lead_hours=tuple(lead_hours), init=init, path=path[init], earlier=earlier[init])


@dataclass(frozen=True)
class Coverage:
    """How many starts there are: `by_lead` with a valid time at each lead [h], `with_all` at every one of them."""

    by_lead: dict[int, int]
    with_all: int


def coverage(
    times: Times,
    *,
    lead_hours: Sequence[int],
    periods: Sequence[Period | Mapping[str, str]],
    history_hours: Sequence[int] = (),
) -> Coverage:
    """Count the starts that `find_pairs` would find; none is no error. Arguments as there."""
    times = times.astype("datetime64[ns]")
    partners = _partners(times, inside(times, periods), lead_hours=lead_hours, history_hours=history_hours)
    has = partners[0][:, :, 0] >= 0
    by_lead = dict(zip(map(int, lead_hours), has.sum(axis=0).tolist(), strict=True))
    return Coverage(by_lead, int(has.all(axis=1).sum()))


def _partners(
    times: Times, usable: NDArray[np.bool_], *, lead_hours: Sequence[int], history_hours: Sequence[int], steps: int = 1
) -> tuple[Index, Index]:
    """Positions of later times (T, E, K) and earlier times (T, N) for every time, -1 where one of them is missing."""

    def shifted(hours: Sequence[int]) -> Index:
        found = np.full((len(times), len(hours)), -1, dtype=np.int64)
        for column, shift in enumerate(hours):
            there = find_times(times, times + np.timedelta64(shift, "h"))
            found[:, column] = np.where((there >= 0) & usable & usable[there], there, -1)
        return found

    earlier = shifted([-hours for hours in history_hours])
    path = np.stack([shifted([k * hours for hours in lead_hours]) for k in range(1, steps + 1)], axis=2)
    path[(earlier < 0).any(axis=1)] = -1
    path[(path < 0).any(axis=2)] = -1
    return path, earlier


def init_times(
    times: Times,
    *,
    lead_hours: Sequence[int],
    period: Period,
    step_hours: int,
    setting: str,
    history_hours: Sequence[int] = (),
) -> tuple[Index, Times]:
    """Common init times of all leads: a fixed spacing apart from the start of a period on.

    Args:
        times: of the store.
        lead_hours: leads [h].
        period: init and all valid times lie in it.
        step_hours: spacing of init times.
        setting: the key that gave the spacing, for the message.
        history_hours: how much earlier the other states are that the network reads [h].

    Returns:
        Their positions in `times`, and the times that the spacing asks for but that cannot be used because the
        store lacks them, a valid time of theirs or an earlier one that the network reads.

    Raises:
        ValueError: none qualifies.
    """
    pairs = find_pairs(times, lead_hours=lead_hours, periods=[period], history_hours=history_hours, all_leads=True)
    start, end = np.datetime64(period.start, "ns"), np.datetime64(period.end, "ns")
    last = end - np.timedelta64(max(lead_hours), "h")
    wanted = np.arange(start, last + np.timedelta64(1, "ns"), np.timedelta64(step_hours, "h"))
    chosen = pairs.init[np.isin(pairs.times[pairs.init], wanted)]
    if not len(chosen):
        raise ValueError(
            f"test period must hold an init time every {step_hours} h from {start} with all leads {list(lead_hours)} "
            f"h, got none; lengthen it or choose {setting} on the store's hours"
        )
    return chosen, wanted[~np.isin(wanted, pairs.times[chosen])]


def _span(period: Period | Mapping[str, str]) -> str:
    if isinstance(period, Mapping):
        return f"{period['start']} .. {period['end']}"
    return f"{period.start:%Y-%m-%dT%H} .. {period.end:%Y-%m-%dT%H}"
