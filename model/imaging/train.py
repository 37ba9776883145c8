"""The train stage of masked autoencoding."""

from __future__ import annotations

from rich.console import Console

from model.imaging.complete import complete_train
from model.imaging.task import Autoencoding, AutoencodingTask, open_images
from model.parallel import launch
from model.training.run import train_stage
from model.training.trainer import RunFolder
from pipeline.imaging.config import ImagingConfig


def run_train(config: ImagingConfig) -> None:
    """Train the model of a configuration, or resume where an earlier call was stopped.

    Raises:
        ValueError: an earlier stage is missing, the data do not fit the configuration, the number of ranks is not
            the layout's, or the loss is not finite.
    """
    console = Console(stderr=True, soft_wrap=True, quiet=not launch.is_main())
    folder = RunFolder(config.paths.train)
    if done := complete_train(config):
        console.print(done, markup=False)
        return
    open_images(config)  # an earlier stage that is missing is named before anything is written
    train_stage(
        config,
        lambda _device: AutoencodingTask(config),
        planned=Autoencoding.planned,
        folder=folder,
        console=console,
    )
