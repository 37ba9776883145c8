"""The one place that decides how a network lies on the mesh.

Contract: `distribute(config, mesh=..., placement=...)` gives the rank's part of a network. It names no part of one:
what may be cut, and how, is what the network declares (model/network/cut.py). Names and meaning of parameters are those
of one rank. On the channel axis a rank holds the channels and units of its groups (model/parallel/channels.py); what
follows the one gather is, by `Placement.trunk`:

- "replicated": every channel rank computes all of it. Gradients: every rank gets the whole gradient of every
  replicated parameter, the same on all ranks, without communication.
- "tensor": the trunk's matrices are cut by heads and hidden features (DTensor); activations between them are
  replicated. Gradients of cut parameters: the rank's rows or columns, whole. Of the rest: as replicated.
  DTensor sums the gradient of the trunk's input over ranks, so what comes back to the gather is whole.
- "sequence": as "tensor", and between the matrices activations are cut by patches. Gradients of the norms are
  partial and summed after backward; what comes back to the gather is whole. What modulates them (a condition of the
  sample) is computed on every rank, and its gradient summed over ranks in backward.

So in every layout the gather's backward keeps the own slice and adds nothing, and a parameter held by several
channel ranks gets one and the same gradient on all of them. Where a network predicts only the channels it holds, it
says so by `spread`: what follows has the gradients of a rank's own outputs, and they are summed over ranks before it.
On the data axis: FSDP2 cuts every parameter by rows, or DDP replicates; gradients are the mean over data ranks of the
gradients of their losses.

Letters: R ranks of the channel axis.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    PrepareModuleOutput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from model.network.cut import Network, NetworkConfig, Stack
from model.network.tokenise import Rows
from model.parallel.averaging import GradientAverage
from model.parallel.channels import ChannelPlan, channel_plan
from model.parallel.collectives import (
    complete_partial_gradients,
    gather_forward_slice_backward,
    keep_forward_sum_backward,
    local_tensor,
    sum_forward_keep_backward,
)
from model.parallel.mesh import CHANNEL, DATA, axis_size, channel_rank

TRUNKS = ("replicated", "tensor", "sequence")
DATAS = ("fsdp", "ddp")


class LayoutError(ValueError):
    """A trunk that the channel ranks do not divide."""


@dataclass(frozen=True)
class Placement:
    """How a network lies on the mesh, beside the numbers of ranks.

    Args:
        trunk: "replicated", "tensor" or "sequence", on the channel axis.
        data: "fsdp" or "ddp", on the data axis.
        recompute: activation checkpointing.

    Raises:
        ValueError: a name that is none of these.
    """

    trunk: str = "replicated"
    data: str = "fsdp"
    recompute: bool = False

    def __post_init__(self) -> None:
        for name, known in (("trunk", TRUNKS), ("data", DATAS)):
            if getattr(self, name) not in known:
                raise ValueError(f"placement {name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


def plan_for(config: NetworkConfig, *, ranks: int) -> ChannelPlan:
    """The channel plan of a config: which channels a rank has to read."""
    return channel_plan(config.channel_tree(), ranks=ranks)


def distribute(
    config: NetworkConfig,
    *,
    mesh: DeviceMesh,
    placement: Placement | None = None,
    seed: int | None = 0,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    start: Network | None = None,
) -> Network:
    """This rank's part of the model, ready to train.

    Args:
        config: the function.
        mesh: from `build_mesh`.
        placement: how it lies on the mesh; by default a replicated trunk and FSDP.
        seed: of the initial parameters, which do not depend on mesh or placement; None leaves them unset.
        device: where parameters live, the CPU by default.
        dtype: of the parameters.
        start: the whole model, whose parameters are the initial ones instead of those of the seed.

    Raises:
        ValueError: groups or heads that the channel ranks do not divide.
    """
    placement = placement or Placement()
    ranks = axis_size(mesh, CHANNEL)
    _check_stacks(config, placement, ranks)
    plan = plan_for(config, ranks=ranks)
    model = config.build(groups=plan.groups[channel_rank(mesh)], seed=seed)
    if seed is None and start is None:
        _place_unset(model, device=device, dtype=dtype)
    else:
        if start is not None:
            _copy_held(start, model)
        model = model.to(device=device, dtype=dtype)
    return cut(model, plan=plan, mesh=mesh, placement=placement)


def cut(model: Network, *, plan: ChannelPlan, mesh: DeviceMesh, placement: Placement) -> Network:
    """Applies a placement, in place, to a network that holds the groups of this rank."""
    if axis_size(mesh, CHANNEL) > 1:
        model.gather = ChannelGather(plan, mesh.get_group(CHANNEL))
        model.spread = partial(keep_forward_sum_backward, group=mesh.get_group(CHANNEL))
        model.total = partial(sum_forward_keep_backward, group=mesh.get_group(CHANNEL))
    if placement.trunk != "replicated":
        for stack in model.stacks():
            _cut_stack(stack, mesh[CHANNEL], sequence=placement.trunk == "sequence")
    model.set_recompute(placement.recompute)
    if placement.data == "fsdp":
        _fully_shard(model, mesh[DATA])
    else:
        complete_partial_gradients(model)
        GradientAverage(model, group=mesh.get_group(DATA))
    return model


@torch.no_grad()
def _copy_held(whole: Network, part: Network) -> None:
    """Parameters of the whole model into one that holds some groups."""
    rows, values = part.cut_rows(), dict(whole.named_parameters())
    for name, parameter in part.named_parameters():
        parameter.copy_(values[name][list(rows[name].rows)] if name in rows else values[name])


def _place_unset(model: Network, *, device: torch.device | None, dtype: torch.dtype) -> None:
    """Parameters without values where they shall live: nothing is copied, and fake ones stay fake."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty_like(parameter, device=device, dtype=dtype)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


