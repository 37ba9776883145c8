"""R ranks against one in float64: loss, every gradient, three AdamW steps, and what is communicated.

All cases of one world size run in one process group; what fails says which case.
"""

from __future__ import annotations

from collections import Counter

import pytest

from model.parallel.wrap import Placement
from tests.model.parallel.cases import Case, Difference, compare_all
from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow

TRUNKS = ("replicated", "tensor", "sequence")
UNEVEN = (4, 10)  # 10 patches: 3 or 4 ranks do not divide them
MIXED = ((80, "ddp"), (81, "fsdp"))

ADAPTIVE, OVERLAP, SMOOTH = {"conditioning": "adaptive_norm"}, {"output": "overlap"}, {"output": "smooth"}
QUICK = [Case(81, 2, Placement(trunk, "ddp")) for trunk in TRUNKS]
USUAL = {
    2: [
        Case(80, 2, Placement("replicated", "fsdp", recompute=True), groups=4, tree="Tree2"),
        Case(80, 2, Placement("replicated", "ddp"), tree=(4, 2), unit="L"),
        Case(81, 2, Placement("replicated", "fsdp"), tree="none"),
        Case(81, 2, Placement("sequence", "fsdp", recompute=True), form="reference"),
        Case(33, 2, Placement("replicated", "ddp"), groups="variable"),
        Case(33, 2, Placement("replicated", "fsdp"), more=OVERLAP),
        Case(33, 2, Placement("tensor", "ddp", recompute=True), more=ADAPTIVE),
        Case(33, 2, Placement("sequence", "ddp"), more=ADAPTIVE | SMOOTH),
        Case(33, 2, Placement("sequence", "fsdp", recompute=True), more=ADAPTIVE),
    ],
    3: [Case(80, 3, Placement(trunk, "fsdp"), image=UNEVEN) for trunk in TRUNKS]
    + [Case(500, 3, Placement("replicated", "ddp"), tree="none", groups=6)],
    4: [
        *(Case(81, 4, Placement(trunk, "ddp"), image=UNEVEN) for trunk in TRUNKS),
        *(Case(500, 2, Placement(trunk, "fsdp")) for trunk in TRUNKS),
        Case(81, 2, Placement("tensor", "ddp")),
        Case(33, 4, Placement("sequence", "ddp"), image=UNEVEN, more=ADAPTIVE),
        *(Case(33, 2, Placement(trunk, "fsdp", recompute=True), more=ADAPTIVE | OVERLAP) for trunk in TRUNKS),
        Case(33, 2, Placement("sequence", "ddp"), more=ADAPTIVE | SMOOTH),
        Case(33, 1, Placement("replicated", "fsdp"), more=ADAPTIVE | OVERLAP),
    ],
}
MANY = {
    8: [
        Case(33, 8, Placement("replicated", "ddp"), groups=16),
        Case(33, 4, Placement("tensor", "fsdp", recompute=True)),
        Case(33, 4, Placement("sequence", "ddp"), tree="Tree2", unit="L"),
        Case(33, 2, Placement("replicated", "fsdp")),
    ],
    16: [
        Case(33, 16, Placement("replicated", "ddp"), groups=16),
        Case(33, 4, Placement("tensor", "ddp")),
        Case(33, 4, Placement("sequence", "fsdp")),
    ],
}
WRONG = {
    2: [Case(81, 2, Placement(trunk, "ddp"), gather="sum") for trunk in TRUNKS],
    3: [Case(81, 3, Placement("replicated", "ddp"), gather="sum")],
    4: [
        Case(81, 4, Placement("replicated", "ddp"), gather="sum"),
        Case(81, 2, Placement("tensor", "fsdp"), gather="sum"),
    ],
}
FULL = {
    1: [Case(81, 1, Placement(trunk, "fsdp")) for trunk in TRUNKS],
    **{
        ranks: [Case(channels, ranks, Placement(trunk, data)) for trunk in TRUNKS for channels, data in MIXED]
        + [Case(500, ranks, Placement("replicated", "ddp"))]  # the trunk sees groups, not channels
        for ranks in (2, 3, 4)
    },
}
FULL[4] += [Case(channels, 2, Placement(trunk, "fsdp")) for trunk, channels in zip(TRUNKS, (80, 81, 80), strict=True)]


