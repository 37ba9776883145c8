"""The train stage of masked autoencoding."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from rich.console import Console

from model.imaging.complete import complete_train
from model.imaging.task import AutoencodingTask, open_images
from model.imaging.tiles import Tiles
from model.parallel import launch
from model.training.trainer import RunFolder, Trainer
from pipeline import files, provenance
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
    with launch.process_group(world_size=config.training.layout.world_size) as device:
        trainer = trained(config, folder=folder, device=device, console=console)
        if launch.is_main():
            outputs = [folder.checkpoints, folder.metrics]
            provenance.write_receipt(config, stage="train", outputs=outputs, facts=trainer.facts())


def trained(config: ImagingConfig, *, folder: RunFolder, device: torch.device, console: Console) -> Trainer[Tiles]:
    """Train to the end, or resume, all ranks together.

    Args:
        config: the experiment.
        folder: of the run.
        device: of this rank.
        console: for messages and the progress bar.
    """
    with files.lock(folder.lock) if launch.is_main() else nullcontext():
        trainer = Trainer(AutoencodingTask(config), config.training, folder=folder, device=device, console=console)
        trainer.resume()
        trainer.run()
    return trainer
