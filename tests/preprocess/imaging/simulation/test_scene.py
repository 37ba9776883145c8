"""Whole images: what decides them, and whether maps and spectra belong together."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocess.imaging.simulation.prospect import TRAITS
from preprocess.imaging.simulation.scene import SimulatedImage, simulate_image
from preprocess.imaging.simulation.settings import SceneSettings

SMALL = SceneSettings(size=40, wavelengths=tuple(np.arange(500.0, 861.0, 5.0)), seed=3, noise=0.001)


@pytest.fixture(scope="module")
def images() -> list[SimulatedImage]:
    return [simulate_image(SMALL, index=index) for index in range(6)]


def pixels(images: list[SimulatedImage]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Traits (pixel, trait) and spectra (pixel, band) of all leaf pixels."""
    leaf = [np.isfinite(image.traits[0]) for image in images]
    traits = np.concatenate([image.traits[:, mask].T for image, mask in zip(images, leaf, strict=True)])
    return traits, np.concatenate([image.reflectance[:, mask].T for image, mask in zip(images, leaf, strict=True)])


def test_settings_and_index_decide_every_bit(images: list[SimulatedImage]) -> None:
    """Catches randomness that is carried from image to image, and images that are all the same."""
    again = simulate_image(SMALL, index=4)
    assert again.reflectance.tobytes() == images[4].reflectance.tobytes()
    assert again.traits.tobytes() == images[4].traits.tobytes()
    others = [images[3], simulate_image(dataclasses.replace(SMALL, seed=4), index=4)]
    for other in others:
        assert not np.array_equal(other.traits, again.traits, equal_nan=True)


def test_bands_noise_and_stage_change_no_plant(images: list[SimulatedImage]) -> None:
    """Catches random numbers that are drawn in turn for different things."""
    few = dataclasses.replace(SMALL, wavelengths=SMALL.wavelengths[3::20], noise=0.02, stage="soil", smile=2.0)
    changed = simulate_image(few, index=1)
    np.testing.assert_array_equal(changed.traits, images[1].traits)
    silent = dataclasses.replace(SMALL, noise=0.0)
    few = dataclasses.replace(silent, wavelengths=SMALL.wavelengths[3::20])
    all_bands, some = simulate_image(silent, index=1), simulate_image(few, index=1)
    np.testing.assert_allclose(some.reflectance, all_bands.reflectance[3::20], rtol=2e-3)  # means over leaves shade


def test_finer_pixels_show_the_same_scene(images: list[SimulatedImage]) -> None:
    """Catches a scene that depends on the number of pixels."""
    fine = simulate_image(dataclasses.replace(SMALL, size=80, wavelengths=(550.0, 800.0)), index=0)
    averaged = fine.reflectance.reshape(2, 40, 2, 40, 2).mean(axis=(2, 4))
    coarse = images[0].reflectance[[10, 60]]
    assert np.corrcoef(averaged.ravel(), coarse.ravel())[0, 1] > 0.97


def test_maps_belong_to_the_pixels(images: list[SimulatedImage]) -> None:
    """Catches trait maps that are transposed, shifted or of a lower leaf: an index of chlorophyll must follow them."""
    traits, spectra = pixels(images)
    bands = images[0].wavelengths
    index = spectra[:, bands.searchsorted(780)] / spectra[:, bands.searchsorted(710)] - 1
    chlorophyll = traits[:, TRAITS.index("chlorophyll")]
    assert np.corrcoef(index, chlorophyll)[0, 1] > 0.75
    assert traits.shape[1] == len(TRAITS)
    assert all(np.array_equal(np.isfinite(image.traits).all(axis=0), np.isfinite(image.traits[0])) for image in images)


def test_green_leaves_look_like_green_leaves(images: list[SimulatedImage]) -> None:
    """Catches spectra no botanist would take for a leaf's: green peak, red edge, plateau, dark stage beside it."""
    traits, spectra = pixels(images)
    bands = images[0].wavelengths
    chlorophyll, brown = traits[:, TRAITS.index("chlorophyll")], traits[:, TRAITS.index("brown")]
    green = np.median(spectra[(chlorophyll > 25) & (brown == 0)], axis=0)
    visible = bands < 650
    assert 540 <= bands[visible][green[visible].argmax()] <= 560
    assert 695 <= bands[:-1][np.diff(green).argmax()] <= 725
    assert 0.35 < green[bands > 780].min() < green[bands > 780].max() < 0.6
    yellow = np.median(spectra[(chlorophyll < 6) & (brown < 0.3)], axis=0)
    at = bands.searchsorted
    assert yellow[at(600)] > 2 * green[at(600)]
    assert yellow[at(500)] < 0.5 * yellow[at(600)]
    bare = np.isnan(images[0].traits[0])
    assert np.median(images[0].reflectance[:, bare]) < 0.06


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 4}, "size must be at least 8 pixels, got 4"),
        ({"wavelengths": ()}, "at least one band"),
        ({"wavelengths": (500.0, 500.0)}, "must increase"),
        ({"wavelengths": (390.0, 500.0)}, "between 400 and 2500 nm, got 390"),
        ({"wavelengths": (500.0, 2501.0)}, "between 400 and 2500 nm, got 2501"),
        ({"wavelengths": (500.0,), "smile": 1.0}, "at least two bands"),
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"field_of_view": 0.0}, "field_of_view must be positive"),
        ({"plants": 0}, "plants must be between 1 and 100, got 0"),
        ({"stage": "grass"}, "dark or soil, got 'grass'"),
        ({"noise": float("nan")}, "noise must be between 0 and 1, got nan"),
        ({"stripes": 0.5}, "stripes must be between 0 and 0.3, got 0.5"),
        ({"lamp_zenith": 75.0}, "lamp_zenith must be between 0 and 60, got 75"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    """Catches a setting that is not checked, or a message without its name and value."""
    with pytest.raises(ValueError, match=message):
        SceneSettings(**wrong)
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        simulate_image(SMALL, index=-1)
