"""How much memory a run may take for what it reads."""

from __future__ import annotations

import os
from pathlib import Path

MEMORY_SHARE = 0.6
"""Of the free memory that the values of a store may take."""


def available_memory() -> int:
    """Bytes that could be allocated now without swapping, 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        try:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return 0
    try:  # a container's own limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cache = next(
            int(x.split()[1]) for x in (group / "memory.stat").read_text().splitlines() if x.startswith("file ")
        )
        free = min(free, limit - used + cache)
    except (OSError, ValueError, StopIteration):
        pass
    return max(free, 0)
