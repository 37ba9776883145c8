"""R ranks against one in float64: loss, every gradient, three AdamW steps, and what is communicated.

All cases of one world size run in one process group; each test looks at one of them.
"""

from __future__ import annotations

from functools import lru_cache

import pytest

from model.parallel.wrap import Layout
from tests.parallel.cases import Case, Difference, compare_all
from tests.parallel.harness import run_distributed

TRUNKS = ("replicated", "tensor", "sequence")
UNEVEN = (4, 10)  # 10 patches: 3 or 4 ranks do not divide them
MIXED = ((80, "ddp"), (81, "fsdp"), (500, "ddp"))

FAST = {
    2: [
        *(Case(81, 2, Layout(trunk, "ddp")) for trunk in TRUNKS),
        Case(80, 2, Layout("replicated", "fsdp", recompute=True), groups=4, tree="Tree2"),
        Case(80, 2, Layout("replicated", "ddp"), tree=(4, 2), unit="L"),
        Case(81, 2, Layout("replicated", "fsdp"), tree="none"),
        Case(81, 2, Layout("sequence", "fsdp", recompute=True), form="reference"),
        Case(33, 2, Layout("replicated", "ddp"), groups="variable"),
    ],
    3: [Case(80, 3, Layout(trunk, "fsdp"), image=UNEVEN) for trunk in TRUNKS]
    + [Case(500, 3, Layout("replicated", "ddp"), tree="none", groups=6)],
    4: [
        *(Case(81, 4, Layout(trunk, "ddp"), image=UNEVEN) for trunk in TRUNKS),
        *(Case(500, 2, Layout(trunk, "fsdp")) for trunk in TRUNKS),
        Case(81, 2, Layout("tensor", "ddp")),
    ],
}
WRONG = {
    2: [Case(81, 2, Layout(trunk, "ddp"), gather="sum") for trunk in TRUNKS],
    3: [Case(81, 3, Layout("replicated", "ddp"), gather="sum")],
    4: [Case(81, 4, Layout("replicated", "ddp"), gather="sum"), Case(81, 2, Layout("tensor", "fsdp"), gather="sum")],
}
FULL = {
    1: [Case(81, 1, Layout(trunk, "fsdp")) for trunk in TRUNKS],
    **{
        ranks: [Case(channels, ranks, Layout(trunk, data)) for trunk in TRUNKS for channels, data in MIXED]
        for ranks in (2, 3, 4)
    },
}
FULL[4] += [Case(channels, 2, Layout(trunk, "fsdp")) for trunk in TRUNKS for channels in (80, 81)]


@lru_cache
def differences(world: int, which: str) -> dict[Case, Difference]:
    """The worst rank of every case of a world size."""
    cases = {"fast": FAST, "wrong": WRONG, "full": FULL}[which][world]
    results = run_distributed(compare_all, world, cases, timeout=500)
    return {case: max((rank[i] for rank in results), key=lambda d: d.worst) for i, case in enumerate(cases)}


def listed(cases: dict[int, list[Case]]) -> list[object]:
    return [
        pytest.param(world, case, id=f"{world}-{case.label}") for world, members in cases.items() for case in members
    ]


@pytest.mark.parametrize(("world", "case"), listed(FAST))
def test_ranks_equal_one_rank(world: int, case: Case) -> None:
    """Catches a gradient multiplied by the number of ranks, channels read in another order, a forgotten reduction."""
    check(differences(world, "fast")[case])


@pytest.mark.slow
@pytest.mark.parametrize("world", FULL)
def test_every_layout_equals_one_rank(world: int) -> None:
    """The whole matrix: 80, 81 and 500 channels on 1, 2, 3, 4 and 2 x 2 ranks, each trunk, FSDP and DDP."""
    for difference in differences(world, "full").values():
        check(difference)


@pytest.mark.parametrize(("world", "case"), listed(WRONG))
def test_summing_gather_is_noticed(world: int, case: Case) -> None:
    """The comparison can fail: with the usual all-gather the loss agrees and gradients are R times too large."""
    difference = differences(world, "wrong")[case]
    assert difference.loss < 1e-12
    assert max(difference.after_gather()) < 1e-10
    for excess in difference.in_stage():
        assert excess == pytest.approx(case.channel_ranks - 1, rel=1e-10)
    assert difference.worst > 1e-10, "the tests above would not have seen it"


@pytest.mark.parametrize(("world", "case"), listed(FAST))
def test_communication(world: int, case: Case) -> None:
    """Catches a collective that slips into the channel stage: one all-gather forward, none backward.

    What else is counted belongs to the trunk's layout (per block two pairs) or to the data axis, exactly.
    """
    depth, difference = case.config.depth, differences(world, "fast")[case]
    forward, backward = {"all_gather": 1}, dict.fromkeys(("all_gather", "all_reduce", "reduce_scatter"), 0)
    forward = backward | forward
    if case.layout.trunk == "tensor":
        forward["all_reduce"] += 2 * depth
        backward["all_reduce"] += 2 * depth
    if case.layout.trunk == "sequence":
        pairs = 2 * depth
        forward["all_gather"] += pairs + 1  # the last gives the head all patches
        forward["reduce_scatter"] += pairs
        backward["all_gather"] += pairs + 1
        backward["reduce_scatter"] += pairs
        backward["all_reduce"] += 2 * (2 * depth + 1)  # weight and bias of each norm
        if case.layout.recompute:
            backward["all_gather"] += pairs
            backward["reduce_scatter"] += depth  # recomputation stops at the last tensor needed
    if world > case.channel_ranks and case.layout.data == "ddp":
        backward["all_reduce"] += 1
    if world > case.channel_ranks and case.layout.data == "fsdp":
        parts = depth + 3  # blocks; stage, merge, and the rest
        forward["all_gather"] += parts
        backward["all_gather"] += parts - 1  # the rest is kept
        backward["reduce_scatter"] += parts
    assert difference.forward == {name: count for name, count in forward.items() if count}
    assert difference.backward == {name: count for name, count in backward.items() if count}


def check(difference: Difference) -> None:
    """Loss, gradients, norm and parameters to 1e-10, and replicas bit for bit."""
    assert difference.loss < 1e-10
    assert difference.norm < 1e-10
    assert max(difference.gradients.values()) < 1e-10, max(difference.gradients.items(), key=lambda item: item[1])
    assert max(difference.parameters.values()) < 1e-10, max(difference.parameters.items(), key=lambda item: item[1])
    # AdamW divides rounding noise by rounding noise where the gradient is zero (biases of keys): not to 1e-10
    assert max(difference.moves.values()) < 1e-8, max(difference.moves.items(), key=lambda item: item[1])
    assert difference.replicas_agree
