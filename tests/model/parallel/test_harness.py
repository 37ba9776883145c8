"""The harness itself: a rank that fails, hangs or runs on the wrong backend must fail the test that uses it."""

from __future__ import annotations

import time

import pytest
import torch
import torch.distributed as dist

from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow


def sum_of_ranks() -> float:
    total = torch.tensor(float(dist.get_rank() + 1))
    dist.all_reduce(total)
    return total.item()


def fail_on_last() -> None:
    if dist.get_rank() == dist.get_world_size() - 1:
        raise KeyError("the last rank's reason")
    dist.barrier()


def hang() -> None:
    time.sleep(60)


def test_results_come_back_in_rank_order() -> None:
    """Catches ranks that each run alone: the sum needs all of them."""
    assert run_distributed(sum_of_ranks, 3) == [6.0, 6.0, 6.0]


def test_first_failure_is_shown() -> None:
    """Catches a failing rank that leaves the others waiting, and a traceback that gets lost."""
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=r"rank 1 of 2 failed(.|\n)*the last rank's reason"):
        run_distributed(fail_on_last, 2, timeout=50)
    assert time.monotonic() - start < 40


def test_time_limit() -> None:
    """Catches a hanging collective that would block the suite."""
    with pytest.raises(RuntimeError, match=r"ranks \[0\] of 1 did not finish within 2 s"):
        run_distributed(hang, 1, timeout=2)


def test_unknown_backend_fails() -> None:
    """Catches a silent fall-back to another backend."""
    with pytest.raises(RuntimeError, match=r"rank . of 1 failed"):
        run_distributed(sum_of_ranks, 1, backend="nothing")
