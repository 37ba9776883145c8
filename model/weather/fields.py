"""The training store's fields as tensors: held in memory when they fit, else read as they are needed.

Contract: straight from the Zarr store, no copy in another format. Memory holds the normalised anomalies from
the climatology; a standardised state is that plus the standardised climatology of its time. Both ways of
reading give the same bits.

Letters: T times of the store, N times asked for, K dynamic channels read, S static channels, F features, C input
channels (K + S + F without earlier states), V channels predicted from here, H/W grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.weather.features import feature_fields
from model.weather.foreign_states import as_in_training
from model.weather.input_layout import InputLayout
from model.weather.normalise import Scaling, standardise_static
from pipeline.console import console, terminal_progress
from pipeline.shards import Reader
from pipeline.store import contract_digest, open_store, require_same_contract
from pipeline.weather.climatology import Normals
from pipeline.weather.times import Times, find_times
from pipeline.weather.variables import require_channel_names

if TYPE_CHECKING:
    import xarray as xr

Index = NDArray[np.int64]
_BLOCK_TIMES = 64


class Fields:
    """Normalised fields of a store.

    Attributes:
        times: (T,) of the store.
        layout: which channels are read.
        channels: see `InputLayout`; so are `static_channels`, `input_channels` and `target_channels`.
        history_hours: how much earlier the earlier states are [h].
        contract: the store's.
        trained_on: the training store's contract: the same, unless `like` was given.
        scaling: means and standard deviations of `channels`.
        normals: means, standard deviations and climatology.
        static_SHW: normalised static fields.
        in_memory: whether reading touches no file.
        network_input: see below.
        anomaly_gain: (K, 1, 1) standard deviation of each channel over that of its anomaly.
    """

    def __init__(
        self,
        store: Path,
        normals: Normals,
        *,
        channels: Sequence[str] | None = None,
        network_input: Literal["state", "anomaly"] = "state",
        readers: int = 4,
        like: Path | None = None,
    ) -> None:
        """Open a store; nothing but coordinates and statics is read yet.

        Args:
            store: the training store.
            normals: of its training years.
            channels: input channels by name: dynamic, static, features, earlier states (`model.weather.names`); None
                for all of the store without the latter two. The order is that of `model.weather.names.input_names`.
            network_input: what `inputs` gives: the standardised state, or the anomaly from the climatology in units
                of the anomaly's own standard deviation.
            readers: threads that read from the store.
            like: the training store, where `store` holds initial states from elsewhere: its channels are read and its
                static fields are used.

        Raises:
            ValueError: normals of another store, or initial states that lack channels or lie on another grid.
        """
        ds = open_store(store, stage="python -m pipeline regrid")
        require_channel_names(ds, store=store)
        self.contract: dict[str, Any] = ds.attrs["contract"]
        self.trained_on = self.contract
        if like is not None:
            ds, self.trained_on = as_in_training(ds, like=like, name=str(store))
        self._check_normals(normals, like or store)
        dynamic = tuple(str(name) for name in ds["channel"].values)
        static = tuple(str(n) for n in ds["static_channel"].values) if "static" in ds else ()
        self.layout = InputLayout.of(channels or (*dynamic, *static), dynamic=dynamic, static=static)
        self.channels, self.static_channels = self.layout.channels, self.layout.static_channels
        self.target_channels, self.input_channels = self.layout.target_channels, self.layout.input_channels
        self.history_hours = tuple(hours for hours, _ in self.layout.blocks if hours)
        self.times: NDArray[np.datetime64] = ds["time"].values.astype("datetime64[ns]")
        self.coords = ds.drop_vars("state").load()
        self.grid_shape = (int(ds.sizes["latitude"]), int(ds.sizes["longitude"]))
        self.normals = normals
        normals.require_anomalies(self.channels)
        rows = normals.channel_indices(self.channels)
        self.scaling = Scaling(self.channels, normals.mean[rows], normals.std[rows])
        gain = (normals.std[rows] / normals.anomaly_std[rows]).astype(np.float32)
        self.anomaly_gain = torch.from_numpy(gain)[:, None, None]
        self.static_SHW = self._read_static(ds, static)
        self._rows = np.array([dynamic.index(c) for c in self.channels], dtype=np.int64)
        self._array = Reader(store, "state")
        self.network_input: Literal["state", "anomaly"] = network_input
        self._memory_NKHW: Tensor | None = None
        self._place_T = np.full(len(self.times), -1, dtype=np.int64)
        self._store = store
        self._pool = ThreadPoolExecutor(max_workers=readers, thread_name_prefix="read")

    @property
    def in_memory(self) -> bool:
        """Whether `load` was called."""
        return self._memory_NKHW is not None

    def bytes_needed(self, times: Index) -> int:
        """Memory that `load` takes: the times and the climatology, of the channels read."""
        cells = len(self.channels) * self.grid_shape[0] * self.grid_shape[1]
        return len(times) * cells * 4 + self.climatology_bytes

    @property
    def climatology_bytes(self) -> int:
        """Memory that `hold_climatology` takes."""
        return self.normals.nbytes * len(self.channels) // len(self.normals.channels)

    def hold_climatology(self) -> None:
        """Read the climatology of the channels read into memory."""
        self.normals = self.normals.in_memory(channels=self.channels)

    def load(self, times: Index, *, progress: bool = True) -> None:
        """Read the anomalies of some times into memory.

        Args:
            times: positions in the store.
            progress: show a bar.

        Raises:
            ValueError: a value that is not finite, naming its channel and time.
        """
        times = np.unique(times)
        self.hold_climatology()
        memory = torch.empty((len(times), len(self.channels), *self.grid_shape))
        blocks = range(0, len(times), _BLOCK_TIMES)
        with terminal_progress("blocks", on=console if progress else None) as bar:
            for first in bar.track(blocks, description="reading the store"):
                memory[first : first + _BLOCK_TIMES] = self._read_anomalies(times[first : first + _BLOCK_TIMES])
        self._place_T[times] = np.arange(len(times))
        self._memory_NKHW = memory

    def anomalies(self, times: Index, *, rows: Index | None = None, out: Tensor | None = None) -> Tensor:
        """Normalised anomalies from the climatology, (N, K, H, W).

        Args:
            times: positions in the store, in any order, repeats allowed.
            rows: which of `channels`, None for all.
            out: where to write; a new tensor for None.
        """
        rows = None if rows is None or len(rows) == len(self.channels) else rows
        if self._memory_NKHW is None or not np.all(self._place_T[times] >= 0):
            return self._read_anomalies(times, rows, out=out)
        places = torch.from_numpy(self._place_T[times])
        found = self._memory_NKHW[places if rows is None else (places[:, None], torch.from_numpy(rows)[None])]
        return found if out is None else out.copy_(found)

    def targets(self, times: Index, *, roll: Index | None = None) -> Tensor:
        """What the network should predict for valid times: normalised anomalies (N, V, H, W).

        Args:
            times: positions in the store.
            roll: cells by which each is turned eastward.
        """
        return _rolled(self.anomalies(times, rows=self.layout.blocks[0][1]), roll)

    def anomalies_at(self, times: Index, *, roll: Index | None = None) -> Tensor:
        """Normalised anomalies of all channels read, (N, K, H, W); arguments as for `targets`."""
        return _rolled(self.anomalies(times), roll)

    def static_at(self, times: Times, *, roll: Index | None = None) -> Tensor:
        """Static fields and features as the network reads them with each of some times.

        Args:
            times: (N, R), any.
            roll: (N,) cells by which each sample is turned eastward.

        Returns:
            (N, R, S + F, H, W).
        """
        N, R = times.shape
        turned = _rolled(self.static_SHW.expand(N, *self.static_SHW.shape), roll)
        turned = turned.unsqueeze(1).expand(N, R, *self.static_SHW.shape)
        if not self.layout.feature_channels:
            return turned
        features = self.features(times.ravel(), roll=None if roll is None else np.repeat(roll, R))
        return torch.cat([turned, features.view(N, R, *features.shape[1:])], dim=2)

    def standard_climatology(self, times: Times, *, roll: Index | None = None) -> Tensor:
        """The standardised climatology of the channels read: what a network that reads states sees of a zero anomaly.

        Args:
            times: (N, R), at hours that the climatology has.
            roll: (N,) cells by which each sample is turned eastward.

        Returns:
            (N, R, K, H, W).
        """
        fields = self.scaling.standardise(self.normals.climatology_at(times, channels=self.channels))
        return _rolled(torch.from_numpy(fields), roll)

    def features(self, times: NDArray[np.datetime64], *, roll: Index | None = None) -> Tensor:
        """Features that the network reads at any times, in the store or not: (N, F, H, W).

        Args:
            times: UTC.
            roll: cells by which each is turned eastward, as static fields are.
        """
        latitude, longitude = self.coords["latitude"].values, self.coords["longitude"].values
        names = self.layout.feature_channels
        fields_NFHW = torch.from_numpy(feature_fields(names, times=times, latitude=latitude, longitude=longitude))
        return _roll_into(torch.empty_like(fields_NFHW), fields_NFHW, roll)

    def inputs(self, times: Index, *, roll: Index | None = None) -> Tensor:
        """What the network reads at init times, (N, C, H, W): dynamic channels, static ones, features, earlier states.

        Args:
            times: positions in the store; `earlier` ones must exist.
            roll: cells by which each is turned eastward.
        """
        x_NCHW = torch.empty((len(times), len(self.input_channels), *self.grid_shape))
        place = 0
        for hours, rows in self.layout.blocks:
            there = self.earlier(times, hours=hours) if hours else times
            assert np.all(there >= 0), "an earlier state is not in the store"
            if len(rows):
                self._fill_inputs(x_NCHW[:, place : place + len(rows)], there, rows, roll)
            place += len(rows)
            if not hours:
                statics_NSHW = self.static_SHW.expand(len(times), *self.static_SHW.shape)
                _roll_into(x_NCHW[:, place : place + len(self.static_channels)], statics_NSHW, roll)
                place += len(self.static_channels)
                count = len(self.layout.feature_channels)
                x_NCHW[:, place : place + count] = self.features(self.times[times], roll=roll)
                place += count
        return x_NCHW

    def earlier(self, times: Index, *, hours: int) -> Index:
        """Positions of the times some hours before; -1 where the store has none."""
        return find_times(self.times, self.times[times] + np.timedelta64(-hours, "h"))

    def as_input(self, anomalies_NKHW: Tensor, *, rows: Index, climatology: Callable[[], NDArray[np.float32]]) -> None:
        """Turn normalised anomalies into what the network reads, in place: the one place that knows both forms.

        Args:
            anomalies_NKHW: anomalies in units of the channel's standard deviation.
            rows: which of `channels` they are.
            climatology: that of their times and channels, canonical units; called only where it is needed.
        """
        if self.network_input == "anomaly":
            anomalies_NKHW.mul_(self.anomaly_gain[torch.from_numpy(rows)])
        else:
            names = [self.channels[i] for i in rows]
            scaling = Scaling(names, self.scaling.mean[rows], self.scaling.std[rows])
            anomalies_NKHW.add_(torch.from_numpy(scaling.standardise(climatology())))

    def _check_normals(self, normals: Normals, store: Path) -> None:
        require_same_contract(
            {"store": normals.contract["store"]},
            {"store": contract_digest(self.trained_on)},
            us=f"normals {normals.path}",
            them=f"store {store}",
            remedy="run python -m pipeline normals again",
        )

    def _read_static(self, ds: xr.Dataset, names: Sequence[str]) -> Tensor:
        """Normalised static fields read, (S, H, W)."""
        if not self.static_channels:
            return torch.zeros((0, *self.grid_shape))
        rows = [names.index(c) for c in self.static_channels]
        mean, std = self.normals.static_mean[rows], self.normals.static_std[rows]
        return torch.from_numpy(standardise_static(ds["static"].values[rows], mean=mean, std=std))

    def _fill_inputs(self, x_NKHW: Tensor, times: Index, rows: Index, roll: Index | None) -> None:
        turned = roll is not None and bool(np.any(roll))
        values_NKHW = self.anomalies(times, rows=rows, out=None if turned else x_NKHW)
        names = [self.channels[i] for i in rows]
        self.as_input(
            values_NKHW,
            rows=rows,
            climatology=lambda: self.normals.climatology_at(self.times[times], channels=names),
        )
        if turned:
            _roll_into(x_NKHW, values_NKHW, roll)

    def _read_anomalies(self, times: Index, rows: Index | None = None, *, out: Tensor | None = None) -> Tensor:
        names = self.channels if rows is None else tuple(self.channels[i] for i in rows)
        if not names:  # a rank whose groups hold static fields only
            return torch.empty((len(times), 0, *self.grid_shape))
        scaling = self.scaling
        if rows is not None:
            scaling = Scaling(names, self.scaling.mean[rows], self.scaling.std[rows])
        channels = self._rows if rows is None else self._rows[rows]
        unique, place, inverse = np.unique(times, return_index=True, return_inverse=True)
        found = torch.empty((len(times), len(names), *self.grid_shape)) if out is None else out
        into = found.numpy()
        runs = np.split(np.arange(len(unique)), np.flatnonzero(np.diff(unique) != 1) + 1)

        def fill(run: Index) -> None:
            when = unique[run]
            climatology = self.normals.climatology_at(self.times[when], channels=names)
            first = place[run[0]]
            together = np.array_equal(place[run], np.arange(first, first + len(run)))
            values = into[first : first + len(run)] if together else np.empty((len(run), *into.shape[1:]), np.float32)
            self._array.pick(slice(int(when[0]), int(when[-1]) + 1), channels, out=values)
            scaling.anomaly(values, climatology, out=values)
            if not np.isfinite(values.sum()):
                self._raise_not_finite(values, when, names)
            if not together:
                into[place[run]] = values

        if len(runs) == 1:
            fill(runs[0])
        else:
            list(self._pool.map(fill, runs))
        again = np.flatnonzero(place[inverse] != np.arange(len(times)))
        into[again] = into[place[inverse[again]]]
        return found

    def _raise_not_finite(self, fields: NDArray[np.float32], times: Index, names: Sequence[str]) -> None:
        where, channel = (int(i[0]) for i in np.nonzero(~np.isfinite(fields))[:2])
        raise ValueError(
            f"store must hold finite values only, got a missing or infinite one in {self._store}, channel "
            f"{names[channel]!r}, time {np.datetime_as_string(self.times[times[where]], unit='m')}; "
            "check it with python -m pipeline validate"
        )


def _rolled(fields: Tensor, roll: Index | None) -> Tensor:
    """Fields (N, ..., W), each sample turned eastward by a number of cells; the same tensor where none is turned."""
    if roll is None or not np.any(roll):
        return fields
    return _roll_into(torch.empty_like(fields), fields, roll)


def _roll_into(out_NCHW: Tensor, fields_NCHW: Tensor, roll: Index | None) -> Tensor:
    """Copies fields, each turned eastward by a number of cells (the last dim is the longitude); returns `out_NCHW`."""
    if roll is None or not np.any(roll):
        return out_NCHW.copy_(fields_NCHW)
    width = fields_NCHW.shape[-1]
    for i, cells in enumerate((roll % width).tolist()):
        out_NCHW[i, ..., cells:] = fields_NCHW[i, ..., : width - cells]
        out_NCHW[i, ..., :cells] = fields_NCHW[i, ..., width - cells :]
    return out_NCHW
