"""The sums of scoring, computed by one process or by many.

Contract: `summed` yields the sums of all batches in order, whatever computes them: this process, child processes, or
the workers of a running Dask scheduler, which must see the same files. Batches do not depend on one another and merge
exactly, so the scores do not depend on the split. Child processes end with their parent, however it ends.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from multiprocessing import connection, get_context, parent_process
from typing import Any

from evaluate.reading.reader import Reader
from evaluate.scoring.kernel import Kernel, Sums

MOST_BATCHES = 32
"""In one piece of work; neighbouring batches share truths, which are read once per piece."""
_payload: list[bytes] = []


def summed(
    reader: Reader, kernel: Kernel, *, first: int = 0, workers: int = 1, scheduler: str | None = None
) -> Iterator[tuple[int, Sums]]:
    """Sums of the batches from `first` on: (number of batches, their sums), in order.

    Args:
        reader: of all batches.
        kernel: what is summed.
        first: number of the first batch that is wanted.
        workers: processes; 1 sums in this one, reading one batch ahead.
        scheduler: address of a Dask scheduler to use instead.

    Raises:
        ValueError: a value is not finite, or no scheduler answers.
    """
    left = len(reader) - first
    if scheduler is None and (workers == 1 or left <= 1):
        for batch in reader.batches(first):
            yield 1, kernel(batch)
        return
    import cloudpickle

    payload: bytes = cloudpickle.dumps((reader, kernel))
    with ExitStack() as stack:
        if scheduler is None:
            pool: Any = child_processes(workers, payload, stack)
            shared: Any = None
        else:
            client = _connect(scheduler, stack)
            workers = max(1, sum(client.nthreads().values()))
            pool, shared = client.get_executor(pure=False), client.scatter(payload, broadcast=True)
        size = max(1, min(MOST_BATCHES, -(-left // (2 * workers))))
        starts = iter(range(first, len(reader), size))
        waiting: deque[tuple[int, Future[Sums]]] = deque()
        while True:
            while len(waiting) < 2 * workers and (start := next(starts, None)) is not None:
                count = min(size, len(reader) - start)
                waiting.append((count, pool.submit(_work, shared, start, count)))
            if not waiting:
                return
            count, future = waiting.popleft()
            yield count, future.result()


def child_processes(workers: int, payload: bytes, stack: ExitStack) -> ProcessPoolExecutor:
    """Processes that end with this one, however it ends.

    Args:
        workers: how many.
        payload: what `given` returns in each of them.
        stack: ends them when it is closed; work that has not begun is left.
    """
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start, initargs=(payload,))
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool


def given() -> bytes:
    """In a child process: what it was started with."""
    return _payload[0]


def _connect(scheduler: str, stack: ExitStack) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "evaluation.scheduler must have Dask's distributed package, got none; install chagcast[cluster], or set "
            "evaluation.workers instead"
        ) from None
    connect: Any = Client
    try:
        client = stack.enter_context(connect(scheduler, timeout=20))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"evaluation.scheduler must be the address of a running Dask scheduler, got {scheduler!r}: {error}"
        ) from None
    if not client.nthreads():
        raise ValueError(f"Dask scheduler {scheduler} must have workers, got none; start dask worker {scheduler}")
    return client


def _start(payload: bytes) -> None:
    """Begin a child process: keep what is needed, and end when the parent does."""
    _payload[:] = [payload]
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _loaded(payload: bytes) -> tuple[Reader, Kernel]:
    import cloudpickle

    reader, kernel = cloudpickle.loads(payload)
    return reader, kernel


_busy = threading.Lock()


def _work(payload: bytes | None, start: int, count: int) -> Sums:
    """The sums of `count` batches from `start` on; one at a time in a process, whose buffers it uses."""
    with _busy:
        reader, kernel = _loaded(given() if payload is None else payload)
        batches = reader.batches(start)
        return Sums.merge(kernel(next(batches)) for _ in range(count))
