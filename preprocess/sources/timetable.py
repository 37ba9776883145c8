"""Which piece of an archive holds which time.

Contract: of several pieces that hold a time, the one with the shortest forecast lead is taken; others of
the same lead are listed as its duplicates, to be compared when the values are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.weather.times import Times
from preprocess.decode.survey import Survey


@dataclass(frozen=True)
class Table:
    """Where the times of a series are.

    Args:
        times: sorted, unique.
        piece, position: number of the piece that holds each time, and where on its time axis.
        lead: hours from the analysis, 0 for analyses.
        duplicates: for a time (by index) that other pieces hold at the same lead, their (piece, position).
        dropped: number of times held with a longer lead as well.
    """

    times: Times
    piece: NDArray[np.int64]
    position: NDArray[np.int64]
    lead: NDArray[np.float64]
    duplicates: Mapping[int, tuple[tuple[int, int], ...]]
    dropped: int


@dataclass(frozen=True)
class Run:
    """Times of one read: neighbours on the time axis of one piece."""

    piece: int
    positions: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...] = ()


def tabulate(surveys: Mapping[int, Survey]) -> Table:
    """The times of some pieces.

    Args:
        surveys: by number of the piece.

    Raises:
        ValueError: a piece without times.
    """
    columns = []
    for i, survey in surveys.items():
        if survey.times is None:
            raise ValueError(f"fields that change with time must have a time, got none in {survey.origin}")
        size = survey.times.size
        columns.append((survey.times, survey.lead_hours, np.full(size, i), np.arange(size)))
    times, leads, piece, position = (np.concatenate(column) for column in zip(*columns, strict=True))
    order = np.lexsort((position, piece, leads, times))
    times, leads, piece, position = times[order], leads[order], piece[order], position[order]
    unique, first = np.unique(times, return_index=True)
    owner = np.searchsorted(unique, times)
    spare = np.setdiff1d(np.arange(times.size), first)
    duplicates: dict[int, tuple[tuple[int, int], ...]] = {}
    dropped = 0
    for i in spare:
        at = int(owner[i])
        if leads[i] > leads[first[at]]:
            dropped += 1
        else:
            duplicates[at] = (*duplicates.get(at, ()), (int(piece[i]), int(position[i])))
    return Table(unique, piece[first], position[first], leads[first], duplicates, dropped)


def runs(table: Table, times: Times) -> Iterator[Run]:
    """Neighbouring times of one piece together; a time with duplicates by itself."""
    at = np.searchsorted(table.times, times)
    if (at >= table.times.size).any() or (table.times[np.minimum(at, table.times.size - 1)] != times).any():
        raise ValueError("times must be among those of the archive")
    alone = np.isin(at, list(table.duplicates))
    cuts = np.flatnonzero((np.diff(table.piece[at]) != 0) | alone[1:] | alone[:-1]) + 1
    for indices in np.split(at, cuts) if at.size else []:
        positions = tuple(table.position[indices].tolist())
        yield Run(int(table.piece[indices[0]]), positions, table.duplicates.get(int(indices[0]), ()))