def run(world: int, cases: list[Case]) -> list[tuple[Case, Difference]]:
    """The worst rank of every case."""
    results = run_distributed(compare_all, world, cases, timeout=500)
    return [(case, max((rank[i] for rank in results), key=lambda d: d.worst)) for i, case in enumerate(cases)]


def check(world: int, cases: list[Case]) -> None:
    """Loss, gradients, norm and parameters to 1e-10, replicas bit for bit, and every collective counted."""
    for case, found in run(world, cases):
        where = f"{world} ranks, {case.label}: "
        assert found.loss < 1e-10, where
        assert found.norm < 1e-10, where
        for name, gradient in found.gradients.items():
            assert gradient < 1e-10, where + name
        for name, parameter in found.parameters.items():
            assert parameter < 1e-10, where + name
        # AdamW divides rounding noise by rounding noise where the gradient is zero (biases of keys): not to 1e-10
        for name, move in found.moves.items():
            assert move < 1e-8, where + name
        assert found.replicas_agree, where
        assert (found.forward, found.backward) == communication(world, case), where


def communication(world: int, case: Case) -> tuple[dict[str, int], dict[str, int]]:
    """Collectives forward and backward: one all-gather and none in the channel stage.

    What else is counted belongs to the trunk's layout (per block two pairs) or to the data axis, exactly.
    """
    pairs = 2 * case.config.depth
    adaptive = "conditioning" in case.more
    # recomputation stops at the last tensor needed: a gate needs what it multiplies, a sum does not
    again = (pairs if adaptive else pairs // 2) if case.layout.recompute else 0
    forward, backward = Counter(all_gather=1 if case.channel_ranks > 1 else 0), Counter[str]()
    if case.layout.trunk == "tensor" and case.channel_ranks > 1:
        forward["all_reduce"] += pairs
        backward["all_reduce"] += pairs + again
    if case.layout.trunk == "sequence" and case.channel_ranks > 1:
        forward["all_gather"] += pairs + 1  # the last gives the head all patches
        forward["reduce_scatter"] += pairs
        backward["all_gather"] += pairs + 1
        backward["reduce_scatter"] += pairs
        backward["all_reduce"] += 2 * (pairs + 1)  # weight and bias of each norm
        backward["all_reduce"] += case.config.depth if adaptive else 0  # one for each block's modulation
        backward["all_gather"] += pairs if case.layout.recompute else 0
        backward["reduce_scatter"] += again
    if world > case.channel_ranks and case.layout.data == "ddp":
        backward["all_reduce"] += 1
    if world > case.channel_ranks and case.layout.data == "fsdp":
        parts = case.config.depth + 3  # blocks; stage, merge, and the rest
        forward["all_gather"] += parts
        backward["all_gather"] += parts - 1  # the rest is kept
        backward["reduce_scatter"] += parts
    return dict(+forward), dict(+backward)


def test_two_ranks_equal_one() -> None:
    """Catches a gradient multiplied by the number of ranks, channels in another order, a forgotten reduction."""
    check(2, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("world", USUAL)
def test_settings_equal_one_rank(world: int) -> None:
    """Catches the same with uneven groups, tokens and patches, trees, both forms, recomputation, 2 x 2 ranks."""
    check(world, USUAL[world])


@pytest.mark.slow
@pytest.mark.parametrize("world", FULL)
def test_every_layout_equals_one_rank(world: int) -> None:
    """The whole matrix: 80, 81 and 500 channels on 1, 2, 3, 4 and 2 x 2 ranks, each trunk, FSDP and DDP."""
    check(world, FULL[world])


@pytest.mark.parametrize("world", MANY)
def test_many_ranks_equal_one(world: int) -> None:
    """Catches groups of ranks that are right for two and for four alone: up to 4 x 4 ranks, and 16 of one axis."""
    check(world, MANY[world])


@pytest.mark.slow
@pytest.mark.parametrize("world", WRONG)
def test_summing_gather_is_noticed(world: int) -> None:
    """The comparison can fail: with the usual all-gather the loss agrees and gradients are R times too large."""
    for case, found in run(world, WRONG[world]):
        assert found.loss < 1e-12, case.label
        assert max(found.after_gather()) < 1e-10, case.label
        for excess in found.in_stage():
            assert excess == pytest.approx(case.channel_ranks - 1, rel=1e-10), case.label