class ChannelGather:
    """Tokens of this rank's groups to those of all groups, in group order.

    Args:
        plan: what every rank sends.
        group: ranks of the channel axis.
    """

    def __init__(self, plan: ChannelPlan, group: dist.ProcessGroup) -> None:
        self.sizes, self.group = plan.tokens, group
        self.rank = dist.get_rank(group)
        self.order = Rows(plan.order, total=len(plan.order))

    def __call__(self, tokens_KND: Tensor) -> Tensor:
        """Cut (K, N, D) to replicated (T, N, D)."""
        if len(tokens_KND) != self.sizes[self.rank]:
            raise ValueError(
                f"channel rank {self.rank} must send {self.sizes[self.rank]} tokens per patch, got {len(tokens_KND)}: "
                "a group is left without channels; forecast with a subset of the channels on one channel rank"
            )
        return self.order.take(gather_forward_slice_backward(tokens_KND, sizes=self.sizes, group=self.group))


def parameter_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters by kind of tensor and mesh: an optimizer group must not mix them (fused and foreach steps fail)."""
    kinds: dict[object, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        kind = parameter.device_mesh if isinstance(parameter, DTensor) else None
        kinds.setdefault(kind, []).append(parameter)
    return list(kinds.values())


@torch.no_grad()
def gradient_norm(model: Network, *, mesh: DeviceMesh) -> Tensor:
    """Norm of the gradient of the whole model, the same on every rank and for every layout.

    Every rank adds the squares of what it holds, divided by the number of ranks that hold the same; one
    all-reduce of a scalar.
    """
    own = set(model.cut_rows())
    square = torch.zeros((), dtype=torch.float64, device=next(model.parameters()).device)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            cut_axes = _cut_axes(parameter.grad) | ({CHANNEL} if name in own else set())
            copies = math.prod(axis_size(mesh, axis) for axis in (DATA, CHANNEL) if axis not in cut_axes)
            square += torch.linalg.vector_norm(local_tensor(parameter.grad)).double().square() / copies
    dist.all_reduce(square)
    return square.sqrt()


@torch.no_grad()
def scale_gradients(model: nn.Module, factor: float) -> None:
    """Multiplies every gradient, in place."""
    for parameter in model.parameters():
        if parameter.grad is not None:
            local_tensor(parameter.grad).mul_(factor)


def drop_gathered(model: nn.Module) -> None:
    """Lets go of whole parameters that FSDP keeps after a forward without backward.

    The outermost group stays gathered until a backward, and the next forward would use it as it is: values written
    to the shards in between (averages for a validation, and the parameters put back) would not be seen.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _cut_axes(tensor: Tensor) -> set[str]:
    """Axes of the mesh along which ranks hold different parts of a DTensor."""
    if not isinstance(tensor, DTensor):
        return set()
    names = tensor.device_mesh.mesh_dim_names
    assert names is not None
    assert not any(isinstance(placement, Partial) for placement in tensor.placements)
    return {name for name, placement in zip(names, tensor.placements, strict=True) if not placement.is_replicate()}


def _check_stacks(config: NetworkConfig, placement: Placement, ranks: int) -> None:
    if placement.trunk == "replicated":
        return
    sizes = config.stack_sizes()
    if not sizes:
        raise LayoutError(f"this network has no trunk that could be cut, got training.layout.trunk: {placement.trunk}")
    if any(size % ranks for size in sizes.values()):
        raise LayoutError(
            f"{' and '.join(sizes)} must be multiples of the channel ranks for a {placement.trunk} trunk, "
            f"got {' and '.join(map(str, sizes.values()))} on {ranks} ranks; choose another number of heads or the "
            "replicated trunk"
        )


def _cut_stack(stack: Stack, mesh: DeviceMesh, *, sequence: bool) -> None:
    """Heads and hidden features by ranks; with `sequence` also the patches between the matrices."""
    # On the CPU every rank draws the masks of its own patches or features, which is as good as other masks.
    warnings.filterwarnings("ignore", message="DTensor random operators may not have complete support")
    between = Shard(1) if sequence else Replicate()
    plan: dict[str, ParallelStyle] = {name: ColwiseParallel(input_layouts=between) for name in stack.columns}
    plan |= {name: RowwiseParallel(output_layouts=between, use_local_output=not sequence) for name in stack.rows}
    if sequence:
        plan |= {name: SequenceParallel() for name in stack.norms}
        # whole on every rank; the gradients of the ranks' patches are added up on the way back
        whole = PrepareModuleOutput(
            output_layouts=Replicate(), desired_output_layouts=Replicate(), use_local_output=False
        )
        plan |= dict.fromkeys(stack.modulations, whole)
    for block in stack.blocks:
        parallelize_module(block, mesh, plan)
    if sequence:
        enter = PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(1), use_local_output=False)
        leave = PrepareModuleOutput(output_layouts=Shard(1), desired_output_layouts=Replicate(), use_local_output=True)
        parallelize_module(stack.module, mesh, enter)
        parallelize_module(stack.module, mesh, {name: SequenceParallel() for name in stack.last})
        parallelize_module(stack.module, mesh, leave)


def _fully_shard(model: Network, mesh: DeviceMesh) -> None:
    units = model.units()
    for unit in units:
        fully_shard(unit.module, mesh=mesh)
    for unit in units:
        for method in unit.methods:
            register_fsdp_forward_method(unit.module, method)
    fully_shard(model, mesh=mesh)
