"""Time and memory of a piece of work, and the file of results that a benchmark writes.

Contract: every variant runs in a fresh process (`benchmarks.support.process`), so that the peak of one is not the
baseline of the next; variants that are compared run one after the other in the same call. Wall time and processor time
are the minimum over repeats. Memory is measured twice: `memory_MB`, the peak of the process above its size before the
first call, which includes what libraries load and keep, and `tensors_MB`, the peak of tensors allocated in one call.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.support.process import peak_bytes

RESULTS = Path(__file__).resolve().parent.parent / "results"
MB = 1e6
_A_MOMENT = 0.01
"""In which a thread that has nothing else to do drops a tensor, also on a busy machine [s]."""


def measure(work: Callable[[], None], *, repeats: int, warmups: int = 1, device: str = "cpu") -> dict[str, float]:
    """Minimum wall and processor time [s], peak memory of the process above its start and of tensors [MB]."""
    cuda = device == "cuda"
    warm_up(device)
    before = torch.cuda.memory_allocated() if cuda else resident_bytes()
    reset_peak(cuda)
    for _ in range(warmups):
        work()
    walls, processors = [], []
    for _ in range(repeats):
        synchronize(device)
        wall, processor = time.perf_counter(), time.process_time()
        work()
        synchronize(device)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
    tensors = peak - before if cuda else tensor_peak(work)
    memory = {"memory_MB": (peak - before) / MB, "tensors_MB": tensors / MB}
    return {"wall_s": min(walls), "processor_s": min(processors), **memory}


def synchronize(device: str) -> None:
    """Wait until a GPU has finished; nothing to do on a processor."""
    if device == "cuda":
        torch.cuda.synchronize()


def compare(forms: list[dict[str, Any]], *, digits: int) -> list[dict[str, Any]]:
    """Adds to each row its time and memory as multiples of the first one's, the fused form's."""
    for row in forms:
        if "wall_s" in row and "wall_s" in forms[0]:
            for key in ("wall_s", "processor_s", "memory_MB", "tensors_MB"):
                row[f"{key.split('_')[0]}_over_fused"] = round(row[key] / forms[0][key], digits)
    return forms


def tensor_peak(work: Callable[[], None]) -> int:
    """Peak of the memory that torch has allocated and not freed inside one call, on the CPU [bytes]."""
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with _tensors_freed_here(), profile:
        work()
    assert profile.profiler is not None
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@contextmanager
def _tensors_freed_here() -> Iterator[None]:
    """Let gloo's threads drop the tensors of a collective before this thread does.

    The profiler does not see what another thread frees: tensors whose last holder is gloo's thread, a moment after the
    collective is over, would count as there for ever.
    """
    wait, functional = dist.Work.wait, torch.ops._c10d_functional.wait_tensor.default

    def slower(work: Any, *given: Any) -> Any:
        done = wait(work, *given)
        time.sleep(_A_MOMENT)
        return done

    class Slower(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(issubclass(t, DTensor) for t in types):
                return NotImplemented
            done = func(*args, **(kwargs or {}))
            if func is functional:
                time.sleep(_A_MOMENT)
            return done

    dist.Work.wait = slower
    try:
        with Slower():
            yield
    finally:
        dist.Work.wait = wait


def write(name: str, content: dict[str, Any]) -> Path:
    """Write results/<name>.json with date and hardware, completely or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"benchmark": name, "date": _now(), "hardware": hardware(), **content}, indent=1) + "\n")
    part.replace(path)
    return path


def hardware() -> dict[str, Any]:
    """The machine on which the figures depend, with its load."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "memory_GB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def warm_up(device: str) -> None:
    """Load the libraries of matrix products, so that they do not count as memory of the work."""
    a = torch.randn(2, 256, 256, device=device, requires_grad=True)
    layer = torch.nn.Conv2d(1, 8, 2, stride=2, device=device)
    ((a @ a).softmax(dim=1).sum() + layer(a[:, None]).sum()).backward()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset_peak(cuda: bool) -> None:
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        return
    Path("/proc/self/clear_refs").write_text("5")
