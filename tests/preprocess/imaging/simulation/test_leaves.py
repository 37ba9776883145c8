"""Outlines, veins and slopes of leaves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.imaging.simulation.leaves import Blade, Petiole

BLADE = Blade(base=(-30.0, -14.0), direction=0.5, length=70.0, width=0.7, base_power=0.62, bend=0.09, height=40.0,
              rise=0.2, droop=0.3, fold=0.25, laterals=6.0, teeth=20.0)  # fmt: skip


def points(pixel: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel centres of 120 x 96 mm."""
    x = np.arange(-60 + pixel / 2, 60, pixel)
    y = np.arange(-48 + pixel / 2, 48, pixel)
    grid = np.meshgrid(x, y)
    return grid[0], grid[1]


@pytest.mark.parametrize("pixel", [0.5, 4.0])
def test_a_blade_covers_its_area(pixel: float) -> None:
    """Catches an outline that grows or shrinks with the size of pixels: bending moves the blade and keeps its area."""
    along = np.linspace(0, 1, 20001)
    area = 2 * BLADE.half_width(along).mean() * BLADE.length
    assert BLADE.cover(*points(pixel), soft=pixel).sum() * pixel**2 == pytest.approx(area, rel=0.02)


def test_large_pixels_hold_the_veins_of_small_ones() -> None:
    """Catches veins whose share of a pixel does not follow from their width."""
    x, y = points(0.25)
    fine = BLADE.veins(x, y, pixel=0.25) * BLADE.cover(x, y, soft=0.25)
    x, y = points(3.0)
    coarse = BLADE.veins(x, y, pixel=3.0) * BLADE.cover(x, y, soft=3.0)
    averaged = fine.reshape(32, 12, 40, 12).mean(axis=(1, 3))
    assert coarse.mean() == pytest.approx(averaged.mean(), rel=0.1)
    assert np.corrcoef(coarse.ravel(), averaged.ravel())[0, 1] > 0.9


def test_large_pixels_hold_the_margin_of_small_ones() -> None:
    """Catches a margin whose softness ignores how steeply the outline runs there."""
    x, y = points(0.25)
    averaged = BLADE.cover(x, y, soft=0.25).reshape(32, 12, 40, 12).mean(axis=(1, 3))
    x, y = points(3.0)
    assert np.sqrt(np.mean((BLADE.cover(x, y, soft=3.0) - averaged) ** 2)) < 0.025


def test_a_petiole_has_its_thickness() -> None:
    """Catches petioles that vanish between the centres of large pixels."""
    petiole = Petiole((-31.0, -20.0), (22.0, 17.0), 2.2, 10.0)
    length = np.hypot(53.0, 37.0)
    for pixel in (0.25, 4.0):
        area = petiole.cover(*points(pixel), soft=pixel).sum() * pixel**2
        assert area == pytest.approx(2.2 * length, rel=0.12)


def test_slopes_turn_with_the_blade() -> None:
    """Catches slopes given in the blade's directions instead of the image's, and halves that fold the same way."""
    turned = dataclasses.replace(BLADE, base=(14.0, -30.0), direction=BLADE.direction + np.pi / 2)
    x, y = points(5.0)
    rise_x, rise_y = BLADE.slopes(x, y)
    turned_x, turned_y = turned.slopes(-y, x)
    np.testing.assert_allclose([turned_x, turned_y], [-rise_y, rise_x], atol=1e-12)
    flat = dataclasses.replace(BLADE, rise=0.0, droop=0.0, direction=0.0, bend=0.0)
    _, across = flat.slopes(np.array([0.0, 0.0]), np.array([-29.0, 1.0]))
    np.testing.assert_allclose(across, [-0.25, 0.25], atol=0.01)
