"""One optimiser step: the same function in training and in the planner's rehearsal of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from model.parallel import launch, wrap
from model.parallel.mesh import data_rank
from model.training import optimise
from model.training.learner import Learner
from model.training.precision import matmul_precision
from model.training.task import B, PlannedTask


@dataclass(frozen=True)
class StepResult:
    """What a step found, equal on all ranks.

    Attributes:
        loss: of the global batch.
        gradient_norm: before clipping.
        stop: whether any rank was asked to end.
        seconds: those that rank 0 has trained for.
    """

    loss: float
    gradient_norm: float
    stop: bool
    seconds: float


class NotFiniteError(ValueError):
    """A loss or gradient that is not finite; the parameters are those before the step."""

    def __init__(self, result: StepResult) -> None:
        super().__init__(
            f"loss and gradient must be finite, got loss {result.loss:g} and gradient norm {result.gradient_norm:g}"
        )


def training_step(
    learner: Learner, task: PlannedTask[B], batch: B, *, step: int, stop: bool = False, seconds: float = 0.0
) -> StepResult:
    """Take one optimiser step on a global batch.

    Args:
        learner: of this rank.
        task: what is trained.
        batch: this data rank's part.
        step: steps done before; decides dropout and the learning rate.
        stop: whether this rank was asked to end.
        seconds: trained for before this step.

    Raises:
        NotFiniteError: on every rank, before the parameters are touched.
    """
    options, network, mesh = learner.options, learner.network, learner.mesh
    network.train()
    torch.manual_seed(optimise.step_seed(options.seed, step, data_rank=data_rank(mesh)))
    batch = batch.to(learner.device, learner.dtype)
    learner.optimiser.zero_grad(set_to_none=True)
    loss = torch.zeros((), dtype=torch.float64, device=learner.device)
    with matmul_precision(options.matmul_precision):
        for part in batch.split(options.micro_batch):
            share = task.loss(learner.predict, part, mesh=mesh) * (len(part) / len(batch))
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
            del share
    norm = wrap.gradient_norm(network, mesh=mesh).item()
    of_main = seconds if launch.is_main() else 0.0
    known = torch.stack([loss / mesh.size(), loss.new_tensor(float(stop)), loss.new_tensor(of_main)])
    value, asked, spent = launch.sum_over_ranks(known).tolist()
    result = StepResult(value, norm, asked > 0, spent)
    if not (math.isfinite(value) and math.isfinite(norm)):
        raise NotFiniteError(result)
    if norm > options.clip_norm:
        wrap.scale_gradients(network, options.clip_norm / norm)
    for group in learner.optimiser.param_groups:
        group["lr"] = optimise.scheduled_rate(options, step=step, seconds=spent)
    learner.optimiser.step()
    learner.after_step(step)
    return result
