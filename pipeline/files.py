"""Small files written so that a reader never sees half of one, and locks that die with their owner.

Contract: `write_text` and `write_json` leave either the old file or the whole new one, whatever
happens in between; `lock` refuses a second writer at once and is released by the kernel on a kill.
"""

from __future__ import annotations

import errno
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
        with named_in_errors(path), temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""What writing may meet after a file was opened."""


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Give an error of the system that comes without a file, as writing to a full disk does, the path it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in _DISK:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def describe_error(error: OSError) -> str:
    """What a user is told of an error of the system.

    >>> describe_error(OSError(errno.ENOSPC, "No space left on device", "x.zarr"))
    'disk must have room for x.zarr, got none left; free some space, then the same command resumes'
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or "what is written"
        why = "none left" if error.errno == errno.ENOSPC else "a used-up quota"
        return f"disk must have room for {where}, got {why}; free some space, then the same command resumes"
    if error.filename is not None and error.strerror:
        return f"file must be usable, got {error.filename}: {error.strerror[0].lower()}{error.strerror[1:]}"
    return str(error)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ValueError: it is not text, naming the file.
        OSError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"file must be text (UTF-8), got {path} with the byte 0x{error.object[error.start]:02x} at position "
            f"{error.start}; it is damaged, or something else"
        ) from None


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is absent or not JSON.
    """
    try:
        return json.loads(read_text(path))
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
