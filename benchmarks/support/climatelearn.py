"""climate-learn beside a CPU build of torchvision, which lacks two operators that its import asks for."""

from __future__ import annotations

import torch


def import_climate_learn() -> None:
    """Makes `import climate_learn` work."""
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    import climate_learn  # noqa: F401
