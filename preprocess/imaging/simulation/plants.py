"""Which plants stand in the image: where they are, how their leaves are arranged, and what these contain.

Source of the ranges: leaves of poplars hold 15 to 60 ug cm-2 of chlorophyll, carotenoids follow it, and water, dry
matter and structure lie inside those of the ANGERS and LOPEX data that PROSPECT was fitted to (Feret et al. 2017).
Contract: organs are ordered from the lowest to the highest; nothing depends on pixels or bands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.simulation.leaves import Blade, Petiole
from preprocess.imaging.simulation.settings import SceneSettings
from preprocess.imaging.simulation.tissue import Tissue, leaf_tissue

Array = NDArray[np.float64]

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
"""Radians from one leaf of a shoot to the next."""
PETIOLE = np.array([9.0, 4.0, 2.5, 0.035, 0.018, 2.4, 0.0])
"""Traits of petioles and stems, thick and pale; in the order of `prospect.TRAITS`."""


@dataclass(frozen=True)
class Leaf:
    """A blade with its tissue and its petiole."""

    blade: Blade
    tissue: Tissue
    petiole: Petiole
    petiole_traits: Array


def grow(settings: SceneSettings, rng: np.random.Generator) -> list[Leaf]:
    """The leaves of all plants of one image, from the lowest blade to the highest."""
    treatment = rng.standard_normal(6)  # what all plants of one image share: their soil, their date
    leaves: list[Leaf] = []
    for x, y in _places(settings, rng):
        leaves += _plant((x, y), settings=settings, treatment=treatment, rng=rng)
    return sorted(leaves, key=lambda leaf: leaf.blade.height)


def _places(settings: SceneSettings, rng: np.random.Generator) -> Array:
    """Positions of the stems, (plant, 2), apart from one another where there is room."""
    half = settings.field_of_view / 2
    tries = rng.uniform(-0.8 * half, 0.8 * half, (settings.plants, 40, 2))
    places = tries[:1, 0]
    for candidates in tries[1:]:
        distance = np.linalg.norm(candidates[:, None] - places[None], axis=2).min(axis=1)
        places = np.concatenate([places, candidates[[distance.argmax()]]])
    return places


def _plant(stem: tuple[float, float], *, settings: SceneSettings, treatment: Array,
           rng: np.random.Generator) -> list[Leaf]:  # fmt: skip
    mature, redness = _constitution(treatment, rng)
    senescent = bool(rng.random() < settings.senescence)
    count, vigour = int(rng.integers(6, 10)), rng.uniform(0.85, 1.15)
    turn, taper = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.6)
    petiole_traits = PETIOLE * np.array([rng.uniform(0.6, 1.5), 1, rng.uniform(0.3, 2.0), 1, 1, 1, 1])
    leaves = []
    for i in range(count):  # from the oldest, at the bottom, to the youngest
        age = 1 - i / (count - 1)
        size = vigour * rng.uniform(0.88, 1.08) * (0.3 + 0.7 * min(1.0, age / taper))
        height = 25 + 75 * (1 - age) + rng.uniform(-3, 3)
        direction = turn + GOLDEN_ANGLE * i + rng.normal(0, 0.15)
        reach = 38.0 * size * rng.uniform(0.7, 1.0)
        base = (stem[0] + reach * float(np.cos(direction)), stem[1] + reach * float(np.sin(direction)))
        tissue = leaf_tissue(rng, mature=mature, redness=redness, age=age, senescent=senescent)
        blade = _blade(
            base, direction=direction + rng.normal(0, 0.2), length=76.0 * size, height=height, age=age, rng=rng
        )
        petiole = Petiole(stem, base, 1.6 + size, height - 4)
        leaves.append(Leaf(blade, tissue, petiole, petiole_traits))
    return leaves


def _blade(base: tuple[float, float], *, direction: float, length: float, height: float, age: float,
           rng: np.random.Generator) -> Blade:  # fmt: skip
    return Blade(
        base=base,
        direction=float(direction),
        length=float(length),
        width=float(rng.uniform(0.7, 0.85)),
        bend=float(rng.normal(0, 0.06)),
        height=float(height),
        rise=float(0.35 - 0.4 * age + rng.normal(0, 0.08)),
        droop=float(rng.uniform(0.15, 0.5)),
        fold=float(rng.uniform(0.08, 0.32)),
        laterals=float(rng.integers(5, 8)),
        teeth=float(rng.integers(18, 28)),
    )


def _constitution(treatment: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """Traits of a plant's full-grown healthy leaves in the order of `prospect.TRAITS`, and the redness of young ones."""
    own = rng.standard_normal(6)
    z = 0.7 * treatment + 0.7 * own
    chlorophyll = 36.0 * np.exp(0.38 * z[0])
    carotenoids = (2.0 + 0.17 * chlorophyll) * np.exp(0.18 * z[1])
    anthocyanins = 0.8 * np.exp(0.5 * z[2])
    water, dry_matter = 0.0105 * np.exp(0.25 * z[3]), 0.006 * np.exp(0.22 * z[4])
    structure = 1.3 + 0.35 * np.exp(0.35 * z[5])
    redness = float(rng.uniform(0, 9))
    return np.array([chlorophyll, carotenoids, anthocyanins, water, dry_matter, structure, 0.0]), redness
