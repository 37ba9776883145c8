"""What stores of another period already hold: taken over, not read again from the source.

Contract: a store of the same contract beside the new one (same channels, grid, step, source and method) holds the
same fields at the same times. A slab of the same times is linked, file by file (copied where the file system has no
links); of a slab that has only some of its times there, those are read from the other store and the rest from
the source. Whatever is taken over is first compared with the digest that the other manifest recorded.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
import zarr
from numpy.typing import NDArray

from pipeline import damage, files, manifest, store
from pipeline.console import say
from pipeline.weather.times import Times
from pipeline.words import counted

_ARRAY = "state"


class RecordedSlab(TypedDict):
    """A slab's entry in a manifest."""

    start: int
    stop: int
    sha256: str
    note: NotRequired[dict[str, Any]]


@dataclass(frozen=True, eq=False)
class OtherPeriod:
    """A store of the same contract and another period.

    Args:
        path: its folder.
        slab_size: times in a slab.
        slabs: recorded slabs by number.
        times: its time axis.
        manifest: all of it.
    """

    path: Path
    slab_size: int
    slabs: Mapping[int, RecordedSlab]
    times: Times
    manifest: Mapping[str, Any]

    @classmethod
    def beside(cls, writer: store.SlabStore) -> list[OtherPeriod]:
        """Usable stores in the folder of a new one, those with most times first."""
        usable = []
        digest = store.contract_digest(writer.contract)
        for place in writer.path.parent.glob("*.manifest.json"):
            path = place.with_name(place.name.removesuffix(".manifest.json") + ".zarr")
            if path == writer.path or not path.exists():
                continue
            try:
                content, faults = manifest.inspect(path)
                if faults or content["digest"] != digest or not content["slabs"]:
                    continue
                group: Any = zarr.open_group(path, mode="r")
                hours = group["time"][:]
            except (ValueError, KeyError, OSError):  # not a store of ours, or one being written
                continue
            times = (np.datetime64(0, "ns") + hours.astype("timedelta64[h]")).astype("datetime64[ns]")
            slabs = {int(i): entry for i, entry in content["slabs"].items()}
            usable.append(cls(path, int(content["axis"]["slab_size"]), slabs, times, content))
        return sorted(usable, key=lambda other: -other.times.size)

    def same(self, times: Times, *, slab_size: int) -> int | None:
        """The number of the slab that holds exactly these times in a shard of the same shape."""
        at = np.searchsorted(self.times, times[0])
        number = int(at) // self.slab_size
        entry = self.slabs.get(number)
        if slab_size != self.slab_size or entry is None or entry["start"] != at:
            return None
        return number if np.array_equal(self.times[entry["start"] : entry["stop"]], times) else None

    def holds(self, times: Times) -> NDArray[np.bool_]:
        """Which of some times lie in recorded slabs."""
        recorded = np.zeros(self.times.size, dtype=bool)
        for entry in self.slabs.values():
            recorded[entry["start"] : entry["stop"]] = True
        return np.isin(times, self.times[recorded])

    def complete(self, times: Times, read: Times, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A slab put together: `values` at the times `read`, the others from here.

        Raises:
            ValueError: what is here is not as recorded.
        """
        whole = np.empty((times.size, *values.shape[1:]), np.float32)
        from_source = np.isin(times, read)
        whole[from_source] = values
        wanted = np.flatnonzero(~from_source)
        positions = np.searchsorted(self.times, times[wanted])
        for number in np.unique(positions // self.slab_size).tolist():
            here = positions // self.slab_size == number
            slab = self.slabs[number]
            fields = _fields(self, number)
            whole[wanted[here]] = fields[positions[here] - slab["start"]]
        return whole

    def link(self, number: int, slab: store.Slab, writer: store.SlabStore) -> None:
        """Take over a whole slab: its files, compared with its digest, and its record.

        Raises:
            ValueError: the files are not as recorded.
        """
        _fields(self, number)
        old, new = (p / _ARRAY / "c" / str(i) for p, i in ((self.path, number), (writer.path, slab.index)))
        shutil.rmtree(new, ignore_errors=True)
        for file in sorted(p for p in old.rglob("*") if p.is_file()):
            target = new / file.relative_to(old)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)
                files.sync(target)
        entry = self.slabs[number]
        found = damage.read_slab(writer.path, {"start": slab.start, "stop": slab.stop}, arrays=[_ARRAY])
        if damage.slab_digest(found) != entry["sha256"]:
            raise ValueError(f"slab {slab.index} of {writer.path} must be that of {self.path}; check the disk")
        writer.record(slab, digest=entry["sha256"], note=entry.get("note"))


@lru_cache(maxsize=1)
def _fields(other: OtherPeriod, number: int) -> NDArray[np.float32]:
    """The values of one slab, as recorded; the last one is kept, since several new slabs may need it."""
    return damage.recorded_slab(other.path, other.manifest, number)[_ARRAY]


def take_over(
    writer: store.SlabStore, times: Times, pending: Sequence[store.Slab]
) -> tuple[dict[int, tuple[OtherPeriod, int]], dict[int, OtherPeriod]]:
    """What stores of another period can give to the slabs of a new one.

    Args:
        writer: the new store, not opened yet.
        times: its time axis.
        pending: its slabs that are not written yet.

    Returns:
        ({slab: (store, slab there)} for whole slabs, {slab: store} for those of which it holds some times).
    """
    whole: dict[int, tuple[OtherPeriod, int]] = {}
    some: dict[int, OtherPeriod] = {}
    for other in OtherPeriod.beside(writer):
        for slab in pending:
            if slab.index in whole:
                continue
            number = other.same(times[slab.slice], slab_size=writer.slab_size)
            if number is not None:
                whole[slab.index] = (other, number)
                some.pop(slab.index, None)
            elif slab.index not in some and other.holds(times[slab.slice]).any():
                some[slab.index] = other
    if whole or some:
        names = sorted({other.path.name for other in (*(o for o, _ in whole.values()), *some.values())})
        say(f"regrid: {counted(len(whole), 'slab')} taken over from {', '.join(names)}, which has the same fields")
    return whole, some
