"""The channel plan: who holds which groups; and that the start of training does not depend on it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.dchag import DCHAG, DCHAGConfig
from model.network.groups import build_tree
from model.parallel.channels import channel_plan
from model.parallel.mesh import build_mesh
from model.parallel.wrap import Placement, distribute
from tests.model.parallel.harness import run_distributed


def names(count: int) -> tuple[str, ...]:
    return tuple(f"{'ztuvq'[i % 5]}{i}" for i in range(count))


@settings(max_examples=60, deadline=None)
@given(
    ranks=st.integers(1, 6),
    per_rank=st.integers(1, 4),
    extra=st.integers(0, 40),
    tree=st.sampled_from(["none", "Tree2"]),
)
def test_plan_deals_every_channel_once(ranks: int, per_rank: int, extra: int, tree: str) -> None:
    """Catches a channel that no rank reads, one read twice, and tokens that return in another order."""
    groups = ranks * per_rank
    whole = build_tree(names(groups + extra), groups=groups, tree=tree)
    plan = channel_plan(whole, ranks=ranks)
    assert sorted(g for held in plan.groups for g in held) == list(range(groups))
    assert {len(held) for held in plan.groups} == {per_rank}
    assert sorted(c for held in plan.channels for c in held) == sorted(whole.channels)
    channels_sent = [whole.channels.index(c) for held in plan.channels for c in held]
    sent = channels_sent if tree == "none" else [g for held in plan.groups for g in held]
    assert [sent[i] for i in plan.order] == list(range(whole.num_outputs))
    assert plan.tokens == tuple(per_rank if tree != "none" else len(c) for c in plan.channels)


def test_plan_balances_channels() -> None:
    """Catches the contiguous deal of very uneven groups: five variables on 15 levels, then eleven single channels."""
    groups = [tuple(f"{v}{level}" for level in range(100, 115)) for v in "ztuvq"] + [
        (f"single_{i}",) for i in range(11)
    ]
    channels = [name for group in groups for name in group]
    plan = channel_plan(build_tree(channels, groups=tuple(groups), tree="Tree0"), ranks=2)
    assert sorted(len(held) for held in plan.channels) == [36, 50]


def test_plan_keeps_neighbours_together() -> None:
    """Catches a deal that scatters groups for nothing."""
    plan = channel_plan(build_tree(names(81), groups=12, tree="Tree0"), ranks=3)
    assert plan.groups == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))


def test_groups_must_fit_the_ranks() -> None:
    """Catches a number of groups that follows the ranks silently: the model would depend on the world size."""
    with pytest.raises(ValueError, match="multiple of the channel ranks, got 12 groups on 5 ranks"):
        channel_plan(build_tree(names(80), groups=12, tree="Tree0"), ranks=5)


CONFIG = DCHAGConfig(
    channels=names(23), out_channels=("z0",), image=(4, 6), width=16, depth=1, heads=4, groups=4, tree="Tree2"
)


def start_of_training(trunk: str) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """The start on this rank, and what of the start on one rank it should be."""
    mesh = build_mesh(channel=2)
    part = distribute(CONFIG, mesh=mesh, placement=Placement(trunk=trunk), seed=7)
    whole = dict(DCHAG(CONFIG, seed=7).named_parameters())
    rows = part.cut_rows()
    found = {}
    for name, parameter in part.named_parameters():
        right = whole[name][list(rows[name].rows)] if name in rows else whole[name]
        found[name] = (parameter.full_tensor(), right.detach())
    return found


@pytest.mark.parametrize("trunk", ["replicated", "sequence"])
def test_start_does_not_depend_on_ranks(trunk: str) -> None:
    """Catches initial values drawn in the order of what a rank holds."""
    for found in run_distributed(start_of_training, 4, trunk):
        for name, (value, right) in found.items():
            assert torch.equal(value, right), name


def mesh_error() -> str:
    with pytest.raises(ValueError) as error:
        build_mesh(channel=3)
    return str(error.value)


def test_mesh_must_fit_the_ranks() -> None:
    """Catches an obscure reshape error from inside torch."""
    assert "must divide the 2 ranks, got 3; start a multiple of 3" in run_distributed(mesh_error, 2)[0]


def test_heads_must_fit_the_ranks() -> None:
    """Catches DTensor's own uneven cut of heads, which would mix them."""
    (message,) = set(run_distributed(heads_error, 3))
    assert "heads and hidden features must be multiples of the channel ranks" in message


def heads_error() -> str:
    config = DCHAGConfig(channels=names(6), out_channels=("z0",), image=(4, 6), width=16, heads=4, depth=1, groups=6)
    with pytest.raises(ValueError) as error:
        distribute(config, mesh=build_mesh(channel=3), placement=Placement(trunk="tensor"))
    return str(error.value)
