"""A copy of what a stage says, kept in a file while the terminal shows it unchanged.

Contract: the terminal sees every byte at once, progress bars included; the file gets whole lines only,
without colours and without the frames of a progress bar that were drawn over. What C libraries write past
Python is shown and not kept. An error leaves its traceback in the file, whatever the terminal shows. Ranks
other than the first keep files of their own beside it, and of ranks that fail the first shows why.
"""

from __future__ import annotations

import datetime as dt
import io
import os
import re
import shlex
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

RANKS_FOLDER = "CHAGCAST_RANKS"
"""Environment variable: folder that the ranks of one machine share while they run; absent where there is one rank."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_ERASE = re.compile(r"\x1b\[[0-2]?K|\x1b\[[0-9]*A")
"""Erasing a line, or going up to one: what stood there before is drawn over."""


class Tee(io.TextIOBase):
    """A text stream that passes everything on and keeps finished lines in a file."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self.stream = stream
        self.file = file
        self._line = ""

    def write(self, text: str) -> int:
        """Pass on and keep; returns the number of characters."""
        self.stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._keep(line)
        if lines:
            self.file.flush()
        return len(text)

    def _keep(self, line: str) -> None:
        last = _ERASE.split(line.rstrip("\r"))[-1].rsplit("\r", 1)[-1]
        shown = _CONTROL.sub("", last).rstrip()
        if shown:
            self.file.write(shown + "\n")

    def flush(self) -> None:
        """Flush the terminal."""
        self.stream.flush()

    def isatty(self) -> bool:
        """As the terminal, so that progress bars behave as without a log."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """The terminal's descriptor, for programs that ask for its width."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The terminal's."""
        return self.stream.encoding

    def finish(self) -> None:
        """Keep what stands on an unfinished line."""
        self._keep(self._line)
        self._line = ""


@contextmanager
def logged(path: Path | None) -> Iterator[None]:
    """Keep a copy of standard output and standard error in a file, after what earlier runs left there.

    Args:
        path: the log of the first rank; rank 3's is <name>.rank3.log. None keeps nothing.
    """
    if path is None:
        yield
        return
    if (rank := os.environ.get("RANK", "0")) != "0":
        path = path.with_name(f"{path.stem}.rank{rank}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    output, errors = sys.stdout, sys.stderr
    with path.open("a", encoding="utf-8") as file:
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        file.write(f"-- {now} {shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])}\n")
        tees = Tee(output, file), Tee(errors, file)
        sys.stdout, sys.stderr = tees
        try:
            yield
        except BaseException:
            file.write(traceback.format_exc())
            raise
        finally:
            for tee in tees:
                tee.finish()
            sys.stdout, sys.stderr = output, errors


def speaks_first(*, patience: float = 0.0, status: int | None = None) -> bool:
    """Whether this process, which is about to fail, should say why: one rank of a machine does, others are silent.

    Args:
        patience: seconds to leave the word to another rank. A rank whose partner has gone fails too, and not with
            the reason.
        status: what the whole run should end with, whichever rank is seen to end first; None leaves that to the ranks.
    """
    folder = os.environ.get(RANKS_FOLDER)
    if not folder or not Path(folder).is_dir():
        return True
    spoken = Path(folder, "spoken")
    end = time.monotonic() + patience
    while time.monotonic() < end and not spoken.exists():
        time.sleep(0.05)
    try:
        with spoken.open("x") as file:
            file.write("" if status is None else str(status))
    except FileExistsError:
        return False
    return True


def has_spoken(folder: Path) -> bool:
    """Whether a rank has said why the run fails."""
    return (folder / "spoken").exists()


def spoken_status(folder: Path) -> list[int]:
    """The status that the rank which spoke asked for, if one did."""
    spoken = folder / "spoken"
    said = spoken.read_text() if spoken.exists() else ""
    return [int(said)] if said else []
