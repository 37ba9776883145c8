"""Peak memory of this process alone.

`ru_maxrss` will not do: a process started by a large one begins with that one's peak.
"""

from __future__ import annotations

import resource
from pathlib import Path


def peak_bytes() -> int:
    """Largest resident memory since the start of the program, or since the last reset [bytes]."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
