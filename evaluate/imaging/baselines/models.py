"""The baselines: what they are fitted on and what they guess.

Contract: fitted on training images only. Each sees of a tile exactly what the network sees: the valid pixels of visible
patches, in bands that are not hidden. What a baseline guesses where it knows nothing at all is the mean of the training
images.

    band_mean      mean of each band over the training images
    visible_mean   mean spectrum of the visible pixels of the tile; hidden bands on a straight line between the rest
    interpolation  inverse distance weighting of the visible pixels, with the power that suits training tiles best;
                   hidden bands on a straight line between the rest
    low_rank       scores of the visible pixels on the principal components of training spectra, which also complete
                   hidden bands; at hidden pixels a mixture of those scores spread with every power, with the weights
                   that suit training tiles best, component by component
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluate.imaging.baselines.spatial import POWERS, positions, spread
from evaluate.imaging.baselines.spectral import Components, bridge

Array = NDArray[np.float64]
Cube = NDArray[np.float32]
Mask = NDArray[np.bool_]

NAMES = ("band_mean", "visible_mean", "interpolation", "low_rank")
COMPARED_BANDS = 32
"""With which the power of the interpolation is chosen, evenly spaced."""
PIXELS = 512
"""Of each training tile, for the components."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A tile, and what of it was hidden.

    Args:
        truth: reflectance, shape (band, y, x).
        valid: shape (band, y, x).
        hidden: pixels of hidden patches, shape (y, x).
        window: hidden bands, shape (band,).
    """

    truth: Cube
    valid: Mask
    hidden: Mask
    window: Mask

    @property
    def known(self) -> Mask:
        """Visible pixels that are valid in every band that was not hidden, shape (y, x)."""
        return np.asarray(~self.hidden & self.valid[~self.window].all(axis=0))


@dataclass(frozen=True, eq=False)
class Baselines:
    """Fitted baselines.

    Args:
        wavelengths: of the bands [nm].
        mean: reflectance of the training images, shape (band,).
        power: of `interpolation`.
        components: of `low_rank`.
        mixture: weights of its powers, shape (power, component).
    """

    wavelengths: Array
    mean: Array
    power: int
    components: Components
    mixture: Array

    @classmethod
    def fit(cls, tiles: Iterable[Seen], *, wavelengths: Array, mean: Array, seed: int) -> Baselines:
        """Fit on training tiles.

        Args:
            tiles: with masks drawn as those that are judged; gone through once, kept in memory.
            wavelengths: of the bands [nm].
            mean: reflectance of the training images; 0 stands where a band has none.
            seed: draws the pixels for the components.

        Raises:
            ValueError: too few pixels that are valid in every band.
        """
        given, generator = list(tiles), np.random.default_rng(seed)
        drawn = [_some_spectra(tile, generator) for tile in given]
        spectra = np.concatenate(drawn) if drawn else np.empty((0, len(wavelengths)))
        if len(spectra) < 2:
            raise ValueError(
                "training images must have pixels that are valid in every band, for the baselines, got "
                f"{len(spectra)}; leave the bands out that are invalid (data.bands)"
            )
        components = Components.fit(spectra)
        usable = [tile for tile in given if tile.known.any() and tile.hidden.any()]
        return cls(wavelengths, np.nan_to_num(mean), _best_power(usable), components, _mixture(usable, components))

    def guess(self, tile: Seen) -> dict[str, Cube]:
        """What each baseline guesses of a tile, by name, shape (band, y, x)."""
        everywhere = np.broadcast_to(self.mean[:, None, None], tile.truth.shape).astype(np.float32)
        known = tile.known
        if not known.any() or tile.window.all():
            return dict.fromkeys(NAMES, everywhere)
        seen = tile.truth[:, known].T
        bridged = bridge(seen, self.wavelengths, gap=tile.window)
        scores = self.components.scores(seen, gap=tile.window)
        at, wanted = positions(known), positions(~known)
        if len(wanted):
            (spatial,) = spread(bridged, known=at, wanted=wanted, powers=[self.power])
            mixed = np.einsum("pnk,pk->nk", spread(scores, known=at, wanted=wanted, powers=POWERS), self.mixture)
        else:
            spatial, mixed = np.empty((0, bridged.shape[1])), np.empty((0, scores.shape[1]))
        flat = np.broadcast_to(self._visible_mean(tile)[:, None, None], tile.truth.shape).astype(np.float32)
        found = {"band_mean": everywhere, "visible_mean": flat}
        completed = {
            "interpolation": (bridged, spatial),
            "low_rank": (self.components.spectra(scores), self.components.spectra(mixed)),
        }
        for name, (there, elsewhere) in completed.items():
            cube = np.empty(tile.truth.shape, np.float32)
            cube[:, known], cube[:, ~known] = there.T, elsewhere.T
            found[name] = cube
        return found

    def _visible_mean(self, tile: Seen) -> Array:
        """Mean spectrum of the visible pixels, each band over those that are valid in it."""
        counted = tile.valid & ~tile.hidden & ~tile.window[:, None, None]
        number = counted.sum(axis=(1, 2))
        total = np.where(counted, tile.truth, 0.0).sum(axis=(1, 2), dtype=np.float64)
        empty = number == 0
        mean = np.where(empty, self.mean, total / np.maximum(number, 1))
        return bridge(mean[None], self.wavelengths, gap=empty)[0] if not empty.all() else mean


def _some_spectra(tile: Seen, generator: np.random.Generator) -> Cube:
    """Some of the pixels of a tile that are valid in every band, shape (pixel, band)."""
    whole = np.argwhere(tile.valid.all(axis=0))
    chosen = whole[generator.permutation(len(whole))[:PIXELS]]
    return np.asarray(tile.truth[:, chosen[:, 0], chosen[:, 1]].T)


def _targets(tile: Seen) -> Mask:
    """Hidden pixels that are valid in every band, shape (y, x)."""
    return np.asarray(tile.hidden & tile.valid.all(axis=0))


def _best_power(tiles: list[Seen]) -> int:
    """The power with the smallest squared error at hidden pixels of some tiles, over some bands that were visible."""
    errors = np.zeros(len(POWERS))
    for tile in tiles:
        known, wanted = tile.known, _targets(tile)
        seen = np.flatnonzero(~tile.window)
        some = tile.truth[seen[:: -(-len(seen) // COMPARED_BANDS)]]
        truth, at = some[:, wanted].T, {"known": positions(known), "wanted": positions(wanted)}
        guesses = spread(some[:, known].T, **at, powers=POWERS)
        errors += ((guesses - truth) ** 2).sum(axis=(1, 2), dtype=np.float64)
    return POWERS[int(np.argmin(errors))]


def _mixture(tiles: list[Seen], components: Components) -> Array:
    """Weights of the powers by least squares of the scores at hidden pixels, shape (power, component)."""
    count = len(components.variances)
    left, right = np.zeros((count, len(POWERS), len(POWERS))), np.zeros((count, len(POWERS)))
    for tile in tiles:
        known, wanted = tile.known, _targets(tile)
        given = components.scores(tile.truth[:, known].T, gap=tile.window)
        truth = components.scores(tile.truth[:, wanted].T, gap=np.zeros_like(tile.window))
        guesses = spread(given, known=positions(known), wanted=positions(wanted), powers=POWERS).astype(np.float64)
        left += np.einsum("pnk,qnk->kpq", guesses, guesses, optimize=True)
        right += np.einsum("pnk,nk->kp", guesses, truth, optimize=True)
    size = np.maximum(np.trace(left, axis1=1, axis2=2) / len(POWERS), 1e-30)
    steadied = left + 1e-4 * size[:, None, None] * np.eye(len(POWERS))
    return np.asarray(np.linalg.solve(steadied, right[:, :, None])[:, :, 0].T)
