"""Area-weighted sums over the cells of every region, of one truth and all forecasts of it at once.

Contract: a cell counts with its area in each region it belongs to. Fields are multiplied by the root of the area, so
that a weighted square is a plain dot product and no product is ever stored. Regions that are bands of latitude are
summed where their cells lie; cells of the others are gathered, in the order of the set of regions they belong to, and a
region of more than half the cells is the whole minus the rest. Differences are taken first, in the stores' own float32;
dot products run over at most PIECE cells in float32 and on from there in float64, which agrees with float64 throughout
to 1e-6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.reading.batch import Field
from evaluate.statistics import MODEL_STATISTICS, TRUTH_STATISTICS

Array = NDArray[np.float64]

PIECE = 512
"""Cells summed in float32."""
_BUFFER_VALUES = 600_000
"""Of all rows of a few channels together: they stay in the processor's cache."""
_MOST_RUNS = 2
"""Contiguous runs of cells that a band of latitude may have."""


@dataclass(frozen=True)
class SumsByRegion:
    """Of one valid time.

    Args:
        models: statistic -> shape (model, channel, region).
        truth: statistic -> shape (channel, region).
    """

    models: dict[str, Array]
    truth: dict[str, Array]


class RegionalSums:
    """Sums over the cells of each region.

    Args:
        weights: from `evaluate.scoring.regions.region_weights`; a cell has the same weight in all its regions.
    """

    def __init__(self, weights: xr.DataArray) -> None:
        flat = np.asarray(weights.values.reshape(weights.sizes["region"], -1), dtype=np.float64)
        member, area = flat > 0, flat.max(axis=0)
        if not np.allclose(flat, member * area, rtol=1e-12):
            raise ValueError("region weights must be the cell's area in every region it belongs to, got other weights")
        whole: Any = member.any(axis=0)
        bands = np.array([_runs(m) <= _MOST_RUNS for m in member])
        turned = ~bands & (member.sum(axis=1) > 0.5 * whole.sum())
        scattered: Any = np.where(turned[:, None], whole & ~member, member)[~bands]
        self._gathered = np.flatnonzero(scattered.any(axis=0))
        self._gathered = self._gathered[np.argsort(_kinds(scattered[:, self._gathered]), kind="stable")]
        root = np.sqrt(area).astype(np.float32)
        self._root, self._cells = root, root.size
        # two stretches of cells, as they lie and gathered, each cut where the set of regions changes
        straight = [*member[bands], whole]
        self._stretches: list[tuple[Field, list[slice]]] = [
            (root, _pieces(_kinds(np.array(straight)))),
            (root[self._gathered], _pieces(_kinds(scattered[:, self._gathered]))),
        ]
        matrix = np.zeros((sum(len(pieces) for _, pieces in self._stretches), len(member)))
        num = len(self._stretches[0][1])
        for k, piece in enumerate(self._stretches[0][1]):
            matrix[k, bands] = member[bands, piece.start]
            matrix[k, turned] = np.asarray(whole)[piece.start]
        for k, piece in enumerate(self._stretches[1][1]):
            inside = scattered[:, self._gathered[piece.start]].astype(np.float64)
            matrix[num + k, ~bands] = np.where(turned[~bands], -inside, inside)
        self._matrix = matrix
        squared = np.square(root, dtype=np.float64)
        self.totals: Array = np.array([squared[m].sum() for m in member])
        self._buffer: Field = np.empty(0, np.float32)

    def __call__(self, truth: Field, climatology: Field, forecasts: Sequence[Field]) -> SumsByRegion:
        """All statistics of `evaluate.scoring.statistics` that scoring sums.

        Args:
            truth: shape (channel, cell).
            climatology: at the same valid time.
            forecasts: of the truth; the sums of the climatology itself (the same object) follow from the truth's.
        """
        others = [i for i, f in enumerate(forecasts) if f is not climatology]
        M, C, P = len(others), truth.shape[0], len(self._matrix)
        linear, squares = np.empty((2 * M + 2, C, P)), np.empty((2 * M + 1, C, P))
        products = np.empty((M, C, P))
        for part, rows, gathered in self._parts(C, models=M):
            k = 0
            self._fill(rows, truth[part], climatology[part], [forecasts[i][part] for i in others])
            np.take(rows, self._gathered, axis=2, out=gathered, mode="clip")
            for values, (root, pieces) in zip((rows, gathered), self._stretches, strict=True):
                for piece in pieces:
                    cut: Any = values[:, :, piece]
                    linear[:, part, k] = cut[: 2 * M + 2] @ root[piece]
                    squares[:, part, k] = np.vecdot(cut[M + 1 :], cut[M + 1 :])
                    products[:, part, k] = np.vecdot(cut[2 * M + 2 :], cut[2 * M + 1])
                    k += 1
        L, S, X = linear @ self._matrix, squares @ self._matrix, products @ self._matrix
        # of the forecasts in `others`, and of the climatology, whose error is minus the truth's anomaly
        sums = dict(zip(MODEL_STATISTICS, (L[M + 1 : 2 * M + 1], L[:M], S[:M], S[M + 1 :], X), strict=True))
        same = dict(zip(MODEL_STATISTICS, (-L[2 * M + 1], L[M], S[M], 0.0, 0.0), strict=True))
        models = {name: np.empty((len(forecasts), C, self.totals.size)) for name in MODEL_STATISTICS}
        for name, array in models.items():
            array[:] = same[name]
            array[others] = sums[name]
        return SumsByRegion(models, dict(zip(TRUTH_STATISTICS, (L[2 * M + 1], S[M]), strict=True)))

    def _parts(self, channels: int, *, models: int) -> Iterator[tuple[slice, Field, Field]]:
        """Channels a few at a time, with buffers of rows |e|, |o'|, e, o', f': of all cells and of gathered ones."""
        rows, cells, some = 3 * models + 2, self._cells, self._gathered.size
        step = int(np.clip(_BUFFER_VALUES // (rows * cells), 1, channels))
        if self._buffer.size < rows * step * (cells + some):
            self._buffer = np.empty(rows * step * (cells + some), np.float32)
        for start in range(0, channels, step):
            size = min(step, channels - start)
            whole = self._buffer[: rows * size * cells].reshape(rows, size, cells)
            rest = self._buffer[rows * size * cells :][: rows * size * some].reshape(rows, size, some)
            yield slice(start, start + size), whole, rest

    def _fill(self, rows: Field, o: Field, c: Field, forecasts: Sequence[Field]) -> None:
        """Errors and anomalies times the root of the area."""
        M = len(forecasts)
        np.subtract(o, c, out=rows[2 * M + 1])
        for m, f in enumerate(forecasts):
            np.subtract(f, o, out=rows[M + 1 + m])
            np.subtract(f, c, out=rows[2 * M + 2 + m])
        differences = rows[M + 1 :]
        np.multiply(differences, self._root, out=differences)
        np.absolute(rows[M + 1 : 2 * M + 2], out=rows[: M + 1])


def _runs(member: NDArray[np.bool_]) -> int:
    """Number of contiguous runs of members."""
    return int(np.count_nonzero(np.diff(member.astype(np.int8), prepend=0) == 1))


def _kinds(member: NDArray[np.bool_]) -> NDArray[np.intp]:
    """A number for the set of regions each cell belongs to, from membership of shape (region, cell)."""
    if not member.size:
        return np.zeros(member.shape[1], np.intp)
    return np.asarray(np.unique(member, axis=1, return_inverse=True)[1].ravel())


def _pieces(kinds: NDArray[np.intp]) -> list[slice]:
    """Contiguous pieces of one kind, none longer than PIECE."""
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), kinds.size]
    return [slice(a, min(a + PIECE, high)) for low, high in pairwise(edges) for a in range(low, high, PIECE)]
