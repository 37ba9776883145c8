"""How light reaches the surfaces of a scene and the sensor above it.

Source: a leaf seen from close by reflects (cos i / cos s) (R + gloss), with i the angle between lamp and leaf, s that
between lamp and vertical, and a gloss without colour (PROCOSINE, Jay et al. 2016, doi:10.1016/j.rse.2016.02.029). Below
a leaf there is what it transmits, thrown to and fro between it and the surface below; for flat leaves that cover one
another this is the adding method for a pile of plates.
Contract: the sensor looks straight down; the lamp is far away; heights in mm decide what shades what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Spectra = NDArray[np.floating[Any]]

GLOSS, SHININESS = 0.05, 40.0
"""Reflectance of the glint where a leaf mirrors the lamp into the sensor, and how narrow it is (Blinn's exponent)."""
_NOTHING = 0.002
"""Shade below this share is left out."""


class Shape(Protocol):
    """Anything with an outline."""

    @property
    def height(self) -> float:
        """Above the stage in mm."""

    def cover(self, x: Array, y: Array, *, soft: float) -> Array:
        """Share of a spot of the diameter `soft` mm that it covers."""


@dataclass(frozen=True)
class Lamp:
    """One lamp and the light of the room.

    Attributes:
        zenith: angle from the vertical in radians.
        azimuth: where it stands, in radians from x towards y.
        diffuse: share of the light that comes from everywhere.
    """

    zenith: float
    azimuth: float
    diffuse: float

    def on_slope(self, rise_x: Array, rise_y: Array) -> tuple[Array, Array]:
        """Light on a sloping surface relative to a level one, and its glint, a reflectance.

        Args:
            rise_x: slope of the surface in x, mm per mm.
            rise_y: slope in y.
        """
        norm = np.sqrt(1 + rise_x**2 + rise_y**2)
        sin, cos = np.sin(self.zenith), np.cos(self.zenith)
        x, y = sin * np.cos(self.azimuth), sin * np.sin(self.azimuth)
        facing = np.maximum((cos - rise_x * x - rise_y * y) / norm, 0) / cos
        level = np.sqrt(x**2 + y**2 + (1 + cos) ** 2)
        mirror = np.maximum((1 + cos - rise_x * x - rise_y * y) / (norm * level), 0)
        light = (1 - self.diffuse) * facing + self.diffuse * (1 + 1 / norm) / 2
        return light, GLOSS * mirror**SHININESS


@dataclass(frozen=True)
class Surface:
    """The part of an organ that the image shows or shows through.

    Attributes:
        shape: its outline and height.
        pixels: (point,) positions in the flat image.
        share: (point,) of the pixel that it covers.
        light, gloss: (point,) as `Lamp.on_slope` returns them.
        reflectance, transmittance: (point, band)
    """

    shape: Shape
    pixels: NDArray[np.intp]
    share: Array
    light: Array
    gloss: Array
    reflectance: Spectra
    transmittance: Spectra


def picture(stage: Spectra, surfaces: Sequence[Surface], *, x: Array, y: Array, pixel: float, lamp: Lamp) -> Spectra:
    """Light that leaves the scene upwards over that of a white plate on the stage.

    Args:
        stage: (pixel, band) reflectance; all sums have its precision.
        surfaces: from the lowest to the highest.
        x: (pixel,) positions in mm.
        y: (pixel,) positions in mm.
        pixel: size in mm.
        lamp: the light.

    Returns:
        (pixel, band)
    """
    means = [(s.reflectance.mean(axis=0), s.transmittance.mean(axis=0)) for s in surfaces]
    image = stage.copy()
    _shade(image, 0.0, stage.mean(axis=0), list(zip(surfaces, means)), x=x, y=y, pixel=pixel, lamp=lamp)
    for i, surface in enumerate(surfaces):
        at = surface.pixels
        gloss, light, share = (a[:, None].astype(image.dtype) for a in (surface.gloss, surface.light, surface.share))
        seen = (surface.reflectance + gloss) * light
        above = list(zip(surfaces[i + 1 :], means[i + 1 :]))
        _shade(seen, surface.shape.height, means[i][0], above, x=x[at], y=y[at], pixel=pixel, lamp=lamp)
        below = image[at]
        image[at] = (1 - share) * below + share * (seen + surface.transmittance * below)
    return image


def _shade(seen: Spectra, height: float, reflectance: Spectra, above: list[tuple[Surface, tuple[Spectra, Spectra]]], *,
           x: Array, y: Array, pixel: float, lamp: Lamp) -> None:  # fmt: skip
    """Multiplies what is seen of a surface, (point, band), by the light that arrives there."""
    for organ, (reflected, transmitted) in above:
        gap = organ.shape.height - height
        if gap <= 0:
            continue
        passed = transmitted / (1 - reflected * reflectance)
        hidden = shade_share(organ.shape, gap=gap, x=x, y=y, pixel=pixel, lamp=lamp).astype(seen.dtype)
        at = np.flatnonzero(hidden > _NOTHING)
        seen[at] *= 1 - hidden[at, None] * (1 - passed)


def shade_share(shape: Shape, *, gap: float, x: Array, y: Array, pixel: float, lamp: Lamp) -> Array:
    """Share of the light at points that meets a shape `gap` mm above them: the lamp's, moved aside, and the room's."""
    aside = gap * np.tan(lamp.zenith)
    direct = shape.cover(x + aside * np.cos(lamp.azimuth), y + aside * np.sin(lamp.azimuth), soft=pixel + 0.1 * gap)
    around = shape.cover(x, y, soft=pixel + 1.5 * gap)
    return (1 - lamp.diffuse) * direct + lamp.diffuse * around
