"""Light on leaves, below leaves and through leaves."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.imaging.simulation.leaves import Petiole
from preprocess.imaging.simulation.light import Lamp, Surface, picture, shade_share

ABOVE = Lamp(0.0, 0.3, 0.0)
X, Y = np.meshgrid(np.arange(-40.0, 41.0, 2.0), np.arange(-30.0, 31.0, 2.0))


class Sheet:
    """Covers everything."""

    def __init__(self, height: float) -> None:
        self.height = height

    def cover(self, x: np.ndarray, y: np.ndarray, *, soft: float) -> np.ndarray:
        return np.ones_like(x)


def sheet(height: float, reflectance: list[float], transmittance: list[float]) -> Surface:
    """A flat leaf over three pixels."""
    at = np.arange(3)
    spectra = np.tile(reflectance, (3, 1)), np.tile(transmittance, (3, 1))
    return Surface(Sheet(height), at, np.ones(3), np.ones(3), np.zeros(3), *spectra)


@pytest.mark.parametrize(("below", "through"), [([0.3, 0.07], 0.0), ([0.45, 0.05], 1.0)])
def test_light_is_thrown_to_and_fro_below_a_leaf(below: list[float], through: float) -> None:
    """Catches a leaf's shade without colour, light that passes a leaf only once, and bounces that are not counted.

    The lower surface is the stage (first case) or a leaf above a black stage (second); all bounces are summed up.
    """
    r, t = np.array([0.47, 0.09]), np.array([0.46, 0.11])
    upper = sheet(60.0, list(r), list(t))
    if through:
        surfaces, stage = [sheet(20.0, below, [0.3, 0.2]), upper], np.zeros((3, 2))
    else:
        surfaces, stage = [upper], np.tile(below, (3, 1))
    seen = picture(stage, surfaces, x=np.zeros(3), y=np.zeros(3), pixel=2.0, lamp=ABOVE)
    bounced = sum(t * np.array(below) * (r * np.array(below)) ** i * t for i in range(60))
    np.testing.assert_allclose(seen, np.tile(r + bounced, (3, 1)), atol=1e-12)


def test_shadows_fall_away_from_the_lamp() -> None:
    """Catches shadows on the lamp's side, and ones whose distance does not grow with the height above the surface."""
    disc = Petiole((2.0, -6.0), (2.0, -6.0), 12.0, 50.0)
    lamp = Lamp(np.deg2rad(30.0), np.deg2rad(120.0), 0.0)
    for gap in (10.0, 30.0):
        shade = shade_share(disc, gap=gap, x=X, y=Y, pixel=2.0, lamp=lamp)
        reach = gap * np.tan(np.deg2rad(30.0))
        middle = [(shade * axis).sum() / shade.sum() for axis in (X, Y)]
        expected = [2.0 - reach * np.cos(np.deg2rad(120.0)), -6.0 - reach * np.sin(np.deg2rad(120.0))]
        np.testing.assert_allclose(middle, expected, atol=0.3)


def test_light_of_the_room_reaches_shadows() -> None:
    """Catches black shadows: half of the light is diffuse, and a small thing high above hides little of it."""
    disc = Petiole((0.0, 0.0), (0.0, 0.0), 14.0, 80.0)
    hard, soft = (
        shade_share(disc, gap=60.0, x=X, y=Y, pixel=2.0, lamp=Lamp(0.0, 0.0, diffuse)) for diffuse in (0.0, 0.5)
    )
    assert hard.max() == pytest.approx(1)
    assert 0.5 < soft.max() < 0.75


def test_slopes_get_light_by_their_angle_to_the_lamp() -> None:
    """Catches a wrong sign of the slope: a surface that faces the lamp gets 1 / cos of the light of a level one."""
    lamp = Lamp(np.deg2rad(25.0), np.deg2rad(70.0), 0.0)
    towards = np.tan(np.deg2rad(25.0)) * np.array([np.cos(lamp.azimuth), np.sin(lamp.azimuth)])
    light, gloss = lamp.on_slope(np.array([0.0, -towards[0], towards[0], -4 * towards[0]]),
                                 np.array([0.0, -towards[1], towards[1], -4 * towards[1]]))  # fmt: skip
    steep = np.arctan(4 * np.tan(np.deg2rad(25.0))) - np.deg2rad(25.0)
    expected = [
        1,
        1 / np.cos(lamp.zenith),
        np.cos(2 * lamp.zenith) / np.cos(lamp.zenith),
        np.cos(steep) / np.cos(lamp.zenith),
    ]
    np.testing.assert_allclose(light, expected, atol=1e-12)
    mirror, _ = lamp.on_slope(np.zeros(1), np.zeros(1))
    assert mirror[0] == 1
    assert gloss[0] == pytest.approx(gloss[1], rel=1e-9), "12.5 degrees from the mirror on either side"
    assert gloss[2] < 0.01 * gloss[0]
