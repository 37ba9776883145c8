"""A rank's training step without data: the model, the loss, the optimiser and the batches that wait, by shape alone.

Contract: does what `Trainer` does to memory in two steps and a validation, in the same order. With fake
tensors and a pretended process group nothing is computed or allocated, whatever the size.

Letters: B samples of this data rank, C input channels of this rank, V predicted channels, K of them read here, H/W.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.dchag import DCHAGConfig
from model.network import folded
from model.parallel import wrap
from model.parallel.allocations import Allocations
from model.parallel.collectives import local_tensor
from model.parallel.mesh import CHANNEL, DATA, DeviceMesh, axis_size, build_mesh, channel_rank
from model.parallel.pretend import pretended_ranks
from model.parallel.targets import whole_target
from model.training import optimise
from model.training.learner import assemble
from model.weather.architecture import model_config
from model.weather.loss import weighted_mse
from pipeline.weather.config import WeatherConfig

_GPU_BLOCK = 512
"""A GPU's allocator gives out multiples of this many bytes."""
_WAITING = 3
"""Batches beside the one in use: those made or waiting at a time (`Prefetch`)."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of one rank.

    Attributes:
        parameters: held between steps.
        gradients: the same, after backward.
        optimiser: both moments of Adam.
        average: moving average of the parameters.
        batches: samples on the device.
        activations: everything else at the peak: what is kept for backward, and temporary tensors.
        peak: sum of all.
    """

    parameters: int
    gradients: int
    optimiser: int
    average: int
    batches: int
    activations: int
    peak: int

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


