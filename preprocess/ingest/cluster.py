"""Where slabs are computed: threads of this process, workers on this machine, a dask cluster, or SLURM jobs.

Contract: a task is one function call whose result comes back whole, and it is small against what it read. Tasks go out
in order, at most two per worker at a time; results come back as they are ready. The tasks of a worker that is
lost, and they alone, are computed again elsewhere. What a task raises is raised here.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pipeline.console import say
from pipeline.sections import Compute

Item = TypeVar("Item")
Result = TypeVar("Result")

_ROOT = Path(__file__).resolve().parent.parent
_LOSSES = 10
"""Lost workers after which a task is given up: machines fail more often than data make them fail."""

_CLOSING_S = 15
"""Longest wait for a cluster to close."""


def computed(
    task: Callable[[Item], Result], items: Sequence[Item], *, compute: Compute
) -> Iterator[tuple[Item, Result]]:
    """Compute a task for every item.

    Args:
        task: picklable unless `compute.scheduler` is "threads"; called in other processes otherwise.
        items: its arguments, in the order in which they should be started.
        compute: where.

    Returns:
        (item, result) in the order of `items` for "threads", else as they are ready.

    Raises:
        ValueError: dask.distributed or dask-jobqueue is not installed, or no scheduler answers; what a task raises.
    """
    if compute.scheduler == "threads":
        yield from _ahead(task, items)
        return
    if not items:
        return
    with _client(compute, tasks=len(items)) as client:
        yield from _distributed(client, task, items)


def _ahead(task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    """Results in order, the next being computed while the caller works with the last."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool:
        left = iter(items)
        waiting = deque((item, pool.submit(task, item)) for item in islice(left, 1))
        while waiting:
            item, future = waiting.popleft()
            result = future.result()
            waiting.extend((following, pool.submit(task, following)) for following in islice(left, 1))
            yield item, result


def _distributed(client: Any, task: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
    from distributed import as_completed

    ready: Any = as_completed()
    owner: dict[str, Item] = {}
    waiting = deque(enumerate(items))

    def fill() -> None:
        """Two tasks per worker, whose number may change, so that results do not pile up."""
        while waiting and len(owner) < 2 * max(1, len(client.scheduler_info(n_workers=-1)["workers"])):
            number, item = waiting.popleft()
            future = client.submit(task, item, pure=False, priority=-number)
            owner[future.key] = item
            ready.add(future)

    fill()
    for future in ready:
        result = future.result()
        item = owner.pop(future.key)
        future.release()
        fill()
        yield item, result


@contextmanager
def _client(compute: Compute, *, tasks: int) -> Iterator[Any]:
    """A client of the cluster that the configuration names; a cluster made here is closed at the end."""
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ValueError(
            f"compute.scheduler {compute.scheduler} must have dask.distributed installed, got none; "
            "install the extra `cluster` (make setup EXTRAS=cluster), or use threads"
        ) from None
    with dask.config.set({"distributed.scheduler.allowed-failures": _LOSSES}):
        cluster = _cluster(compute, tasks=tasks)
        try:
            client: Any = Client(cluster or compute.scheduler, timeout=30)
        except OSError as error:
            raise ValueError(
                f"compute.scheduler must be the address of a dask scheduler, got no answer from {compute.scheduler} "
                f"({error}); start one with dask scheduler"
            ) from None
        address = client.scheduler_info(n_workers=0)["address"]
        say(f"regrid: waiting for workers of {address}")
        try:
            client.wait_for_workers(1)
            yield client
        finally:
            # All results are here; a worker that no longer answers must not hold up the end.
            for connection in filter(None, (client, cluster)):
                with suppress(TimeoutError, OSError):
                    connection.close(timeout=_CLOSING_S)


def _cluster(compute: Compute, *, tasks: int) -> Any:
    """A new cluster; None when the configuration names a running one."""
    if compute.scheduler == "processes":
        from distributed import LocalCluster

        workers = min(compute.workers or len(os.sched_getaffinity(0)), tasks)
        # Threads inside a task are the task's own: a worker takes one slab at a time.
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=compute.memory,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        )
    if compute.scheduler == "slurm":
        cluster = slurm_cluster(compute)
        cluster.scale(jobs=min(compute.workers or 8, tasks))
        return cluster
    return None


def slurm_cluster(compute: Compute) -> Any:
    """A dask-jobqueue cluster of no workers yet.

    Raises:
        ValueError: dask-jobqueue is not installed.
    """
    try:
        from dask_jobqueue.slurm import SLURMCluster
    except ImportError:
        raise ValueError(
            "compute.scheduler slurm must have dask-jobqueue installed, got none; "
            "install the extra `cluster` (make setup EXTRAS=cluster)"
        ) from None
    settings, threads = compute.slurm, compute.threads or 1
    return SLURMCluster(
        queue=settings.queue,
        account=settings.account,
        walltime=settings.walltime,
        interface=settings.interface,
        cores=1,  # slabs at a time; the job's processors are for the threads inside one
        processes=1,
        job_cpu=threads,
        memory=compute.memory,
        job_extra_directives=list(settings.directives),
        job_script_prologue=[*settings.prologue, f"export PYTHONPATH={_ROOT}", f"cd {Path.cwd()}"],
    )
