"""What learns: this rank's part of the network, its optimiser and the moving average of its weights.

Contract: training and the memory planner, which must count the very same tensors, both start from here. Floating-point
buffers that belong to a network's state (running statistics of batch norms) are kept, averaged and saved as parameters
are; after a step they are the mean over the data ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.network.cut import Network, NetworkConfig
from model.parallel import launch, wrap
from model.parallel.collectives import local_tensor
from model.parallel.mesh import DATA, DeviceMesh, axis_size
from model.parallel.rows import RowPart
from model.training import checkpoint, optimise
from model.training.precision import matmul_precision
from pipeline.sections import Training


@dataclass(frozen=True)
class Learner:
    """The parts of a run that hold memory between steps.

    Attributes:
        network: laid out on the mesh.
        parameters: of the network, by name.
        buffers: floating-point buffers of its state, by name.
        optimiser: AdamW over the parameters.
        average: moving average of parameters and buffers, a copy at the start; empty where none is kept.
        mesh: of the ranks.
        device: of this rank.
        dtype: of the parameters.
        options: of the training.
    """

    network: Network
    parameters: dict[str, nn.Parameter]
    buffers: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor]
    mesh: DeviceMesh
    device: torch.device
    dtype: torch.dtype
    options: Training

    def predict(self, *inputs: Any, **named: Any) -> Tensor:
        """The network's output under the run's precision."""
        autocast: AbstractContextManager[Any] = nullcontext()
        if self.options.precision == "bfloat16":
            autocast = torch.autocast(self.device.type, dtype=torch.bfloat16)
        with autocast:
            output: Tensor = self.network(*inputs, **named)
        return output

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by name; the tensors themselves."""
        return {name: p.detach() for name, p in self.parameters.items()} | self.buffers

    def tensors(self) -> dict[str, Tensor | RowPart]:
        """Everything that a checkpoint holds as tensors, by name; the tensors themselves, not copies."""
        found = {f"model.{name}": t for name, t in self.weights().items()}
        found |= {f"average.{name}": t for name, t in self.average.items()}
        found |= checkpoint.optimiser_tensors(self.parameters, self.optimiser)
        return checkpoint.with_rows(found, cut=self.network.cut_rows())

    def after_step(self, step: int) -> None:
        """What follows an optimiser step: buffers become the mean over data ranks, averages move."""
        ranks = axis_size(self.mesh, DATA)
        for buffer in self.buffers.values() if ranks > 1 else ():
            launch.sum_over_ranks(buffer, group=self.mesh.get_group(DATA)).div_(ranks)
        if self.average:
            decay = self.options.ema_decay
            optimise.update_average(_local(self.average), _local(self.weights()), decay=decay, step=step)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In evaluation mode, without gradients, with the averaged weights where they are kept."""
        self.network.eval()
        averaged = optimise.averaged_weights(_local(self.weights()), _local(self.average))
        with averaged, torch.no_grad(), matmul_precision(self.options.matmul_precision):
            yield
        wrap.drop_gathered(self.network)


def assemble(
    config: NetworkConfig,
    options: Training,
    *,
    mesh: DeviceMesh,
    device: torch.device,
    seed: int | None,
    start: Network | None = None,
) -> Learner:
    """Build the parts, the same function on every layout.

    Args:
        config: the network.
        options: of the training: layout, precision, optimiser.
        mesh: of the ranks.
        device: of this rank.
        seed: of the initial parameters; None leaves them unset.
        start: a whole network whose parameters to begin with.

    Raises:
        ValueError: groups or heads that the channel ranks do not divide.
    """
    layout = options.layout
    placement = wrap.Placement(trunk=layout.trunk, data=layout.sharding, recompute=options.recompute)
    dtype = torch.float64 if options.precision == "float64" else torch.float32
    network = wrap.distribute(
        config, mesh=mesh, placement=placement, seed=seed, device=device, dtype=dtype, start=start
    )
    parameters = dict(network.named_parameters())
    buffers = float_buffers(network)
    kinds = {id(p): i for i, group in enumerate(wrap.parameter_groups(network)) for p in group}
    groups = optimise.parameter_groups(parameters, weight_decay=options.weight_decay, kinds=kinds)
    optimiser = torch.optim.AdamW(groups, lr=options.learning_rate, betas=options.betas, fused=True)
    state: Mapping[str, Tensor] = {**parameters, **buffers} if options.ema_decay else {}
    average = {name: t.detach().clone() for name, t in state.items()}
    return Learner(network, parameters, buffers, optimiser, average, mesh, device, dtype, options)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and floating-point buffers of a network by name: what is trained, averaged and saved."""
    return {name: p.detach() for name, p in network.named_parameters()} | float_buffers(network)


def float_buffers(network: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers that belong to a network's state, by name."""
    found = {}
    for path, module in network.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in module._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = buffer
    return found


def _local(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: local_tensor(tensor.detach()) for name, tensor in tensors.items()}
