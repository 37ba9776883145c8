"""Training on several ranks: each reads, tokenises and predicts its own bands, and the numbers are those of one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from model.imaging.autoencoder import AutoencoderConfig
from model.imaging.task import Autoencoding
from model.parallel.launch import process_group
from model.parallel.mesh import build_mesh
from model.parallel.pretend import pretended_ranks
from model.parallel.wrap import Placement, distribute
from tests.model.imaging.cases import BANDS, few_steps, imaging_config
from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow

MODELS: dict[str, dict[str, Any]] = {
    "C": {},
    "L": {"unit": "L", "tree": "Tree2"},
    "tokens": {"tree": "none", "channel_stage": "reference"},
    "interpolation": {"starts_from": "interpolation"},
}
TWO: list[tuple[str, dict[str, Any]]] = [
    ("C", {"layout": {"data": 2}, "micro_batch": 1}),
    ("interpolation", {"layout": {"data": 2, "sharding": "fsdp"}}),
    ("C", {"layout": {"channel": 2}, "recompute": True}),
    ("L", {"layout": {"channel": 2, "trunk": "tensor"}}),
    ("tokens", {"layout": {"channel": 2, "trunk": "sequence"}}),
]
FOUR: list[tuple[str, dict[str, Any]]] = [
    ("interpolation", {"layout": {"channel": 4}}),
    ("tokens", {"layout": {"channel": 4}}),
    ("L", {"layout": {"channel": 4, "trunk": "sequence"}}),
    ("C", {"layout": {"data": 2, "channel": 2, "trunk": "tensor", "sharding": "fsdp"}, "recompute": True}),
]
"""Models, and how they are trained."""


@pytest.fixture(scope="module")
def of_one_rank() -> dict[str, list[tuple[float, float]]]:
    """What one rank finds, by model."""
    with process_group(world_size=1):
        return dict(zip(MODELS, few_steps([{"model": model} for model in MODELS.values()]), strict=True))


@pytest.mark.parametrize(("ranks", "cases"), [(2, TWO), (4, FOUR)], ids=["2", "4"])
def test_losses_and_gradients_are_those_of_one_rank(
    ranks: int, cases: list[tuple[str, dict[str, Any]]], of_one_rank: dict[str, list[tuple[float, float]]]
) -> None:
    """Catches a gradient of the decoder that is a rank's own part, rows of the output layer of other bands, a loss
    that depends on how samples are divided, and a rank whose bands are all hidden that sends nothing or still counts.
    """
    settings = [{"model": MODELS[name], "training": training} for name, training in cases]
    found = run_distributed(few_steps, ranks, settings, timeout=600.0)
    for results in found:
        for (name, training), steps in zip(cases, results, strict=True):
            for ours, theirs in zip(steps, of_one_rank[name], strict=True):
                assert ours == pytest.approx(theirs, rel=1e-10), (name, training)


def test_a_rank_holds_the_output_rows_of_its_own_bands() -> None:
    """Catches an output layer that is whole on every rank: 500 bands x 8 x 8 pixels are 32,000 rows."""
    network = Autoencoding.planned(imaging_config()).network
    with pretended_ranks(rank=1, world_size=2):
        part = distribute(network, mesh=build_mesh(channel=2))
    assert part.channels_held == BANDS[4:]
    assert part.output.weight.shape == (3, 4, 8)
    assert part.cut_rows()["output.weight"].rows == (4, 5, 6)


def test_a_decoder_whose_heads_the_ranks_do_not_divide_is_refused() -> None:
    """Catches a cut of the decoder that nobody checked."""
    config = AutoencoderConfig(
        channels=BANDS, image=(8, 8), width=16, heads=4, depth=1, groups=2, decoder_width=12, decoder_heads=3
    )
    with pretended_ranks(rank=0, world_size=2), pytest.raises(ValueError, match="decoder heads"):
        distribute(config, mesh=build_mesh(channel=2), placement=Placement(trunk="tensor"))


def test_bands_that_are_hidden_everywhere_are_refused() -> None:
    """Catches a network that is asked to read nothing."""
    network = Autoencoding.planned(imaging_config()).network.build()
    visible = torch.tensor([[0, 5, 9, 15]])
    with pytest.raises(ValueError, match="at least one of the 7 channels"):
        network(torch.zeros(1, 7, 8, 8), visible, hidden=BANDS)
