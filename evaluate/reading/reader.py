"""Reading what is scored: forecasts, truths and climatologies, a batch of init times at a time.

Contract: our own stores are read by `pipeline.shards`, in whole slabs. Each truth and each climatology is read once as
long as the leads fit the cache; forecasts are read in whole batches, each while the one before is computed. Batches
follow the order of the init times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.reading.align import Alignment, lead_hours
from evaluate.reading.batch import Batch
from pipeline.weather.climatology import Normals, day_slots

BATCH_BYTES = 64_000_000
"""Of one stored forecast in a batch."""
CACHE_BYTES = 500_000_000
"""Of truths and climatologies kept for later init times; what does not fit is read again."""
AHEAD = int(np.timedelta64(100, "D") / np.timedelta64(1, "ns"))
"""Nothing is read further ahead than this [ns], whatever lies in the same piece of a file."""


@dataclass
class Reader:
    """Reads batches: stored forecasts, truths at init and valid times, climatologies at valid times.

    Args:
        truth: training store.
        normals: climatology on the same grid.
        forecasts: forecast stores by model name.
        channels: short names, the order of every channel axis.
        alignment: init times and leads.
        batch_size: init times per batch; 0 chooses it from BATCH_BYTES.
    """

    truth: xr.Dataset
    normals: Normals
    forecasts: Mapping[str, xr.Dataset]
    channels: Sequence[str]
    alignment: Alignment
    batch_size: int = 0

    def __post_init__(self) -> None:
        truth, normals, forecasts, alignment = self.truth, self.normals, self.forecasts, self.alignment
        self._columns = {
            name: _positions(ds["channel"].values, self.channels) for name, ds in [("", truth), *forecasts.items()]
        }
        self.cells = int(truth.sizes["latitude"] * truth.sizes["longitude"])
        self._times = {int(t): i for i, t in enumerate(truth["time"].values.astype("datetime64[ns]").astype(np.int64))}
        needed = np.unique(np.concatenate([alignment.init_times, alignment.valid_times.ravel()]))
        self._needed = [int(t) for t in needed.astype("datetime64[ns]").astype(np.int64)]
        self._slots = dict(zip(self._needed, day_slots(needed).tolist(), strict=True))
        self._hours = dict(zip(self._needed, normals.hours_at(needed).tolist(), strict=True))
        per_init = 4 * len(alignment.leads) * len(self.channels) * self.cells
        fits = int(np.clip(BATCH_BYTES // per_init, 1, 64))
        slab = min([_slab(ds) for ds in forecasts.values()], default=1)
        self.batch_size = self.batch_size or (slab if fits // 4 <= slab <= fits else fits)
        self._states: dict[int, NDArray[np.float32]] = {}
        self._climate: dict[int, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        return -(-len(self.alignment.init_times) // self.batch_size)

    def batches(self, first: int = 0) -> Iterator[Batch]:
        """Batches in order from number `first`, one read ahead."""
        numbers = range(first, len(self))
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self._read, first) if numbers else None
            for number in numbers:
                assert upcoming is not None
                batch = upcoming.result()
                if number + 1 < len(self):
                    upcoming = pool.submit(self._read, number + 1)
                yield batch

    def _read(self, number: int) -> Batch:
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        init, valid = self.alignment.init_times[part], self.alignment.valid_times[part]
        wanted = np.unique(np.concatenate([init, valid.ravel()])).astype("datetime64[ns]").astype(np.int64)
        full = self._forget(int(wanted[0]), set(wanted.tolist()))
        self._load(wanted.tolist(), ahead=not full)
        forecasts = {name: self._load_forecast(name, init) for name in self.forecasts}
        states = {t: self._states[t] for t in wanted.tolist()}
        normals = {t: self._climate[t] for t in wanted.tolist()}
        return Batch(part.start, init, valid, states, normals, forecasts)

    def _forget(self, oldest: int, wanted: set[int]) -> bool:
        """Drop what later batches cannot need; all but `wanted` when the cache is full, which is returned."""
        size = 4 * len(self.channels) * self.cells
        full = (len(self._states) + len(self._climate) + 2 * len(wanted)) * size > CACHE_BYTES
        for held in (self._states, self._climate):
            for t in [t for t in held if t < oldest or (full and t not in wanted)]:
                del held[t]
        return full

    def _load(self, wanted: list[int], *, ahead: bool) -> None:
        """Read truths and climatologies; `ahead` takes what else is needed from the pieces that are read anyway."""
        slab, days = _slab(self.truth), self.normals.days_together
        times = self._with_neighbours(wanted, self._states, lambda t: self._times[t] // slab, ahead=ahead)
        if times:
            rows = np.array([self._times[t] for t in times])
            values = _take(self.truth["state"], "time", rows, channel=self._columns[""])
            self._states |= zip(times, values.reshape(len(times), len(self.channels), self.cells), strict=True)
        slots = self._slots
        times = self._with_neighbours(wanted, self._climate, lambda t: (slots[t] - 1) // days, ahead=ahead)
        for hour in sorted({self._hours[t] for t in times}):
            at_hour = [t for t in times if self._hours[t] == hour]
            days_read = sorted({slots[t] for t in at_hour})
            fields = self.normals.days(days_read, hour=hour, channels=self.channels)
            position = {slot: i for i, slot in enumerate(days_read)}
            self._climate |= {t: fields[position[slots[t]]].reshape(len(self.channels), self.cells) for t in at_hour}

    def _with_neighbours(
        self, wanted: list[int], held: Mapping[int, Any], piece: Callable[[int], int], *, ahead: bool
    ) -> list[int]:
        """Times to read: what is wanted and not held, and with `ahead` later ones of the same pieces."""
        fresh = [t for t in wanted if t not in held]
        if not fresh or not ahead:
            return fresh
        pieces, last = {piece(t) for t in fresh}, fresh[0] + AHEAD
        more = [t for t in self._needed if fresh[0] < t <= last and t not in held and piece(t) in pieces]
        return sorted({*fresh, *more})

    def _load_forecast(self, name: str, init: Any) -> NDArray[np.float32]:
        ds = self.forecasts[name]
        rows = _positions(ds["init_time"].values.astype("datetime64[ns]"), init.astype("datetime64[ns]"))
        leads = _positions(lead_hours(ds["lead_time"].values), self.alignment.leads)
        values = _take(ds["state"], "init_time", rows, lead_time=leads, channel=self._columns[name])
        return np.ascontiguousarray(values.reshape(*values.shape[:3], self.cells))


def _positions(axis: Any, wanted: Any) -> Any:
    """Positions of labels on an axis; a slice when that is everything in order."""
    place = {label: i for i, label in enumerate(np.asarray(axis).tolist())}
    rows = np.array([place[label] for label in np.asarray(wanted).tolist()])
    return slice(None) if np.array_equal(rows, np.arange(len(place))) else rows


def _slab(ds: xr.Dataset) -> int:
    """Length of a slab along the first dimension: what is read with one piece of it."""
    shards = ds["state"].encoding.get("shards")
    return int(shards[0]) if shards else 1


def _take(array: xr.DataArray, dim: str, rows: Any, **others: Any) -> NDArray[np.float32]:
    """Rows of a stored array; mostly contiguous ones through one slice, which reads faster than picking.

    Args:
        array: as `pipeline.store.open_store` gives it, so that only the chunks needed are read; or of another origin.
        dim: the dimension of the rows.
        rows: slice or positions.
        others: slices or positions along other dimensions.
    """
    array = array.isel({d: positions for d, positions in others.items() if not isinstance(positions, slice)})
    if isinstance(rows, slice):
        return np.asarray(array.isel({dim: rows}).values, dtype=np.float32)
    low, high = int(rows.min()), int(rows.max()) + 1
    if 2 * rows.size >= high - low:
        whole = np.asarray(array.isel({dim: slice(low, high)}).values, dtype=np.float32)
        return whole if rows.size == high - low else whole[rows - low]
    return np.asarray(array.isel({dim: rows}).values, dtype=np.float32)
