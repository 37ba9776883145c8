"""Reader of the normals store: means, standard deviations and the climatology of the training periods.

Contract: a climatology has 366 slots, one for each day of a leap year, and one field for each hour of
day of the store. 29 February is slot 60 and 1 March is slot 61 in every year, so a date finds the same
slot whatever the year; a year of 365 days passes over slot 60, which the smoothing window fills from
its neighbours. Layout, written by `preprocess.normals.stage`:

    mean, std, anomaly_std (channel)                    float64, canonical units
    static_mean, static_std (static_channel)            float64
    climatology (dayofyear, hour, channel, latitude, longitude)   float32, canonical units
    dayofyear 1..366, hour, channel, static_channel, latitude, longitude
    year, year_count, year_mean, year_m2                partial sums of each year, mergeable
    change_std (step, channel), step_hours (step)       float64, canonical units; hours. Only where the configuration
                                                        has training.step_hours
    attributes: contract, digest (of contract and content), climatology_kind, count

`mean` and `std` weight every cell by its area and every training time equally; `anomaly_std` is the
same for the anomaly from the climatology. `change_std` is the root of the mean square of how much that anomaly
changes over a step, over all pairs of training times a step apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline.grid import Grid
from pipeline.shards import Reader
from pipeline.words import counted

SCHEMA = 1
"""Version of the layout; normals of another version are refused."""

SLOTS = 366
"""Days of the climatological year: those of a leap year."""

_MONTH_START = np.concatenate([[0], np.cumsum([31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30])])


def day_slots(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Slot of each date in a leap-year calendar, 1..366, in the shape of `times`.

    >>> day_slots(np.array(["2001-02-28", "2000-02-29", "2001-03-01", "2000-03-01", "2001-12-31"], "datetime64[D]"))
    array([ 59,  60,  61,  61, 366])
    """
    months = times.astype("datetime64[M]")
    day = (times.astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    return np.asarray(_MONTH_START[months.astype(np.int64) % 12] + day + 1)


def hours_of_day(times: NDArray[np.datetime64]) -> NDArray[np.int64]:
    """Hour of day of each time, in the shape of `times`.

    Raises:
        ValueError: a time is not on the full hour.
    """
    hours = times.astype("datetime64[h]")
    off = np.asarray(hours != times).ravel()
    if off.any():
        raise ValueError(f"times must be on the full hour, got {times.ravel()[off][0]}")
    return np.asarray((hours - hours.astype("datetime64[D]")).astype(np.int64))


@dataclass(frozen=True, eq=False, repr=False)
class Normals:
    """The normals of one training store.

    Args:
        path: folder of the store.
        channels: short names, in the order of every channel axis.
        static_channels: the same for the static fields.
        mean, std, anomaly_std: shape (channel,), float64.
        static_mean, static_std: shape (static_channel,), float64.
        hours: hours of day the climatology has.
        grid: grid of the climatology.
        contract: what these normals were made from.
        digest: hash of contract and content.
        kind: "day of year x hour", or why it is less than that.
        step_hours: steps [h] over which changes were measured, increasing; none unless training.step_hours asked.
    """

    path: Path
    channels: tuple[str, ...]
    static_channels: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    anomaly_std: NDArray[np.float64]
    static_mean: NDArray[np.float64]
    static_std: NDArray[np.float64]
    hours: tuple[int, ...]
    grid: Grid
    contract: dict[str, Any]
    digest: str
    kind: str
    step_hours: tuple[int, ...]
    _change_std: NDArray[np.float64]
    """Shape (step, channel); see `change_std`."""
    _climatology: Any

    def __repr__(self) -> str:
        return f"Normals({str(self.path)!r}, {counted(len(self.channels), 'channel')}, {self.grid}, {self.kind})"

    @classmethod
    def open(cls, path: Path | str, *, stage: str = "python -m pipeline normals") -> Normals:
        """Open finished normals; the climatology stays on disk.

        Args:
            path: folder written by `preprocess.normals.stage`.
            stage: what to run when it is not there.

        Raises:
            ValueError: nothing there, or another layout version.
        """
        path = Path(path)
        if not path.exists():
            raise ValueError(f"normals must exist, got nothing at {path}; run {stage} first")
        group: Any = zarr.open_group(path, mode="r")
        found = group.attrs.get("schema")
        if found != SCHEMA:
            raise ValueError(f"normals {path} must have layout version {SCHEMA}, got {found}; run {stage} again")

        def names(key: str) -> tuple[str, ...]:
            return tuple(str(name) for name in group[key][:])

        def numbers(key: str) -> NDArray[np.float64]:
            return np.asarray(group[key][:], dtype=np.float64)

        channels, stepped = names("channel"), "change_std" in group
        return cls(
            path=path,
            channels=channels,
            static_channels=names("static_channel"),
            mean=numbers("mean"),
            std=numbers("std"),
            anomaly_std=numbers("anomaly_std"),
            static_mean=numbers("static_mean"),
            static_std=numbers("static_std"),
            hours=tuple(int(hour) for hour in group["hour"][:]),
            grid=Grid(group["latitude"][:], group["longitude"][:]),
            contract=dict(group.attrs["contract"]),
            digest=str(group.attrs["digest"]),
            kind=str(group.attrs["climatology_kind"]),
            step_hours=tuple(int(hours) for hours in group["step_hours"][:]) if stepped else (),
            _change_std=numbers("change_std") if stepped else np.empty((0, len(channels))),
            _climatology=Reader(path, "climatology"),
        )

    @property
    def nbytes(self) -> int:
        """Size of the whole climatology in memory, bytes."""
        return int(np.prod(self._climatology.shape, dtype=np.int64)) * 4

    @property
    def days_together(self) -> int:
        """Days of the year that lie in one piece on disk: asking for all of them at once reads fastest."""
        shards = self._climatology.array.shards if isinstance(self._climatology, Reader) else None
        return int(shards[0]) if shards else SLOTS

    def in_memory(self, *, channels: Sequence[str] | None = None) -> Normals:
        """The same normals with the climatology read, for many random accesses.

        Args:
            channels: read and keep these alone, in this order; all (`nbytes`) for None.
        """
        rows = self.channel_indices(channels)
        held = np.empty((*self._climatology.shape[:2], rows.size, *self.grid.shape), dtype=np.float32)
        slots = np.arange(SLOTS)
        for start in range(0, SLOTS, self.days_together):
            part = slots[start : start + self.days_together]
            for hour in range(len(self.hours)):
                held[part, hour] = self._read(part, hour, rows)
        kept = {name: getattr(self, name)[rows] for name in ("mean", "std", "anomaly_std")}
        names = self.channels if channels is None else tuple(channels)
        return replace(self, channels=names, **kept, _change_std=self._change_std[:, rows], _climatology=held)

    def change_std(self, step_hours: int, channels: Sequence[str] | None = None) -> NDArray[np.float64]:
        """How much anomalies from the climatology change over a step: the root of the mean square of the changes.

        Args:
            step_hours: one of `self.step_hours`.
            channels: short names, in the order wanted; all for None.

        Returns:
            Shape (channel,), canonical units.

        Raises:
            ValueError: a step without changes, or an unknown channel.
        """
        if step_hours not in self.step_hours:
            known = f"those over {', '.join(map(str, self.step_hours))} h" if self.step_hours else "none"
            raise ValueError(
                f"normals {self.path} must hold the changes over a step of {step_hours} h, got {known}; add it to "
                "training.step_hours and run python -m pipeline normals"
            )
        return np.asarray(self._change_std[self.step_hours.index(step_hours), self.channel_indices(channels)])

    def require_anomalies(self, channels: Sequence[str]) -> None:
        """Refuse a climatology that is every training state itself.

        Args:
            channels: that will be read or predicted.

        Raises:
            ValueError: a channel whose anomalies from the climatology are all zero, though it is not constant.
        """
        rows = self.channel_indices(channels)
        none = (self.std[rows] > 0) & (self.anomaly_std[rows] <= 1e-6 * self.std[rows])
        if none.any():
            each, names = self.contract.get("times", 0) / max(1, len(self.hours)), np.asarray(channels)[none]
            raise ValueError(
                f"training periods must hold weather beside its climatology, got none in {', '.join(names)}: the "
                f"climatology saw each hour of the day {counted(each, 'time')} in all, so nothing departs from it; "
                "lengthen data.splits.train"
            )

    def channel_indices(self, channels: Sequence[str] | None) -> NDArray[np.int64]:
        """Positions of channels on the channel axis; all of them for None.

        Raises:
            ValueError: a channel that these normals do not have.
        """
        if channels is None or channels is self.channels:  # asked for every sample that is read
            return np.arange(len(self.channels))
        wanted = tuple(channels)
        absent = [name for name in wanted if name not in self.channels]
        if absent:
            raise ValueError(
                f"channels must be among the normals of {self.path}, got {', '.join(absent)}; "
                f"it has {', '.join(self.channels)}"
            )
        position = {name: i for i, name in enumerate(self.channels)}
        return np.array([position[name] for name in wanted], dtype=np.int64)

    def hours_at(self, times: NDArray[np.datetime64]) -> NDArray[np.int64]:
        """Hour of day of each time, in the shape of `times`.

        Raises:
            ValueError: a time off the hours of the climatology.
        """
        hours = hours_of_day(times)
        known = np.zeros(24, dtype=bool)
        known[list(self.hours)] = True
        unknown = ~known[hours]
        if unknown.any():
            raise ValueError(
                f"times must be at hours {', '.join(map(str, self.hours))} UTC, which the climatology in {self.path} "
                f"has, got {times[unknown].ravel()[0]}; choose init and lead times on data.step_hours"
            )
        return hours

    def climatology_at(
        self, times: NDArray[np.datetime64], *, channels: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """The climatology at given (valid) times.

        Args:
            times: UTC, datetime64 of any unit and any shape (T, ...).
            channels: short names, in the order wanted; all for None.

        Returns:
            Fields of shape (T, ..., channel, latitude, longitude), float32, canonical units; read-only where they
            are part of the climatology held in memory (one time, all channels).

        Raises:
            ValueError: a time off the hours of the climatology, NaT, or an unknown channel.
        """
        times = np.asarray(times)
        if not np.issubdtype(times.dtype, np.datetime64) or np.isnat(times).any():
            raise ValueError(f"times must be datetime64 without NaT, got {times.dtype}: {times.ravel()[:3]}")
        columns = self.channel_indices(channels)
        slots, hours = day_slots(times).ravel() - 1, self.hours_at(times).ravel()
        if slots.size == 1:  # as samples ask for it
            fields = self._read(slots, self.hours.index(int(hours[0])), columns)
            return fields.reshape(*times.shape, *fields.shape[1:])
        out = np.empty((slots.size, columns.size, *self.grid.shape), dtype=np.float32)
        for position, hour in enumerate(self.hours):
            here = np.flatnonzero(hours == hour)
            if here.size:
                wanted, inverse = np.unique(slots[here], return_inverse=True)
                fields = self._read(wanted, position, columns)
                fields = fields if np.array_equal(inverse, np.arange(wanted.size)) else fields[inverse]
                if here.size == slots.size:
                    return fields.reshape(*times.shape, *fields.shape[1:])
                out[here] = fields
        return out.reshape(*times.shape, *out.shape[1:])

    def days(self, slots: Sequence[int], *, hour: int, channels: Sequence[str] | None = None) -> NDArray[np.float32]:
        """The climatology of some days at one hour of day, as it lies in memory after reading: nothing is copied.

        Args:
            slots: from `day_slots`, sorted, each once.
            hour: one of `hours`.
            channels: short names, in the order wanted; all for None.

        Returns:
            Fields of shape (slot, channel, latitude, longitude), float32, canonical units.
        """
        columns = self.channel_indices(channels)
        return self._read(np.asarray(slots, dtype=np.int64) - 1, self.hours.index(hour), columns)

    def _read(self, slots: NDArray[np.int64], hour: int, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """Fields (slot, channel, latitude, longitude) at sorted, unique slots of one hour."""
        if isinstance(self._climatology, np.ndarray):
            if np.array_equal(columns, np.arange(len(self.channels))):
                if slots.size > 1:
                    return np.asarray(self._climatology[slots, hour])
                view = np.asarray(self._climatology[slots[0] : slots[0] + 1, hour])
                view.flags.writeable = False
                return view
            return np.asarray(self._climatology[slots[:, None], hour, columns[None, :]])
        unique, inverse = np.unique(columns, return_inverse=True)
        if not unique.size:
            return np.empty((slots.size, 0, *self.grid.shape), dtype=np.float32)
        fields = np.asarray(self._climatology.pick(slots, slice(hour, hour + 1), unique)[:, 0], dtype=np.float32)
        return fields if np.array_equal(unique, columns) else fields[:, inverse]
