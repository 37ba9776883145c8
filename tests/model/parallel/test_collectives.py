"""The gather and data parallelism against the same operations on one tensor, even and uneven."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from model.parallel.averaging import GradientAverage
from model.parallel.collectives import gather_forward_slice_backward
from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow

SIZES = {"even": (2, 2, 2), "uneven": (1, 4, 2), "first largest": (5, 1, 1)}


def gather_all(sizes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Every rank squares the gathered tokens and weighs them, as replicated layers after the gather would."""
    whole = torch.arange(1.0, 1.0 + sum(sizes) * 6, dtype=torch.float64).view(sum(sizes), 2, 3)
    rank = dist.get_rank()
    start = sum(sizes[:rank])
    part = whole[start : start + sizes[rank]].transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    gathered = gather_forward_slice_backward(part, sizes=sizes, group=dist.group.WORLD)
    weight = torch.linspace(0.5, 3.0, whole.numel(), dtype=torch.float64).view_as(whole)
    (gathered.square() * weight).sum().backward()
    right = (2 * whole * weight)[start : start + sizes[rank]]
    return {"forward": (gathered - whole).abs().max(), "backward": (part.grad - right).abs().max()}


def average_twice() -> list[float]:
    """Gradients of two backward passes that accumulate, with a parameter that only the first one uses."""
    rank = dist.get_rank()
    model = nn.ParameterDict(
        {"a": nn.Parameter(torch.ones(2, 3)), "b": nn.Parameter(torch.ones(3, dtype=torch.float64))}
    )
    GradientAverage(model, group=dist.group.WORLD)
    ((rank + 1.0) * (model["a"] * model["b"].float()).sum()).backward()
    first = (model["a"].grad.clone(), model["b"].grad.clone())
    ((rank + 3.0) * model["a"].sum()).backward()
    return [first[0][0, 0].item(), first[1][0].item(), model["a"].grad[1, 2].item(), model["b"].grad[2].item()]


def average_in_buckets() -> dict[str, list[float]]:
    """Twelve layers in buckets of two, with how many of them had their gradient when a bucket was sent."""
    torch.manual_seed(0)
    rank, sent = dist.get_rank(), []
    layers = nn.Sequential(*(nn.Linear(8, 8, bias=False, dtype=torch.float64) for _ in range(12)))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    whole = torch.autograd.grad(layers(x).square().mean(dim=(1, 2)).mean(), list(layers.parameters()))
    GradientAverage(layers, group=dist.group.WORLD, bucket_bytes=2 * 8 * 8 * 8)
    send = dist.all_reduce

    def watched(*given: Any, **named: Any) -> Any:
        sent.append(sum(p.grad is not None for p in layers.parameters()))
        return send(*given, **named)

    dist.all_reduce = watched
    try:
        layers(x[rank]).square().mean().backward()
    finally:
        dist.all_reduce = send
    apart = [(p.grad - right).abs().max().item() for p, right in zip(layers.parameters(), whole, strict=True)]
    return {"apart": apart, "sent": sent}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_gather_equals_one_tensor(sizes: tuple[int, ...]) -> None:
    """Catches padding left in, ranks in another order, a gradient summed over ranks or cut at the wrong place."""
    for result in run_distributed(gather_all, 3, sizes):
        assert result["forward"] == 0
        assert result["backward"] == 0


def test_gradients_are_averaged() -> None:
    """Catches a sum for a mean, a type left out, and accumulation that averages the same gradient wrongly.

    Ranks 0 and 1: factors 1, 2 (mean 1.5) for a and, summed over its two rows, b; then 3, 4 (mean 3.5) for a.
    """
    for result in run_distributed(average_twice, 2):
        assert result == [1.5, 3.0, 5.0, 3.0]


def test_gradients_travel_while_others_are_computed() -> None:
    """Catches buckets that wait for the end of the backward pass, and one that comes back to other parameters."""
    for result in run_distributed(average_in_buckets, 2):
        assert max(result["apart"]) < 1e-15
        assert result["sent"] == [2, 4, 6, 8, 10, 12]
