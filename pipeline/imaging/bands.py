"""Bands of a spectrum: names, and how the bands of one instrument become those wanted.

Contract: pure functions of wavelengths in nanometres, which increase. A band is called b and its wavelength with one
decimal, with as many more as the bands of a store need to differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.sections import Bands

Wavelengths = NDArray[np.float64]
_MOST_DECIMALS = 6


def band_names(wavelengths: Sequence[float] | Wavelengths) -> list[str]:
    """Names of the bands of a store, which serve as names of channels.

    Raises:
        ValueError: two bands have the same wavelength.

    >>> band_names([400.0, 401.0]), band_names([400.12, 400.14])
    (['b0400.0', 'b0401.0'], ['b0400.12', 'b0400.14'])
    """
    for decimals in range(1, _MOST_DECIMALS + 1):
        names = [f"b{float(value):0{5 + decimals}.{decimals}f}" for value in wavelengths]
        if len(set(names)) == len(names):
            return names
    raise ValueError(f"bands must have different wavelengths, got {len(names)} with {len(set(names))} different ones")


def wavelength_of(name: str) -> float:
    """Wavelength [nm] of a band by its name, to the decimals that the name has."""
    return float(name[1:])


def require_increasing(wavelengths: Wavelengths, *, origin: str) -> None:
    """Refuse wavelengths that do not increase.

    Raises:
        ValueError: naming the first two that do not.
    """
    values = np.asarray(wavelengths, np.float64)
    bad = np.flatnonzero(~(np.diff(values) > 0))
    if not np.isfinite(values).all() or (values <= 0).any():
        raise ValueError(f"wavelengths of {origin} must be positive numbers [nm], got {values.tolist()[:6]}")
    if bad.size:
        i = int(bad[0])
        raise ValueError(
            f"wavelengths of {origin} must increase from band to band, got {values[i]:g} nm and then "
            f"{values[i + 1]:g} nm (bands {i + 1} and {i + 2}); sort the bands of the file, or correct its header"
        )


@dataclass(frozen=True, eq=False)
class Resampling:
    """How the bands of an instrument become those of a store.

    Attributes:
        wavelengths: of the store [nm], shape (band,).
        members: for each band of the store the positions of the instrument's bands of which it is the mean.
    """

    wavelengths: Wavelengths
    members: tuple[tuple[int, ...], ...]

    @property
    def used(self) -> tuple[int, ...]:
        """Positions of all bands of the instrument that are read, increasing."""
        return tuple(sorted({i for members in self.members for i in members}))

    def __call__(self, values: NDArray[np.float32], valid: NDArray[np.bool_]) -> tuple[Any, Any]:
        """Values and validity (band, y, x) of the store's bands from those of `used`.

        A mean is valid where all its members are; where it is not it is NaN.
        """
        place = {band: i for i, band in enumerate(self.used)}
        out = np.empty((len(self.members), *values.shape[1:]), np.float32)
        good = np.empty(out.shape, np.bool_)
        for band, members in enumerate(self.members):
            chosen = [place[i] for i in members]
            good[band] = valid[chosen].all(axis=0)
            out[band] = values[chosen[0]] if len(chosen) == 1 else values[chosen].mean(axis=0, dtype=np.float64)
        out[~good] = np.nan
        return out, good


def resampling(given: Wavelengths, wanted: Bands | None, *, origin: str) -> Resampling:
    """How the bands of an image become those of the store.

    Args:
        given: wavelengths of the image [nm], increasing.
        wanted: bands of the store; None takes those given.
        origin: what messages call the image.

    Raises:
        ValueError: no band of the image is near enough to one that is wanted: within half the distance of its bands.
    """
    given = np.asarray(given, np.float64)
    if wanted is None:
        return Resampling(given, tuple((i,) for i in range(given.size)))
    target = np.asarray(wanted.wanted, np.float64)
    edges = _edges(target)
    members: list[tuple[int, ...]] = []
    for band, value in enumerate(target):
        nearest = int(np.abs(given - value).argmin())
        inside = np.flatnonzero((given >= edges[band]) & (given < edges[band + 1]))
        if wanted.method == "averaged" and inside.size:
            members.append(tuple(inside.tolist()))
            continue
        if abs(given[nearest] - value) > _half_distance(given, nearest) + 1e-6:
            raise ValueError(
                f"data.bands must lie where {origin} has bands, got {value:g} nm, of which the nearest is "
                f"{given[nearest]:g} nm; it has {given.size} bands, {given[0]:g} .. {given[-1]:g} nm"
            )
        members.append((nearest,))
    return Resampling(target, tuple(members))


def _edges(target: Wavelengths) -> Wavelengths:
    """Middles between the bands, and as far beyond the first and the last."""
    if target.size == 1:
        return np.array([target[0] - 0.5, target[0] + 0.5])
    middle = (target[1:] + target[:-1]) / 2
    return np.concatenate([[2 * target[0] - middle[0]], middle, [2 * target[-1] - middle[-1]]])


def _half_distance(given: Wavelengths, band: int) -> float:
    """Half the usual distance of the bands there [nm]: not across a gap that bad bands left."""
    if given.size == 1:
        return 0.5
    nearer = float(np.diff(given[max(0, band - 1) : band + 2]).min())
    return max(nearer, float(np.median(np.diff(given)))) / 2
