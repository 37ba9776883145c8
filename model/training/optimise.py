"""The small rules of optimisation: schedule, weight decay groups, moving average, seeds, channel weights.

Contract: each is a function of its arguments alone; none keeps a count of its own, so a resumed run needs nothing
but the step.

Letters: V predicted channels.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pipeline.sections import Training

_NO_DECAY = re.compile(r"(^|\.)(bias|\w+_bias|query|channel|position)$")
"""Parameters that are offsets or embeddings; they and all vectors (norms) go without weight decay."""


def reached(options: Training, *, step: int, seconds: float = 0.0) -> float:
    """How far a training is, in steps; where minutes are limited, by the share of time spent if that is ahead.

    Args:
        options: of the training.
        step: steps done.
        seconds: trained for so far.
    """
    by_time = 0.0 if options.minutes is None else options.steps * seconds / (60.0 * options.minutes)
    return min(max(step, by_time), options.steps)


def scheduled_rate(options: Training, *, step: int, seconds: float = 0.0) -> float:
    """Learning rate of a training's step; arguments as for `reached`."""
    peak, warmup = options.learning_rate, options.warmup_steps
    progress = reached(options, step=step, seconds=seconds)
    return learning_rate(progress, peak=peak, warmup_steps=warmup, steps=options.steps)


def learning_rate(step: float, *, peak: float, warmup_steps: int, steps: int) -> float:
    """Linear warm-up to the peak, then half a cosine down to zero.

    Args:
        step: steps done, 0 .. steps - 1.
        peak: the highest rate.
        warmup_steps: the peak is reached with this step.
        steps: the rate after the last is zero.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * peak * (1.0 + math.cos(math.pi * progress))


def parameter_groups(
    named: Mapping[str, Tensor], *, weight_decay: float, kinds: Mapping[int, int] | None = None
) -> list[dict[str, Any]]:
    """Groups for AdamW: matrices, which decay, and the rest, which do not; kinds of tensors kept apart.

    Args:
        named: parameters.
        weight_decay: of the matrices.
        kinds: a number for each parameter (by `id`); an optimiser step cannot mix kinds. None: all alike.
    """
    groups: dict[tuple[int, float], list[Tensor]] = {}
    for name, parameter in named.items():
        decay = weight_decay if parameter.ndim >= 2 and not _NO_DECAY.search(name) else 0.0
        groups.setdefault(((kinds or {}).get(id(parameter), 0), decay), []).append(parameter)
    return [{"params": params, "weight_decay": decay} for (_, decay), params in groups.items()]


@torch.no_grad()
def update_average(average: Mapping[str, Tensor], named: Mapping[str, Tensor], *, decay: float, step: int) -> None:
    """Move an exponential average towards the parameters, in place.

    The decay grows with the step, min(decay, (1 + step) / (10 + step)), so that the start is soon forgotten.
    """
    weight = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    names = list(average)
    torch._foreach_lerp_([average[n] for n in names], [named[n].detach() for n in names], weight)


@contextmanager
def averaged_weights(named: Mapping[str, Tensor], average: Mapping[str, Tensor]) -> Iterator[None]:
    """Let the parameters be the averages for a while; without averages, nothing changes."""
    kept = {name: named[name].detach().clone() for name in average}
    _fill(named, average)
    try:
        yield
    finally:
        _fill(named, kept)


def step_seed(seed: int, step: int, *, data_rank: int = 0) -> int:
    """Seed of all randomness of a step (dropout) on a data rank; ranks of one channel group share it."""
    digest = hashlib.sha256(f"{seed}/{step}/{data_rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def channel_weights(
    channels: Sequence[tuple[str, str, int | None]],
    *,
    weights: Mapping[str, float],
    pressure_weighted: bool,
    factors: Sequence[float] | None = None,
) -> Tensor:
    """Loss weight of each channel, shape (V,), mean 1.

    Args:
        channels: (name, variable, level in hPa or None) of each.
        weights: by channel or variable; a channel's wins over its variable's; 1 where absent.
        pressure_weighted: multiply channels on levels by pressure over the mean pressure of their levels.
        factors: one more factor for each channel; None for ones.

    Raises:
        ValueError: all weights are zero, or one is negative.
    """
    levels = sorted({level for _, _, level in channels if level is not None})
    mean = sum(levels) / len(levels) if levels else 1.0
    found = []
    for (name, variable, level), factor in zip(channels, factors or [1.0] * len(channels), strict=True):
        weight = weights.get(name, weights.get(variable, 1.0))
        found.append(factor * weight * (level / mean if pressure_weighted and level is not None else 1.0))
    if min(found) < 0 or sum(found) <= 0:
        raise ValueError(f"channel_weights must not be negative nor all zero, got {dict(weights)}")
    result = torch.tensor(found, dtype=torch.float32)
    return result / result.mean()


@torch.no_grad()
def _fill(named: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        named[name].copy_(value)
