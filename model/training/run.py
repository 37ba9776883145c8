"""A training from its start, or its last checkpoint, to its receipt: what the train stages of workloads share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from rich.console import Console

from model.parallel import launch
from model.training.choose import Planned, settled
from model.training.task import B, Task
from model.training.trainer import RunFolder, Trainer
from pipeline import files, provenance
from pipeline.config import Config
from pipeline.sections import Training

Make = Callable[[torch.device], Task[B]]
"""The task of a rank, on its device."""


def trained(
    make: Make[B], options: Training, *, folder: RunFolder, device: torch.device, console: Console
) -> Trainer[B]:
    """Train to the end, or resume, all ranks together.

    Args:
        make: the task.
        options: of the training.
        folder: of the run.
        device: of this rank.
        console: for messages and the progress bar.
    """
    with files.lock(folder.lock) if launch.is_main() else nullcontext():
        trainer = Trainer(make(device), options, folder=folder, device=device, console=console)
        trainer.resume()
        trainer.run()
    return trainer


def train_stage(config: Config, make: Make[B], *, planned: Planned, folder: RunFolder, console: Console) -> None:
    """Train as the layout asks, and write the stage's receipt.

    Args:
        config: the experiment.
        make: the task.
        planned: the task of a configuration as a plan needs it, where the layout is to be chosen.
        folder: of the run.
        console: for messages and the progress bar.

    Raises:
        ValueError: the data do not fit the configuration, the number of ranks is not the layout's, no layout fits that
            could be chosen, or the loss is not finite.
    """
    with launch.process_group(world_size=config.training.layout.world_size) as device:
        options, chosen = settled(config, planned, folder=folder.root, console=console)
        trainer = trained(make, options, folder=folder, device=device, console=console)
        if launch.is_main():
            outputs = [folder.checkpoints, folder.metrics]
            facts = trainer.facts() | ({} if chosen is None else {"layout": chosen})
            provenance.write_receipt(config, stage="train", outputs=outputs, facts=facts)
