"""Made-up continents and mountains for the simulated atmosphere.

Contract: everything here is analytic and of our own making: rough hand-drawn outlines and ridges that resemble
the Earth's, so that storm tracks, jets and monsoons find land and mountains where a reader expects them. No data are
read. `land_fraction` and `elevation` are defined at any point, so every resolution sees the same planet, and
`elevation` is zero where there is no land.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

COAST_WIDTH = 0.8
"""Degrees over which the land fraction goes from 0.12 to 0.88 across a coast."""

# Outlines as (longitude east, latitude north) in degrees; longitudes may leave [0, 360) where a coast crosses the seam.
CONTINENTS: dict[str, list[tuple[float, float]]] = {
    "north_america": [
        (-168, 65), (-157, 71), (-128, 70), (-110, 74), (-85, 74), (-68, 68), (-78, 62), (-64, 60), (-56, 52),
        (-66, 45), (-74, 40), (-81, 31), (-81, 25), (-85, 30), (-97, 27), (-96, 19), (-88, 21), (-83, 10), (-80, 7.5),
        (-92, 14), (-105, 20), (-113, 29), (-121, 35), (-124, 46), (-135, 58), (-152, 59), (-163, 56),
    ],
    "greenland": [(-72, 78), (-60, 82), (-30, 83.5), (-18, 78), (-22, 70), (-43, 60), (-52, 66)],
    "south_america": [
        (-79, 8), (-72, 12), (-60, 9), (-50, 0), (-35, -6), (-39, -17), (-48, -27), (-58, -36), (-65, -42), (-68, -54),
        (-74, -51), (-73, -38), (-70, -19), (-81, -5),
    ],
    "africa": [
        (-6, 35), (10, 37), (20, 31), (32, 31), (36, 23), (43, 12), (51, 12), (41, -2), (40, -15), (33, -27), (27, -34),
        (18, -34), (12, -17), (9, 0), (8, 4), (-8, 4), (-17, 14), (-16, 22),
    ],
    "eurasia": [
        (-9, 38), (-9, 43), (-1, 44), (-4, 48), (8, 54), (5, 60), (12, 66), (25, 71), (42, 67), (60, 69), (72, 73),
        (104, 77), (130, 72), (160, 70), (180, 69), (190, 66), (178, 62), (163, 60), (157, 51), (154, 59), (136, 54),
        (140, 48), (129, 42), (129, 35), (125, 39), (121, 39), (122, 30), (115, 22), (107, 20), (109, 12), (104, 9),
        (104, 2), (98, 10), (94, 17), (88, 22), (80, 15), (77, 8), (72, 20), (66, 25), (57, 27), (49, 30), (51, 24),
        (59, 22), (52, 16), (44, 13), (39, 21), (34, 29), (36, 36), (27, 37), (22, 37), (19, 42), (13, 45), (17, 39),
        (10, 44), (3, 43), (-1, 37), (-6, 36),
    ],
    "australia": [
        (114, -22), (122, -18), (130, -12), (136, -12), (140, -17), (142, -11), (146, -19), (153, -27), (150, -37),
        (141, -38), (131, -32), (117, -35),
    ],
    "sumatra_and_java": [(95, 6), (104, -1), (114, -7), (105, -7), (99, 0)],
    "borneo": [(109, 2), (117, 7), (118, 1), (114, -4), (110, -2)],
    "new_guinea": [(131, -1), (141, -2.5), (150, -8), (147, -10.5), (138, -8)],
    "japan": [(130, 31.5), (136, 33.5), (141, 36), (145, 44), (141, 45), (139, 39), (132, 35)],
    "britain": [(-5, 50), (1.5, 51.5), (-2, 58), (-6, 58)],
    "madagascar": [(44, -25), (44, -17), (49.5, -12), (48, -25)],
    "new_zealand": [(167, -46.5), (171, -41), (174, -36), (178.5, -38), (172, -44.5)],
    "iceland": [(-23, 65), (-16, 66.5), (-14, 65), (-20, 63.4)],
    "antarctica": [
        (-110, -73), (-85, -73), (-70, -70), (-63, -64.5), (-60, -64), (-62, -73), (-45, -78), (-25, -74), (-10, -71),
        (30, -69), (60, -67), (90, -66), (120, -66.5),
        (150, -68.5), (168, -72), (178, -78), (200, -77), (220, -75), (250, -73), (275, -73), (290, -70), (297, -64.5),
        (300, -64), (298, -73), (315, -78), (335, -74), (350, -71), (350, -95), (-110, -95),
    ],
}  # fmt: skip

# Ridges: crest line, crest height in metres, half-width in degrees at which the height has fallen to 1/e.
RIDGES: dict[str, tuple[list[tuple[float, float]], float, float]] = {
    "rockies": ([(-150, 62), (-126, 53), (-110, 42), (-105, 32), (-100, 20)], 2600.0, 5.5),
    "andes": ([(-73, 8), (-78, -5), (-68, -18), (-70, -33), (-72, -48)], 4200.0, 3.0),
    "tibet": ([(72, 36), (84, 33), (100, 32)], 5200.0, 5.5),
    "altai": ([(78, 42), (92, 48), (102, 50), (125, 58)], 1900.0, 4.5),
    "anatolia_iran": ([(34, 39), (46, 37), (56, 31), (68, 33)], 1700.0, 3.5),
    "alps": ([(7, 45.5), (15, 47)], 1800.0, 2.2),
    "scandes": ([(8, 61), (18, 68)], 1200.0, 2.5),
    "urals": ([(58, 52), (62, 67)], 700.0, 2.5),
    "east_africa": ([(39, 10), (35, -4), (29, -20), (28, -30)], 1700.0, 4.5),
    "atlas": ([(-6, 32), (5, 35)], 1300.0, 2.0),
    "arabia": ([(43, 19), (45, 25)], 1000.0, 3.5),
    "deccan": ([(76, 12), (78, 20)], 700.0, 3.0),
    "brazil": ([(-43, -12), (-48, -20)], 900.0, 6.0),
    "great_divide": ([(149, -36), (147, -20)], 700.0, 2.5),
    "greenland": ([(-42, 64), (-40, 79)], 2900.0, 6.5),
    "east_antarctica": ([(40, -78), (110, -77)], 3500.0, 11.0),
    "south_pole": ([(0, -88), (180, -88)], 2900.0, 9.0),
    "west_antarctica": ([(250, -79), (285, -76)], 1700.0, 6.0),
}

PLAIN = 250.0
"""Elevation in metres far inland where there is no ridge."""


def land_fraction(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Land fraction on the grid of two coordinate vectors.

    Args:
        latitude: degrees north, shape (n_lat,).
        longitude: degrees east, shape (n_lon,), any convention.

    Returns:
        Fraction in [0, 1], shape (n_lat, n_lon).
    """
    return _sigmoid(4.0 / COAST_WIDTH * _signed_distance(latitude, longitude))


