"""Work in one thread behind the caller's: a slab is written while the next one is computed.

Contract: one piece at a time, in the order given; at most one waits, so that memory holds two slabs and no more. What a
piece raises is raised by the next call, or at the end. Where the caller fails, the piece under way is finished first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any


class Behind:
    """Use as a context manager."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="behind")
        self._waiting: Future[Any] | None = None

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self._pool.shutdown()

    def do(self, work: Callable[..., object], /, *given: object) -> None:
        """Wait for the piece before, then begin this one and return.

        Args:
            work: a function.
            given: its arguments.
        """
        self.finish()
        self._waiting = self._pool.submit(work, *given)

    def finish(self) -> None:
        """Wait for what was begun."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.result()
