"""PROSPECT-D against another program, and its parts against integrals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import expn

from pipeline.imaging.image_store import TRAIT_UNITS
from preprocess.imaging.simulation.prospect import (
    STRUCTURE,
    TRAITS,
    LeafMaterial,
    leaf_material,
    leaf_optics,
    plate_transmission,
    transmissivity,
)

GOLDEN = Path(__file__).parents[3] / "data" / "prospect_d.npz"
BANDS = np.arange(400.0, 900.0)


@pytest.fixture(scope="module")
def golden() -> dict[str, NDArray[np.float64]]:
    """50 random leaves by prosail; the file says how."""
    with np.load(GOLDEN) as file:
        assert tuple(file["names"]) == TRAITS == tuple(TRAIT_UNITS)
        spectra = {name: np.cumsum(file[name], axis=1) * 1e-7 for name in ("reflectance", "transmittance")}
        return {"traits": file["traits"], **spectra}


def test_leaves_agree_with_prosail(golden: dict[str, NDArray[np.float64]]) -> None:
    """Catches a wrong coefficient, a swapped pair of traits, a wrong formula of surface, plate or pile."""
    reflectance, transmittance = leaf_optics(golden["traits"], material=leaf_material(BANDS))
    assert reflectance.shape == golden["reflectance"].shape == (50, 500)
    np.testing.assert_allclose(reflectance, golden["reflectance"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(transmittance, golden["transmittance"], rtol=0, atol=1e-6)


def test_plates_transmit_two_e3() -> None:
    """Catches a wrong formula with E1 and pieces of the table that do not meet, from transparent to opaque."""
    absorption = np.array([0.0, 1e-9, 3.7e-4, 0.02, 0.31, 1.0, 2.9, 17.0, 99.9999, 100.0, 400.0])
    np.testing.assert_allclose(plate_transmission(absorption), 2 * expn(3, absorption), rtol=0, atol=1e-12)


@pytest.mark.parametrize("angle", [40.0, 90.0])
@pytest.mark.parametrize("index", [1.28, 1.52])
def test_surfaces_transmit_what_fresnel_says(angle: float, index: float) -> None:
    """Catches a misprint in Stern's long formula: Fresnel's equations are averaged over the cone instead."""

    def entering(angle_in: float) -> float:
        a, b = np.cos(angle_in), np.sqrt(1 - (np.sin(angle_in) / index) ** 2)
        lost = (((a - index * b) / (a + index * b)) ** 2 + ((b - index * a) / (b + index * a)) ** 2) / 2
        return float((1 - lost) * 2 * np.sin(angle_in) * a)

    averaged = quad(entering, 0, np.deg2rad(angle))[0] / np.sin(np.deg2rad(angle)) ** 2
    assert transmissivity(np.array([index]), angle=angle)[0] == pytest.approx(averaged, abs=1e-9)


@pytest.mark.parametrize("structure", [1.0, 1.7, 3.0])
def test_what_does_not_absorb_loses_nothing(structure: float) -> None:
    """Catches the limit without absorption, where Stokes's formulas are 0 / 0."""
    glass = leaf_material(np.array([450.0, 800.0]))
    glass = LeafMaterial(np.zeros_like(glass.absorption), glass.cone, glass.inward, glass.outward)
    traits = np.full((1, len(TRAITS)), 3.0)
    traits[0, STRUCTURE] = structure
    reflectance, transmittance = leaf_optics(traits, material=glass)
    np.testing.assert_allclose(reflectance + transmittance, 1, rtol=0, atol=1e-7)
    hardly = LeafMaterial(np.full_like(glass.absorption, 1e-9), glass.cone, glass.inward, glass.outward)
    np.testing.assert_allclose(leaf_optics(traits, material=hardly)[0], reflectance, rtol=0, atol=1e-6)


def test_two_plates_are_two_plates(golden: dict[str, NDArray[np.float64]]) -> None:
    """Catches a pile that counts its plates wrongly: bounces between a leaf's first and second plate are added up."""
    glass = leaf_material(np.array([555.0, 700.0]))
    same = LeafMaterial(glass.absorption, glass.inward, glass.inward, glass.outward)  # diffuse light on top too
    twice = golden["traits"][3:4].copy()
    twice[0, STRUCTURE] = 2.0
    single = twice / 2  # half of the contents in one plate
    (r,), (t,) = leaf_optics(single, material=same)
    bounces = sum(t * r * (r * r) ** i * t for i in range(60))
    reflectance, transmittance = leaf_optics(twice, material=same)
    np.testing.assert_allclose(reflectance[0], r + bounces, rtol=0, atol=1e-12)
    np.testing.assert_allclose(transmittance[0], sum(t * (r * r) ** i * t for i in range(60)), rtol=0, atol=1e-12)


def test_a_leaf_does_not_depend_on_its_company(golden: dict[str, NDArray[np.float64]]) -> None:
    """Catches results that change with how many leaves are computed together: images would differ between runs."""
    material = leaf_material(BANDS[::7])
    many = np.tile(golden["traits"], (3, 1))
    together = leaf_optics(many, material=material)
    alone = leaf_optics(golden["traits"][41:42], material=material)
    for all_leaves, one in zip(together, alone, strict=True):
        assert all_leaves[141].tobytes() == one[0].tobytes()


@pytest.mark.parametrize("bad", [{"water": -0.001}, {"structure": 0.9}, {"brown": np.nan}])
def test_impossible_leaves_are_refused(golden: dict[str, NDArray[np.float64]], bad: dict[str, float]) -> None:
    """Catches NaN spectra from a trait outside of its range."""
    traits = golden["traits"][:2].copy()
    for name, value in bad.items():
        traits[1, TRAITS.index(name)] = value
    with pytest.raises(ValueError, match="structure must be at least 1"):
        leaf_optics(traits, material=leaf_material(BANDS[:3]))
