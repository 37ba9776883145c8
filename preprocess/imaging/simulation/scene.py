"""One simulated image from the settings and its index.

Contract: `simulate_image` is a pure function; its bits depend on the settings and the index alone. Plants, stage, light
and noise each have random numbers of their own, so that an image without noise shows the same plants, and so does one
with other bands or more pixels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from preprocess.imaging.simulation import scanner
from preprocess.imaging.simulation.light import Lamp, Surface, picture
from preprocess.imaging.simulation.plants import Leaf, grow
from preprocess.imaging.simulation.prospect import TRAITS, LeafMaterial, leaf_material, leaf_optics
from preprocess.imaging.simulation.settings import SceneSettings
from preprocess.imaging.simulation.stage import stage_reflectance
from preprocess.imaging.simulation.texture import ripples

Array = NDArray[np.float64]

LAMP_AZIMUTH = -2.4
"""Radians; the lamp stands towards the upper left of every image."""


@dataclass(frozen=True)
class SimulatedImage:
    """An image and what is true of it; y is the direction of travel of the scanner, x runs along its line.

    Attributes:
        wavelengths: (band,) nm.
        reflectance: (band, y, x) relative to the white reference; noise can make it slightly negative.
        traits: (trait, y, x) of the topmost leaf, in the order of `prospect.TRAITS` and the units of
            `pipeline.imaging.image_store.TRAIT_UNITS`; NaN where a leaf blade covers less than half of the pixel.
    """

    wavelengths: Array
    reflectance: NDArray[np.float32]
    traits: NDArray[np.float32]


@dataclass(frozen=True)
class _Grid:
    """Pixels in one flat row: their centres and their size in mm."""

    x: Array
    y: Array
    pixel: float


def simulate_image(settings: SceneSettings, *, index: int) -> SimulatedImage:
    """The image number `index` of the series that the settings describe.

    Raises:
        ValueError: the index is negative.
    """
    if index < 0:
        raise ValueError(f"simulation: the index of an image must not be negative, got {index}")
    plants, ground, light, noise = (
        np.random.default_rng(seed) for seed in np.random.SeedSequence([settings.seed, index]).spawn(4)
    )
    wavelengths = np.array(settings.wavelengths)
    grid = _grid(settings)
    lamp = Lamp(float(np.deg2rad(settings.lamp_zenith)), LAMP_AZIMUTH, settings.diffuse)
    stage = stage_reflectance(settings.stage, x=grid.x, y=grid.y, wavelengths=wavelengths, rng=ground)
    material = _material(settings.wavelengths)
    traits = np.full((len(TRAITS), settings.size**2), np.nan, np.float32)
    surfaces: list[Surface] = []
    for leaf in grow(settings, plants):
        surfaces += _surfaces(leaf, grid=grid, lamp=lamp, material=material, labels=traits)
    image = picture(stage, surfaces, x=grid.x, y=grid.y, pixel=grid.pixel, lamp=lamp)
    image *= np.exp(settings.unevenness * ripples(light, length=settings.field_of_view).at(grid.x, grid.y))[:, None]
    cube = np.ascontiguousarray(image.T).reshape(-1, settings.size, settings.size)
    reflectance = _measured(cube, settings=settings, rng=noise)
    return SimulatedImage(wavelengths, reflectance, traits.reshape(-1, settings.size, settings.size))


@functools.lru_cache(maxsize=4)
def _material(wavelengths: tuple[float, ...]) -> LeafMaterial:
    return leaf_material(np.array(wavelengths))


def _grid(settings: SceneSettings) -> _Grid:
    pixel = settings.field_of_view / settings.size
    centres = (np.arange(settings.size) + 0.5) * pixel - settings.field_of_view / 2
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return _Grid(x.ravel(), y.ravel(), pixel)


def _surfaces(
    leaf: Leaf, *, grid: _Grid, lamp: Lamp, material: LeafMaterial, labels: NDArray[np.float32]
) -> list[Surface]:
    """Petiole and blade, as far as they are in the image; enters the blade's traits into the labels."""
    found = []
    share = leaf.petiole.cover(grid.x, grid.y, soft=grid.pixel)
    at = np.flatnonzero(share)
    reflectance, transmittance = leaf_optics(leaf.petiole_traits[None], material=material)
    spectra = (np.repeat(reflectance, len(at), axis=0), np.repeat(transmittance, len(at), axis=0))
    level = np.ones(len(at)), np.zeros(len(at))
    found.append(Surface(leaf.petiole, at, share[at], *level, *spectra))
    share = leaf.blade.cover(grid.x, grid.y, soft=grid.pixel)
    at = np.flatnonzero(share)
    x, y = grid.x[at], grid.y[at]
    along, off = leaf.blade.coordinates(x, y)
    veins = leaf.blade.veins(x, y, pixel=grid.pixel)
    half = leaf.blade.half_width(along)
    traits = leaf.tissue.at(along, off, half_width=half, veins=veins, length=leaf.blade.length)
    found.append(
        Surface(
            leaf.blade, at, share[at], *lamp.on_slope(*leaf.blade.slopes(x, y)), *leaf_optics(traits, material=material)
        )
    )
    labelled = share[at] >= 0.5
    labels[:, at[labelled]] = traits[labelled].T
    return [surface for surface in found if len(surface.pixels)]


def _measured(cube: Array, *, settings: SceneSettings, rng: np.random.Generator) -> NDArray[np.float32]:
    wavelengths = np.array(settings.wavelengths)
    gains, counting = rng.spawn(2)
    if settings.smile:
        cube = scanner.add_smile(cube, wavelengths=wavelengths, smile=settings.smile)
    if settings.stripes:
        cube = cube * scanner.column_gains(
            cube.shape[2], wavelengths=wavelengths, stripes=settings.stripes, rng=gains
        )[:, None, :]  # fmt: skip
    return scanner.add_noise(cube, wavelengths=wavelengths, noise=settings.noise, rng=counting)
