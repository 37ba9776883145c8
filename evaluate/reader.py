"""Reading what is scored: forecasts, truths and climatologies, a batch of init times at a time.

Contract: each truth and each climatology is read once as long as the leads fit the cache, forecasts in
whole batches, the next batch while this one is computed. Batches follow the order of the init times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.align import Alignment, lead_hours
from evaluate.baselines import Batch
from pipeline.climatology import Normals

BATCH_BYTES = 64_000_000
"""Of one stored forecast in a batch."""
CACHE_BYTES = 400_000_000
"""Of truths kept for later init times; what does not fit is read again."""


class Reader:
    """Reads batches: stored forecasts, truths at init and valid times, climatologies at valid times.

    Args:
        truth: training store.
        normals: climatology on the same grid.
        forecasts: forecast stores by model name.
        channels: short names, the order of every channel axis.
        alignment: init times and leads.
        batch_size: init times a batch; chosen from BATCH_BYTES when absent.
    """

    def __init__(
        self, truth: xr.Dataset, normals: Normals, forecasts: Mapping[str, xr.Dataset], *, channels: Sequence[str],
        alignment: Alignment, batch_size: int | None = None,
    ) -> None:  # fmt: skip
        self.channels, self.alignment = list(channels), alignment
        whole = normals.nbytes <= CACHE_BYTES
        self._truth, self._normals = truth, normals.in_memory() if whole else normals
        self._forecasts = dict(forecasts)
        self._columns = {
            name: _positions(ds["channel"].values, self.channels) for name, ds in [("", truth), *forecasts.items()]
        }
        self.cells = int(truth.sizes["latitude"] * truth.sizes["longitude"])
        self._times = {int(t): i for i, t in enumerate(truth["time"].values.astype("datetime64[ns]").astype(np.int64))}
        needed = np.unique(np.concatenate([alignment.init_times, alignment.valid_times.ravel()]))
        self._needed = [int(t) for t in needed.astype("datetime64[ns]").astype(np.int64)]
        per_init = 4 * len(alignment.leads) * len(self.channels) * self.cells
        fits = int(np.clip(BATCH_BYTES // per_init, 1, 64))
        slab = max([_slab(ds) for ds in forecasts.values()], default=1)
        self.batch_size = batch_size or (fits // slab * slab or fits)
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
        self._load_truth([t for t in wanted.tolist() if t not in self._states], ahead=not full)
        forecasts = {name: self._load_forecast(name, init) for name in self._forecasts}
        states = {t: self._states[t] for t in wanted.tolist()}
        normals = {t: self._climate[t] for t in wanted.tolist()}
        return Batch(part.start, init, valid, states, normals, forecasts)

    def _forget(self, oldest: int, wanted: set[int]) -> bool:
        """Drop what later batches cannot need; all but `wanted` when the cache is full, which is returned."""
        size = 2 * 4 * len(self.channels) * self.cells
        full = (len(self._states) + len(wanted)) * size > CACHE_BYTES
        for t in [t for t in self._states if t < oldest or (full and t not in wanted)]:
            del self._states[t], self._climate[t]
        return full

    def _load_truth(self, times: list[int], *, ahead: bool) -> None:
        """Read truths and climatologies; `ahead` takes what else is needed from the slabs that are read anyway."""
        if not times:
            return
        if ahead:
            slab = _slab(self._truth)
            slabs = {self._times[t] // slab for t in times}
            more = [t for t in self._needed if t > times[0] and t in self._times and self._times[t] // slab in slabs]
            times = sorted({*times, *(t for t in more if t not in self._states)})
        rows = np.array([self._times[t] for t in times])
        values = _take(self._truth["state"], "time", rows)[:, self._columns[""]]
        stamps = np.array(times, dtype="datetime64[ns]")
        climate = self._normals.climatology_at(stamps, channels=self.channels)
        for i, t in enumerate(times):
            self._states[t] = values[i].reshape(len(self.channels), self.cells)
            self._climate[t] = climate[i].reshape(len(self.channels), self.cells)

    def _load_forecast(self, name: str, init: Any) -> NDArray[np.float32]:
        ds = self._forecasts[name]
        rows = _positions(ds["init_time"].values.astype("datetime64[ns]"), init.astype("datetime64[ns]"))
        leads = _positions(lead_hours(ds["lead_time"].values), self.alignment.leads)
        values = _take(ds["state"], "init_time", rows)[:, leads][:, :, self._columns[name]]
        return np.ascontiguousarray(values.reshape(*values.shape[:3], self.cells))


def _positions(axis: Any, wanted: Any) -> Any:
    """Positions of labels on an axis; a slice when that is everything in order."""
    place = {label: i for i, label in enumerate(np.asarray(axis).tolist())}
    found = np.array([place[label] for label in np.asarray(wanted).tolist()])
    return slice(None) if np.array_equal(found, np.arange(len(place))) else found


def _slab(ds: xr.Dataset) -> int:
    """Length of a slab along the first dimension: what is read with one piece of it."""
    shards = ds["state"].encoding.get("shards")
    return int(shards[0]) if shards else 1


def _take(array: xr.DataArray, dim: str, rows: Any) -> NDArray[np.float32]:
    """Rows of a stored array; mostly contiguous ones through one slice, which reads faster than picking."""
    if isinstance(rows, slice):
        return np.asarray(array.isel({dim: rows}).values, dtype=np.float32)
    low, high = int(rows.min()), int(rows.max()) + 1
    if 2 * rows.size >= high - low:
        whole = np.asarray(array.isel({dim: slice(low, high)}).values, dtype=np.float32)
        return whole if rows.size == high - low else whole[rows - low]
    return np.asarray(array.isel({dim: rows}).values, dtype=np.float32)