class Rehearsal:
    """The state of a rank, as the trainer builds it.

    Args:
        config: the experiment.
        mesh: of its layout.
        device: where the rank works.
        seed: of the initial parameters; None leaves them unset.
        as_gpu: whether the device stands for a GPU.
    """

    def __init__(
        self,
        config: WeatherConfig,
        *,
        mesh: DeviceMesh,
        device: torch.device,
        seed: int | None = 0,
        as_gpu: bool = False,
    ) -> None:
        options = config.training
        self.config, self.device, self.mesh = config, device, mesh
        self.shape = architecture(config)
        self.plan = wrap.plan_for(self.shape, ranks=options.layout.channel)
        learner = assemble(self.shape, options, mesh=self.mesh, device=device, seed=seed)
        self.model, self.parameters, self.dtype = learner.model, learner.parameters, learner.dtype
        self.optimiser, self.average = learner.optimiser, learner.average
        self.area_HW = torch.ones(self.shape.image, device=device)
        self.samples = -(-options.batch_size // options.layout.data)
        self.batch = self.new_batch(self.samples)
        self.waiting = [self.new_batch(self.samples) for _ in range(0 if as_gpu or device.type == "cuda" else _WAITING)]

    def new_batch(self, samples: int) -> tuple[Tensor, Tensor]:
        """Input (B, C, H, W) and target (B, K, H, W) of this rank."""
        own = self.plan.channels[channel_rank(self.mesh)]
        read = [name for name in own if name in set(self.shape.out_channels)]
        sizes = ((samples, len(names), *self.shape.image) for names in (own, read))
        x, target = (torch.full(size, 0.5, dtype=self.dtype, device=self.device) for size in sizes)
        return x, target

    def step(self) -> None:
        """One optimiser step."""
        options = self.config.training
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        x, target = self.batch
        size = options.micro_batch or self.samples
        for first in range(0, min(self.samples, 2 * size), size):  # from the second on they are alike
            rows = slice(first, first + size)
            with self._autocast():
                prediction = self.model(x[rows], torch.ones(len(x[rows]), device=self.device))
            loss = weighted_mse(prediction, self._whole(target[rows]), area_HW=self.area_HW)
            loss.backward()  # type: ignore[no-untyped-call]
            del prediction, loss
        norm = wrap.gradient_norm(self.model, mesh=self.mesh).item()
        wrap.scale_gradients(self.model, 1.0 / (1.0 + norm))
        self.optimiser.step()
        if self.average:
            optimise.update_average(_local(self.average), _local(self.parameters), decay=0.9, step=1)

    @torch.no_grad()
    def validate(self) -> None:
        """A forward pass with the averaged weights."""
        if not self.config.data.splits.validation:
            return
        options = self.config.training
        part = -(-options.validation_samples // axis_size(self.mesh, DATA))
        at_once = options.micro_batch or self.samples
        self.model.eval()
        with optimise.averaged_weights(_local(self.parameters), _local(self.average)), self._autocast():
            x, target = self.new_batch(min(part, at_once))
            self.model(x, torch.ones(len(x), device=self.device))
            self._whole(target)
        wrap.drop_gathered(self.model)

    def run(self) -> None:
        """Two steps, the second with the optimiser's state there, and a validation."""
        self.step()
        self.step()
        self.validate()

    def held(self) -> dict[str, int]:
        """Bytes between steps, by kind."""
        moments = [v for state in self.optimiser.state.values() for v in state.values() if v.ndim]
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        waiting = [t for batch in [self.batch, *self.waiting] for t in batch]
        kinds: dict[str, Sequence[Tensor]] = {
            "parameters": list(self.parameters.values()), "gradients": gradients, "optimiser": moments,
            "average": list(self.average.values()), "batches": waiting,
        }  # fmt: skip
        return {kind: sum(local_tensor(t).nbytes for t in tensors) for kind, tensors in kinds.items()}

    def _whole(self, target: Tensor) -> Tensor:
        group = self.mesh.get_group(CHANNEL)
        return whole_target(target, plan=self.plan, channels=self.shape.out_channels, group=group)

    def _autocast(self) -> Any:
        if self.config.training.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()


def architecture(config: WeatherConfig) -> DCHAGConfig:
    """The model of an experiment whose store need not exist."""
    channels = config.data.channels
    return model_config(
        config.model, channels=[c.name for c in channels.dynamic], static_channels=[c.name for c in channels.static],
        image=config.data.regrid.grid.shape,
    )  # fmt: skip


def footprint(config: WeatherConfig, *, device_type: str = "cpu") -> Footprint:
    """Memory of the rank that needs most, without allocating it.

    Args:
        config: the experiment; its layout decides the number of ranks.
        device_type: "cpu" or "cuda". Without a GPU here, one is stood in for by the CPU with a GPU's rules: larger
            slabs, blocks of 512 bytes, batches that wait elsewhere.

    Raises:
        ValueError: groups or heads that the layout does not divide.
    """
    layout = config.training.layout
    plan = wrap.plan_for(architecture(config), ranks=layout.channel)
    worst = max(range(layout.channel), key=lambda rank: len(plan.channels[rank]))
    as_gpu = device_type == "cuda" and not torch.cuda.is_available()
    device = torch.device("cpu" if as_gpu else device_type)
    with ExitStack() as stack:
        stack.enter_context(pretended_ranks(rank=worst, world_size=layout.world_size))
        mesh = build_mesh(channel=layout.channel, device_type=device.type)  # it needs its numbers, so no fake ones
        if as_gpu:
            stack.enter_context(folded.slabs_as_on_gpu())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        count = stack.enter_context(Allocations(device.type, block=_GPU_BLOCK if device_type == "cuda" else 1))
        rank = Rehearsal(config, mesh=mesh, device=device, seed=None, as_gpu=as_gpu)
        if layout.trunk != "replicated" or layout.sharding == "fsdp":
            rank.run()  # the first time DTensor works out shapes of whole tensors on the way, which are never there
            count.peak = 0
        rank.run()
        held = rank.held()
        return Footprint(**held, activations=max(0, count.peak - sum(held.values())), peak=count.peak)


def _local(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: local_tensor(tensor.detach()) for name, tensor in tensors.items()}
