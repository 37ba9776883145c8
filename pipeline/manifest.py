"""The manifest beside a store: what was written, and how a reader knows that it still is.

Contract: `x.manifest.json` belongs to `x.zarr`. It holds the contract, the axis, the record of every slab, the
digests of all small files (metadata, coordinates, static fields), the sizes of all shards, and a checksum over itself.
Nobody takes anything from a store before these agree with one another and with what is on the disk; none of it reads a
shard. Manifests from before there were checksums and sizes lack some of this, and what they lack is not looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline import files
from pipeline.contract import contract_differences, contract_digest

SCHEMA = 1
"""Version of the store layout; a store of another version is refused."""
UNKNOWN = "the stage that writes it"
_COMMANDS = {
    "training store": "python -m pipeline regrid",
    "forecast": "python -m pipeline forecast",
    "simulated archive": "python -m pipeline simulate",
}
"""By the kind of a store, where its manifest does not say: it is gone, or from before manifests did."""
_NEEDED = ("contract", "digest", "slab_dim", "axis", "slabs", "complete", "facts")


def manifest_path(path: Path) -> Path:
    """Where the manifest of a store lies."""
    return path.with_name(f"{path.stem}.manifest.json")


def lock_path(path: Path) -> Path:
    """The file that the writer of a store locks."""
    return path.with_name(f"{path.stem}.lock")


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest of a store, with a checksum over all of it."""
    plain = json.loads(json.dumps({key: value for key, value in content.items() if key != "checksum"}))
    files.write_json(manifest_path(path), {**plain, "checksum": _checksum(plain)})


def inspect(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The manifest of a store, and what is wrong with it by itself.

    Returns:
        (content, one line per fault); empty content where there is no manifest, or none of a store.
    """
    place = manifest_path(path)
    try:
        content = json.loads(place.read_text())
    except FileNotFoundError:
        return {}, [f"must have a manifest, got no {place.name} beside it"]
    except ValueError as error:
        return {}, [f"{place.name} must be JSON, got {error}"]
    absent = [key for key in _NEEDED if not isinstance(content, dict) or key not in content]
    if absent:
        return {}, [f"{place.name} must have {', '.join(_NEEDED)}, got none of {', '.join(absent)}"]
    faults = []
    if content["digest"] != contract_digest(content["contract"]):
        faults.append(f"digest of {place.name} must be that of its contract, got {content['digest']}")
    if "checksum" in content and content["checksum"] != _checksum(content):
        faults.append(f"checksum of {place.name} must be that of its content, got another: it was edited or damaged")
    return content, faults


def contract_of(path: Path) -> Any:
    """The contract in the attributes of a store, read without Zarr; None where there is none."""
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]["contract"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def metadata_faults(path: Path, content: Mapping[str, Any]) -> list[str]:
    """Where the contract and the small files of a store are not those of its manifest, one line each."""
    recorded = content.get("metadata", {})
    found = {name: _digest_of(path / name) for name in recorded}
    faults = [
        f"{name} must be as it was written, got {'another content' if digest else 'no such file'}"
        for name, digest in found.items()
        if digest != recorded[name]
    ]
    theirs = contract_of(path)
    if not isinstance(theirs, Mapping):
        return [*faults, f"attribute 'contract' must be a mapping, got {theirs!r}"]
    listed = contract_differences(theirs, content["contract"])
    return [*faults, *(f"contract must be that of the manifest, got {line}" for line in listed)]


def small_files(path: Path, *, arrays: Iterable[str]) -> dict[str, str]:
    """Digests of all files of a store but the shards of its large arrays, by their names inside it."""
    folders = [path / name / "c" for name in arrays]
    found = (p for p in sorted(path.rglob("*")) if p.is_file() and not any(f in p.parents for f in folders))
    return {str(p.relative_to(path)): _digest_of(p) for p in found}


def shard_files(path: Path, *, arrays: Iterable[str], slab: int) -> dict[str, int]:
    """Sizes of the files of a slab [bytes], by their names inside the store."""
    found = (p for name in arrays for p in sorted((path / name / "c" / str(slab)).rglob("*")))
    alone = (path / name / "c" / str(slab) for name in arrays)
    return {str(p.relative_to(path)): p.stat().st_size for p in (*found, *alone) if p.is_file()}


def remedy(path: Path, content: Mapping[str, Any], *, stage: str = UNKNOWN) -> str:
    """The end of every message about a damaged store: the command that sets it right.

    Args:
        path: of the store.
        content: of its manifest, which names the command if it is not an old one; {} where it cannot be read.
        stage: what writes such a store.
    """
    contract = content.get("contract") or contract_of(path)
    kind = contract.get("kind") if isinstance(contract, Mapping) else None
    command = content.get("command") or (stage if stage != UNKNOWN else _COMMANDS.get(str(kind), stage))
    verify = " with --verify" if command == UNKNOWN else " --verify"
    return f"run {command}{verify}, which writes again what is damaged and nothing else"


def _checksum(content: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in content.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:32]


def _digest_of(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except (FileNotFoundError, NotADirectoryError):
        return ""
