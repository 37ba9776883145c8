"""Trainers of forecasting on the small experiment, and tasks that end a training before its time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model.training.trainer import RunFolder, Trainer
from model.weather.task import ForecastTask, Samples
from pipeline.config import Config, parse
from pipeline.weather.config import WeatherConfig
from preprocess.normals.stage import run_normals


def trainer_of(config: WeatherConfig, *, kind: type[ForecastTask] = ForecastTask) -> Trainer[Samples]:
    """As the train stage makes it; inside a process group."""
    device = torch.device("cpu")
    folder, console = RunFolder(config.paths.train), Console(quiet=True)
    return Trainer(kind(config, device=device), config.training, folder=folder, device=device, console=console)


def dying_task(step: int, *, kill: bool = False) -> type[ForecastTask]:
    """A task whose loss raises KeyboardInterrupt at a step (from 0), or kills the process, for batches not split."""

    class Dying(ForecastTask):
        calls = 0

        def loss(self, *args: Any, **options: Any) -> Tensor:
            if Dying.calls == step:
                if kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise KeyboardInterrupt
            Dying.calls += 1
            return super().loss(*args, **options)

    return Dying


def changed(config: WeatherConfig, **blocks: dict[str, Any]) -> WeatherConfig:
    """The experiment with some settings changed, by block."""
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in blocks.items()}
    )


def with_steps(
    experiment: Callable[..., Config],
    *,
    model: dict[str, Any] | None = None,
    forecast: dict[str, Any] | None = None,
    **training: Any,
) -> WeatherConfig:
    """The small experiment with a model of changes over 24 h (or other steps), its normals made."""
    content = experiment(**{"step_hours": [24], **training}).model_dump(mode="json")
    content["model"] |= {"predicts": "change", "network_input": "anomaly", "dropout": 0.0, **(model or {})}
    content["forecast"] |= forecast or {}
    config = parse(content)
    assert isinstance(config, WeatherConfig)
    if not config.paths.normals.exists():
        run_normals(config)
    return config


def elsewhere(config: WeatherConfig, folder: Path, *, also: tuple[str, ...] = ()) -> WeatherConfig:
    """The same experiment on the same data in a folder of its own, with links to some other outputs."""
    folder.mkdir(exist_ok=True)
    for name in ("data", *also):
        (folder / name).symlink_to(config.root / name)
    return config.model_copy(update={"directory": folder})
