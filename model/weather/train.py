"""The train stage of forecasting."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from rich.console import Console

from model.complete import complete_train
from model.parallel import launch
from model.training.trainer import RunFolder, Trainer
from model.weather.task import ForecastTask, Samples
from pipeline import files, provenance
from pipeline.store import open_store
from pipeline.weather import foresight
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig


def run_train(config: WeatherConfig) -> None:
    """Train the model of a configuration, or resume where an earlier call was stopped.

    Raises:
        ValueError: an earlier stage is missing, the data do not fit the configuration, the number of ranks is not
            the layout's, or the loss is not finite.
    """
    paths, console = config.paths, Console(stderr=True, soft_wrap=True, quiet=not launch.is_main())
    folder = RunFolder(paths.train)
    if done := complete_train(config):
        console.print(done, markup=False)
        return
    Normals.open(paths.normals)  # an earlier stage that is missing is named before anything is written
    for line in foresight.require(config, open_store(paths.store, stage="python -m pipeline regrid")["time"].values):
        console.print(f"train: {line}", markup=False)
    with launch.process_group(world_size=config.training.layout.world_size) as device:
        trainer = trained(config, folder=folder, device=device, console=console)
        if launch.is_main():
            outputs = [folder.checkpoints, folder.metrics]
            provenance.write_receipt(config, stage="train", outputs=outputs, facts=trainer.facts())


def trained(config: WeatherConfig, *, folder: RunFolder, device: torch.device, console: Console) -> Trainer[Samples]:
    """Train to the end, or resume, all ranks together.

    Args:
        config: the experiment.
        folder: of the run.
        device: of this rank.
        console: for messages and the progress bar.
    """
    with files.lock(folder.lock) if launch.is_main() else nullcontext():
        task = ForecastTask(config, device=device)
        trainer = Trainer(task, config.training, folder=folder, device=device, console=console)
        trainer.resume()
        trainer.run()
    return trainer
