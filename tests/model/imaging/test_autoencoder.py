"""The autoencoder against one written the obvious way: `tests.model.imaging.naive`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model.imaging.autoencoder import Autoencoder, AutoencoderConfig
from model.imaging.loss import hidden_loss
from model.imaging.tiles import Tiles
from model.parallel.launch import process_group
from model.parallel.mesh import CHANNEL, build_mesh
from tests.model.imaging.naive import naive_forward, naive_loss, naive_twin, pairs

BANDS = tuple(f"b{400 + 10 * i:06.1f}" for i in range(7))
UNEVEN = (BANDS[:3], BANDS[3:4], BANDS[4:])
VISIBLE = [[0, 4], [2, 3]]
CASES: list[tuple[dict[str, Any], list[int] | None]] = [
    ({"groups": UNEVEN}, []),
    ({"groups": UNEVEN, "unit": "L", "tree": "Tree2"}, [2]),
    ({"groups": UNEVEN, "channel_stage": "reference"}, []),
    ({"groups": UNEVEN, "tree": "none"}, None),
    ({"groups": "all"}, []),
    ({"groups": UNEVEN, "starts_from": "interpolation"}, []),
]
"""Settings, and the widths of the tree's levels but the last."""


def network(**settings: Any) -> Autoencoder:
    """A small network whose parameters are nowhere at their start."""
    sizes = {"width": 16, "depth": 2, "heads": 4, "dropout": 0.0, "patch": 4, "image": (8, 12)}
    decoder = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
    built = AutoencoderConfig(channels=BANDS, **{**sizes, **decoder, **settings}).build().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return built


def samples(hidden: list[int]) -> Tiles:
    """Two tiles of 8 x 12 pixels, some of them not valid."""
    generator = torch.Generator().manual_seed(2)
    valid = torch.rand(2, len(BANDS), 8, 12, generator=generator) > 0.2
    x = torch.randn(valid.shape, generator=generator, dtype=torch.float64) * valid
    masked = [[p for p in range(6) if p not in positions] for positions in VISIBLE]
    predicted = [list(range(6))] * 2 if hidden else masked
    return Tiles(
        x=x,
        valid=valid,
        visible=torch.tensor(VISIBLE),
        predicted=torch.tensor(predicted),
        hides=torch.tensor([[p in masked[b] for p in predicted[b]] for b in range(2)]),
        band_hidden=torch.tensor([c in hidden for c in range(len(BANDS))]),
        hidden=frozenset(BANDS[c] for c in hidden),
    )


@pytest.mark.parametrize("hidden", [[], [3], [4, 5]], ids=["patches", "group", "window"])
@pytest.mark.parametrize(("settings", "widths"), CASES, ids=["C", "L", "reference", "tokens", "flat", "interpolation"])
def test_predictions_and_gradients_are_those_of_the_naive_one(
    settings: dict[str, Any], widths: list[int] | None, hidden: list[int]
) -> None:
    """Catches any difference: patches seen that are hidden, positions in the wrong place, bands absent as zeros,
    outputs of another band or pixel, errors counted that are visible or not valid."""
    model, batch = network(**settings), samples(hidden)
    groups = [list(range(7))] if settings["groups"] == "all" else [[BANDS.index(b) for b in g] for g in UNEVEN]
    twin = naive_twin(model, groups, widths)
    expected = naive_forward(model, twin, batch.x, VISIBLE, hidden)
    theirs = naive_loss(expected, batch.x, batch.valid, visible=VISIBLE, hidden=hidden, patch=4)
    tail = [p for name, p in model.named_parameters() if not name.startswith(("stage", "merge"))]
    of_tail = torch.autograd.grad(theirs, tail, retain_graph=True, allow_unused=True)
    of_twin = torch.autograd.grad(theirs, list(twin.parameters()), allow_unused=True)

    everywhere = model(batch.x, batch.visible, hidden=batch.hidden)
    assert (everywhere - expected).abs().max() < 1e-12
    with process_group(world_size=1):
        group = build_mesh().get_group(CHANNEL)
        y = model(batch.x, batch.visible, predicted_BQ=batch.predicted, hidden=batch.hidden)
        ours = hidden_loss(y, batch, patch=4, bands=7, weight_K=None, by_patch=False, group=group)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    ours.backward()
    for parameter, gradient in zip(tail, of_tail, strict=True):
        expected_gradient = torch.zeros_like(parameter) if gradient is None else gradient
        assert (gradient_of(parameter) - expected_gradient).abs().max() < 1e-10
    for parameter, gradient in zip(twin.parameters(), of_twin, strict=True):
        parameter.grad = gradient
    for ours_of_stage, theirs_of_stage in pairs(twin, model, gradient_of):
        assert (ours_of_stage - theirs_of_stage).abs().max() < 1e-10


def gradient_of(parameter: Tensor) -> Tensor:
    """Zero for what nothing was computed from."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
