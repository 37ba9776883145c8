"""Memory and time of a rank's training step at sizes that do not fit here: rehearsed shallow, continued in depth.

Contract: two optimiser steps of the rank that needs most are rehearsed by shape alone, with one and with two trunk
blocks and with two numbers of samples. All blocks are alike, so operations and collectives grow by the same with every
block, and so does the peak of memory within each quarter of a step (channel stage and trunk, forward and backward):
the peak of the step is the largest of the four. With the batch all of them grow linearly. What a block adds is taken
from one light method and used for all methods with the same trunk.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.support.scale import FUSED, MACHINE, USABLE, Forecast, Setting
from model.costs.collectives import ALL_REDUCE, Collective, buffers
from model.costs.operators import Recorder, Work
from model.costs.roofline import collective_seconds, hidden_seconds, host_seconds, step_time
from model.parallel.allocations import Allocations
from model.parallel.mesh import CHANNEL, DATA, build_mesh
from model.parallel.pretend import pretended_ranks
from model.training.rehearsal import Rehearsal, as_on_gpu

QUARTERS = ("stage forward", "trunk forward", "trunk backward", "stage backward")
BATCHES = (4, 8)
"""Samples of the rehearsals from which others follow; (1, 2) where no more fit."""
MOST = 64
"""Samples of a data rank that are tried at most."""


@dataclass(frozen=True)
class Shallow:
    """What a rehearsal found.

    Attributes:
        work: of the step; groups of collectives are called "channel" and "data".
        peaks: bytes by part, at the peak of each quarter.
        held: bytes of parameters, gradients and optimiser between steps.
    """

    work: Work
    peaks: tuple[dict[str, float], ...]
    held: float


@dataclass(frozen=True)
class Step:
    """A modelled step.

    Attributes:
        setting: what was trained.
        batch: samples of a data rank.
        parts: bytes of a rank at the peak, by part.
        held: bytes between steps.
        seconds: of the step.
        waiting: seconds of it spent in collectives.
        sent: bytes that a rank sends in a step.
        flops: of a rank.
    """

    setting: Setting
    batch: int
    parts: dict[str, float]
    held: float
    seconds: float
    waiting: float
    sent: float
    flops: float

    @property
    def peak(self) -> float:
        """Bytes of a rank."""
        return sum(self.parts.values())

    @property
    def per_device(self) -> float:
        """Samples a second and device."""
        return self.batch * self.setting.data / self.seconds / self.setting.ranks

    def row(self) -> dict[str, Any]:
        """Plain values."""
        setting = self.setting
        return {
            "method": setting.method.name, "size": setting.size, "channels": setting.channels,
            "channel_ranks": setting.channel, "data_ranks": setting.data, "sharding": setting.sharding,
            "recompute": setting.recompute, "batch": self.batch, "peak_GB": round(self.peak / 1e9, 2),
            "held_GB": round(self.held / 1e9, 2), "step_s": round(self.seconds, 4),
            "waiting_s": round(self.waiting, 4), "sent_GB": round(self.sent / 1e9, 3),
            "samples_per_s_and_device": round(self.per_device, 4),
            "TFLOP_per_s_and_device": round(self.flops / self.seconds / 1e12, 1),
            "parts_GB": {part: round(value / 1e9, 2) for part, value in self.parts.items() if value > 5e6},
        }  # fmt: skip


class Model:
    """Steps of a setting with any batch.

    Args:
        setting: what is trained.
        batches: samples of the rehearsals.
    """

    def __init__(self, setting: Setting, batches: tuple[int, int] = BATCHES) -> None:
        self.setting, self.batches = setting, batches
        light = replace(setting, method=FUSED["L"], channels=64 * setting.channel, groups=None)
        self._deep = [_deeper(setting, light, batch) for batch in batches]

    def at(self, batch: int, *, data: int | None = None) -> Step:
        """The step with so many samples for each data rank.

        Args:
            batch: samples.
            data: data ranks, where not those rehearsed: collectives then cross so many; bytes of a rank stay, which
                is exact for "ddp" and an upper bound for more ranks with "fsdp".
        """
        low, high = self._deep
        share = (batch - self.batches[0]) / (self.batches[1] - self.batches[0])
        quarters = [_mix(a, b, share) for a, b in zip(low.peaks, high.peaks, strict=True)]
        parts = max(quarters, key=lambda quarter: sum(quarter.values()))
        setting = self.setting if data is None else replace(self.setting, data=data)
        times = [_times(found.work, setting) for found in self._deep]
        operations, host, waiting, sums, shards, sent, flops = (
            a + share * (b - a) for a, b in zip(*times, strict=True)
        )
        waiting += sums + shards - hidden_seconds(operations, sums=sums, shards=shards)
        seconds = operations + max(0.0, host - operations) + waiting
        return Step(setting, batch, parts, low.held, seconds, waiting, sent, flops)

    def largest(self, *, usable: float = USABLE, data: int | None = None) -> Step | None:
        """With as many samples as fit; None where not even one does."""
        fits = [batch for batch in range(1, MOST + 1) if self.at(batch).peak <= usable]
        return self.at(fits[-1], data=data) if fits else None


@cache
def model_of(setting: Setting, batches: tuple[int, int] = BATCHES) -> Model:
    """The model of a setting, rehearsed once."""
    return Model(setting, batches)


def best(setting: Setting, *, batch: int | None = None) -> Step | None:
    """With the batch, or as many samples as fit; recomputed only where one sample does not fit otherwise."""
    for recompute in (False, True):
        model = model_of(replace(setting, recompute=recompute))
        step = model.largest() if batch is None else model.at(batch)
        if step is not None and step.peak <= USABLE:
            return step
    return None


def _deeper(setting: Setting, light: Setting, batch: int) -> Shallow:
    """One block rehearsed, and as many more as the trunk has."""
    more = setting.depth - 1
    one, (first, second) = _shallow(setting, 1, batch), (_shallow(light, depth, batch) for depth in (1, 2))
    work = Work()
    work.add(one.work)
    work.add(second.work, times=more)
    work.add(first.work, times=-more)
    peaks = tuple(
        {part: own.get(part, 0.0) + more * (b.get(part, 0.0) - a.get(part, 0.0)) for part in own | b}
        for own, a, b in zip(one.peaks, first.peaks, second.peaks, strict=True)
    )
    return Shallow(work, peaks, one.held + more * (second.held - first.held))


@cache
def _shallow(setting: Setting, depth: int, batch: int) -> Shallow:
    options, layout = setting.options(batch=batch), setting.options(batch=batch).layout
    with ExitStack() as stack:
        stack.enter_context(pretended_ranks(rank=0, world_size=layout.world_size))
        mesh = build_mesh(channel=layout.channel)
        names = {mesh.get_group(axis).group_name: axis for axis in (CHANNEL, DATA)}
        stack.enter_context(as_on_gpu())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        count = stack.enter_context(Allocations("cpu", block=512))
        task = Forecast(setting.network(depth=depth))
        rank = Rehearsal(task, options, mesh=mesh, device=torch.device("cpu"), seed=None, as_gpu=True)
        rank.tell_apart(count)
        recorder = Recorder()

        def watch(func: Any, args: Any, named: Any, result: Any) -> tuple[int, list[Tensor]]:
            collective = recorder.see(func, args, named, result)
            return 0, [] if collective is None else buffers(collective, args, result)

        count.watch = watch
        quarters = _Quarters(count, rank)
        rank.step()  # the first: states of the optimiser appear, DTensor works out shapes
        quarters.found.clear()
        recorder.work, wrapped = Work(), count.wrapped
        rank.step()
        quarters.end()
        recorder.work.wrapped = count.wrapped - wrapped
        work = recorder.work
        work.collectives = {replace(c, group=names.get(c.group, c.group)): n for c, n in work.collectives.items()}
        return Shallow(work, tuple(quarters.found), float(sum(rank.held().values()) - rank.held()["batches"]))


class _Quarters:
    """Notes the peak by part of each quarter of a step."""

    def __init__(self, count: Allocations, rank: Rehearsal[Any]) -> None:
        self.count, self.found = count, list[dict[str, float]]()
        network: Any = rank.learner.network
        network.trunk.register_forward_pre_hook(self._into_trunk, prepend=True)
        loss = rank.task.loss

        def ended(*given: Any, **named: Any) -> Tensor:
            self.count.peak = 0  # gradients of the step before are gone
            value = loss(*given, **named)
            self.end()
            return value

        object.__setattr__(rank.task, "loss", ended)

    def end(self) -> None:
        """A quarter is over."""
        self.found.append({part: float(size) for part, size in self.count.at_peak.items()})
        self.count.peak = 0

    def _into_trunk(self, _trunk: Any, given: tuple[Tensor, ...]) -> None:
        self.end()
        given[0].register_hook(lambda _: self.end())


def _mix(a: dict[str, float], b: dict[str, float], share: float) -> dict[str, float]:
    return {part: a.get(part, 0.0) + share * (b.get(part, 0.0) - a.get(part, 0.0)) for part in a | b}


def _times(work: Work, setting: Setting) -> tuple[float, ...]:
    """Seconds of operations, of the host, waiting, of sums and of shards that may hide; bytes sent; FLOPs."""
    operations = step_time(work, MACHINE, ranks=setting.ranks).operations
    host = host_seconds(work, MACHINE, data=DATA)
    waiting = sums = shards = sent = 0.0
    for collective, count in work.collectives.items():
        if collective.group == DATA:
            collective = replace(collective, ranks=tuple(range(0, setting.ranks, setting.channel)))
        # Sums over channel ranks grow with the batch, which rings do linearly.
        seconds = count * collective_seconds(collective, MACHINE, trees=collective.group == DATA)
        sent += count * _sent(collective)
        if collective.group != DATA:
            waiting += seconds
        elif collective.kind == ALL_REDUCE:
            sums += seconds
        else:
            shards += seconds
    return operations, host, waiting, sums, shards, sent, work.flops


def _sent(collective: Collective) -> float:
    n = len(collective.ranks)
    return (n - 1) / n * collective.nbytes * (2 if collective.kind == "all-reduce" else 1)
