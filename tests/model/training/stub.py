"""A task of one weight, without a store: it learns to multiply numbers by three.

Batches follow from (seed, step). What a test wants to happen in a step it hands over as `in_step`, which is called with
the step (counted from 0) inside the loss of each forward pass in training; what it wants from validation as `scores`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils.checkpoint import checkpoint as recomputed

from model.network.cut import Network
from model.network.groups import Tree, build_tree
from model.parallel.launch import process_group
from model.training.task import Predict
from model.training.trainer import RunFolder, Trainer
from pipeline.sections import Training

FACTOR = 3.0


@dataclass(frozen=True)
class StubConfig:
    """One channel, one cell."""

    dropout: float = 0.1
    channels: tuple[str, ...] = ("x",)
    image: tuple[int, int] = (1, 1)

    def channel_tree(self) -> Tree:
        return build_tree(self.channels, groups="all", tree="none")

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> StubNetwork:
        return StubNetwork(self, seed=seed)

    def stack_sizes(self) -> dict[str, int]:
        return {}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class StubNetwork(Network):
    """x -> weight * x, with dropout."""

    def __init__(self, config: StubConfig, *, seed: int | None) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(1, 1))
        self.drop = nn.Dropout(config.dropout)
        self.recompute = False
        if seed is not None:
            self.reset_parameters(seed=seed)

    @property
    def channels_held(self) -> tuple[str, ...]:
        return self.config.channels

    def reset_parameters(self, *, seed: int) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.rand(1, 1, generator=torch.Generator().manual_seed(seed)))

    def set_recompute(self, on: bool) -> None:
        self.recompute = on

    def forward(self, x_B1: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return recomputed(self._product, x_B1, use_reentrant=False)  # type: ignore[no-any-return]
        return self._product(x_B1)

    def _product(self, x_B1: Tensor) -> Tensor:
        return self.drop(nn.functional.linear(x_B1, self.weight))


@dataclass(frozen=True)
class Numbers:
    """Numbers of a step and what they should become, (B, 1) each."""

    x: Tensor
    y: Tensor
    step: int

    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, self.y

    def to(self, device: torch.device, dtype: torch.dtype) -> Numbers:
        return Numbers(self.x.to(device, dtype), self.y.to(device, dtype), self.step)

    def split(self, size: int | None) -> Iterator[Numbers]:
        for x, y in zip(self.x.split(size or len(self)), self.y.split(size or len(self)), strict=True):
            yield Numbers(x, y, self.step)

    def __len__(self) -> int:
        return len(self.x)


@dataclass
class StubData:
    """This data rank's part of the numbers."""

    task: StubTask
    rank: int
    ranks: int
    samples: int = 40

    def batch(self, step: int) -> Numbers:
        self.task.in_batch(step)
        size = self.task.options.batch_size
        generator = torch.Generator().manual_seed(1000 * self.task.options.seed + step)
        x, noise = torch.randn(2, size, 1, generator=generator)
        part = size // self.ranks
        mine = slice(self.rank * part, (self.rank + 1) * part)
        return Numbers(x[mine], (FACTOR * x + 0.1 * noise)[mine], step)

    def hold(self, *, processes: int, progress: bool) -> None:
        self.task.held = True

    def describe(self, step: int) -> str:
        return f"numbers of step {step}"


def nothing(_: Any) -> None:
    """The default of what happens in between."""


@dataclass
class StubTask:
    """The task; `in_batch` and `in_step` are called with the step, `scores` with the prediction for ones."""

    options: Training
    network: StubConfig = field(default_factory=StubConfig)
    in_batch: Callable[[int], None] = nothing
    in_step: Callable[[int], None] = nothing
    scores: Callable[[float], Mapping[str, Any] | None] = lambda factor: {"loss": (factor - FACTOR) ** 2}
    held: bool = False
    at_once: list[int] = field(default_factory=list)

    @property
    def identity(self) -> dict[str, Any]:
        return {"factor": FACTOR}

    @property
    def description(self) -> dict[str, Any]:
        return {"of": "a stub"}

    def start(self) -> None:
        return None

    def data(self, *, channels: Sequence[str], rank: int, ranks: int, pin: bool) -> StubData:
        return StubData(self, rank, ranks)

    def loss(self, predict: Predict, batch: Numbers, *, mesh: DeviceMesh) -> Tensor:
        self.in_step(batch.step)
        return (predict(batch.x) - batch.y).float().square().mean()

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> Numbers:
        return Numbers(*torch.ones(2, samples, 1, device=device, dtype=dtype), step=0)

    def validation_samples(self) -> int:
        return 1

    def passes(self, progress: float) -> int:
        return 1

    def used(self, batch: Numbers, *, progress: float) -> Numbers:
        return batch

    def validate(self, predict: Predict, data: Any, *, mesh: DeviceMesh, at_once: int) -> dict[str, Any] | None:
        self.at_once.append(at_once)
        dtype = torch.float64 if self.options.precision == "float64" else torch.float32
        found = self.scores(predict(torch.ones(1, 1, dtype=dtype)).item())
        return None if found is None else dict(found)

    def summary(self, scores: Mapping[str, Any]) -> str:
        return f"loss {scores['loss']:.4f}"


def options(**changes: Any) -> Training:
    """Twelve steps with a validation after 5, 10 and 12 and a checkpoint after 4, 8 and 12."""
    sizes = {"steps": 12, "batch_size": 8, "warmup_steps": 2, "learning_rate": 0.1, "ema_decay": 0.9}
    every = {"validate_every": 5, "checkpoint_every": 4, "tensorboard": False}
    clip = {"clip_norm": 1e3}  # never reached: clipped gradients of a single weight are all alike, and so its moments
    return Training(**{**sizes, **every, **clip, **changes})


def trainer(folder: Path, task: StubTask) -> Trainer[Numbers]:
    """Ready to resume and to run; inside a process group."""
    console = Console(stderr=True, soft_wrap=True)
    return Trainer(task, task.options, folder=RunFolder(folder), device=torch.device("cpu"), console=console)


def train(folder: Path, task: StubTask | None = None, **changes: Any) -> Trainer[Numbers]:
    """Train, or resume, to the end; keyword arguments are options of the training."""
    task = task or StubTask(options(**changes))
    with process_group(world_size=task.options.layout.world_size):
        run = trainer(folder, task)
        run.resume()
        run.run()
    return run


def raising_at(step: int, error: BaseException) -> Callable[[int], None]:
    """An `in_step` that ends the run by an exception."""

    def act(now: int) -> None:
        if now == step:
            raise error

    return act


def signalling_at(step: int, number: int) -> Callable[[int], None]:
    """An `in_step` that sends a signal to this process."""

    def act(now: int) -> None:
        if now == step:
            os.kill(os.getpid(), number)

    return act
