"""The plan of the train stage for the autoencoder."""

from __future__ import annotations

from typing import Unpack

from model.imaging.task import Autoencoding
from model.training.plan_stage import PlanOptions, plan_stage
from pipeline.imaging.config import ImagingConfig


def run_plan(config: ImagingConfig, **options: Unpack[PlanOptions]) -> None:
    """See `plan_stage` for arguments and errors."""
    task = Autoencoding.planned(config)
    per_tile = len(task.network.channels) * config.data.tile**2 * 4 // config.training.layout.channel
    otherwise = (
        "every tile of the training images takes {size} of host memory if all of them fit; otherwise they are read "
        "from the store"
    )
    plan_stage(task, config, what="a_tile", host_bytes=per_tile, otherwise=otherwise, **options)
