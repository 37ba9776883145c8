"""What leaves contain, from place to place."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.imaging.simulation.prospect import TRAITS, trait_row
from preprocess.imaging.simulation.texture import Ripples, ripples
from preprocess.imaging.simulation.tissue import LIMITS, Tissue, leaf_tissue

GREEN = trait_row(
    {
        "chlorophyll": 40,
        "carotenoids": 9,
        "anthocyanins": 1,
        "water": 0.01,
        "dry_matter": 0.006,
        "structure": 1.6,
        "brown": 0,
    }
)
EVEN = Ripples(np.zeros((1, 3)))
NO_SPOTS = np.empty((0, 4))


def at(tissue: Tissue, *, along: float = 0.5, off: float = 8.0, veins: float = 0.0) -> dict[str, float]:
    """Traits at one point of a blade 70 mm long, 40 mm wide there."""
    row = tissue.at(
        np.array([along]), np.array([off]), half_width=np.array([20.0]), veins=np.array([veins]), length=70.0
    )
    return dict(zip(TRAITS, row[0], strict=True))


def test_veins_are_pale_and_hold_water() -> None:
    """Catches veins without effect or with the wrong sign."""
    tissue = Tissue(GREEN, 0.0, EVEN, 0.0, NO_SPOTS)
    vein, between = at(tissue, veins=1.0), at(tissue)
    assert vein["chlorophyll"] < 0.5 * between["chlorophyll"]
    assert vein["water"] > 1.5 * between["water"]


def test_senescence_takes_chlorophyll_first_and_spares_veins() -> None:
    """Catches leaves that turn white instead of yellow, and yellow veins in a leaf that is still half green."""
    old = Tissue(GREEN, 0.0, EVEN, 0.55, NO_SPOTS)
    dying = at(Tissue(GREEN, 0.0, EVEN, 1.0, NO_SPOTS))
    assert dying["chlorophyll"] < 0.15 * GREEN[0]
    assert dying["carotenoids"] > 0.5 * GREEN[1]
    lost_between = at(old)["chlorophyll"] / at(Tissue(GREEN, 0.0, EVEN, 0.0, NO_SPOTS))["chlorophyll"]
    lost_on_veins = (
        at(old, veins=0.6)["chlorophyll"] / at(Tissue(GREEN, 0.0, EVEN, 0.0, NO_SPOTS), veins=0.6)["chlorophyll"]
    )
    assert lost_between < 0.8 * lost_on_veins


def test_spots_are_where_they_are() -> None:
    """Catches spots in the wrong place or without a yellow ring."""
    spotted = Tissue(GREEN, 0.0, EVEN, 0.0, np.array([[0.6, -0.1, 4.0, 1.0]]))
    middle, ring, outside = (at(spotted, along=0.6, off=-7.0 + away) for away in (0.0, 6.0, 15.0))
    assert middle["brown"] > 1.5 > 0.2 > ring["brown"]
    assert middle["water"] < 0.5 * ring["water"]
    assert middle["chlorophyll"] < 0.3 * ring["chlorophyll"] < 0.3 * outside["chlorophyll"]
    assert outside["brown"] == 0


@pytest.mark.parametrize("seed", range(6))
def test_everything_stays_possible(seed: int) -> None:
    """Catches traits that leave the range where leaves exist, with which PROSPECT would be fed."""
    rng = np.random.default_rng(seed)
    extreme = GREEN * rng.choice([0.2, 3.0], len(TRAITS))
    tissue = leaf_tissue(extreme, rng=rng, redness=9.0, age=float(rng.random()), senescent=True)
    along, off = rng.random(500), rng.uniform(-30, 30, 500)
    rows = tissue.at(along, off, half_width=np.full(500, 25.0), veins=rng.random(500), length=70.0)
    low, high = np.array([LIMITS[name] for name in TRAITS]).T
    assert np.all((rows >= low) & (rows <= high))
    assert set(LIMITS) == set(TRAITS)


def test_ripples_have_their_mean_and_spread() -> None:
    """Catches fields whose strength depends on the number of waves."""
    x, y = np.meshgrid(np.arange(0, 3000, 7.0), np.arange(0, 2600, 7.0))
    for waves in (3, 12):
        field: NDArray[np.float64] = ripples(np.random.default_rng(5), length=40.0, waves=waves).at(x, y)
        assert abs(field.mean()) < 0.03
        assert field.std() == pytest.approx(1, abs=0.05)
