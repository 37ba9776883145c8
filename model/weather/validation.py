"""Scores of fixed pairs during training: area-weighted, per lead, against climatology.

Contract: sums over samples first, means and roots last, so that the numbers do not depend on the batch size or on
the ranks.

Letters: B batch, E leads, V predicted channels, H/W grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.weather.loss import channel_mse
from model.weather.samples import Items


@dataclass
class Sums:
    """What validation adds up: squared errors by lead and channel.

    Attributes:
        error: (E, V) of the forecast, area-weighted means over cells, summed over samples.
        climatology: (E, V) the same of a zero anomaly.
        count: (E,) samples.
    """

    error: Tensor
    climatology: Tensor
    count: Tensor

    @classmethod
    def zero(cls, *, leads: int, channels: int, device: torch.device) -> Sums:
        """Nothing yet."""
        shape = (leads, channels)
        return cls(
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
            torch.zeros(leads, dtype=torch.float64, device=device),
        )

    def add(self, y_BVHW: Tensor, target_BVHW: Tensor, *, lead: Sequence[int], area_HW: Tensor) -> None:
        """Add a batch.

        Args:
            y_BVHW: predicted anomalies, normalised.
            target_BVHW: true ones.
            lead: which lead each sample has; -1 for a sample that only fills up the batch.
            area_HW: cell areas.
        """
        for i, e in enumerate(lead):
            if e >= 0:
                one, target = y_BVHW[i : i + 1], target_BVHW[i : i + 1]
                self.error[e] += channel_mse(one, target, area_HW=area_HW)
                self.climatology[e] += channel_mse(torch.zeros_like(one), target, area_HW=area_HW)
                self.count[e] += 1

    def merge(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Over ranks that saw other samples."""
        for values in (self.error, self.climatology, self.count):
            add_up(values)

    def scores(
        self,
        *,
        lead_hours: Sequence[int],
        channel_V: Tensor,
        channels: Sequence[str],
        std: NDArray[np.float64],
        shown: Sequence[str],
    ) -> dict[str, Any]:
        """Loss, skill and RMSE of each lead.

        Args:
            lead_hours: E leads [h].
            channel_V: loss weights.
            channels: V names.
            std: (V,) standard deviation by which anomalies were divided, canonical units.
            shown: channels with an RMSE and a skill of their own.

        Returns:
            {"loss": mean over leads, "leads": {hours: {"loss", "skill", "rmse", "skill_by_channel"}}}.
        """
        weights = (channel_V / channel_V.mean()).double()
        leads: dict[str, Any] = {}
        for e, hours in enumerate(lead_hours):
            mse, nothing = self.error[e] / self.count[e], self.climatology[e] / self.count[e]
            columns = {name: channels.index(name) for name in shown if name in channels}
            leads[str(hours)] = {
                "loss": (mse * weights).mean().item(),
                "skill": 1.0 - ((mse * weights).mean() / (nothing * weights).mean()).item(),
                "rmse": {name: mse[c].sqrt().item() * float(std[c]) for name, c in columns.items()},
                "skill_by_channel": {name: 1.0 - (mse[c] / nothing[c]).item() for name, c in columns.items()},
            }
        return {"loss": float(np.mean([entry["loss"] for entry in leads.values()])), "leads": leads}


def part_of_rank(items: Items, *, rank: int, ranks: int, batch_size: int) -> Iterator[tuple[Items, list[int]]]:
    """This data rank's part of the fixed samples, in batches; every rank has equally many.

    Args:
        items: all samples.
        rank: position on the data axis.
        ranks: its length.
        batch_size: most samples of a batch.

    Yields:
        Some samples, and the lead of each; -1 for one that only fills up the batch.
    """
    part = math.ceil(len(items) / ranks)
    mine = np.arange(part) + part * rank
    for rows in np.split(mine, range(batch_size, part, batch_size)):
        there = np.minimum(rows, len(items) - 1)
        lead = np.where(rows < len(items), items.lead[there], -1)
        yield Items(items.start[there], items.lead[there], items.roll[there]), lead.tolist()
