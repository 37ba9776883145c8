"""A second workload in one file: pixels of some patches of noisy images, from all channels, without time or store.

An image has one pattern, which each channel shows with another factor and noise of its own; the network reads some
patches of it and says what the pattern is there. Channels are dealt out to channel ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from model.network.encoder import Encoder, EncoderConfig
from model.network.initialise import draw_layers
from model.parallel.launch import process_group
from model.training.task import Predict
from model.training.trainer import RunFolder, Trainer
from pipeline.sections import Training


class PixelsConfig(EncoderConfig):
    """An encoder with one linear layer on top."""

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> Pixels:
        return Pixels(self, groups=groups, seed=seed)


class Pixels(Encoder):
    """(B, K, H, W) images and the patches (B, M) to read -> (B, M, P) pixels of these."""

    def build_head(self) -> None:
        self.head = nn.Linear(self.config.width, self.config.patch**2)

    def reset_parameters(self, *, seed: int) -> None:
        super().reset_parameters(seed=seed)
        with torch.no_grad():
            draw_layers(self.head, seed=seed, name="head")

    def forward(self, x_BKHW: Tensor, patches_BM: Tensor) -> Tensor:
        y_BMP: Tensor = self.head(self.encode(x_BKHW, patches_BM=patches_BM))
        return y_BMP


@dataclass(frozen=True)
class Images:
    """Images, patches to read and the pattern there: (B, K, H, W), (B, M), (B, M, P)."""

    x: Tensor
    patches: Tensor
    y: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.patches, self.y

    def to(self, device: torch.device, dtype: torch.dtype) -> Images:
        return Images(self.x.to(device, dtype), self.patches.to(device), self.y.to(device, dtype))

    def split(self, size: int | None) -> Iterator[Images]:
        for parts in zip(*(t.split(size or len(self)) for t in self.tensors()), strict=True):
            yield Images(*parts)

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True)
class ImageData:
    """The images of a step, a function of the step."""

    network: PixelsConfig
    channels: tuple[str, ...]
    rows: slice
    batch_size: int
    samples: int = 1000

    def batch(self, step: int) -> Images:
        config, generator = self.network, torch.Generator().manual_seed(step)
        B, C, (H, W), p = self.batch_size, len(config.channels), config.image, config.patch
        pattern_BHW = torch.randn(B, H, W, generator=generator)
        noise_BCHW = torch.randn(B, C, H, W, generator=generator)
        factor_C = torch.linspace(0.5, 2.0, C)
        x = factor_C.view(C, 1, 1) * pattern_BHW[:, None] + 0.2 * noise_BCHW
        number = H * W // p**2
        order = torch.rand(B, number, generator=generator).argsort(dim=1)
        patches_BM = order[:, : number // 2]
        pixels_BLP = pattern_BHW.view(B, H // p, p, W // p, p).transpose(2, 3).reshape(B, number, p * p)
        y = pixels_BLP.gather(1, patches_BM[:, :, None].expand(-1, -1, p * p))
        held = [config.channels.index(name) for name in self.channels]
        return Images(x[self.rows][:, held], patches_BM[self.rows], y[self.rows])

    def hold(self, *, processes: int, progress: bool) -> None:
        """Nothing to read."""

    def describe(self, step: int) -> str:
        return f"images of step {step}"


@dataclass(frozen=True)
class PixelTask:
    """What the trainer and the planner need."""

    network: PixelsConfig
    options: Training

    @property
    def identity(self) -> dict[str, Any]:
        return {"pattern": "noise"}

    @property
    def description(self) -> dict[str, Any]:
        return {}

    def start(self) -> None:
        return None

    def loss(self, predict: Predict, batch: Images, *, mesh: DeviceMesh) -> Tensor:
        return nn.functional.mse_loss(predict(batch.x, batch.patches), batch.y)

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> Images:
        data = ImageData(self.network, tuple(channels), slice(None), batch_size=samples)
        return data.batch(0).to(device, dtype)

    def validation_samples(self) -> int:
        return self.options.batch_size

    def data(self, *, channels: Sequence[str], rank: int, ranks: int, pin: bool) -> ImageData:
        part = self.options.batch_size // ranks
        rows = slice(rank * part, (rank + 1) * part)
        return ImageData(self.network, tuple(channels), rows, self.options.batch_size)

    def passes(self, progress: float) -> int:
        return 1

    def used(self, batch: Images, *, progress: float) -> Images:
        return batch

    def validate(self, predict: Predict, data: ImageData, *, mesh: DeviceMesh, at_once: int) -> dict[str, Any]:
        dtype = torch.float64 if self.options.precision == "float64" else torch.float32
        fixed = ImageData(data.network, data.channels, slice(None), data.batch_size).batch(10**6)
        parts = list(fixed.to(mesh_device(mesh), dtype).split(at_once))
        losses = [self.loss(predict, part, mesh=mesh).item() * len(part) for part in parts]
        return {"loss": sum(losses) / len(fixed)}

    def summary(self, scores: Mapping[str, Any]) -> str:
        return f"loss {scores['loss']:.3f}"


def mesh_device(mesh: DeviceMesh) -> torch.device:
    return torch.device(mesh.device_type)


def train(folder: Path, task: PixelTask) -> Trainer[Images]:
    """Train, or resume, to the end."""
    with process_group(world_size=task.options.layout.world_size) as device:
        where, console = RunFolder(folder), Console(quiet=True)
        run = Trainer(task, task.options, folder=where, device=device, console=console)
        run.resume()
        run.run()
    return run
