"""How long a call takes on a device."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

REPEATS = 5
FLUSH = 64 * 2**20
"""Bytes that fill any cache of a core."""


def least_seconds(call: Callable[[], Any], device: torch.device) -> float:
    """The least of several calls [s]."""
    return min(seconds_of(call, device))


def seconds_of(
    call: Callable[[], Any], device: torch.device, *, cold: bool = False, group: dist.ProcessGroup | None = None
) -> list[float]:
    """Several calls [s]; the first does not count.

    Args:
        call: what to time.
        device: that it runs on.
        cold: begin after something else has filled a processor's caches.
        group: ranks that begin every call together.
    """
    found = []
    other = torch.empty(FLUSH // 4 if cold and device.type == "cpu" else 0)
    for _ in range(REPEATS + 1):
        other.fill_(1.0)
        if group is not None:
            dist.barrier(group)
        finish(device)
        start = time.perf_counter()
        kept = call()
        finish(device)
        found.append(time.perf_counter() - start)
        del kept
    return found[1:]


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
