"""Which slabs of a store are not as they were recorded, and how every stage says so.

Contract: `slab_digest` is the only digest of a slab. Sizes are compared without reading anything; digests by reading
all. A damaged slab is always named by its file, its number, its times and the command that writes it again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import manifest
from pipeline.console import progress

_HOURS = "hours since 1970-01-01"


class DamagedShardError(ValueError):
    """A shard cannot be read.

    Args:
        message: for the user.
        reason: what is wrong, as part of a phrase.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Damage:
    """A slab that is not as it was recorded.

    Args:
        slab: its number.
        span: its times, or positions where the dimension has no times.
        reason: what is there instead, with the file where that is known.
    """

    slab: int
    span: str
    reason: str

    def __str__(self) -> str:
        return f"slab {self.slab} ({self.span}): {self.reason}"


def slab_digest(arrays: Mapping[str, NDArray[Any]]) -> str:
    """The digest of a slab that its record holds: of the values of all large arrays, in the order of their names."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    return total.hexdigest()[:32]


def large_arrays(path: Path) -> list[str]:
    """The arrays of a store that are written in slabs, one shard for each."""
    import zarr

    group: Any = zarr.open_group(path, mode="r")
    return sorted(str(name) for name, array in group.arrays() if array.shards is not None)


def read_slab(path: Path, entry: Mapping[str, Any], *, arrays: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The values of a slab, whatever they are.

    Args:
        path: of the store.
        entry: the slab's record, or its start and stop.
        arrays: names.

    Raises:
        ValueError: a shard that is damaged or gone.
    """
    from pipeline.shards import Reader

    span = slice(entry["start"], entry["stop"])
    return {name: np.ascontiguousarray(Reader(path, name).read(span)) for name in arrays}


def recorded_slab(path: Path, content: Mapping[str, Any], slab: int) -> dict[str, NDArray[Any]]:
    """The values of a slab, compared with its recorded digest.

    Raises:
        ValueError: they differ, or cannot be read.
    """
    entry = content["slabs"][str(slab)]
    values = read_slab(path, entry, arrays=large_arrays(path))
    if slab_digest(values) != entry["sha256"]:
        damage = Damage(slab, span_of(path, content, slab), "its values do not match their recorded digest")
        raise ValueError(refusal(path, [str(damage)], content))
    return values


def damaged_slabs(path: Path, content: Mapping[str, Any], *, digests: bool = False) -> list[Damage]:
    """The recorded slabs that are not as recorded.

    Args:
        path: of the store.
        content: of its manifest.
        digests: also read every slab and compare its values with the record.
    """
    found = {index: _wrong_file(path, content, index) for index in content["slabs"]}
    if digests:
        with progress("slabs") as bar:
            for index in bar.track(list(content["slabs"]), description=f"verify {path.name}"):
                found[index] = found[index] or _wrong_values(path, content, index)
    else:  # records of before have no sizes: whether a file that is not there was ever written, only reading tells
        before = [i for i, reason in found.items() if reason is None and i not in content.get("shards", {})]
        names = large_arrays(path) if before else []
        for index in before:
            if any(not manifest.shard_files(path, arrays=[name], slab=int(index)) for name in names):
                found[index] = _wrong_values(path, content, index)
    return [Damage(int(i), span_of(path, content, int(i)), reason) for i, reason in found.items() if reason]


def verify_store(path: Path) -> list[str]:
    """Read every recorded slab and compare it with its recorded digest.

    Returns:
        One line per fault, empty when the store is sound.
    """
    content, faults = manifest.inspect(path)
    if not content:
        return faults
    return [*faults, *manifest.metadata_faults(path, content), *map(str, damaged_slabs(path, content, digests=True))]


def refusal(path: Path, lines: Iterable[str], content: Mapping[str, Any], *, stage: str = manifest.UNKNOWN) -> str:
    """The message of every stage that opens a store that is not as it was written."""
    listed = list(lines)
    shown = [*listed[:10], *([f"and {len(listed) - 10} more"] if len(listed) > 10 else [])]
    listing = "".join(f"\n  {line}" for line in shown)
    ending = manifest.remedy(path, content, stage=stage)
    return f"store {path} must be as it was written, got {len(listed)} fault(s):{listing}\n{ending}"


def damaged_shard(store: Path, file: Path, *, slab: int, what: str) -> DamagedShardError:
    """The error of a shard that cannot be read.

    Args:
        store: folder of the store.
        file: the shard.
        slab: its number along the first dimension.
        what: is wrong, as the beginning of a phrase that ends with the file's name.
    """
    content, _ = manifest.inspect(store)
    reason = f"{what} {file.relative_to(store)}"
    if str(slab) in content.get("slabs", {}):
        line = str(Damage(slab, span_of(store, content, slab), reason))
        return DamagedShardError(refusal(store, [line], content), reason)
    message = f"store {store} must be as it was written, got a fault: {reason}"
    return DamagedShardError(f"{message}; delete it and run the stage that wrote it", reason)


def span_of(path: Path, content: Mapping[str, Any], slab: int) -> str:
    """The times of a slab as messages give them; its positions where they are no times or cannot be read."""
    entry, dim = content["slabs"][str(slab)], content["slab_dim"]
    try:
        import zarr

        group: Any = zarr.open_group(path, mode="r")
        axis = group[dim]
        ends = [int(axis[entry["start"]]), int(axis[entry["stop"] - 1])]
    except Exception:  # any complaint of any codec: the message that wants the times is about another fault
        return f"positions {entry['start']} to {entry['stop'] - 1} of {dim}"
    if axis.attrs.get("units") != _HOURS:
        return f"{dim} {ends[0]} .. {ends[1]}"
    return " .. ".join(np.datetime_as_string(np.datetime64(hours, "h"), unit="m") for hours in ends)


def _wrong_file(path: Path, content: Mapping[str, Any], index: str) -> str | None:
    """What is wrong with the files of a slab, judged by their sizes; None if nothing or no size was recorded."""
    for name, size in content.get("shards", {}).get(index, {}).items():
        try:
            found = (path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"there is no {name}"
        if found != size:
            return f"{found} bytes instead of {size} in {name}"
    return None


def _wrong_values(path: Path, content: Mapping[str, Any], index: str) -> str | None:
    entry = content["slabs"][index]
    try:
        values = read_slab(path, entry, arrays=large_arrays(path))
    except DamagedShardError as error:
        return error.reason
    except Exception as error:  # any complaint of Zarr's means the same to the user
        return f"cannot be read, {type(error).__name__}: {error}"
    return None if slab_digest(values) == entry["sha256"] else "its values do not match their recorded digest"
