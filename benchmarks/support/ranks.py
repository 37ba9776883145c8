"""Work on several ranks of this machine, and what each of them measured."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

Work = Callable[..., dict[str, float]]


def on_ranks(work: Work, *given: Any, ranks: int, device: str = "cpu", threads: int = 1) -> list[dict[str, float]]:
    """Call `work(*given)` on every rank of a process group (gloo, or NCCL on GPUs) with so many threads each.

    Returns:
        What each rank measured, in their order.
    """
    multiprocessing.set_forkserver_preload(["torch", "torch.distributed", "torch.distributed.fsdp", work.__module__])
    method = "spawn" if device == "cuda" else "forkserver"  # the server imports once for all ranks
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_rank, (work, given, ranks, device, threads, folder), nprocs=ranks, start_method=method)
        return [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]


def worst(measured: list[dict[str, float]]) -> dict[str, float]:
    """The largest value of each quantity over the ranks."""
    return {key: max(of_rank[key] for of_rank in measured) for key in measured[0]}


def _rank(rank: int, work: Work, given: tuple[Any, ...], ranks: int, device: str, threads: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(threads)
    backend, meeting = "nccl" if device == "cuda" else "gloo", f"file://{folder}/rendezvous"
    dist.init_process_group(backend, meeting, timedelta(minutes=20), world_size=ranks, rank=rank)
    try:
        Path(folder, f"{rank}.json").write_text(json.dumps(work(*given)))
    finally:
        dist.destroy_process_group()
