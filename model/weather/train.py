"""The train stage of forecasting."""

from __future__ import annotations

from rich.console import Console

from model.complete import complete_train
from model.parallel import launch
from model.training.run import train_stage
from model.training.trainer import RunFolder
from model.weather.task import Forecasting, ForecastTask
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
    train_stage(
        config,
        lambda device: ForecastTask(config, device=device),
        planned=Forecasting.planned,
        folder=folder,
        console=console,
    )
