"""What the distributed tests run on every rank: the same training on one rank and on many, compared.

Letters: B batch, C channels, K channels of a rank, H/W grid.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial
from torch.utils._python_dispatch import TorchDispatchMode

from model.dchag import DCHAG, DCHAGConfig
from model.network.cut import CutRows
from model.parallel.mesh import CHANNEL, DATA, axis_size, build_mesh, channel_rank, data_rank
from model.parallel.wrap import ChannelGather, Placement, cut, gradient_norm, parameter_groups, plan_for
from model.weather.loss import weighted_mse

NAMES = {
    "allgather_base": "all_gather",
    "allgather": "all_gather",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_base": "reduce_scatter",
    "reduce_scatter_tensor": "reduce_scatter",
    "allreduce": "all_reduce",
}
VARIABLES = ("z", "z", "z", "t", "q", "u", "z")  # uneven groups by variable
STEPS = 3
BATCH = 4


@dataclass(frozen=True)
class Case:
    """One comparison: a config, the ranks of the channel axis, a layout."""

    channels: int
    channel_ranks: int
    layout: Placement = field(default_factory=Placement)
    groups: Any = 12
    tree: Any = "Tree0"
    unit: str = "C"
    form: str = "fused"
    image: tuple[int, int] = (4, 12)
    gather: str = "slice"
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For the names of tests."""
        parts = (
            self.channels,
            self.channel_ranks,
            self.layout.trunk,
            self.layout.data,
            self.tree,
            self.unit,
            self.form,
            *self.more.values(),
        )
        return "-".join(str(part).replace(" ", "") for part in parts)

    @property
    def config(self) -> DCHAGConfig:
        names = tuple(f"{VARIABLES[i % len(VARIABLES)]}{i}" for i in range(self.channels))
        return DCHAGConfig(
            channels=names,
            out_channels=names[:3],
            image=self.image,
            width=24,
            depth=2,
            heads=12,
            mlp_ratio=2.0,
            dropout=0.0,
            groups=self.groups,
            tree=self.tree,
            unit=self.unit,
            channel_stage=self.form,
            **self.more,
        )


@dataclass(frozen=True)
class Difference:
    """Largest relative differences to one rank, and what was communicated."""

    loss: float
    gradients: dict[str, float]
    parameters: dict[str, float]
    moves: dict[str, float]
    norm: float
    forward: dict[str, int]
    backward: dict[str, int]
    replicas_agree: bool

    @property
    def worst(self) -> float:
        return max(self.loss, self.norm, *self.gradients.values(), *self.parameters.values())

    def in_stage(self) -> list[float]:
        """Gradient differences of what comes before the gather."""
        return [difference for name, difference in self.gradients.items() if name.startswith("stage.")]

    def after_gather(self) -> list[float]:
        """Gradient differences of what comes after the gather."""
        return [difference for name, difference in self.gradients.items() if not name.startswith("stage.")]


def compare_all(cases: list[Case]) -> list[Difference]:
    """`compare` for many cases in one process group."""
    return [compare(case) for case in cases]


def compare(case: Case) -> Difference:
    """Trains on one rank and on the mesh from the same start with the same samples."""
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)  # full_tensor on two axes
    config = case.config
    mesh = build_mesh(channel=case.channel_ranks)
    x, lead, target, area = samples(config)
    whole = scrambled(DCHAG(config).double())
    start = {name: p.detach().clone() for name, p in whole.named_parameters()}
    part = part_of(whole, case, mesh)

    mine = slice(
        data_rank(mesh) * BATCH // axis_size(mesh, DATA), (data_rank(mesh) + 1) * BATCH // axis_size(mesh, DATA)
    )
    rows = [config.channels.index(name) for name in part.channels_held]
    step_part = _stepper(part, x[mine][:, rows], lead[mine], target[mine], area)
    step_whole = _stepper(whole, x, lead, target, area)

    with CountCollectives() as forward:
        part_loss = step_part.loss()
    with CountCollectives() as backward:
        part_loss.backward()
    whole_loss = step_whole.loss()
    whole_loss.backward()
    mean_loss = part_loss.detach().clone()
    torch.distributed.all_reduce(mean_loss)
    mean_loss /= torch.distributed.get_world_size()

    gradients = _differences(part, lambda p: p.grad, dict(whole.named_parameters()), lambda p: p.grad)
    agree = _replicas_agree(part, mesh)
    norm = gradient_norm(part, mesh=mesh)
    whole_norm = torch.stack([p.grad.square().sum() for p in whole.parameters()]).sum().sqrt()
    for step in range(STEPS):
        for stepper in (step_part, step_whole):
            if step:
                stepper.loss().backward()
            stepper.optimise()
    right = dict(whole.named_parameters())
    parameters = _differences(part, lambda p: p.detach(), right, lambda p: p.detach())
    moves = _differences(part, lambda p: p.detach(), right, lambda p: p.detach(), start=start)
    return Difference(
        loss=((mean_loss - whole_loss) / whole_loss).abs().item(),
        gradients=gradients,
        parameters=parameters,
        moves=moves,
        norm=((norm - whole_norm) / whole_norm).abs().item(),
        forward=dict(forward.counts),
        backward=dict(backward.counts),
        replicas_agree=agree,
    )


