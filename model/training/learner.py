"""What learns: this rank's part of the model, its optimiser and the moving average of its parameters.

Contract: training and the memory planner, which must count the very same tensors, both start from here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from model.dchag import DCHAG, DCHAGConfig
from model.parallel import wrap
from model.training import optimise
from pipeline.weather.sections_model import Training


@dataclass(frozen=True)
class Learner:
    """The parts of a run that hold memory between steps.

    Attributes:
        model: laid out on the mesh.
        parameters: of the model, by name.
        optimiser: AdamW over them.
        average: moving average of each, a copy at the start; empty where none is kept.
        dtype: of the parameters.
    """

    model: DCHAG
    parameters: dict[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    dtype: torch.dtype


def assemble(
    shape: DCHAGConfig, options: Training, *, mesh: DeviceMesh, device: torch.device, seed: int | None,
    start: DCHAG | None = None,
) -> Learner:  # fmt: skip
    """Build them, the same function on every layout.

    Args:
        shape: the function.
        options: of the training: layout, precision, optimiser.
        mesh: of the ranks.
        device: of this rank.
        seed: of the initial parameters; None leaves them unset.
        start: a whole model whose parameters to begin with.

    Raises:
        ValueError: groups or heads that the channel ranks do not divide.
    """
    layout = wrap.Layout(trunk=options.layout.trunk, data=options.layout.sharding, recompute=options.recompute)
    dtype = torch.float64 if options.precision == "float64" else torch.float32
    model = wrap.distribute(shape, mesh=mesh, layout=layout, seed=seed, device=device, dtype=dtype, start=start)
    parameters = dict(model.named_parameters())
    kinds = {id(p): i for i, group in enumerate(wrap.parameter_groups(model)) for p in group}
    optimiser = torch.optim.AdamW(
        optimise.parameter_groups(parameters, weight_decay=options.weight_decay, kinds=kinds),
        lr=options.learning_rate, betas=options.betas, fused=True,
    )  # fmt: skip
    average = {name: p.detach().clone() for name, p in parameters.items()} if options.ema_decay else {}
    return Learner(model, parameters, optimiser, average, dtype)
