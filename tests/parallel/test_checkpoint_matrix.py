"""Checkpoints between layouts: what one wrote, every other one reads bit for bit and trains on alike.

Every layout trains two steps and writes; every layout reads each of those folders, writes what it read once more, and
makes the next step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from model import checkpoint
from model.dchag import DCHAG, DCHAGConfig
from model.loss import weighted_mse
from model.parallel.mesh import axis_size, build_mesh, data_rank
from model.parallel.rows import RowPart
from model.parallel.wrap import Layout, distribute, parameter_groups
from tests.parallel.harness import run_distributed

LAYOUTS: dict[str, tuple[int, int, Layout]] = {
    "1": (1, 1, Layout("replicated", "ddp")),
    "channel 2": (2, 2, Layout("replicated", "ddp")),
    "channel 2 tensor": (2, 2, Layout("tensor", "ddp")),
    "data 2 ddp": (2, 1, Layout("replicated", "ddp")),
    "data 2 fsdp": (2, 1, Layout("replicated", "fsdp")),
    "channel 4": (4, 4, Layout("replicated", "ddp")),
    "channel 4 sequence": (4, 4, Layout("sequence", "ddp")),
    "2 x 2 fsdp": (4, 2, Layout("replicated", "fsdp")),
}
"""Ranks, channel ranks, layout."""
BATCH, STEPS = 4, 2


def shape(unit: str) -> DCHAGConfig:
    """Eleven channels in five uneven groups, two levels: nothing divides by four."""
    names = tuple(f"{'zztqutzzquz'[i]}{i}" for i in range(11))
    groups = ((names[0], names[5]), (names[1], names[2], names[9]), (names[3],), names[6:9], (names[4], names[10]))
    return DCHAGConfig(
        channels=names, out_channels=names[:3], image=(4, 8), width=16, depth=1, heads=4, mlp_ratio=2.0,
        decoder_depth=1, dropout=0.0, groups=groups, tree="Tree0", unit=unit,
    )  # fmt: skip


class Run:
    """A model on a layout with its optimiser, and a global batch."""

    def __init__(self, config: DCHAGConfig, mesh: DeviceMesh, layout: Layout) -> None:
        self.model: DCHAG = distribute(config, mesh=mesh, layout=layout, seed=4, dtype=torch.float64)
        groups: list[Any] = [{"params": parameters} for parameters in parameter_groups(self.model)]
        self.optimiser = torch.optim.AdamW(groups, lr=1e-2, weight_decay=1e-2)
        generator = torch.Generator().manual_seed(8)
        x = torch.randn(BATCH, len(config.channels), *config.image, generator=generator, dtype=torch.float64)
        target = torch.randn(BATCH, 3, *config.image, generator=generator, dtype=torch.float64)
        share = BATCH // axis_size(mesh, "data")
        mine = slice(data_rank(mesh) * share, (data_rank(mesh) + 1) * share)
        rows = [config.channels.index(name) for name in self.model.channels_held]
        self.x, self.target = x[mine][:, rows], target[mine]
        self.area = torch.rand(config.image, generator=generator, dtype=torch.float64) + 0.5

    def step(self) -> float:
        """One step; the loss of the global batch before it."""
        lead = torch.full((len(self.x),), 72.0, dtype=torch.float64)
        loss = weighted_mse(self.model(self.x, lead), self.target, area_HW=self.area)
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        mean = loss.detach().clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        return float(mean)

    def tensors(self) -> dict[str, Tensor | RowPart]:
        """All that a checkpoint holds, as the trainer names it."""
        named = dict(self.model.named_parameters())
        found: dict[str, Tensor] = {f"model.{name}": p.detach() for name, p in named.items()}
        found |= checkpoint.optimiser_tensors(named, self.optimiser)
        return checkpoint.with_rows(found, cut=self.model.cut_rows())


def write_all(folder: Path, world: int, unit: str) -> None:
    """Every layout of this many ranks trains and writes."""
    for name, (ranks, channel, layout) in LAYOUTS.items():
        if ranks == world:
            run = Run(shape(unit), build_mesh(channel=channel), layout)
            for _ in range(STEPS):
                run.step()
            checkpoint.save(folder / name, run.tensors(), {}, tag="step", step=STEPS, keep=1)


def read_all(folder: Path, world: int, unit: str) -> dict[tuple[str, str], float]:
    """Every layout of this many ranks reads every folder, writes it again and steps; the losses of that step."""
    losses = {}
    for name, (ranks, channel, layout) in LAYOUTS.items():
        for written in LAYOUTS if ranks == world else ():
            run = Run(shape(unit), build_mesh(channel=channel), layout)
            path = checkpoint.newest(folder / written)
            assert path is not None
            checkpoint.load(path, run.tensors(), expected={})
            checkpoint.save(folder / f"{written} read by {name}", run.tensors(), {}, tag="step", step=STEPS, keep=1)
            losses[written, name] = run.step(), run.step()
    return losses


def whole(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, whole."""
    path = checkpoint.newest(folder)
    assert path is not None
    saved = checkpoint._SafeReader(path).read_metadata().state_dict_metadata
    found = {name: torch.zeros(e.size, dtype=e.properties.dtype) for name, e in saved.items()}  # type: ignore[union-attr]
    checkpoint.load(path, found, expected={})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("unit", ["C", "L"])
def test_every_layout_reads_what_every_layout_wrote(tmp_path: Path, unit: str) -> None:
    """Catches rows or moments given to other channels, a part left as it was, a loss that jumps after resuming."""
    worlds = sorted({ranks for ranks, _, _ in LAYOUTS.values()})
    losses: dict[tuple[str, str], tuple[float, float]] = {}
    for world in worlds:
        run_distributed(write_all, world, tmp_path, world, unit, timeout=240)
    for world in worlds:
        losses |= run_distributed(read_all, world, tmp_path, world, unit, timeout=240)[0]
    assert len(losses) == len(LAYOUTS) ** 2
    for written in LAYOUTS:
        right = whole(tmp_path / written)
        names = {name.split(".")[0] for name in right}
        assert names == {"model", "optimiser"}
        assert all(value.abs().max() > 0 for name, value in right.items() if name.endswith(("exp_avg", "exp_avg_sq")))
        for name in LAYOUTS:
            found = whole(tmp_path / f"{written} read by {name}")
            assert found.keys() == right.keys(), (written, name)
            for key, value in right.items():
                assert torch.equal(found[key], value), (written, name, key)
            assert losses[written, name] == pytest.approx(losses["1", "1"], rel=1e-10), (written, name)
