"""Schedule, decay groups, moving average, seeds and channel weights."""

from __future__ import annotations

import math

import pytest
import torch

from model.dchag import DCHAG, DCHAGConfig
from model.training import optimise


def test_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    """Catches a first step at rate zero, a peak never reached and a cosine over the wrong span."""
    rate = [optimise.learning_rate(s, peak=0.5, warmup_steps=4, steps=12) for s in range(12)]
    assert rate[:5] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert rate[8] == pytest.approx(0.25)  # halfway down: cos(pi / 2)
    assert rate[11] == pytest.approx(0.25 * (1 + math.cos(math.pi * 7 / 8)))
    assert optimise.learning_rate(12, peak=0.5, warmup_steps=4, steps=12) == 0.0


def test_only_matrices_decay() -> None:
    """Catches embeddings, norms and biases pulled to zero; the stage keeps biases of all units as matrices."""
    sizes = {"image": (4, 8), "width": 8, "depth": 1, "heads": 2, "decoder_depth": 1, "groups": 2}
    config = DCHAGConfig(channels=("t500", "t850", "lsm"), out_channels=("t500", "t850"), **sizes)
    named = dict(DCHAG(config).named_parameters())
    groups = optimise.parameter_groups(named, weight_decay=0.1)
    assert len(groups) == 2
    decay, rest = sorted(groups, key=lambda group: -group["weight_decay"])
    names = {id(p): name for name, p in named.items()}
    decayed = {names[id(p)] for p in decay["params"]}
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)
    assert len(decay["params"]) + len(rest["params"]) == len(named)
    assert all(name.endswith("weight") for name in decayed)
    assert {"stage.tokeniser.weight", "lead.weight", "head.2.weight"} <= decayed
    assert not {"stage.tokeniser.bias", "stage.tokeniser.channel", "position"} & decayed


def test_average_follows_its_recurrence() -> None:
    """Catches weight and complement swapped, and an average stuck at its start."""
    named = {"a": torch.tensor([1.0, 2.0])}
    average = {"a": torch.tensor([0.0, 0.0])}
    optimise.update_average(average, named, decay=0.9, step=0)  # decay min(0.9, 1 / 10)
    assert torch.allclose(average["a"], torch.tensor([0.9, 1.8]))
    optimise.update_average(average, named, decay=0.9, step=1000)  # decay 0.9
    assert torch.allclose(average["a"], torch.tensor([0.91, 1.82]))


def test_parameters_come_back_after_averaging() -> None:
    """Catches a validation that leaves the averaged weights in the model, also when it fails."""
    named = {"a": torch.nn.Parameter(torch.tensor([1.0, 2.0]))}

    def broken() -> None:
        with optimise.averaged_weights(named, {"a": torch.tensor([5.0, 6.0])}):
            assert named["a"].tolist() == [5.0, 6.0]
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert named["a"].tolist() == [1.0, 2.0]


def test_step_seed_differs_between_steps_and_data_ranks() -> None:
    """Catches the same dropout mask at every step or on every data rank."""
    seeds = {optimise.step_seed(0, step, data_rank=rank) for step in range(50) for rank in range(4)}
    assert len(seeds) == 200
    assert optimise.step_seed(1, 2) == optimise.step_seed(1, 2)


CHANNELS = [("t250", "t", 250), ("t750", "t", 750), ("z250", "z", 250), ("t2m", "t2m", None)]


def test_channel_weights() -> None:
    """Catches a variable's weight winning over its channel's, and surface channels scaled by pressure."""
    weights = optimise.channel_weights(CHANNELS, weights={"t": 2.0, "t750": 4.0}, pressure_weighted=False)
    assert torch.allclose(weights, torch.tensor([2.0, 4.0, 1.0, 1.0]) / 2.0)
    weights = optimise.channel_weights(CHANNELS, weights={}, pressure_weighted=True)
    assert torch.allclose(weights, torch.tensor([0.5, 1.5, 0.5, 1.0]) / 0.875)
    weights = optimise.channel_weights(
        CHANNELS, weights={"t": 2.0}, pressure_weighted=False, factors=[1.0, 3.0, 5.0, 7.0]
    )
    assert torch.allclose(weights, torch.tensor([2.0, 6.0, 5.0, 7.0]) / 5.0)
    with pytest.raises(ValueError, match="not be negative"):
        optimise.channel_weights(CHANNELS, weights={"t": -1.0}, pressure_weighted=False)
