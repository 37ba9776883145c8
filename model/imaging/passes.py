"""Fixed samples in passes of the network: a pass hides the same bands from all of its samples.

Contract: every data rank makes the same number of passes, since ranks that share parameters must call the network
together; where the ranks do not divide the passes the last is made again, and does not count.

Letters: N samples, B of a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.imaging.masks import Index, Windows


@dataclass(frozen=True)
class Pass:
    """Samples that go through the network together.

    Attributes:
        positions: (B,) among the samples.
        windows: ranges of wavelengths hidden from them [nm].
        counts: whether another rank does not count it already.
    """

    positions: Index
    windows: Windows
    counts: bool


def passes(windows: Sequence[Windows], *, at_once: int, rank: int, ranks: int) -> list[Pass]:
    """The passes of one data rank.

    Args:
        windows: ranges hidden from each of N samples.
        at_once: most samples of a pass.
        rank: position on the data axis.
        ranks: its length.
    """
    same: dict[Windows, list[int]] = {}
    for position, hidden in enumerate(windows):
        same.setdefault(hidden, []).append(position)
    everything = [
        (np.array(positions[first : first + at_once], dtype=np.int64), hidden)
        for hidden, positions in same.items()
        for first in range(0, len(positions), at_once)
    ]
    each = -(-len(everything) // ranks)
    mine = range(rank * each, (rank + 1) * each)
    return [Pass(*everything[min(i, len(everything) - 1)], counts=i < len(everything)) for i in mine]
