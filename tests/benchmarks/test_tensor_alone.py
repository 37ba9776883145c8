"""The baseline of the paper's figures: tensor parallelism alone computes what the flat network does."""

from __future__ import annotations

import pytest
import torch

from benchmarks.support.tensor_alone import FlatOnEveryRankConfig, TensorAloneConfig
from model.dchag import DCHAGConfig
from model.network.cut import NetworkConfig
from model.parallel.mesh import CHANNEL, axis_size, build_mesh
from model.parallel.wrap import Placement, distribute, gradient_norm, parameter_groups
from model.weather.loss import weighted_mse
from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow

NAMES = tuple(f"c{i}x" for i in range(10))
SIZES = {"channels": NAMES, "out_channels": NAMES[:3], "image": (4, 12), "patch": 2, "width": 16, "depth": 1,
         "heads": 4, "dropout": 0.0}  # fmt: skip
STEPS = 3


def trained(config: NetworkConfig, recompute: bool) -> list[float]:
    """Loss and gradient norm of some steps on all ranks of the group."""
    mesh = build_mesh(channel=torch.distributed.get_world_size())
    trunk = "tensor" if axis_size(mesh, CHANNEL) > 1 else "replicated"
    placement = Placement(trunk=trunk, data="ddp", recompute=recompute)
    network = distribute(config, mesh=mesh, placement=placement, seed=5, dtype=torch.float64)
    draw = torch.Generator().manual_seed(1)
    x, target = (torch.randn(2, n, 4, 12, generator=draw, dtype=torch.float64) for n in (10, 3))
    rows = [NAMES.index(name) for name in network.channels_held]
    area = torch.rand(4, 12, generator=draw, dtype=torch.float64) + 0.5
    optimiser = torch.optim.AdamW([{"params": group} for group in parameter_groups(network)], lr=1e-2)
    found = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        predicted = network(x[:, rows], torch.tensor([24.0, 168.0], dtype=torch.float64))
        loss = weighted_mse(predicted, target, area_HW=area)
        loss.backward()
        found += [loss.item(), gradient_norm(network, mesh=mesh).item()]
        optimiser.step()
    return found


def all_cases(configs: list[tuple[NetworkConfig, bool]]) -> list[list[float]]:
    return [trained(*case) for case in configs]


def test_ranks_compute_what_the_flat_network_does() -> None:
    """Catches heads mixed up between keys and values, a gradient of tokens that is not summed over ranks (or twice),
    and a tokeniser whose rows are counted as cut although every rank holds all of them."""  # fmt: skip
    flat = DCHAGConfig(**SIZES, groups="all", tree="none", channel_stage="reference")
    alone = TensorAloneConfig(**SIZES, groups=2)
    distributed = TensorAloneConfig(**SIZES, groups=2, distributed=True)
    (expected,) = run_distributed(all_cases, 1, [(flat, False)])[0]
    every = FlatOnEveryRankConfig(**SIZES, groups=2)
    cases = [(alone, False), (distributed, False), (alone, True), (every, False)]
    for of_rank in run_distributed(all_cases, 2, cases):
        for found in of_rank:
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=0.0)
