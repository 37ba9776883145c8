"""A trained network from a checkpoint, whole or the part of a rank.

Contract: the digest names the weights: it depends neither on how they were saved nor on how they are held.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.network.cut import Network, NetworkConfig
from model.parallel import wrap
from model.parallel.mesh import DeviceMesh
from model.training import checkpoint
from model.training.learner import weights_of

Weights = Literal["average", "model"]


def load_network(
    path: Path,
    config: NetworkConfig,
    *,
    expected: Mapping[str, Any],
    device: torch.device,
    weights: Weights = "average",
    mesh: DeviceMesh | None = None,
    placement: wrap.Placement | None = None,
) -> tuple[Network, str]:
    """The network of a checkpoint, or this rank's part of it.

    Args:
        path: the checkpoint.
        config: its network, from its description.
        expected: what its description must agree with.
        device: where to put it.
        weights: the moving average where training kept one, or the parameters themselves.
        mesh: of the ranks; None for all of it in one process.
        placement: how it lies on the mesh.

    Returns:
        The network in evaluation mode, and the digest of its weights.

    Raises:
        ValueError: the checkpoint belongs to something else.
    """
    description = checkpoint.describe(path)
    prefix = description["weights"] if weights == "average" else "model"
    if mesh is None:
        network = config.build(seed=None)
        whole = weights_of(network)
        checkpoint.load(path, {f"{prefix}.{name}": t for name, t in whole.items()}, expected=expected)
        return network.to(device).eval(), weights_digest(whole)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in weights_of(config.build(seed=None)).items()}
    whole = {name: torch.empty(size) for name, size in shapes.items()}
    checkpoint.load(path, {f"{prefix}.{name}": t for name, t in whole.items()}, expected=expected)
    digest = weights_digest(whole)
    del whole
    network = wrap.distribute(config, mesh=mesh, placement=placement, seed=None, device=device)
    held = {f"{prefix}.{name}": t for name, t in weights_of(network).items()}
    checkpoint.load(path, checkpoint.with_rows(held, cut=network.cut_rows()), expected=expected)
    return network.eval(), digest


def weights_digest(parameters: Mapping[str, Tensor]) -> str:
    """A short hash of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        values = parameters[name].cpu().contiguous().numpy()
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()[:16]
