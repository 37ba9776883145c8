"""What a leaf contains at every point of its blade: age, veins, yellowing and dead spots.

Contract: rows of traits in the order of `prospect.TRAITS`, inside `LIMITS`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.simulation.prospect import TRAITS, trait_row
from preprocess.imaging.simulation.texture import Ripples, ripples

Array = NDArray[np.float64]

LIMITS = {
    "chlorophyll": (0.3, 90.0),
    "carotenoids": (0.3, 22.0),
    "anthocyanins": (0.0, 12.0),
    "water": (0.001, 0.04),
    "dry_matter": (0.0015, 0.02),
    "structure": (1.1, 2.8),
    "brown": (0.0, 3.0),
}
"""What occurs in living and dying leaves; everything is clipped to it."""

PIGMENTS = [TRAITS.index(name) for name in ("chlorophyll", "carotenoids", "anthocyanins")]
YOUNG = {"chlorophyll": 0.45, "carotenoids": 0.55, "anthocyanins": 1.0, "water": 1.0, "dry_matter": 0.65,
         "structure": 0.88, "brown": 1.0}  # fmt: skip
"""Factors on the traits of a full-grown leaf, for one that has just unfolded."""
VEIN = {"chlorophyll": 0.35, "carotenoids": 0.45, "anthocyanins": 1.0, "water": 1.7, "dry_matter": 1.7,
        "structure": 1.3, "brown": 1.0}  # fmt: skip
"""Factors on the traits of the tissue between veins, for tissue along them: little pigment, much water and wood."""
YELLOW = {"chlorophyll": 0.06, "carotenoids": 0.6, "anthocyanins": 1.0, "water": 0.75, "dry_matter": 0.9,
          "structure": 1.1, "brown": 1.0}  # fmt: skip
"""Factors where senescence is complete: chlorophyll is taken back first, carotenoids stay and colour the leaf."""
DEAD = {"chlorophyll": 0.03, "carotenoids": 0.9, "anthocyanins": 0.5, "water": 0.2, "dry_matter": 0.85,
        "structure": 1.35, "brown": 1.0}  # fmt: skip
"""Factors in the middle of a dead spot, which also gains `DEAD_BROWN`."""
DEAD_BROWN = 1.8
"""Brown pigments of a dead spot, in the units of PROSPECT."""


@dataclass(frozen=True)
class Tissue:
    """The tissue of one leaf.

    Attributes:
        traits: (trait,) of healthy tissue between the veins.
        gradient: relative change of the pigments from base to tip.
        patches: unevenness of pigments over the blade, by position in mm.
        senescence: 0 for a green leaf, 1 for one that is yellow but for its veins.
        spots: (spot, 4): along, distance from the midrib over the length, radius in mm, severity from 0 to 1.
    """

    traits: Array
    gradient: float
    patches: Ripples
    senescence: float
    spots: Array

    def at(self, along: Array, off: Array, *, half_width: Array, veins: Array, length: float) -> Array:
        """Traits at points of the blade.

        Args:
            along: (point,) distance from the base along the midrib, over the length.
            off: (point,) signed distance from the midrib in mm.
            half_width: (point,) of the blade in mm.
            veins: (point,) share of vein tissue.
            length: of the blade in mm.

        Returns:
            (point, trait)
        """
        margin = np.clip(np.abs(off) / np.maximum(half_width, 1e-6), 0, 1)
        patchy = self.patches.at(along * length, off)
        pigment = (1 + self.gradient * (along - 0.5)) * (1 + 0.05 * patchy) * (1 - 0.1 * margin**3)
        rows = np.tile(self.traits, (len(along), 1))
        rows[:, PIGMENTS] *= pigment[:, None]
        rows = _towards(rows, VEIN, veins)
        dead, halo = self._spots(along, off, length)
        onset = 1.5 * self.senescence + 0.35 * (margin**2 - 0.5) + 0.12 * patchy - 0.5 * veins - 0.45
        yellow = np.maximum(_smooth_step(onset + 0.5) if self.senescence > 0 else np.zeros_like(margin), halo)
        rows = _towards(_towards(rows, YELLOW, yellow), DEAD, dead)
        rows[:, TRAITS.index("brown")] += DEAD_BROWN * dead + 0.1 * yellow
        low, high = np.array([LIMITS[name] for name in TRAITS]).T
        return np.asarray(np.clip(rows, low, high))

    def _spots(self, along: Array, off: Array, length: float) -> tuple[Array, Array]:
        dead, halo = np.zeros_like(along), np.zeros_like(along)
        for at, beside, radius, severity in self.spots:
            distance = np.hypot((along - at) * length, off - beside * length) / radius
            dead = np.maximum(dead, severity * _smooth_step(1.7 - 1.4 * distance))
            halo = np.maximum(halo, severity * _smooth_step((2.4 - distance) / 1.4))
        return dead, halo


def leaf_tissue(mature: Array, *, rng: np.random.Generator, redness: float, age: float, senescent: bool) -> Tissue:
    """The tissue of one leaf of a plant.

    Args:
        mature: (trait,) of the plant's full-grown leaves.
        rng: of the plants.
        redness: anthocyanins that its youngest leaves have in addition, ug cm-2.
        age: 0 for the youngest leaf of the plant, 1 for its oldest.
        senescent: the plant is losing its oldest leaves.
    """
    grown = float(_smooth_step(np.float64(0.15 + 1.6 * age)))
    youth = trait_row(YOUNG)
    traits = mature * (youth + (1 - youth) * grown) * np.exp(0.06 * rng.standard_normal(len(TRAITS)))
    traits[TRAITS.index("anthocyanins")] += redness * (1 - grown) ** 2
    oldness = max(0.0, (age - 0.45) / 0.55)
    senescence = oldness * rng.uniform(0.3, 1.0) if senescent else 0.0
    count = rng.poisson(1 + 6 * senescence) if senescent and oldness > 0 else 0
    spots = np.stack(
        [
            rng.uniform(0.1, 0.85, count),
            rng.uniform(-0.3, 0.3, count),
            rng.uniform(1.5, 5.5, count),
            rng.uniform(0.5, 1.0, count),
        ],
        axis=1,
    )
    return Tissue(traits, rng.uniform(-0.3, 0.3), ripples(rng, length=20.0), senescence, spots)


def _towards(rows: Array, factors: dict[str, float], share: Array) -> Array:
    """Each trait times its factor, as far as the share goes."""
    return rows * (1 + share[:, None] * (trait_row(factors) - 1))


def _smooth_step(x: Array | np.float64) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x))
