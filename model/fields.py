"""The training store's fields as tensors: held in memory when they fit, else read as they are needed.

Contract: straight from the Zarr store, no copy in another format. Memory holds the normalised anomalies from
the climatology; a standardised state is that plus the standardised climatology of its time. Both ways of
reading give the same bits.

Letters: T times of the store, N times asked for, K dynamic channels read, S static channels, C = K + S, H/W grid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from rich.progress import track
from torch import Tensor

from model.normalise import Scaling, standardise_static
from pipeline.climatology import Normals
from pipeline.store import contract_digest, open_store, require_same_contract

Index = NDArray[np.int64]
_BLOCK_TIMES = 64


class Fields:
    """Normalised fields of a store.

    Attributes:
        times: (T,) of the store.
        channels: names of the K dynamic channels read, in store order.
        static_channels: names of the S static ones read.
        all_channels: names of all dynamic channels of the store.
        all_static_channels: names of all static ones.
        contract: the store's.
        scaling: means and spreads of `channels`.
        normals: means, spreads and climatology.
        static_SHW: normalised static fields.
        in_memory: whether reading touches no file.
    """

    def __init__(
        self,
        store: Path,
        normals: Normals,
        *,
        channels: Sequence[str] | None = None,
        network_input: Literal["state", "anomaly"] = "state",
        readers: int = 4,
    ) -> None:
        """Open a store; nothing but coordinates and statics is read yet.

        Args:
            store: the training store.
            normals: of its training years.
            channels: names of the channels to read, dynamic and static, None for all; the order is the store's.
            network_input: what `inputs` gives: the standardised state, or the anomaly from the climatology in units
                of the anomaly's own standard deviation.
            readers: threads that read from the store.
        """
        ds = open_store(store, stage="python -m pipeline regrid")
        self.contract: dict[str, Any] = ds.attrs["contract"]
        self.times = ds["time"].values.astype("datetime64[ns]")
        require_same_contract(
            {"store": normals.contract["store"]}, {"store": contract_digest(self.contract)},
            us=f"normals {normals.path}", them=f"store {store}", remedy="run python -m pipeline normals again",
        )  # fmt: skip
        everything = tuple(str(name) for name in ds["channel"].values)
        self.channels = everything if channels is None else tuple(c for c in everything if c in set(channels))
        statics = tuple(str(n) for n in ds["static_channel"].values) if "static" in ds else ()
        self.static_channels = statics if channels is None else tuple(c for c in statics if c in set(channels))
        self.all_channels, self.all_static_channels = everything, statics
        self.coords = ds.drop_vars("state").load()
        self.normals = normals
        rows = normals.channel_indices(self.channels)
        self.scaling = Scaling(self.channels, normals.mean[rows], normals.std[rows])
        self.grid_shape = (int(ds.sizes["latitude"]), int(ds.sizes["longitude"]))
        gain = (normals.std[rows] / normals.anomaly_std[rows]).astype(np.float32)
        self._anomaly_gain = torch.from_numpy(gain)[:, None, None]
        static = np.zeros((0, *self.grid_shape), dtype=np.float32)
        if self.static_channels:
            chosen = [statics.index(c) for c in self.static_channels]
            static = standardise_static(
                ds["static"].values[chosen], mean=normals.static_mean[chosen], std=normals.static_std[chosen]
            )
        self.static_SHW = torch.from_numpy(static)
        self._rows = np.array([everything.index(c) for c in self.channels], dtype=np.int64)
        self._all_rows = len(self.channels) == len(everything)
        self._array: Any = zarr.open_group(store, mode="r")["state"]
        self._network_input = network_input
        self._readers = readers
        self._memory_NKHW: Tensor | None = None
        self._place_T = np.full(len(self.times), -1, dtype=np.int64)
        self._store = store

    @property
    def in_memory(self) -> bool:
        """Whether `load` was called."""
        return self._memory_NKHW is not None

    def bytes_needed(self, times: Index) -> int:
        """Memory that `load` takes: the times and the climatology."""
        return len(times) * len(self.channels) * self.grid_shape[0] * self.grid_shape[1] * 4 + self.normals.nbytes

    def load(self, times: Index, *, progress: bool = True) -> None:
        """Read the anomalies of some times into memory.

        Args:
            times: positions in the store.
            progress: show a bar.

        Raises:
            ValueError: a value that is not finite, naming its channel and time.
        """
        times = np.unique(times)
        self.normals = self.normals.in_memory()
        memory = torch.empty((len(times), len(self.channels), *self.grid_shape))
        blocks = range(0, len(times), _BLOCK_TIMES)
        for first in track(blocks, description="reading the store", disable=not progress, transient=True):
            memory[first : first + _BLOCK_TIMES] = self._read_anomalies(times[first : first + _BLOCK_TIMES])
        self._place_T[times] = np.arange(len(times))
        self._memory_NKHW = memory

    def anomalies(self, times: Index, *, roll: Index | None = None) -> Tensor:
        """Normalised anomalies from the climatology, (N, K, H, W).

        Args:
            times: positions in the store, in any order, repeats allowed.
            roll: cells by which each is turned eastward.
        """
        if self._memory_NKHW is not None and np.all(self._place_T[times] >= 0):
            source = self._memory_NKHW
            places = self._place_T[times]
        else:
            source = self._read_anomalies(times)
            places = np.arange(len(times))
        return _gather_rolled(source, places, roll)

    def inputs(self, times: Index, *, roll: Index | None = None) -> Tensor:
        """What the network reads, (N, K + S, H, W): dynamic channels, then static ones."""
        x_NCHW = torch.empty((len(times), len(self.channels) + len(self.static_channels), *self.grid_shape))
        x_NKHW = x_NCHW[:, : len(self.channels)]
        x_NKHW.copy_(self.anomalies(times))
        if self._network_input == "state":
            climatology = self.normals.climatology_at(self.times[times], channels=self.channels)
            x_NKHW += torch.from_numpy(self.scaling.standardise(climatology))
        else:
            x_NKHW *= self._anomaly_gain
        x_NCHW[:, len(self.channels) :] = self.static_SHW
        return x_NCHW if roll is None else _gather_rolled(x_NCHW, np.arange(len(times)), roll)

    def _read_anomalies(self, times: Index) -> Tensor:
        if not self.channels:  # a rank whose groups hold static fields only
            return torch.empty((len(times), 0, *self.grid_shape))
        unique, inverse = np.unique(times, return_inverse=True)
        state = self._read(unique)
        out = self.scaling.anomaly(state, self.normals.climatology_at(self.times[unique], channels=self.channels))
        if not np.isfinite(out).all():
            where, channel = (int(i[0]) for i in np.nonzero(~np.isfinite(out))[:2])
            raise ValueError(
                f"store must hold finite values only, got a missing or infinite one in {self._store}, channel "
                f"{self.channels[channel]!r}, time {np.datetime_as_string(self.times[unique[where]], unit='m')}; "
                "check it with python -m pipeline validate"
            )
        read = torch.from_numpy(out)
        return read if len(unique) == len(times) and np.array_equal(unique, times) else read[torch.from_numpy(inverse)]

    def _read(self, times: Index) -> NDArray[np.float32]:
        """States (N, K, H, W) of increasing times; runs of consecutive times are read together."""
        runs = np.split(times, np.flatnonzero(np.diff(times) != 1) + 1)

        def one(run: Index) -> NDArray[np.float32]:
            rows = slice(None) if self._all_rows else self._rows
            values = self._array.oindex[slice(int(run[0]), int(run[-1]) + 1), rows]
            return np.asarray(values, dtype=np.float32)

        if len(runs) == 1:
            return one(runs[0])
        with ThreadPoolExecutor(max_workers=self._readers) as pool:
            return np.concatenate(list(pool.map(one, runs)))


def available_memory() -> int:
    """Bytes that could be allocated now without swapping, 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return 0
    try:  # a container's own limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cache = next(
            int(x.split()[1]) for x in (group / "memory.stat").read_text().splitlines() if x.startswith("file ")
        )
        free = min(free, limit - used + cache)
    except (OSError, ValueError, StopIteration):
        pass
    return max(free, 0)


def _gather_rolled(source_NKHW: Tensor, places: Index, roll: Index | None) -> Tensor:
    """Rows of a tensor, each turned eastward by a number of cells (its last dim is the longitude)."""
    if roll is None or not np.any(roll):
        return source_NKHW[torch.from_numpy(places)]
    width = source_NKHW.shape[-1]
    out = torch.empty((len(places), *source_NKHW.shape[1:]), dtype=source_NKHW.dtype)
    for i, (place, cells) in enumerate(zip(places.tolist(), (roll % width).tolist(), strict=True)):
        out[i, ..., cells:] = source_NKHW[place, ..., : width - cells]
        out[i, ..., :cells] = source_NKHW[place, ..., width - cells :]
    return out
