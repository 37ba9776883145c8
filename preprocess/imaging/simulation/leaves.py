"""The shapes of leaves: outline, veins, slope of the surface, and the petiole.

Contract: lengths in mm in the plane of the image, x to the right, y downwards, heights above the stage; everything can
be asked for at any point. A blade has coordinates of its own: `along` is 0 at the base and 1 at the tip, `across` is -1
and 1 at the margins and 0 on the midrib.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FALL = 1.2
"""Power of the outline towards the tip; above 1 the tip is drawn out, as poplars have it."""
MIDRIB, VEIN = 2.2, 0.9
"""mm; width of the light tissue along the midrib at the base and along a lateral vein where it leaves the midrib."""


@dataclass(frozen=True)
class Blade:
    """A leaf blade.

    Attributes:
        base: (x, y) where the petiole ends.
        direction: of the midrib at the base in radians, from x towards y.
        length: from base to tip.
        width: of the whole blade over its length.
        base_power: of the outline near the base: 0.5 is nearly straight as in black poplars, 0.8 egg-shaped as in
            balsam poplars.
        bend: how far the tip lies beside the straight midrib, over the length.
        height: of the middle of the blade.
        rise: slope of the midrib at the base; positive is upwards.
        droop: how much that slope decreases from base to tip.
        fold: slope by which both halves rise from the midrib.
        laterals: lateral veins on each side.
        teeth: along each margin.
    """

    base: tuple[float, float]
    direction: float
    length: float
    width: float
    base_power: float
    bend: float
    height: float
    rise: float
    droop: float
    fold: float
    laterals: float
    teeth: float

    def coordinates(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Distance along the midrib from base to tip over the length, and signed distance from the midrib in mm."""
        cos, sin = np.cos(self.direction), np.sin(self.direction)
        dx, dy = x - self.base[0], y - self.base[1]
        along = (dx * cos + dy * sin) / self.length
        return along, dy * cos - dx * sin - self.bend * self.length * along**2

    def half_width(self, along: Array) -> Array:
        """Half of the blade's width in mm; 0 beyond its ends."""
        inside = np.clip(along, 0, 1)
        power, whole = self.base_power, self.base_power + FALL
        largest = (power / whole) ** power * (FALL / whole) ** FALL
        smooth = 0.5 * self.width * self.length / largest * inside**power * (1 - inside) ** FALL
        return np.asarray(smooth * (1 + 0.03 * np.sin(2 * np.pi * self.teeth * inside)))

    def cover(self, x: Array, y: Array, *, soft: float) -> Array:
        """Share of the blade in a spot of the diameter `soft` mm: 1 inside, 0 outside, between them at the margin."""
        along, off = self.coordinates(x, y)
        inner = np.clip(along, 0.02, 0.98)
        half = self.half_width(along)
        slope = self.half_width(inner) / self.length * (self.base_power / inner - FALL / (1 - inner))
        beside = (half - np.abs(off)) / np.sqrt(1 + slope**2)
        beyond = np.maximum(-along, along - 1) * self.length
        return np.clip(0.5 + np.minimum(beside, -beyond) / soft, 0, 1)

    def veins(self, x: Array, y: Array, *, pixel: float) -> Array:
        """Share of light tissue along midrib and lateral veins in pixels of the given size in mm."""
        along, off = self.coordinates(x, y)
        inside = np.clip(along, 0, 1)
        midrib = _line(np.abs(off), MIDRIB * (1 - 0.8 * inside), pixel)
        beside = np.abs(off) / self.length
        spacing = 1 / self.laterals
        number = (along - 0.55 * beside - 1.1 * beside**2) / spacing - 0.5 * (off > 0)  # the sides alternate
        nearest = np.maximum(np.round(number), 0)
        distance = np.abs(number - nearest) * spacing * self.length * 0.85
        margin = np.abs(off) / np.maximum(self.half_width(along), 1e-6)
        lateral = _line(distance, VEIN * (1 - 0.7 * np.clip(margin, 0, 1)), pixel)
        return 1 - (1 - midrib) * (1 - lateral)

    def slopes(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Rise of the surface in x and in y, mm per mm."""
        along, off = self.coordinates(x, y)
        lengthwise = self.rise - self.droop * np.clip(along, 0, 1)
        crosswise = self.fold * np.tanh(off / (0.08 * self.length))
        cos, sin = np.cos(self.direction), np.sin(self.direction)
        return lengthwise * cos - crosswise * sin, lengthwise * sin + crosswise * cos


@dataclass(frozen=True)
class Petiole:
    """The stalk of a leaf, or with equal ends the stem seen from above.

    Attributes:
        start, end: (x, y) at the stem and at the blade.
        thickness: diameter.
        height: of its middle.
    """

    start: tuple[float, float]
    end: tuple[float, float]
    thickness: float
    height: float

    def cover(self, x: Array, y: Array, *, soft: float) -> Array:
        """Share of the petiole in a spot of the diameter `soft` mm."""
        ex, ey = self.end[0] - self.start[0], self.end[1] - self.start[1]
        dx, dy = x - self.start[0], y - self.start[1]
        share = np.clip((dx * ex + dy * ey) / max(ex**2 + ey**2, 1e-12), 0, 1)
        distance = np.hypot(dx - share * ex, dy - share * ey)
        return _line(distance, np.float64(self.thickness), soft)


def _line(distance: Array, width: Array | np.float64, spot: float) -> Array:
    """Share of a line of the given width in a spot whose middle is `distance` away from the line's."""
    overlap = np.minimum(distance + width / 2, spot / 2) - np.maximum(distance - width / 2, -spot / 2)
    return np.asarray(np.clip(overlap, 0, None) / spot)