def elevation(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Height of the surface in metres, shape (n_lat, n_lon), before any model's truncation; zero at sea."""
    distance = _signed_distance(latitude, longitude)
    lat, lon = _mesh(latitude, longitude)
    plain = PLAIN * np.clip(distance / 6.0, 0.0, 1.0)
    fourth_powers = plain**4
    for crest, height, width in RIDGES.values():
        points = np.asarray(crest, dtype=np.float64)
        nearest = np.full(lat.shape, np.inf)
        for start, stop in pairwise(points):
            nearest = np.minimum(nearest, _distance_on_sphere_to_segment(lat, lon, start, stop))
        fourth_powers += (height * np.exp(-((nearest / width) ** 2))) ** 4
    return np.asarray(fourth_powers**0.25 * np.clip(distance / 1.5 + 0.3, 0.0, 1.0))


def ice_fraction(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Where land carries an ice sheet (Antarctica and Greenland): fraction in [0, 1], shape (n_lat, n_lon)."""
    lat, lon = _mesh(latitude, longitude)
    east = (lon + 180.0) % 360.0 - 180.0
    greenland = (lat > 58.0) & (east > -73.0) & (east < -15.0)
    return land_fraction(latitude, longitude) * ((lat < -60.0) | greenland)


def _mesh(latitude: ArrayLike, longitude: ArrayLike) -> tuple[Array, Array]:
    lat, lon = np.meshgrid(
        np.asarray(latitude, dtype=np.float64), np.asarray(longitude, dtype=np.float64), indexing="ij"
    )
    return lat, lon


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _signed_distance(latitude: ArrayLike, longitude: ArrayLike) -> Array:
    """Degrees to the nearest coast, positive on land; longitudes are shrunk by the cosine of the latitude."""
    lat, lon = _mesh(latitude, longitude)
    best = np.full(lat.shape, -np.inf)
    for outline in CONTINENTS.values():
        points = np.asarray(outline, dtype=np.float64)
        middle = 0.5 * (points[:, 0].min() + points[:, 0].max())
        best = np.maximum(best, _distance_to_outline(lat, (lon - middle + 180.0) % 360.0 - 180.0 + middle, points))
    return best


def _distance_to_outline(lat: Array, lon: Array, points: Array) -> Array:
    """Even-odd rule for the sign, distance to the nearest edge for the size; (n_lat, n_lon) degrees."""
    inside = np.zeros(lat.shape, dtype=bool)
    squared = np.full(lat.shape, np.inf)
    shrink = np.cos(np.deg2rad(np.clip(lat, -85.0, 85.0)))
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 != y1:
            crossing = x0 + (lat - y0) * (x1 - x0) / (y1 - y0)
            inside ^= ((y0 > lat) != (y1 > lat)) & (lon < crossing)
        squared = np.minimum(squared, _squared_distance_to_segment(lat, lon, shrink, (x0, y0), (x1, y1)))
    return np.asarray(np.where(inside, 1.0, -1.0) * np.sqrt(squared))


def _squared_distance_to_segment(
    lat: Array, lon: Array, shrink: Array, start: tuple[float, float], stop: tuple[float, float]
) -> Array:
    dx, dy = (stop[0] - start[0]) * shrink, stop[1] - start[1]
    px, py = (lon - start[0]) * shrink, lat - start[1]
    along = np.clip((px * dx + py * dy) / np.maximum(dx * dx + dy * dy, 1e-12), 0.0, 1.0)
    return np.asarray((px - along * dx) ** 2 + (py - along * dy) ** 2)


def _distance_on_sphere_to_segment(lat: Array, lon: Array, start: Array, stop: Array) -> Array:
    """Great-circle degrees from every point to the chord between two points of a crest line."""
    points = _unit_vector(lat, lon)
    a, b = (_unit_vector(np.asarray(p[1]), np.asarray(p[0])) for p in (start, stop))
    along = np.clip((points - a) @ (b - a) / max(float((b - a) @ (b - a)), 1e-12), 0.0, 1.0)
    nearest = a + along[..., None] * (b - a)
    nearest /= np.linalg.norm(nearest, axis=-1, keepdims=True)
    return np.asarray(np.rad2deg(np.arccos(np.clip(np.sum(points * nearest, axis=-1), -1.0, 1.0))))


def _unit_vector(lat: Array, lon: Array) -> Array:
    phi, lam = np.deg2rad(lat), np.deg2rad(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)
