"""The only place that imports climate-learn: its networks, unchanged, after a repair that a CPU build of torch needs.

Contract: nothing else in the four packages imports climate_learn (benchmarks do, after the same repair). The
torchvision of a CPU build has no compiled operators, and importing climate_learn then fails on two schemas that it
never calls; declaring them is enough. The networks are built as climate-learn's own loaders build them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

PACKAGE = "climate-learn"
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "resnet": {"n_blocks": 28},
    "unet": {"ch_mults": [1, 1, 2], "n_blocks": 4},
}
"""Arguments beside the numbers of channels (climate_learn/utils/loaders.py of version 1.0.0, task downscaling)."""
_SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def repair_torchvision() -> None:
    """Declare the two operators that a torchvision without compiled ones lacks; does nothing where they are."""
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", schema)


def network(name: str, *, in_channels: int, out_channels: int) -> nn.Module:
    """One of climate-learn's convolutional networks.

    Args:
        name: "resnet" or "unet".
        in_channels: of the input (sample, channel, latitude, longitude).
        out_channels: of the output.

    Raises:
        ValueError: climate-learn is not installed.
    """
    repair_torchvision()
    try:
        from climate_learn.models.hub.resnet import ResNet
        from climate_learn.models.hub.unet import Unet
    except ImportError as error:
        raise ValueError(
            f"the networks resnet and unet need {PACKAGE}, got {error}; pip install {PACKAGE}, or leave them out of "
            "model.architecture and evaluation.trained_baselines"
        ) from None
    made: nn.Module = {"resnet": ResNet, "unet": Unet}[name](in_channels, out_channels, **ARCHITECTURES[name])
    return made
