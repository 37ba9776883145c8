"""The made-up planet: land where land should be, at every resolution and in every longitude convention."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.simulation.geography import elevation, ice_fraction, land_fraction

LATITUDE = np.linspace(90.0, -90.0, 61)
LONGITUDE = np.arange(0.0, 360.0, 4.0)


@pytest.mark.parametrize(
    ("place", "latitude", "longitude", "land"),
    [
        ("Sahara", 22.0, 10.0, True),
        ("Siberia", 62.0, 100.0, True),
        ("far east of Siberia, past the date line", 66.5, 185.0, True),
        ("Canada", 55.0, 255.0, True),
        ("Amazon", -8.0, 300.0, True),
        ("Australia", -25.0, 135.0, True),
        ("South Pole", -90.0, 123.0, True),
        ("North Pole", 90.0, 40.0, False),
        ("Pacific", 0.0, 200.0, False),
        ("Atlantic at Greenwich", -20.0, 0.0, False),
        ("Southern Ocean", -57.0, 60.0, False),
        ("Gulf of Mexico", 25.5, 270.0, False),
    ],
)
def test_places(place: str, latitude: float, longitude: float, land: bool) -> None:
    """Catches outlines drawn with latitude and longitude swapped, mirrored, or broken at the date line."""
    found = land_fraction([latitude], [longitude]).item()
    assert found > 0.9 if land else found < 0.1, f"{place}: {found}"


def test_longitude_convention_does_not_matter() -> None:
    """Catches a coast that moves when longitudes run from -180."""
    west = (LONGITUDE + 180.0) % 360.0 - 180.0
    for field in (land_fraction, elevation, ice_fraction):
        np.testing.assert_allclose(field(LATITUDE, west), field(LATITUDE, LONGITUDE), atol=1e-9)


def test_no_mountains_at_sea_and_no_seam_in_antarctica() -> None:
    """Catches ridges that stand in the ocean, and a false coast where an outline closes on itself."""
    land, height = land_fraction(LATITUDE, LONGITUDE), elevation(LATITUDE, LONGITUDE)
    assert height.min() >= 0.0
    assert height[land < 0.02].max() == 0.0
    assert 4500.0 < height.max() < 6000.0
    interior = land_fraction([-85.0], np.arange(0.0, 360.0, 0.5))
    assert interior.min() > 0.99


def test_resolutions_see_one_planet() -> None:
    """Catches a field that depends on the grid it is asked on."""
    coarse = land_fraction(LATITUDE[::3], LONGITUDE[::5])
    np.testing.assert_array_equal(coarse, land_fraction(LATITUDE, LONGITUDE)[::3, ::5])


def test_earthlike_shares() -> None:
    """Catches a continent lost or doubled: land covers about 29% of the Earth, ice sheets about 3%."""
    latitude = -89.0 + 2.0 * np.arange(90)
    weight = np.cos(np.deg2rad(latitude))[:, None] * np.ones(180)
    longitude = np.arange(0.0, 360.0, 2.0)
    assert 0.25 < np.average(land_fraction(latitude, longitude), weights=weight) < 0.33
    assert 0.02 < np.average(ice_fraction(latitude, longitude), weights=weight) < 0.05
