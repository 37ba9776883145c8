"""What is hidden from the network: patches of every sample, and ranges of bands.

Contract: what is hidden follows from (seed, number of the sample) alone, so every rank of the channel axis draws the
same, and a training that is resumed draws what one that was not would have drawn. A patch is hidden in all bands.
Ranges of bands are contiguous, since single bands are nearly copies of their neighbours and teach nothing.

Letters: N samples, L patches of a sample, M visible, C bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]
Windows = tuple[tuple[float, float], ...]
"""Ranges of hidden wavelengths [nm], both ends included."""

_PATCHES, _BANDS, _PREDICTED = 0, 1, 2
"""Which stream of random numbers."""


@dataclass(frozen=True)
class Hiding:
    """How much is hidden.

    Args:
        patches: share of the patches, in [0, 1).
        share: of the samples of which bands are hidden.
        windows: ranges hidden in such a sample.
        nanometres: width of a range.
        seed: another seed, other masks.
        predicted: share of the patches wanted that a step of the training predicts, in (0, 1].
    """

    patches: float
    share: float = 0.0
    windows: int = 1
    nanometres: float = 0.0
    seed: int = 0
    predicted: float = 1.0


def hidden_count(hiding: Hiding, *, patches: int) -> int:
    """How many of L patches are hidden: the share, rounded; one at least is visible, and one hidden unless it is zero.

    >>> [hidden_count(Hiding(share), patches=8) for share in (0.75, 0.99, 0.01, 0.0)]
    [6, 7, 1, 0]
    """
    least = 1 if hiding.patches else 0
    return min(max(round(hiding.patches * patches), least), patches - 1)


def visible_patches(hiding: Hiding, numbers: Index, *, patches: int) -> tuple[Index, Index]:
    """Which patches of some samples are visible and which hidden.

    Args:
        hiding: how much.
        numbers: (N,) of the samples.
        patches: L.

    Returns:
        (N, M) visible and (N, L - M) hidden positions, increasing in each sample.
    """
    hidden = hidden_count(hiding, patches=patches)
    orders = [np.random.default_rng([hiding.seed, _PATCHES, int(n)]).permutation(patches) for n in numbers]
    drawn = np.stack(orders).astype(np.int64)
    return np.sort(drawn[:, hidden:], axis=1), np.sort(drawn[:, :hidden], axis=1)


def predicted_count(hiding: Hiding, *, wanted: int) -> int:
    """How many of the patches that could be predicted a step of the training predicts: at least one."""
    return max(1, round(hiding.predicted * wanted))


def some_of(hiding: Hiding, numbers: Index, wanted: Index) -> Index:
    """The patches that a step of the training predicts.

    Args:
        hiding: how many.
        numbers: (N,) of the samples.
        wanted: (N, Q) positions that could be predicted.

    Returns:
        (N, fewer) of them, increasing in each sample.
    """
    count = predicted_count(hiding, wanted=wanted.shape[1])
    if count == wanted.shape[1]:
        return wanted
    orders = [np.random.default_rng([hiding.seed, _PREDICTED, int(n)]).permutation(wanted.shape[1]) for n in numbers]
    return np.stack([np.sort(places[order[:count]]) for places, order in zip(wanted, orders, strict=True)])


def band_windows(hiding: Hiding, number: int, *, wavelengths: Sequence[float]) -> Windows:
    """Ranges of bands hidden from a sample; none where the draw says so.

    A range starts at any band from which it fits into the wavelengths there are. Where no patches are hidden, every
    sample has ranges.

    Args:
        hiding: how much.
        number: of the sample.
        wavelengths: (C,) of all bands, increasing [nm].

    Raises:
        ValueError: ranges as wide as all bands together.
    """
    random = np.random.default_rng([hiding.seed, _BANDS, number])
    share = 1.0 if hiding.share and not hiding.patches else hiding.share
    if random.random() >= share:
        return ()
    require_fits(hiding, wavelengths=wavelengths)
    known = np.asarray(wavelengths, dtype=np.float64)
    starts = known[known + hiding.nanometres <= known[-1]]
    first = random.choice(starts, size=hiding.windows)
    return tuple((float(low), float(low + hiding.nanometres)) for low in np.sort(first))


def require_fits(hiding: Hiding, *, wavelengths: Sequence[float]) -> None:
    """Refuse ranges that could hide all bands.

    Raises:
        ValueError: they could.
    """
    extent = wavelengths[-1] - wavelengths[0]
    if hiding.share and hiding.windows * hiding.nanometres >= extent:
        raise ValueError(
            f"masking.bands must leave bands that are read, got {hiding.windows} x {hiding.nanometres:g} nm hidden of "
            f"{extent:g} nm; choose fewer or narrower ranges"
        )


def in_windows(wavelengths: Sequence[float], windows: Windows) -> NDArray[np.bool_]:
    """Which bands lie in a range, (C,)."""
    known = np.asarray(wavelengths, dtype=np.float64)
    found = np.zeros(len(known), dtype=bool)
    for low, high in windows:
        found |= (known >= low) & (known <= high)
    return found
