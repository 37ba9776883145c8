"""How the check of a store goes through its slabs and tells what it found, whatever the store holds.

Contract: a departure is one line of text. Those that the command which wrote the store sets right are `Damaged`; what
cannot be read is a departure like any other. Nothing is written and nothing repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pipeline import damage, manifest
from pipeline.console import progress, say
from pipeline.damage import DamagedShardError


class Damaged(str):
    """A departure that the command which wrote the store sets right."""


def tell(checked: Mapping[Path, Sequence[str]], *, page: str) -> None:
    """Say which stores keep their contract.

    Args:
        checked: departures of each store.
        page: of the documentation, which has the contract.

    Raises:
        ValueError: a store has departures; all of all stores in one message.
    """
    faulty = {path: lines for path, lines in checked.items() if lines}
    for path in checked:
        if path not in faulty:
            say(f"validate: {path} keeps the contract")
    if faulty:
        listing = "\n".join("\n  ".join([str(path), *lines, *_remedy(path, lines)]) for path, lines in faulty.items())
        total = sum(map(len, faulty.values()))
        raise ValueError(f"stores must keep the contract of {page}, got {total} departure(s):\n{listing}")


def of_manifest(path: Path, content: Mapping[str, Any], faults: Sequence[str]) -> list[str]:
    """Departures that the manifest and the small files of a store show.

    Args:
        path: of the store.
        content: of its manifest, {} where there is none.
        faults: what `manifest.inspect` found wrong with it.
    """
    found = list(faults)
    if content and not content["complete"]:
        found.append(f"must be complete, got {len(content['slabs'])} slabs recorded and no end")
    if content:
        found += manifest.metadata_faults(path, content)
    return [Damaged(line) for line in found]


def read_slabs(
    path: Path, content: Mapping[str, Any], slabs: Mapping[str, tuple[int, int, str | None]], arrays: Iterable[str]
) -> Iterator[tuple[dict[str, NDArray[Any]], list[str]]]:
    """Each slab with its departures; no arrays where it cannot be read.

    Args:
        path: of the store.
        content: of its manifest, {} where there is none.
        slabs: by number, start, stop and digest; None for no digest.
        arrays: names.
    """
    names = list(arrays)
    with progress("slabs") as bar:
        task = bar.add_task(f"validate {path.name}", total=len(slabs))
        for index, (start, stop, sha256) in slabs.items():
            bar.advance(task)
            where = (
                damage.span_of(path, content, int(index)) if index in content.get("slabs", {}) else f"from {start} on"
            )
            slab = f"slab {index} ({where})"
            try:
                parts = damage.read_slab(path, {"start": start, "stop": stop}, arrays=names)
            except DamagedShardError as error:
                yield {}, [Damaged(f"{slab} must be readable: {error.reason}")]
                continue
            except Exception as error:  # any complaint of Zarr's
                yield {}, [Damaged(f"{slab} must be readable: {type(error).__name__}: {error}")]
                continue
            other = sha256 is not None and damage.slab_digest(parts) != sha256
            yield parts, [Damaged(f"{slab} must match its recorded digest, got another")] if other else []


def recorded_slabs(content: Mapping[str, Any]) -> dict[str, tuple[int, int, str | None]]:
    """The slabs of a manifest, as `read_slabs` takes them."""
    return {i: (e["start"], e["stop"], e["sha256"]) for i, e in content.get("slabs", {}).items()}


def _remedy(path: Path, lines: Sequence[str]) -> list[str]:
    """What the user can do for a store of ours that is not as it was written."""
    if not manifest.contract_of(path) or not any(isinstance(line, Damaged) for line in lines):
        return []
    return [manifest.remedy(path, manifest.inspect(path)[0])]
