"""climate-learn's networks behind our interface: their function is theirs, bit for bit."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model.network import climatelearn
from model.network.convolutional import Convolution, ConvolutionConfig
from model.parallel.wrap import plan_for
from model.training.learner import float_buffers
from model.weather.architecture import network_from_dict

pytestmark = pytest.mark.slow

LEADS = torch.tensor([24.0, 168.0])
NAMES = pytest.mark.parametrize("name", ["resnet", "unet"])


def config(name: str) -> ConvolutionConfig:
    channels = ("z500", "t850", "lsm", "z500-12h")
    return ConvolutionConfig(architecture=name, channels=channels, out_channels=channels[:2], image=(4, 8))


def theirs(name: str) -> nn.Module:
    """The module as climate-learn's loaders make it (task downscaling), with one input channel more for the lead."""
    climatelearn.repair_torchvision()
    from climate_learn.models.hub.resnet import ResNet
    from climate_learn.models.hub.unet import Unet

    return ResNet(5, 2, n_blocks=28) if name == "resnet" else Unet(5, 2, ch_mults=[1, 1, 2], n_blocks=4)


def run(network: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Output, gradients and statistics of a step in training mode, then the output in evaluation mode."""
    torch.manual_seed(5)
    out = network.train()(*inputs)
    out.square().sum().backward()
    found = [out.detach(), *(p.grad for p in network.parameters()), *float_buffers(network).values()]
    with torch.no_grad():
        return [*found, network.eval()(*inputs)]


@NAMES
def test_the_function_is_climate_learns(name: str) -> None:
    """Catches another order of channels, a lead in other units, other arguments, dropout or statistics of our own."""
    ours, right = Convolution(config(name), seed=3), theirs(name)
    right.load_state_dict({key.removeprefix("network."): value for key, value in ours.state_dict().items()})
    x = torch.randn(2, 4, 4, 8, generator=torch.Generator().manual_seed(1))
    with_lead = torch.cat([x, torch.tensor([0.24, 1.68]).view(2, 1, 1, 1).expand(2, 1, 4, 8)], dim=1)
    for found, expected in zip(run(ours, x, LEADS), run(right, with_lead), strict=True):
        assert torch.equal(found, expected)
    assert len(float_buffers(ours)) > 10, "batch norms keep statistics"


@NAMES
def test_the_seed_decides_the_start(name: str) -> None:
    """Catches a start that follows or moves torch's global state, or a seed that changes nothing."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Convolution(config(name), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = Convolution(config(name), seed=3), Convolution(config(name), seed=4)
    reset = Convolution(config(name), seed=None)
    reset.reset_parameters(seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), reset.parameters(), strict=True))
    assert not torch.equal(next(first.parameters()), next(other.parameters()))


def test_the_sizes_are_climate_learns() -> None:
    """Catches a repair of torchvision that is missing, and another number of blocks."""
    network = climatelearn.network("resnet", in_channels=5, out_channels=3)
    assert sum("ResidualBlock" in type(m).__name__ for m in network.modules()) == 28


def test_description_names_the_architecture() -> None:
    """Catches a checkpoint of a convolutional network that is opened as another."""
    original = config("unet")
    assert network_from_dict(json.loads(json.dumps(original.to_dict()))) == original
    with pytest.raises(ValueError, match="architecture must be one of resnet, unet, got 'vgg'"):
        network_from_dict(original.to_dict() | {"architecture": "vgg"})


def test_channels_cannot_be_cut() -> None:
    """Catches a network that every channel rank would give a part of its channels only."""
    with pytest.raises(
        ValueError, match=r"1 groups on 2 ranks; a network with one group cannot be cut.*training\.layout\.data"
    ):
        plan_for(config("unet"), ranks=2)


def test_one_place_imports_climate_learn(root: Any) -> None:
    """Catches an import that a machine without the extra cannot satisfy, or without the repair."""
    users = [
        path.relative_to(root).as_posix()
        for folder in ("pipeline", "preprocess", "model", "evaluate")
        for path in (root / folder).rglob("*.py")
        if any(f"{word} climate_learn" in path.read_text() for word in ("import", "from"))
    ]
    assert users == ["model/network/climatelearn.py"]
