"""The baselines stage: climate-learn's networks, trained and applied as the model is.

Contract: what the model is given, they are given: the same task, so the same pairs, inputs, history, loss, batch,
averaged weights, resume and forecasts; beside a model with steps they have these steps, its roll-outs and its
calibration. Their learning rate, weight decay and warm-up are climate-learn's own. They train for as many steps and
minutes as the model unless a budget says otherwise. Each ends as a forecast store that is scored like any model.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch
from rich.console import Console

from model.complete import complete_baselines
from model.network import climatelearn
from model.parallel import launch
from model.training import checkpoint
from model.training.run import trained
from model.training.trainer import RunFolder
from model.weather.forecast import write_forecasts
from model.weather.task import ForecastTask
from pipeline import provenance
from pipeline.sections import Layout
from pipeline.weather.config import WeatherConfig

LEARNING_RATE, WEIGHT_DECAY, WARMUP = 5e-4, 1e-5, 0.05
"""Of AdamW with a linear warm-up (a fraction of all steps) and a cosine; climate-learn's schedule."""


def run_baselines(config: WeatherConfig, *, verify: bool = False) -> None:
    """Train evaluation.trained_baselines and issue their forecasts, or resume where an earlier call was stopped.

    Args:
        config: the experiment.
        verify: where forecasts are there, compare every slab with its digest; damaged ones are issued again.

    Raises:
        ValueError: none is named, an earlier stage is missing, or climate-learn is not installed.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    stores = paths.network_forecasts
    if not stores:
        raise ValueError("evaluation.trained_baselines must name a network, got none; set it to [resnet, unet]")
    if done := complete_baselines(config, verify=verify, mend=launch.is_main()):
        console.print(done, markup=False)
        return
    facts = {}
    with launch.process_group(world_size=config.training.layout.world_size) as device:
        for name in stores:
            facts[name] = _train_and_issue(name, config, device=device, console=console)
    if launch.is_main():
        provenance.write_receipt(config, stage="baselines", outputs=list(stores.values()), facts=facts)


def network_experiment(name: str, config: WeatherConfig) -> WeatherConfig:
    """The same experiment with one of climate-learn's networks as its model.

    Args:
        name: "resnet" or "unet".
        config: the experiment.
    """
    budget = config.evaluation.trained_budget
    own = budget.steps is not None or budget.minutes is not None
    steps = budget.steps or config.training.steps
    training = config.training.model_copy(
        update={
            "steps": steps,
            "minutes": budget.minutes if own else config.training.minutes,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "warmup_steps": max(1, round(WARMUP * steps)),
            "start_from": None,
            "patience": 0,
            "layout": Layout(data=config.training.layout.world_size),
        }
    )
    model = config.model.model_copy(update={"architecture": name})
    return config.model_copy(update={"model": model, "training": training, "name": name})


def _train_and_issue(name: str, config: WeatherConfig, *, device: torch.device, console: Console) -> dict[str, Any]:
    paths = config.paths
    experiment, folder = network_experiment(name, config), RunFolder(paths.networks / name)

    def make(device: torch.device) -> ForecastTask:
        return ForecastTask(experiment, device=device)

    trainer = trained(make, experiment.training, folder=folder, device=device, console=console)
    facts = trainer.facts()
    newest = checkpoint.best_or_last(folder.checkpoints)
    assert newest is not None
    path, made_by = paths.network_forecasts[name], f"climate-learn's {name}"
    more: dict[str, Any] = {"made_by": made_by, "command": "python -m pipeline baselines"}
    issued = write_forecasts(experiment, newest, [path], device=device, console=console, **more)
    return facts | {
        "samples": trainer.step * config.training.batch_size,
        "architecture": climatelearn.ARCHITECTURES[name],
        "climate_learn": metadata.version(climatelearn.PACKAGE),
        "weights": issued["checkpoint_digest"],
        "init_times": issued["init_times"],
    }
