"""In which order samples come, and how they become batches.

Contract: which pairs there are is decided in `pipeline.weather.times`. Every start with at least one lead is used once
an epoch. The order depends on the seed and the position alone: not on ranks, workers, or what was drawn before. Shards
and years do not exist here.

Letters: S starts, E leads, B batch, C input channels, V predicted channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.weather.fields import Fields
from pipeline.weather.times import Pairs

Index = NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True)
class Items:
    """Samples before their fields are read: one entry each.

    Attributes:
        start: row of `Pairs.init`.
        lead: column of `Pairs.valid`.
        roll: cells by which the sample is turned eastward.
    """

    start: Index
    lead: Index
    roll: Index

    def __len__(self) -> int:
        return len(self.start)


class Order:
    """The endless sequence of training samples.

    Args:
        pairs: what there is.
        seed: another seed, another sequence.
        lead_weights: how often each lead is drawn where all exist; empty for equal. A start that lacks some
            leads (near the end of a period) draws among those it has.
        longitudes: number of columns for the longitude augmentation, 1 for none.
    """

    def __init__(self, pairs: Pairs, *, seed: int, lead_weights: Sequence[float] = (), longitudes: int = 1) -> None:
        weights = np.asarray(lead_weights or [1.0] * len(pairs.lead_hours), dtype=np.float64)
        if weights.shape != (len(pairs.lead_hours),) or np.any(weights < 0) or weights.sum() == 0:
            raise ValueError(
                f"lead_weights must be one number per lead, none negative and one positive, got {list(lead_weights)}"
            )
        self.pairs = pairs
        self.seed = seed
        self.longitudes = longitudes
        share_SE = np.where(pairs.valid >= 0, weights, 0.0)
        if np.any(share_SE.sum(axis=1) == 0):  # starts whose only leads have weight zero
            share_SE = np.where(share_SE.sum(axis=1, keepdims=True) == 0, pairs.valid >= 0, share_SE)
        self._cumulative_SE = np.cumsum(share_SE / share_SE.sum(axis=1, keepdims=True), axis=1)
        self._cumulative_SE[:, -1] = 1.0
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    def items(self, first: int, count: int) -> Items:
        """Samples [first, first + count) of the sequence; they may span epochs."""
        positions = np.arange(first, first + count)
        epochs, places = np.divmod(positions, len(self.pairs))
        parts = []
        for epoch in np.unique(epochs):
            here = places[epochs == epoch]
            drawn = self._epoch(int(epoch))
            parts.append((drawn.start[here], drawn.lead[here], drawn.roll[here]))
        start, lead, roll = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Items(start=start, lead=lead, roll=roll)

    def batch(self, step: int, *, size: int, rank: int = 0, ranks: int = 1) -> Items:
        """A data rank's part of a step's global batch: contiguous, disjoint, together the whole batch.

        Args:
            step: counts from 0.
            size: the global batch, a multiple of `ranks`.
            rank: this rank along the data axis.
            ranks: length of the data axis.
        """
        if size % ranks:
            raise ValueError(f"batch_size must be a multiple of the data ranks, got {size} and {ranks}")
        part = size // ranks
        return self.items(step * size + rank * part, part)

    def _draw_epoch(self, epoch: int) -> Items:
        random = np.random.default_rng([self.seed, epoch])
        start = random.permutation(len(self.pairs)).astype(np.int64)
        draws = random.random(len(self.pairs))
        lead = (draws[:, None] >= self._cumulative_SE[start]).sum(axis=1)
        roll = random.integers(0, self.longitudes, len(self.pairs))
        return Items(start=start, lead=lead.astype(np.int64), roll=roll)


def fixed_items(pairs: Pairs, *, count: int) -> Items:
    """Samples for validation: about `count`, the same number for each lead, evenly spaced over its starts."""
    per_lead = max(1, count // len(pairs.lead_hours))
    starts, leads = [], []
    for lead in range(len(pairs.lead_hours)):
        exist = np.flatnonzero(pairs.valid[:, lead] >= 0)
        chosen = exist[np.unique(np.linspace(0, len(exist) - 1, min(per_lead, len(exist))).round().astype(int))]
        starts.append(chosen)
        leads.append(np.full(len(chosen), lead))
    start = np.concatenate(starts).astype(np.int64)
    return Items(start=start, lead=np.concatenate(leads).astype(np.int64), roll=np.zeros(len(start), dtype=np.int64))


@dataclass(frozen=True)
class Batch:
    """What a step consumes.

    Attributes:
        x: (B, C, H, W) normalised input.
        lead_hours: (B,) lead times [h].
        target: (B, V, H, W) normalised anomalies at the valid time, of the predicted channels that this rank reads.
        items: where they come from.
    """

    x: Tensor
    lead_hours: Tensor
    target: Tensor
    items: Items

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
        """On a device, without waiting when the memory is pinned; fields in another type where asked for."""
        x, lead_hours, target = (t.to(device, non_blocking=True) for t in (self.x, self.lead_hours, self.target))
        return Batch(x.to(dtype), lead_hours, target.to(dtype), self.items)

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> tuple[Tensor, ...]:
        """Input, leads and target."""
        return self.x, self.lead_hours, self.target

    def split(self, size: int | None) -> Iterator[Batch]:
        """Parts of at most `size` samples, in order; the whole for None."""
        for first in range(0, len(self.x), size or len(self.x)):
            rows = slice(first, first + (size or len(self.x)))
            items = Items(self.items.start[rows], self.items.lead[rows], self.items.roll[rows])
            yield Batch(self.x[rows], self.lead_hours[rows], self.target[rows], items)


def make_batch(fields: Fields, pairs: Pairs, items: Items, *, pin: bool = False) -> Batch:
    """Read and join the fields of some samples.

    Args:
        fields: the store.
        pairs: what `items` point into.
        items: which samples.
        pin: page-locked memory, for asynchronous copies to a GPU.

    Returns:
        The batch; sample i is turned eastward by `items.roll[i]` cells, statics and target with it.
    """
    init = pairs.init[items.start]
    valid = pairs.valid[items.start, items.lead]
    assert np.all(valid >= 0), "items hold a pair that does not exist"
    x = fields.inputs(init, roll=items.roll)
    target = fields.targets(valid, roll=items.roll)
    lead = torch.tensor([pairs.lead_hours[e] for e in items.lead], dtype=torch.float32)
    if pin:
        x, lead, target = x.pin_memory(), lead.pin_memory(), target.pin_memory()
    return Batch(x, lead, target, items=items)
