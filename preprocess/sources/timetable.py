"""Which piece of an archive holds which time.

Contract: of several pieces that hold a time, the one with the shortest forecast lead is taken; others of
the same lead are kept as its twins, to be compared when the values are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.decode.survey import Survey

Times = NDArray[np.datetime64]


@dataclass(frozen=True)
class Table:
    """Where the times of a series are.

    Args:
        times: sorted, unique.
        piece, position: number of the piece that holds each time, and where on its time axis.
        lead: hours from the analysis, 0 for analyses.
        twins: for a time (by index) that other pieces hold at the same lead, their (piece, position).
        dropped: number of times held with a longer lead as well.
    """

    times: Times
    piece: NDArray[np.int64]
    position: NDArray[np.int64]
    lead: NDArray[np.float64]
    twins: Mapping[int, tuple[tuple[int, int], ...]]
    dropped: int


@dataclass(frozen=True)
class Run:
    """Times of one read: neighbours on the time axis of one piece."""

    piece: int
    positions: tuple[int, ...]
    twins: tuple[tuple[int, int], ...] = ()


def tabulate(surveys: Mapping[int, Survey]) -> Table:
    """The times of some pieces.

    Args:
        surveys: by number of the piece.

    Raises:
        ValueError: a piece without times.
    """
    columns: list[list[NDArray[Any]]] = [[], [], [], []]
    for i, found in surveys.items():
        if found.times is None:
            raise ValueError(f"fields that change with time must have a time, got none in {found.origin}")
        size = found.times.size
        parts = (found.times, found.lead_hours, np.full(size, i), np.arange(size))
        for column, part in zip(columns, parts, strict=True):
            column.append(part)
    times, leads, piece, position = (np.concatenate(c) for c in columns)
    order = np.lexsort((position, piece, leads, times))
    times, leads, piece, position = times[order], leads[order], piece[order], position[order]
    unique, first = np.unique(times, return_index=True)
    owner = np.searchsorted(unique, times)
    spare = np.setdiff1d(np.arange(times.size), first)
    twins: dict[int, tuple[tuple[int, int], ...]] = {}
    dropped = 0
    for i in spare:
        at = int(owner[i])
        if leads[i] > leads[first[at]]:
            dropped += 1
        else:
            twins[at] = (*twins.get(at, ()), (int(piece[i]), int(position[i])))
    return Table(unique, piece[first], position[first], leads[first], twins, dropped)


def runs(table: Table, times: Times) -> Iterator[Run]:
    """Neighbouring times of one piece together; a time with twins alone."""
    at = np.searchsorted(table.times, times)
    if (at >= table.times.size).any() or (table.times[np.minimum(at, table.times.size - 1)] != times).any():
        raise ValueError("times must be among those of the archive")
    current: list[int] = []
    for i in at:
        i = int(i)
        joins = current and table.piece[i] == table.piece[current[-1]] and not {i, current[-1]} & set(table.twins)
        if current and not joins:
            yield _run_of(table, current)
            current = []
        current.append(i)
    if current:
        yield _run_of(table, current)


def _run_of(table: Table, indices: Sequence[int]) -> Run:
    twins = table.twins.get(indices[0], ()) if len(indices) == 1 else ()
    return Run(int(table.piece[indices[0]]), tuple(int(table.position[i]) for i in indices), twins)
