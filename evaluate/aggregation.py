"""Weighted sums and sums of weights that merge exactly.

Contract: an AggregationState holds, for every statistic, the sum of w x and the sum of w over the dimensions reduced
so far. `a + b` is the state of both samples together, whatever the split: batches, workers and Dask blocks give the
same sums up to the rounding of one addition. Means are taken last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr


@dataclass(frozen=True)
class AggregationState:
    """Sums of statistics.

    Args:
        sums: one variable per statistic, the sum of w x, float64.
        weights: the sum of w, with the same or fewer dimensions.
    """

    sums: xr.Dataset
    weights: xr.DataArray

    @classmethod
    def of(
        cls, statistics: Mapping[str, xr.DataArray], *, weight: xr.DataArray, dims: Sequence[str]
    ) -> AggregationState:
        """Sum un-reduced statistics over dimensions.

        Args:
            statistics: by name, all of one shape; NaN is not allowed where the weight is positive.
            weight: non-negative; dimensions it lacks count once each.
            dims: dimensions to sum over.

        Returns:
            The state; lazy where the statistics are.
        """
        first = next(iter(statistics.values()))
        absent = [d for d in dims if d not in first.dims]
        if absent:
            raise ValueError(f"dims must be dimensions of the forecast, got {absent}; it has {first.dims}")
        inside = [d for d in dims if d in weight.dims]
        count = float(np.prod([first.sizes[d] for d in dims if d not in weight.dims], dtype=np.float64))
        sums = {
            name: xr.dot(values.astype(np.float64), weight.astype(np.float64), dim=list(dims))
            for name, values in statistics.items()
        }
        return cls(xr.Dataset(sums), weight.astype(np.float64).sum(inside) * count)

    def __add__(self, other: AggregationState) -> AggregationState:
        mine, theirs = set(map(str, self.sums)), set(map(str, other.sums))
        if mine != theirs:
            raise ValueError(f"states must hold the same statistics, got {sorted(mine)} and {sorted(theirs)}")
        try:
            sums, added, weights, more = xr.align(
                self.sums, other.sums, self.weights, other.weights, join="exact", copy=False
            )
        except ValueError as error:
            raise ValueError(f"states must share their coordinates, got {error}; score both on the same axes") from None
        return AggregationState(sums + added, weights + more)

    @classmethod
    def concat(cls, states: Sequence[AggregationState], dim: str) -> AggregationState:
        """States that differ in one dimension they keep, e.g. init_time, side by side."""
        sums = xr.concat(
            [s.sums for s in states], dim, data_vars="all", coords="minimal", compat="override", join="exact"
        )
        if dim in states[0].weights.dims:
            return cls(sums, xr.concat([s.weights for s in states], dim, join="exact"))
        return cls(sums, states[0].weights)

    def means(self) -> dict[str, xr.DataArray]:
        """Every statistic's weighted mean; NaN where nothing was counted."""
        weights = self.weights.where(self.weights > 0)
        return {str(name): values / weights for name, values in self.sums.items()}
