"""Small files written so that a reader never sees half of one, and locks that die with their owner.

Contract: `write_text` and `write_json` leave either the old file or the whole new one, whatever
happens in between; `lock` refuses a second writer at once and is released by the kernel on a kill.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: temporary name, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is absent or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"file must exist, got {path}; run the stage that writes it") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"file must be JSON, got {path}: {error}") from None


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the only right to write what `path` names.

    Raises:
        ValueError: another live process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ValueError(
                f"output must have one writer at a time, got a second for {path.with_suffix('')} "
                f"(process {owner} holds it); wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def free_space_check(path: Path, needed: int) -> None:
    """Refuse to start what cannot fit.

    Args:
        path: where it will be written (need not exist).
        needed: bytes.

    Raises:
        ValueError: the disk has less.
    """
    folder = path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(
            f"disk must hold {needed / 1e9:.2f} GB for {path}, got {free / 1e9:.2f} GB free; "
            f"free some space or set another directory"
        )
