"""Compares the results of two versions of the code bit for bit, by digests of every array and table.

    python benchmarks/digests.py write results/small digests.json
    python benchmarks/digests.py compare results/small digests.json      # status 1 where something differs

Reads stores, checkpoints and tables with public libraries only, so that it works on results of any version. Logs,
receipts, figures and everything that contains a date are left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load

TABLES = ("scores.csv", "shares.csv", "differences.csv", "scores_common.csv")


def digest(values: np.ndarray) -> str:
    """Of type, shape and bytes."""
    values = np.ascontiguousarray(values)
    text = hashlib.sha256(f"{values.dtype}{values.shape}".encode())
    text.update(values.tobytes())
    return text.hexdigest()[:16]


def store(path: Path) -> dict[str, str]:
    """Every array of a Zarr store."""
    return {name: digest(np.asarray(array[...])) for name, array in sorted(zarr.open_group(path, mode="r").arrays())}


def checkpoint(path: Path) -> dict[str, str]:
    """Every tensor of a checkpoint."""
    sizes = FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in sizes.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        load(tensors, storage_reader=FileSystemReader(path), no_dist=True)
    return {name: digest(tensor.numpy()) for name, tensor in sorted(tensors.items())}


def collect(folder: Path) -> dict[str, Any]:
    """All digests of a results folder, by path inside it."""
    found: dict[str, Any] = {}
    for path in sorted([*folder.glob("*.zarr"), *folder.glob("data/*.zarr")]):
        found[str(path.relative_to(folder))] = store(path)
    for path in sorted(folder.glob("**/checkpoints/*-*")):
        found[str(path.relative_to(folder))] = checkpoint(path)
    for path in sorted(path for name in TABLES for path in folder.glob(f"scores-*/{name}")):
        found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return found


def differences(now: dict[str, Any], before: dict[str, Any], *, at: str = "") -> list[str]:
    """One line for each entry that is not the same in both."""
    lines = []
    for key in sorted({*now, *before}):
        a, b = now.get(key, "absent"), before.get(key, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, at=f"{at}{key} ")
        elif a != b:
            now_, before_ = "absent" if a == "absent" else "there", "absent" if b == "absent" else "another"
            lines.append(f"{at}{key}: {now_} now, {before_} before")
    return lines


def main() -> int:
    """Write digests, or compare with written ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["write", "compare"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    found = collect(given.folder)
    count = sum(len(entry) if isinstance(entry, dict) else 1 for entry in found.values())
    if given.action == "write":
        given.file.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{count} digests of {len(found)} outputs in {given.file}")
        return 0
    lines = differences(found, json.loads(given.file.read_text()))
    print("\n".join([*lines, f"{len(lines)} of {count} differ"]))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
