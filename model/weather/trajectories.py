"""Samples of several times in a row: what a model that is applied again and again starts from, and what follows.

Contract: states are normalised anomalies from the climatology, of the dynamic channels that this rank reads. A sample
is the state at its start, the earlier ones that the network reads with it, and the true states after some of the
steps; what the network reads besides (static fields, features and, for a network that reads standardised states, the
climatology) comes for every time from which a step is taken.

Letters: B batch, P earlier states, R times that a step is taken from, T steps with a truth, K dynamic channels of this
rank, S static channels and features, H/W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.weather.fields import Fields
from model.weather.samples import Items
from pipeline.weather.times import Pairs

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Trajectories:
    """What a step of training through several steps consumes.

    Attributes:
        states: (B, P + 1, K, H, W) normalised anomalies, the oldest first, those at the start last.
        targets: (B, T, K, H, W) the same, after the steps named by `marks`.
        static: (B, R, S, H, W) normalised static fields and features.
        climatology: (B, P + R, K, H, W) standardised, of the earlier times and of those that a step is taken from;
            (B, 0, K, H, W) for a network that reads anomalies.
        step_hours: (B,) length of each sample's step [h].
        which: (B,) position of that length in `training.step_hours`.
        number: (B,) position of each sample in the endless sequence of them, which decides its noise.
        marks: T, after how many steps each target is; increasing.
        items: where the samples come from.
    """

    states: Tensor
    targets: Tensor
    static: Tensor
    climatology: Tensor
    step_hours: Tensor
    which: Tensor
    number: Index
    marks: tuple[int, ...]
    items: Items

    def __len__(self) -> int:
        return len(self.states)

    @property
    def past(self) -> int:
        """P, earlier states."""
        return self.states.shape[1] - 1

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return tuple(getattr(self, name) for name in _TENSORS)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Self:
        """On a device, without waiting when the memory is pinned; fields in another type where asked for."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in _TENSORS}
        return replace(self, **moved | {name: moved[name].to(dtype) for name in _FIELDS})

    def split(self, size: int | None) -> Iterator[Self]:
        """Parts of at most `size` samples, in order; the whole for None."""
        for first in range(0, len(self), size or len(self)):
            rows = slice(first, first + (size or len(self)))
            items = Items(self.items.start[rows], self.items.lead[rows], self.items.roll[rows])
            tensors = {name: getattr(self, name)[rows] for name in _TENSORS}
            yield replace(self, items=items, number=self.number[rows], **tensors)

    def first(self, steps: int) -> Self:
        """The same samples with at most some steps."""
        if steps >= self.marks[-1]:
            return self
        kept = sum(mark <= steps for mark in self.marks)
        return replace(
            self,
            targets=self.targets[:, :kept],
            static=self.static[:, :steps],
            climatology=self.climatology[:, : self.past + steps],
            marks=self.marks[:kept],
        )

    def pinned(self) -> Self:
        """In page-locked memory, for asynchronous copies to a GPU."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in _TENSORS})


_FIELDS = ("states", "targets", "static", "climatology")
_TENSORS = tuple(f.name for f in fields(Trajectories) if f.name not in ("number", "marks", "items"))


def make_trajectories(
    source: Fields,
    pairs: Pairs,
    items: Items,
    *,
    history_hours: Sequence[int],
    marks: Sequence[int],
    which: Sequence[int],
    first_number: int = 0,
) -> Trajectories:
    """Read some samples.

    Args:
        source: the store.
        pairs: what `items` point into; its leads are lengths of steps, and its path reaches the last mark.
        items: which samples; `lead` says the length of the step.
        history_hours: of the network, also where this rank reads no earlier state.
        marks: after which steps the truth is read, increasing.
        which: position in `training.step_hours` of each of the pairs' leads.
        first_number: position of the first sample in the sequence.

    Returns:
        The samples; each is turned eastward by `items.roll[i]` cells.
    """
    init, reads = pairs.init[items.start], max(marks)
    hours = np.array([pairs.lead_hours[e] for e in items.lead], dtype=np.int64)
    later = pairs.path[items.start, items.lead]
    history = sorted(history_hours, reverse=True)
    before = [source.earlier(init, hours=h) for h in history]
    taken = np.arange(reads) * hours[:, None]  # hours after the start from which steps are taken
    since = np.concatenate([np.tile(-np.array(history, dtype=np.int64), (len(init), 1)), taken], axis=1)
    static = source.static_at(source.times[init][:, None] + taken.astype("timedelta64[h]"), roll=items.roll)
    climatology = torch.empty((len(init), 0, len(source.channels), *source.grid_shape))
    if source.network_input == "state":
        read_at = source.times[init][:, None] + since.astype("timedelta64[h]")
        climatology = source.standard_climatology(read_at, roll=items.roll)
    return Trajectories(
        states=_stack(source, [*before, init], items.roll),
        targets=_stack(source, [later[:, mark - 1] for mark in marks], items.roll),
        static=static,
        climatology=climatology,
        step_hours=torch.from_numpy(hours.astype(np.float32)),
        which=torch.from_numpy(np.asarray(which, dtype=np.int64)[items.lead]),
        number=np.arange(first_number, first_number + len(init)),
        marks=tuple(marks),
        items=items,
    )


def _stack(source: Fields, times: Sequence[Index], roll: Index) -> Tensor:
    """Anomalies of several times of each sample, (B, number of times, K, H, W)."""
    positions = np.stack(times, axis=1)
    assert np.all(positions >= 0), "items hold a time that does not exist"
    count = positions.shape[1]
    values = source.anomalies_at(positions.ravel(), roll=np.repeat(roll, count))
    return values.view(len(roll), count, *values.shape[1:])
