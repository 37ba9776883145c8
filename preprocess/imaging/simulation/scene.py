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
from preprocess.imaging.simulation.leaves import Blade, Petiole
from preprocess.imaging.simulation.light import Lamp, Spectra, Surface, picture
from preprocess.imaging.simulation.plants import Leaf, grow
from preprocess.imaging.simulation.prospect import TRAITS, LeafMaterial, leaf_material, leaf_optics
from preprocess.imaging.simulation.settings import SceneSettings
from preprocess.imaging.simulation.stage import stage_reflectance
from preprocess.imaging.simulation.texture import ripples

Array = NDArray[np.float64]

LAMP_AZIMUTH = -2.4
"""Radians; the lamp stands towards the upper left of every image."""


LABELLED = 0.5
"""Share of a pixel from which on its topmost organ decides its traits."""


@dataclass(frozen=True)
class SimulatedImage:
    """An image and what is true of it; y is the direction of travel of the scanner, x runs along its line.

    Attributes:
        wavelengths: (band,) nm.
        reflectance: (band, y, x) relative to the white reference; noise can make it slightly negative.
        traits: (trait, y, x) of the topmost leaf, in the order of `prospect.TRAITS` and the units of
            `pipeline.imaging.image_store.TRAIT_UNITS`; NaN where a blade covers less than half of the
            pixel, or a petiole on top of it at least half.
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
        surfaces.append(_petiole(leaf, grid=grid, material=material, labels=traits))
        surfaces.append(_blade(leaf, grid=grid, lamp=lamp, material=material, labels=traits))
    shown = [surface for surface in surfaces if len(surface.pixels)]
    image = picture(stage.astype(np.float32), shown, x=grid.x, y=grid.y, pixel=grid.pixel, lamp=lamp)
    uneven = np.exp(settings.unevenness * ripples(light, length=settings.field_of_view).at(grid.x, grid.y))
    cube = np.ascontiguousarray((image * uneven.astype(np.float32)[:, None]).T)
    cube = cube.reshape(-1, settings.size, settings.size)
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


def _petiole(leaf: Leaf, *, grid: _Grid, material: LeafMaterial, labels: NDArray[np.float32]) -> Surface:
    """The petiole as far as it is in the image; takes the labels away from where it hides a lower blade."""
    share = leaf.petiole.cover(grid.x, grid.y, soft=grid.pixel)
    at = np.flatnonzero(share)
    labels[:, at[share[at] >= LABELLED]] = np.nan
    spectra = leaf_optics(np.tile(leaf.petiole_traits, (len(at), 1)), material=material)
    return _surface(leaf.petiole, at, share, (np.ones(len(at)), np.zeros(len(at))), spectra)


def _blade(leaf: Leaf, *, grid: _Grid, lamp: Lamp, material: LeafMaterial, labels: NDArray[np.float32]) -> Surface:
    """The blade as far as it is in the image; enters its traits into the labels."""
    blade = leaf.blade
    share = blade.cover(grid.x, grid.y, soft=grid.pixel)
    at = np.flatnonzero(share)
    x, y = grid.x[at], grid.y[at]
    along, off = blade.coordinates(x, y)
    veins = blade.veins(x, y, pixel=grid.pixel)
    traits = leaf.tissue.at(along, off, half_width=blade.half_width(along), veins=veins, length=blade.length)
    labelled = share[at] >= LABELLED
    labels[:, at[labelled]] = traits[labelled].T
    return _surface(blade, at, share, lamp.on_slope(*blade.slopes(x, y)), leaf_optics(traits, material=material))


def _surface(shape: Blade | Petiole, at: NDArray[np.intp], share: Array, light: tuple[Array, Array],
             spectra: tuple[Array, Array]) -> Surface:  # fmt: skip
    reflectance, transmittance = (spectrum.astype(np.float32) for spectrum in spectra)
    return Surface(shape, at, share[at], *light, reflectance, transmittance)


def _measured(cube: Spectra, *, settings: SceneSettings, rng: np.random.Generator) -> NDArray[np.float32]:
    wavelengths = np.array(settings.wavelengths)
    gains, counting = rng.spawn(2)
    if settings.smile:
        cube = scanner.add_smile(cube, wavelengths=wavelengths, smile=settings.smile)
    if settings.stripes:
        cube = cube * scanner.column_gains(
            cube.shape[2], wavelengths=wavelengths, stripes=settings.stripes, rng=gains
        )[:, None, :]  # fmt: skip
    return scanner.add_noise(cube, wavelengths=wavelengths, noise=settings.noise, rng=counting)
