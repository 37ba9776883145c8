"""Files and folders written so that a reader never sees half of one, and locks that die with their owner.

Contract: whatever happens in between, `replacing` leaves either the old file or folder or the whole new one, and so do
`write_text` and `write_json`. What is half written lies in a hidden folder beside it, `.<name>.<random>.tmp`, which its
process keeps locked; `clear_abandoned` removes those that a killed process left, on whichever machine it ran. `lock`
refuses a second writer at once. The kernel releases locks on a kill.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_TEMPORARY, _OWNER = ".tmp", "owner"


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A place beside a file or folder for what belongs to it for a while; nothing is there yet.

    Args:
        path: whose name the place has; its folder is created if absent.

    Yields:
        A path that may become a file or a folder; what is there at the end is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder, owner = _locked_folder(path)
    with owner:
        try:
            yield folder / path.name
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write what shall replace a file or a folder: flushed and renamed at the end, unless there is an error.

    Args:
        path: file or folder; its folder is created if absent.

    Yields:
        A path of the same name on the same disk, where nothing is yet.
    """
    with scratch(path) as temporary:
        yield temporary
        for part in (*temporary.rglob("*"), temporary):
            sync(part)
        if path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
        sync(path.parent)


def clear_abandoned(folder: Path, *, below: bool = False) -> None:
    """Remove what killed processes left half written; what a running process writes stays.

    Args:
        folder: where to look; it need not exist.
        below: look in all folders below too, but not inside Zarr stores.
    """
    for place, names, _ in os.walk(folder):
        for name in [n for n in names if n.startswith(".") and n.endswith(_TEMPORARY)]:
            names.remove(name)
            _remove_if_abandoned(Path(place, name))
        names[:] = [n for n in names if below and not n.endswith((".zarr", ".new"))]


def _locked_folder(path: Path) -> tuple[Path, IO[str]]:
    """A new folder with a lock in it that this process holds, in spite of anyone who clears meanwhile."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:200]}.", suffix=_TEMPORARY, dir=path.parent))
        with suppress(FileNotFoundError):  # cleared before it was locked
            owner = (folder / _OWNER).open("w")
            with suppress(BlockingIOError):
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if (folder / _OWNER).exists():
                    return folder, owner
            owner.close()


def _remove_if_abandoned(folder: Path) -> None:
    try:
        with (folder / _OWNER).open("r+") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return
    except OSError:  # nothing in it yet, or somebody else removed it
        with suppress(OSError):
            folder.rmdir()


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically."""
    with named_in_errors(path), replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


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