def samples(config: DCHAGConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A global batch: input, lead times, target, cell areas, the same on every rank."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(BATCH, len(config.channels), *config.image, generator=generator, dtype=torch.float64)
    target = torch.randn(BATCH, len(config.out_channels), *config.image, generator=generator, dtype=torch.float64)
    lead = torch.tensor([24.0, 72.0, 168.0, 720.0], dtype=torch.float64)
    area = torch.rand(config.image, generator=generator, dtype=torch.float64) + 0.5
    return x, lead, target, area


def scrambled(model: DCHAG) -> DCHAG:
    """Random values everywhere, so that no gradient is zero and no parameter equals another."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = 0.5 * (parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0)
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
    return model


def part_of(whole: DCHAG, case: Case, mesh: DeviceMesh) -> DCHAG:
    """This rank's part of a model, by rows, and its layout."""
    plan = plan_for(case.config, ranks=axis_size(mesh, CHANNEL))
    part = DCHAG(case.config, groups=plan.groups[channel_rank(mesh)], seed=None).double()
    values, cut_rows = dict(whole.named_parameters()), part.cut_rows()
    with torch.no_grad():
        for name, parameter in part.named_parameters():
            parameter.copy_(_rows(cut_rows, name, values[name]))
    cut(part, plan=plan, mesh=mesh, placement=case.layout)
    if case.gather == "sum":
        assert isinstance(part.gather, ChannelGather)
        part.gather = SummingGather(part.gather)
    return part


class CountCollectives(TorchDispatchMode):
    """Counts the collectives issued inside, forward or backward, by DTensor, FSDP or by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        if func.namespace in ("c10d", "_c10d_functional", "_c10d_functional_autograd"):
            name = func._schema.name.split("::")[1].strip("_")
            if name not in ("wait_tensor", "wrap_tensor_autograd"):
                self.counts[NAMES.get(name, name)] += 1
        return func(*args, **(kwargs or {}))


class SummingGather:
    """The wrong collective: same forward, but its backward adds the gradients of all ranks.

    That is what torch.distributed.nn.functional.all_gather does (by scatters, which on gloo fail in a subgroup).
    """

    def __init__(self, right: ChannelGather) -> None:
        self.right = right

    def __call__(self, tokens: Tensor) -> Tensor:
        gathered = self.right(tokens)
        if gathered.requires_grad:
            gathered.register_hook(self._sum)
        return gathered

    def _sum(self, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total, group=self.right.group)
        return total


@dataclass
class _Stepper:
    model: nn.Module
    loss: Callable[[], Tensor]
    optimizer: torch.optim.Optimizer

    def optimise(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def _stepper(model: DCHAG, x: Tensor, lead: Tensor, target: Tensor, area: Tensor) -> _Stepper:
    weights = torch.arange(1.0, 1.0 + target.shape[1], dtype=torch.float64)

    def loss() -> Tensor:
        return weighted_mse(model(x, lead), target, area_HW=area, channel_V=weights)

    groups: list[dict[str, Any]] = [{"params": parameters} for parameters in parameter_groups(model)]
    return _Stepper(model, loss, torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-2))


def _rows(cut_rows: Mapping[str, CutRows], name: str, value: Tensor) -> Tensor:
    rows = cut_rows.get(name)
    if rows is None:
        return value
    assert value.shape[0] == rows.total
    return value[list(rows.rows)]


def _differences(
    part: DCHAG, of_part: Any, whole: dict[str, Any], of_whole: Any, *, start: dict[str, Tensor] | None = None
) -> dict[str, float]:
    """Largest difference of each tensor relative to its largest value, or to its largest change since the start."""
    found, cut_rows = {}, part.cut_rows()
    for name, parameter in part.named_parameters():
        value, right = of_part(parameter), _rows(cut_rows, name, of_whole(whole[name]))
        assert not (isinstance(value, DTensor) and any(isinstance(p, Partial) for p in value.placements)), name
        scale = right - _rows(cut_rows, name, start[name]) if start is not None else right
        found[name] = ((_whole(value) - right).abs().max() / scale.abs().max()).item()
    return found


def _replicas_agree(part: DCHAG, mesh: DeviceMesh) -> bool:
    """Whether what every channel rank holds has, bit for bit, one gradient on all of them."""
    cut_names = part.cut_rows()
    digests: list[Any] = [None] * axis_size(mesh, CHANNEL)
    mine = {
        name: hashlib.sha256(_whole(p.grad).numpy().tobytes()).hexdigest()
        for name, p in part.named_parameters()
        if name not in cut_names
    }
    torch.distributed.all_gather_object(digests, mine, group=mesh.get_group(CHANNEL))
    return all(digest == mine for digest in digests)


def _whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
