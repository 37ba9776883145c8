"""What is modelled of the D-CHAG paper: methods, model sizes, layouts, and the task that a step is rehearsed with.

Contract: a `Setting` says which network is trained and how it is cut; benchmarks/support/modelled.py gives memory and
time of its step. All channels are read and predicted; 512 patches; AdamW with float32 states, bfloat16 autocast.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.support.tensor_alone import FlatOnEveryRankConfig, TensorAloneConfig
from model.costs.hardware import HARDWARE
from model.dchag import DCHAGConfig
from model.parallel.mesh import DeviceMesh
from model.training.task import Predict
from model.weather.loss import weighted_mse
from pipeline.sections import Layout, Training

IMAGE, PATCH, HEAD_WIDTH = (32, 64), 2, 128
SIZES = {"1.7B": (2048, 32), "7B": (4096, 32), "15B": (6144, 32), "26B": (8192, 32)}
"""Width and depth; 12 x depth x width^2 parameters in the trunk."""
MACHINE = HARDWARE["mi250x"]
USABLE = 0.9 * MACHINE.memory
"""Bytes of a rank that tensors may take; the rest is for RCCL, libraries and what the allocator cannot use."""


@dataclass(frozen=True)
class Samples:
    """A batch: fields of the channels read, lead times, and targets."""

    x: Tensor
    lead_hours: Tensor
    target: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device, dtype: torch.dtype) -> Samples:
        return Samples(*(t.to(device, dtype) for t in self.tensors()))

    def split(self, size: int | None) -> Iterator[Samples]:
        yield from (Samples(*part) for part in zip(*(t.split(size or len(self)) for t in self.tensors()), strict=True))

    def tensors(self) -> Sequence[Tensor]:
        return (self.x, self.lead_hours, self.target)


@dataclass(frozen=True)
class Forecast:
    """All channels in, all channels out: what the planner needs of a task."""

    network: DCHAGConfig

    def loss(self, predict: Predict, batch: Samples, *, mesh: DeviceMesh) -> Tensor:  # noqa: ARG002
        area_HW = torch.ones(self.network.image, device=batch.x.device)
        return weighted_mse(predict(batch.x, batch.lead_hours), batch.target, area_HW=area_HW)

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> Samples:
        network = self.network
        whole = isinstance(network, FlatOnEveryRankConfig)
        whole |= isinstance(network, TensorAloneConfig) and not network.distributed
        counts = len(network.channels if whole else channels), len(network.out_channels)
        x, target = (torch.full((samples, n, *self.network.image), 0.5, dtype=dtype, device=device) for n in counts)
        return Samples(x, torch.ones(samples, device=device), target)

    def validation_samples(self) -> int:
        return 0


@dataclass(frozen=True)
class Method:
    """How channels become one token per patch.

    Attributes:
        name: as tables have it.
        kind: "alone" (tensor parallelism alone), "distributed" (tokenisation distributed, nothing else), "every" (flat
            and fused, whole on every rank) or "dchag".
        tree: of every group.
        unit: "C" or "L".
        stage: "reference" or "fused".
        flat: one group in all, on a single channel rank.
    """

    name: str
    kind: str = "dchag"
    tree: str = "Tree0"
    unit: str = "C"
    stage: str = "reference"
    flat: bool = False


ALONE = Method("TP alone", kind="alone")
DISTRIBUTED = Method("distributed tokenisation alone", kind="distributed")
HIERARCHICAL = Method("hierarchical aggregation alone")
TREES = {
    unit: [Method(f"D-CHAG Tree{n}-{unit}", tree=f"Tree{n}", unit=unit) for n in (0, 2, 4, 8)] for unit in ("C", "L")
}
FUSED = {unit: Method(f"D-CHAG Tree0-{unit}, fused", unit=unit, stage="fused") for unit in ("C", "L")}
FLAT_FUSED = Method("flat, fused", stage="fused", flat=True)
EVERY = Method("flat, fused, on every rank", kind="every", stage="fused")


@dataclass(frozen=True)
class Setting:
    """A training step.

    Attributes:
        method: of the channel stage.
        size: a name of `SIZES`.
        channels: read and predicted.
        channel: ranks of the channel axis, over which the trunk is cut too.
        groups: of channels, all ranks together; None for one a rank.
        data: data ranks.
        sharding: "fsdp" or "ddp", on the data axis.
        recompute: activation checkpointing.
    """

    method: Method
    size: str
    channels: int
    channel: int
    groups: int | None = None
    data: int = 1
    sharding: str = "ddp"
    recompute: bool = False

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.channel * self.data

    @property
    def depth(self) -> int:
        """Of the trunk."""
        return SIZES[self.size][1]

    def network(self, *, depth: int) -> DCHAGConfig:
        """With a trunk of some depth."""
        names = tuple(f"c{i}x" for i in range(self.channels))
        width, method = SIZES[self.size][0], self.method
        sizes = {"image": IMAGE, "patch": PATCH, "width": width, "depth": depth, "heads": width // HEAD_WIDTH}
        common = {"channels": names, "out_channels": names, "dropout": 0.0, **sizes}
        groups = self.groups or self.channel
        if method.kind == "every":
            return FlatOnEveryRankConfig(**common, groups=groups)
        if method.kind != "dchag":
            return TensorAloneConfig(**common, groups=groups, distributed=method.kind == "distributed")
        if method.flat:
            assert self.channel == 1
            return DCHAGConfig(**common, groups="all", tree="Tree0", unit="C", channel_stage=method.stage)
        return DCHAGConfig(**common, groups=groups, tree=method.tree, unit=method.unit, channel_stage=method.stage)

    def options(self, *, batch: int) -> Training:
        """Of the training, with so many samples for each data rank."""
        trunk = "tensor" if self.channel > 1 else "replicated"
        layout = Layout(data=self.data, channel=self.channel, trunk=trunk, sharding=self.sharding)
        return Training(batch_size=batch * self.data, precision="bfloat16", recompute=self.recompute, layout=layout)
