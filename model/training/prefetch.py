"""Batches made in threads while the last one is being used.

Contract: decompression and arithmetic release Python's lock, batches need no copy between processes, and a killed run
leaves no workers behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 3
"""Batches that are made or wait at a time."""


class Prefetch(Generic[T]):
    """Makes the next items in threads while the last one is being used.

    Args:
        make: builds the item of a step; called from several threads.
        steps: which steps, in order.
        depth: how many are made or wait at a time.
        workers: threads; two, so that one reads while the other computes.

    Attributes:
        waited: seconds the consumer spent waiting.
    """

    def __init__(self, make: Callable[[int], T], steps: range, *, depth: int = DEPTH, workers: int = 2) -> None:
        self.waited = 0.0
        self._make, self._steps = make, iter(steps)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="prefetch")
        self._coming: deque[Future[T]] = deque()
        for _ in range(depth):
            self._order_next()

    def __iter__(self) -> Iterator[T]:
        while self._coming:
            began = time.perf_counter()
            value = self._coming.popleft().result()
            self.waited += time.perf_counter() - began
            self._order_next()
            yield value

    def close(self) -> None:
        """Stop the threads; nothing more comes."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._coming.clear()

    def _order_next(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._coming.append(self._pool.submit(self._make, step))
