"""Runs a function on N ranks of this machine and gives back what every rank returned.

Contract: real processes, gloo, rendezvous through a file, a time limit, the process group destroyed whatever
happens, and a check that rank, size and backend are the ones asked for. The first rank that fails stops
the others and its traceback is what the test shows. Ranks are forked (`tests.forked`), so one starts in milliseconds.
"""

from __future__ import annotations

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.forked import forking


def run_distributed(
    function: Callable[..., Any], world_size: int, *arguments: Any, timeout: float = 400.0, backend: str = "gloo"
) -> list[Any]:
    """Calls `function(*arguments)` on every rank of a fresh process group.

    Args:
        function: defined at the top of an importable module.
        world_size: number of ranks.
        arguments: picklable.
        timeout: for the whole call and for every collective [s].
        backend: of the process group.

    Returns:
        What each rank returned (anything `torch.save` takes), in rank order.

    Raises:
        RuntimeError: a rank raised, died or did not finish in time.
    """
    context = forking()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        ranks: list[BaseProcess] = [
            context.Process(target=_rank, args=(function, rank, world_size, arguments, here, timeout, backend))
            for rank in range(world_size)
        ]
        try:
            for process in ranks:
                process.start()
            _wait(ranks, here, timeout)
        finally:
            for process in ranks:
                if process.is_alive():
                    process.kill()
                process.join()
        return [torch.load(here / f"result-{rank}.pt", weights_only=False) for rank in range(world_size)]


def _wait(ranks: list[BaseProcess], here: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in ranks):
        _raise_failure(ranks, here)
        if time.monotonic() > end:
            alive = [rank for rank, process in enumerate(ranks) if process.is_alive()]
            raise RuntimeError(f"ranks {alive} of {len(ranks)} did not finish within {timeout:g} s")
        time.sleep(0.01)
    _raise_failure(ranks, here)


def _raise_failure(ranks: list[BaseProcess], here: Path) -> None:
    for rank, process in enumerate(ranks):
        error = here / f"error-{rank}.txt"
        if error.exists():
            raise RuntimeError(f"rank {rank} of {len(ranks)} failed:\n{error.read_text()}")
        if process.exitcode not in (None, 0):
            raise RuntimeError(f"rank {rank} of {len(ranks)} died with exit code {process.exitcode}")


def _rank(
    function: Callable[..., Any],
    rank: int,
    world_size: int,
    arguments: tuple[Any, ...],
    here: Path,
    timeout: float,
    backend: str,
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            backend,
            init_method=f"file://{here / 'rendezvous'}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout),
        )
        if backend == "gloo":  # a rank that is done at once would leave while another still connects to it
            dist.barrier()
        got = (dist.get_rank(), dist.get_world_size(), dist.get_backend())
        if got != (rank, world_size, backend):
            raise RuntimeError(f"asked for rank, size and backend {(rank, world_size, backend)}, got {got}")
        torch.save(function(*arguments), here / f"result-{rank}.pt")
    except BaseException:
        partial = here / f"error-{rank}.partial"
        partial.write_text(traceback.format_exc())
        partial.rename(here / f"error-{rank}.txt")
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
