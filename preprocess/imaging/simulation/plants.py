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
from preprocess.imaging.simulation.prospect import trait_row
from preprocess.imaging.simulation.settings import SceneSettings
from preprocess.imaging.simulation.tissue import Tissue, leaf_tissue

Array = NDArray[np.float64]

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
"""Radians from one leaf of a shoot to the next."""
BLADE_LENGTH, PETIOLE_LENGTH = 76.0, 38.0
"""mm; of a full-grown leaf of an average plant."""
PETIOLE = {"chlorophyll": 14.0, "carotenoids": 5.0, "anthocyanins": 3.0, "water": 0.03, "dry_matter": 0.016,
           "structure": 2.0, "brown": 0.0}  # fmt: skip
"""Traits of petioles, thick and pale."""


@dataclass(frozen=True)
class Leaf:
    """A blade with its tissue and its petiole."""

    blade: Blade
    tissue: Tissue
    petiole: Petiole
    petiole_traits: Array


@dataclass(frozen=True)
class _Plant:
    """What the leaves of one plant have in common.

    Attributes:
        mature: traits of full-grown healthy leaves between the veins, in the order of `prospect.TRAITS`.
        redness: anthocyanins that the youngest leaves have in addition, ug cm-2.
        petiole: traits of petioles.
        senescent: the oldest leaves are dying.
        width, base_power: outline of the blades, see `Blade`.
        leaves: their number.
        vigour: factor on their size.
        full_grown: the age from which on they no longer grow, 0 for the youngest leaf and 1 for the oldest.
        turn: direction of the oldest leaf in radians.
    """

    mature: Array
    redness: float
    petiole: Array
    senescent: bool
    width: float
    base_power: float
    leaves: int
    vigour: float
    full_grown: float
    turn: float


def grow(settings: SceneSettings, rng: np.random.Generator) -> list[Leaf]:
    """The leaves of all plants of one image, from the lowest blade to the highest."""
    treatment = rng.standard_normal(6)  # what all plants of one image share: their soil, their date
    leaves: list[Leaf] = []
    for x, y in _places(settings, rng):
        leaves += _leaves(_plant(settings, treatment, rng), stem=(float(x), float(y)), rng=rng)
    return sorted(leaves, key=lambda leaf: leaf.blade.height)


def _places(settings: SceneSettings, rng: np.random.Generator) -> Array:
    """Positions of the stems, (plant, 2): for each the one of a few that is farthest from the others."""
    half = settings.field_of_view / 2
    tries = rng.uniform(-0.8 * half, 0.8 * half, (settings.plants, 5, 2))
    places = tries[:1, 0]
    for candidates in tries[1:]:
        distance = np.linalg.norm(candidates[:, None] - places[None], axis=2).min(axis=1)
        places = np.concatenate([places, candidates[[distance.argmax()]]])
    return places


def _plant(settings: SceneSettings, treatment: Array, rng: np.random.Generator) -> _Plant:
    z = 0.7 * treatment + 0.7 * rng.standard_normal(6)
    chlorophyll = 36.0 * np.exp(0.38 * z[0])
    mature = {
        "chlorophyll": chlorophyll,
        "carotenoids": (2.0 + 0.17 * chlorophyll) * np.exp(0.18 * z[1]),
        "anthocyanins": 0.8 * np.exp(0.5 * z[2]),
        "water": 0.0105 * np.exp(0.25 * z[3]),
        "dry_matter": 0.006 * np.exp(0.22 * z[4]),
        "structure": 1.3 + 0.35 * np.exp(0.35 * z[5]),
        "brown": 0.0,
    }
    petiole = PETIOLE | {
        "chlorophyll": PETIOLE["chlorophyll"] * rng.uniform(0.6, 1.5),
        "anthocyanins": PETIOLE["anthocyanins"] * rng.uniform(0.3, 2.5),
    }
    return _Plant(
        mature=trait_row(mature),
        redness=float(rng.uniform(0, 9)),
        petiole=trait_row(petiole),
        senescent=bool(rng.random() < settings.senescence),
        width=float(rng.uniform(0.62, 0.82)),
        base_power=float(rng.uniform(0.5, 0.78)),
        leaves=int(rng.integers(6, 10)),
        vigour=float(rng.uniform(0.85, 1.15)),
        full_grown=float(rng.uniform(0.45, 0.6)),
        turn=float(rng.uniform(0, 2 * np.pi)),
    )


def _leaves(plant: _Plant, *, stem: tuple[float, float], rng: np.random.Generator) -> list[Leaf]:
    """The leaves of one plant around its stem at (x, y), from the oldest, at the bottom, to the youngest."""
    leaves = []
    for i in range(plant.leaves):
        age = 1 - i / (plant.leaves - 1)
        size = plant.vigour * rng.uniform(0.88, 1.08) * (0.3 + 0.7 * min(1.0, age / plant.full_grown))
        height = 25 + 75 * (1 - age) + rng.uniform(-3, 3)
        direction = plant.turn + GOLDEN_ANGLE * i + rng.normal(0, 0.15)
        reach = PETIOLE_LENGTH * size * rng.uniform(0.7, 1.0)
        base = (float(stem[0] + reach * np.cos(direction)), float(stem[1] + reach * np.sin(direction)))
        blade = Blade(
            base=base,
            direction=float(direction + rng.normal(0, 0.2)),
            length=float(BLADE_LENGTH * size),
            width=float(plant.width * rng.uniform(0.94, 1.06)),
            base_power=plant.base_power,
            bend=float(rng.normal(0, 0.06)),
            height=float(height),
            rise=float(0.35 - 0.4 * age + rng.normal(0, 0.08)),
            droop=float(rng.uniform(0.15, 0.5)),
            fold=float(rng.uniform(0.08, 0.32)),
            laterals=float(rng.integers(5, 8)),
            teeth=float(rng.integers(18, 28)),
        )
        tissue = leaf_tissue(plant.mature, rng=rng, redness=plant.redness, age=age, senescent=plant.senescent)
        leaves.append(Leaf(blade, tissue, Petiole(stem, base, float(1.4 + 0.9 * size), height - 4), plant.petiole))
    return leaves
