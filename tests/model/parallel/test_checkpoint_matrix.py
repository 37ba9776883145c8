"""Checkpoints between layouts: what one wrote, every other one reads bit for bit and trains on alike.

Every layout trains two steps and writes; every layout reads what it wrote itself, what one process wrote and what some
other layout wrote, and one process reads them all. Who reads compares what it holds then with the whole tensors on the
disk, and trains on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from model.dchag import DCHAG, DCHAGConfig
from model.parallel.mesh import axis_size, build_mesh, data_rank
from model.parallel.rows import LoadPlanner, RowPart
from model.parallel.wrap import Placement, distribute, parameter_groups
from model.training import checkpoint
from model.weather.loss import weighted_mse
from tests.model.parallel.harness import run_distributed

pytestmark = pytest.mark.slow

LAYOUTS: dict[str, tuple[int, int, Placement]] = {
    "1": (1, 1, Placement("replicated", "ddp")),
    "channel 2": (2, 2, Placement("replicated", "ddp")),
    "channel 2 tensor": (2, 2, Placement("tensor", "ddp")),
    "data 2 ddp": (2, 1, Placement("replicated", "ddp")),
    "data 2 fsdp": (2, 1, Placement("replicated", "fsdp")),
    "channel 4": (4, 4, Placement("replicated", "ddp")),
    "channel 4 sequence": (4, 4, Placement("sequence", "ddp")),
    "2 x 2 fsdp": (4, 2, Placement("replicated", "fsdp")),
}
"""Ranks, channel ranks, layout."""
WRITTEN = {"C": tuple(LAYOUTS), "L": ("1", "channel 2", "data 2 fsdp", "channel 4")}
"""Layouts for each kind of unit."""
WORLDS = sorted({ranks for ranks, _, _ in LAYOUTS.values()})
BATCH, STEPS = 4, 2


def shape(unit: str) -> DCHAGConfig:
    """Nineteen channels dealt into eight groups of one to four, out of order."""
    names = tuple(f"{'ztquv'[i % 5]}{i}" for i in range(19))
    sizes, groups, rest = (2, 3, 1, 4, 2, 1, 3, 3), [], [names[7 * i % 19] for i in range(19)]
    for size in sizes:
        groups.append(tuple(rest[:size]))
        rest = rest[size:]
    shared = {
        "image": (4, 8),
        "width": 16,
        "depth": 1,
        "heads": 4,
        "mlp_ratio": 2.0,
        "decoder_depth": 1,
        "dropout": 0.0,
    }
    return DCHAGConfig(channels=names, out_channels=names[:3], groups=tuple(groups), tree="Tree0", unit=unit, **shared)


class Run:
    """A model on a layout with its optimiser, and a global batch."""

    def __init__(self, config: DCHAGConfig, mesh: DeviceMesh, layout: Placement) -> None:
        self.model: DCHAG = distribute(config, mesh=mesh, placement=layout, seed=4, dtype=torch.float64)
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


def pairs(unit: str) -> list[tuple[str, str]]:
    """Who reads what whom wrote: parts of a whole, a whole of parts, one's own, and parts of other parts."""
    names = WRITTEN[unit]
    found = [(names[0], name) for name in names] + [(name, names[0]) for name in names]
    found += [(name, name) for name in names] + [(name, names[(i + 2) % len(names)]) for i, name in enumerate(names)]
    return list(dict.fromkeys(found))


def write_all(folder: Path, world: int) -> dict[tuple[str, str], tuple[float, float]]:
    """Every layout of this many ranks trains, writes and makes two more steps; their losses."""
    losses = {}
    for unit, names in WRITTEN.items():
        for name in names:
            ranks, channel, layout = LAYOUTS[name]
            if ranks == world:
                run = Run(shape(unit), build_mesh(channel=channel), layout)
                for _ in range(STEPS):
                    run.step()
                checkpoint.save(folder / unit / name, run.tensors(), {}, tag="step", step=STEPS, keep=1)
                losses[unit, name] = run.step(), run.step()
    return losses


def read_all(folder: Path, world: int) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Every layout of this many ranks reads and makes two steps; their losses."""
    losses = {}
    for unit, names in WRITTEN.items():
        wholes = {name: torch.load(folder / unit / f"{name}.pt") for name in names}
        for written, name in pairs(unit):
            ranks, channel, layout = LAYOUTS[name]
            if ranks == world:
                right = wholes[written]
                run = Run(shape(unit), build_mesh(channel=channel), layout)
                path = checkpoint.newest(folder / unit / written)
                assert path is not None
                tensors = run.tensors()
                checkpoint.load(path, tensors, expected={})
                assert tensors.keys() == right.keys(), (written, name)
                wrong = [key for key, held in tensors.items() if not same(held, right[key])]
                assert not wrong, (written, name, wrong)
                losses[unit, written, name] = run.step(), run.step()
    return losses


def same(held: Tensor | RowPart, right: Tensor) -> bool:
    """Whether a rank's part is, bit for bit, that part of the whole."""
    if isinstance(held, RowPart):
        return all(torch.equal(run, right[start : start + len(run)]) for start, run in held._runs.items())
    return torch.equal(held.full_tensor() if isinstance(held, DTensor) else held, right)


def whole(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, whole, as a single process reads it."""
    path = checkpoint.newest(folder)
    assert path is not None
    reader = checkpoint._SafeReader(path)
    saved = reader.read_metadata().state_dict_metadata
    found = {name: torch.zeros(e.size, dtype=e.properties.dtype) for name, e in saved.items()}  # type: ignore[union-attr]
    load_tensors(found, storage_reader=checkpoint._SafeReader(path), planner=LoadPlanner(), no_dist=True)
    return found


@pytest.mark.slow
def test_every_layout_reads_what_others_wrote(tmp_path: Path) -> None:
    """Catches rows or moments given to other channels, a part left as it was, a loss that jumps after resuming."""
    losses: dict[tuple[str, str, str], tuple[float, float]] = {}
    undisturbed: dict[tuple[str, str], tuple[float, float]] = {}
    for world in WORLDS:
        undisturbed |= run_distributed(write_all, world, tmp_path, world, timeout=240)[0]
    for unit, names in WRITTEN.items():
        for written in names:
            right = whole(tmp_path / unit / written)
            torch.save(right, tmp_path / unit / f"{written}.pt")
            moments = [value for name, value in right.items() if "exp_avg" in name]
            assert moments
            assert all(value.abs().max() > 0 for value in moments), (unit, written)
    for world in WORLDS:
        losses |= run_distributed(read_all, world, tmp_path, world, timeout=240)[0]
    assert len(losses) == 28 + 12
    for unit, written, name in losses:
        expected = undisturbed[unit, written]
        assert losses[unit, written, name] == pytest.approx(expected, rel=1e-10), (unit, written, name)
        assert expected == pytest.approx(undisturbed[unit, "1"], rel=1e-10), (unit, written)
