"""A rank's training step without data: the same step as in training, by shape alone.

Contract: runs `training_step` twice and a validation, on a learner that is assembled as the trainer's. With fake
tensors and a pretended process group nothing is computed or allocated, whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any, Generic

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from model.costs.collectives import buffers
from model.costs.operators import Recorder, Work
from model.costs.parts import BATCHES, ELSEWHERE, OPTIMISER, Parts, in_order
from model.network import folded
from model.parallel import wrap
from model.parallel.allocations import Allocations
from model.parallel.collectives import local_tensor
from model.parallel.mesh import DATA, DeviceMesh, axis_size, build_mesh, channel_rank
from model.parallel.pretend import pretended_ranks
from model.training.learner import assemble
from model.training.prefetch import DEPTH
from model.training.step import training_step
from model.training.task import B, PlannedTask
from pipeline.sections import Training

_GPU_BLOCK = 512
"""A GPU's allocator gives out multiples of this many bytes."""


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
        parts: the peak once more, by what it belongs to: parts of the network (their parameters, gradients and
            activations), the optimiser (moments and averages), batches, buffers of communication, and what is left.
    """

    parameters: int
    gradients: int
    optimiser: int
    average: int
    batches: int
    activations: int
    peak: int
    parts: dict[str, int]

    def to_dict(self) -> dict[str, int]:
        """Bytes by kind, the peak last."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "parts"}


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Let the CPU allocate as a GPU would: slabs as large, and keys and values of attention in their own precision.

    Plain attention, which is what a CPU rehearses, turns bfloat16 to float32 first; the kernels of GPUs do not.
    """
    attention = torch.backends.cuda
    before = attention.fp16_bf16_reduction_math_sdp_allowed()  # type: ignore[no-untyped-call]
    attention.allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with folded.slabs_as_on_gpu():
            yield
    finally:
        attention.allow_fp16_bf16_reduction_math_sdp(before)


class Rehearsal(Generic[B]):
    """The state of a rank, as the trainer builds it.

    Args:
        task: what is trained.
        options: of the training.
        mesh: of its layout.
        device: where the rank works.
        seed: of the initial parameters; None leaves them unset.
        as_gpu: whether the CPU stands in for a GPU.
    """

    def __init__(
        self,
        task: PlannedTask[B],
        options: Training,
        *,
        mesh: DeviceMesh,
        device: torch.device,
        seed: int | None = 0,
        as_gpu: bool = False,
    ) -> None:
        self.task, self.options, self.mesh = task, options, mesh
        self.channels = wrap.plan_for(task.network, ranks=options.layout.channel).channels[channel_rank(mesh)]
        self.learner = assemble(task.network, options, mesh=mesh, device=device, seed=seed)
        self.samples = -(-options.batch_size // options.layout.data)
        self.batch = self.new_batch(self.samples)
        waiting = 0 if as_gpu or device.type == "cuda" else DEPTH
        self.waiting = [self.new_batch(self.samples) for _ in range(waiting)]

    def tell_apart(self, count: Allocations) -> None:
        """Let what is allocated from now on, and what is there already, count for parts of the network."""
        learner = self.learner
        parts = Parts(learner.network)
        for name, weight in learner.weights().items():
            count.assign([local_tensor(weight)], parts.of_parameter(name))
        count.assign(map(local_tensor, learner.average.values()), OPTIMISER)
        count.assign([t for batch in (self.batch, *self.waiting) for t in batch.tensors()], BATCHES)
        count.owner = parts.now
        parts.count_steps(learner.optimiser)

    def new_batch(self, samples: int) -> B:
        """A batch of this rank."""
        learner = self.learner
        return self.task.example(samples, channels=self.channels, device=learner.device, dtype=learner.dtype)

    @property
    def micro_batches(self) -> int:
        """Forward passes of a step."""
        return -(-self.samples // (self.options.micro_batch or self.samples))

    def step(self, *, micro_batches: int = 2) -> None:
        """One optimiser step; of the micro-batches only two, since from the second on they are alike."""
        size = self.options.micro_batch or self.samples
        training_step(self.learner, self.task, next(iter(self.batch.split(micro_batches * size))), step=1)

    def validate(self) -> None:
        """A forward pass with the averaged weights."""
        fixed = self.task.validation_samples()
        if fixed:
            part = -(-fixed // axis_size(self.mesh, DATA))
            with self.learner.evaluating():
                batch = self.new_batch(min(part, self.options.micro_batch or self.samples))
                self.task.loss(self.learner.predict, batch, mesh=self.mesh)

    def run(self) -> None:
        """Two steps, the second with the optimiser's state there, and a validation."""
        self.step()
        self.step()
        self.validate()

    def held(self) -> dict[str, int]:
        """Bytes between steps, by kind."""
        learner = self.learner
        kinds: dict[str, Sequence[Tensor]] = {
            "parameters": list(learner.weights().values()),
            "gradients": [p.grad for p in learner.parameters.values() if p.grad is not None],
            "optimiser": [v for state in learner.optimiser.state.values() for v in state.values() if v.ndim],
            "average": list(learner.average.values()),
            "batches": [t for batch in (self.batch, *self.waiting) for t in batch.tensors()],
        }
        return {kind: sum(local_tensor(t).nbytes for t in tensors) for kind, tensors in kinds.items()}


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal has found.

    Attributes:
        footprint: of the rank that needs most.
        work: of a step of that rank, all micro-batches; None where only memory was asked for.
        data: name of the process group of the data axis, None with one data rank.
    """

    footprint: Footprint
    work: Work | None
    data: str | None


def footprint(task: PlannedTask[Any], options: Training, *, device_type: str = "cpu") -> Footprint:
    """Memory of the rank that needs most, without allocating it; arguments and errors as for `rehearse`."""
    return rehearse(task, options, device_type=device_type, timed=False).footprint


def rehearse(task: PlannedTask[Any], options: Training, *, device_type: str = "cpu", timed: bool = True) -> Rehearsed:
    """Memory and work of the rank that needs most, without allocating or computing anything.

    Args:
        task: what is trained; no data need exist.
        options: of the training; its layout decides the number of ranks.
        device_type: "cpu" or "cuda". Without a GPU here, the CPU is used with a GPU's rules: larger
            slabs, blocks of 512 bytes, batches that wait elsewhere.
        timed: count what a step does too.

    Raises:
        ValueError: groups or heads that the layout does not divide.
    """
    layout = options.layout
    plan = wrap.plan_for(task.network, ranks=layout.channel)
    worst = max(range(layout.channel), key=lambda rank: len(plan.channels[rank]))
    as_gpu = device_type == "cuda" and not torch.cuda.is_available()
    device = torch.device("cpu" if as_gpu else device_type)
    with ExitStack() as stack:
        stack.enter_context(pretended_ranks(rank=worst, world_size=layout.world_size))
        mesh = build_mesh(channel=layout.channel, device_type=device.type)  # it needs its numbers, so no fake ones
        if as_gpu:
            stack.enter_context(as_on_gpu())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        block = _GPU_BLOCK if device_type == "cuda" else 1
        count = stack.enter_context(Allocations(device.type, block=block, owner=lambda: ELSEWHERE))
        rank = Rehearsal(task, options, mesh=mesh, device=device, seed=None, as_gpu=as_gpu)
        rank.tell_apart(count)
        watch = _Watch(staged=device_type == "cpu")
        count.watch = watch.see
        if layout.trunk != "replicated" or layout.sharding == "fsdp":
            rank.run()  # the first time DTensor works out shapes of whole tensors on the way, which are never there
            count.peak = 0
        rank.run()
        held = rank.held()
        rest = max(0, count.peak - sum(held.values()))
        found = Footprint(**held, activations=rest, peak=count.peak, parts=in_order(count.at_peak))
        data = mesh.get_group(DATA).group_name if layout.data > 1 else None
        return Rehearsed(found, _work(rank, watch, count) if timed else None, data)


class _Watch:
    """Shows every operation to a recorder, and tells the count of allocations of the buffers of collectives.

    Args:
        staged: whether the backend is gloo, which allocates beside the tensors of a collective; NCCL does not.
    """

    def __init__(self, *, staged: bool) -> None:
        self.staged, self.recorder = staged, Recorder()

    def see(self, func: Any, args: Any, named: Any, result: Any) -> tuple[int, list[Tensor]]:
        """Bytes beside the tensors of a collective, and which are its buffers."""
        collective = self.recorder.see(func, args, named, result)
        if collective is None:
            return 0, []
        return collective.staging if self.staged else 0, buffers(collective, args, result)


def _work(rank: Rehearsal[Any], watch: _Watch, count: Allocations) -> Work:
    """Of a step: the first micro-batch and what belongs to the step, and as often as needed what a second one adds."""
    works = []
    for micro_batches in (1, 2)[: rank.micro_batches]:
        watch.recorder, wrapped = Recorder(), count.wrapped
        rank.step(micro_batches=micro_batches)
        watch.recorder.work.wrapped = count.wrapped - wrapped
        works.append(watch.recorder.work)
    work = works[0]
    if len(works) == 2:
        first = Work()
        first.add(work)
        more = rank.micro_batches - 1
        work.add(works[1], times=more)
        work.add(first, times=-more)
    return work
