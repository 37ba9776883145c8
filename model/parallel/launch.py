"""The process group: the ranks that torchrun started, or a group of one in plain python.

Contract: what runs inside never asks how it was started; a group of one takes the same code path as any other.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
_PATIENCE = timedelta(minutes=30)
"""A collective that takes longer means that a rank is gone."""


@contextmanager
def process_group(*, world_size: int | None) -> Iterator[torch.device]:
    """Join the ranks of this run; a group that exists already is used and left as it is.

    Args:
        world_size: ranks that the layout asks for; None takes as many as were started.

    Yields:
        The device of this rank.

    Raises:
        ValueError: another number of ranks was started.
    """
    if dist.is_initialized():
        _check(dist.get_world_size(), world_size)
        yield _device()
        return
    started = int(os.environ.get("WORLD_SIZE", "1"))
    _check(started, world_size)
    device = _device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ:
        dist.init_process_group(backend, timeout=_PATIENCE)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield device
    finally:
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this rank prints and writes for all; known before the group is joined."""
    return dist.get_rank() == 0 if dist.is_initialized() else os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Ranks of this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_ranks() -> int:
    """Ranks on this machine, which share its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def sum_over_ranks(values: Tensor, *, group: dist.ProcessGroup | None = None) -> Tensor:
    """Partial -> replicated: the sum over the ranks of a group (all of them for None), in place."""
    dist.all_reduce(values, group=group)
    return values


def wait_for_ranks() -> None:
    """Return when every rank has come here."""
    dist.barrier()


def from_main(value: T) -> T:
    """Rank 0's value on every rank."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_to_main(values: Tensor, *, group: dist.ProcessGroup) -> list[Tensor] | None:
    """Cut -> whole on rank 0: the parts of a group's ranks, in order; None on the others.

    Args:
        values: this rank's part, of equal shape on all.
        group: ranks, rank 0 of all among them.
    """
    first = dist.get_rank() == 0
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size(group))] if first else None
    dist.gather(values, parts, group=group, group_dst=0)
    return parts


class _StopSignal:
    """Remembers that the process was asked to end."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True


@contextmanager
def stop_signal() -> Iterator[_StopSignal]:
    """Turn SIGTERM (which SLURM sends before it takes a machine away) into a flag while the context lasts.

    A collective that fails after the signal fails because of it, or because of the rank whose death made the launcher
    send it: then the process ends as one that the signal ended. Other errors, such as a full disk, are still raised.
    """
    stopping = _StopSignal()
    before = signal.signal(signal.SIGTERM, stopping)
    try:
        yield stopping
    except RuntimeError as error:
        if stopping.seen:
            raise SystemExit(128 + signal.SIGTERM) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(started: int, asked: int | None) -> None:
    if asked is not None and started != asked:
        raise ValueError(
            f"training.layout must ask for as many ranks as were started, got {asked} asked for and {started} "
            f"started; run torchrun --nproc-per-node {asked} -m pipeline train ..., or change training.layout"
        )


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
