"""PROSPECT-D: reflectance and transmittance of a leaf from its pigments, water, dry matter and structure.

Source: Jacquemoud and Baret 1990 (doi:10.1016/0034-4257(90)90100-Z); Feret et al. 2017
(doi:10.1016/j.rse.2017.03.004). A leaf is a pile of N plates of one material: its absorption is that of its contents
divided by N, a plate transmits diffuse light as 1 - 2 E3(k), its surfaces refract after Stern (1964), and N plates, not
necessarily an integer number, combine after Stokes (1862). Light comes within 40 degrees of the vertical.
Contract: spectra in nm on any wavelengths from 400 to 2500; one leaf never changes the bits of another.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import exp1

from pipeline.imaging.image_store import TRAIT_UNITS

Array = NDArray[np.float64]

TRAITS = tuple(TRAIT_UNITS)
"""What a leaf contains and its number of plates, in the order of every array of traits here."""

STRUCTURE = TRAITS.index("structure")
INCIDENCE = 40.0
"""Degrees; the half-angle of the cone from which light meets a leaf, a constant of the model."""
_LEAVES_AT_ONCE = 64
"""Rows of work that stay in the processor's cache; results do not depend on it."""


@dataclass(frozen=True)
class LeafMaterial:
    """What leaves are made of, on the wavelengths of the bands.

    Attributes:
        absorption: (trait, band); the specific absorption of every trait, 0 for `structure`. Units: 1 / unit of trait.
        cone: (band,) transmissivity of the surface for light within 40 degrees of the vertical.
        inward, outward: (band,) transmissivity for diffuse light into and out of the leaf.
    """

    absorption: Array
    cone: Array
    inward: Array
    outward: Array


@functools.cache
def coefficients() -> dict[str, Array]:
    """The table coefficients.csv by column: refractive index, absorption, soils, at 400, 401, ..., 2500 nm."""
    text = Path(__file__).with_name("coefficients.csv").read_text(encoding="utf-8")
    header, *rows = (line for line in text.splitlines() if not line.startswith("#"))
    columns = np.ascontiguousarray(np.loadtxt(rows, delimiter=",").T)
    return dict(zip(header.split(","), columns, strict=True))


def at_wavelengths(column: str, *, wavelengths: Array) -> Array:
    """A column of the table at the given wavelengths in nm, linear between its own."""
    table = coefficients()
    return np.interp(wavelengths, table["wavelength"], table[column])


def leaf_material(wavelengths: Array) -> LeafMaterial:
    """The material of leaves at the given wavelengths, (band,) nm between 400 and 2500."""
    index = at_wavelengths("refractive_index", wavelengths=wavelengths)
    absorption = [
        np.zeros_like(index) if name == "structure" else at_wavelengths(name, wavelengths=wavelengths)
        for name in TRAITS
    ]
    inward = transmissivity(index, angle=90.0)
    return LeafMaterial(np.stack(absorption), transmissivity(index, angle=INCIDENCE), inward, inward / index**2)


def transmissivity(index: Array, *, angle: float) -> Array:
    """Share of light that enters a dielectric, averaged over directions within `angle` of the normal.

    Source: Stern 1964 (doi:10.1364/AO.3.000111), equations for both polarisations.

    Args:
        index: refractive index, above 1.
        angle: half-angle of the cone of light in degrees; 90 is diffuse light.
    """
    n2 = index**2
    plus, minus = n2 + 1, n2 - 1
    sine2 = np.sin(np.deg2rad(angle)) ** 2
    k = -(minus**2) / 4
    middle = sine2 - plus / 2
    low = np.sqrt(np.maximum(middle**2 + k, 0)) - middle
    high = (index + 1) ** 2 / 2

    def perpendicular(x: Array) -> Array:
        return k**2 / (6 * x**3) + k / x - x / 2

    def parallel(x: Array) -> Array:
        mixed = 2 * plus * x - minus**2
        return (
            -2 * n2 * x / plus**2
            - 2 * n2 * plus * np.log(x) / minus**2
            + n2 / (2 * x)
            + 16 * n2**2 * (n2**2 + 1) * np.log(mixed) / (plus**3 * minus**2)
            + 16 * n2**3 / (plus**3 * mixed)
        )

    both = perpendicular(low) - perpendicular(high) + parallel(low) - parallel(high)
    return np.asarray(both / (2 * sine2))


def trait_row(values: Mapping[str, float]) -> Array:
    """Values by name as an array in the order of `TRAITS`."""
    return np.array([values[name] for name in TRAITS], dtype=np.float64)


def leaf_optics(traits: Array, *, material: LeafMaterial) -> tuple[Array, Array]:
    """Reflectance and transmittance of leaves.

    Args:
        traits: (leaf, trait) in the order of `TRAITS` and the units of `TRAIT_UNITS`; none is negative, structure is at
            least 1.
        material: of the wanted wavelengths.

    Returns:
        reflectance and transmittance, (leaf, band), for light from all directions of the upper hemisphere gathered.

    Raises:
        ValueError: a trait is outside of its range.
    """
    if not (np.all(traits >= 0) and np.all(traits[:, STRUCTURE] >= 1)):
        raise ValueError(
            "PROSPECT-D: no trait may be negative or NaN, and structure must be at least 1; clip them first"
        )
    shape = (len(traits), material.cone.size)
    reflectance, transmittance = np.empty(shape), np.empty(shape)
    for start in range(0, len(traits), _LEAVES_AT_ONCE):
        rows = slice(start, start + _LEAVES_AT_ONCE)
        reflectance[rows], transmittance[rows] = _leaves(traits[rows], material)
    return reflectance, transmittance


def _leaves(traits: Array, material: LeafMaterial) -> tuple[Array, Array]:
    structure = traits[:, STRUCTURE, None]
    absorption = np.zeros((len(traits), material.cone.size))
    for i, spectrum in enumerate(material.absorption):  # not `@`: its bits may depend on the number of threads
        absorption += traits[:, i, None] * spectrum
    plate = plate_transmission(absorption / structure)
    inside = (1 - material.outward) * plate  # what the far surface throws back, as it arrives at the near one
    escape = plate * material.outward / (1 - inside**2)
    top_t, t = material.cone * escape, material.inward * escape
    top_r, r = 1 - material.cone + inside * top_t, 1 - material.inward + inside * t
    rest_r, rest_t = _pile(r, t, plates=structure - 1)
    between = 1 - rest_r * r
    return top_r + top_t * rest_r * t / between, top_t * rest_t / between


def _pile(r: Array, t: Array, *, plates: Array) -> tuple[Array, Array]:
    """Reflectance and transmittance of a number of equal plates, after Stokes; powers are of a number up to 1."""
    root = np.sqrt(np.maximum((1 + r + t) * (1 + r - t) * (1 - r + t) * (1 - r - t), 0))
    r2, t2 = r * r, t * t
    a2 = ((1 + r2 - t2 + root) / (2 * r)) ** 2
    power = (2 * t / (1 - r2 + t2 + root)) ** plates
    power2 = power * power
    below = a2 - power2
    lossless = r + t >= 1
    below[lossless] = 1
    pile_r, pile_t = np.sqrt(a2) * (1 - power2) / below, power * (a2 - 1) / below
    if lossless.any():
        kept = np.broadcast_to(plates, t.shape)[lossless]
        pile_t[lossless] = t[lossless] / (t[lossless] + (1 - t[lossless]) * kept)
        pile_r[lossless] = 1 - pile_t[lossless]
    return pile_r, pile_t


def plate_transmission(absorption: Array) -> Array:
    """Transmission of diffuse light through one plate, 2 E3(k) = (1 - k) exp(-k) + k^2 E1(k), without its surfaces.

    Cubic pieces in the square root of k, where the function is smooth: exact to 1e-12 at a quarter of the time of E1.
    """
    position = np.sqrt(np.minimum(absorption, _OPAQUE)) * _PIECES
    piece = position.astype(np.intp)
    x = (position - piece) / _PIECES
    c3, c2, c1, c0 = (c.take(piece) for c in _plate_pieces())
    return np.asarray(((c3 * x + c2) * x + c1) * x + c0)


_OPAQUE = 100.0
"""Absorption beyond which a plate is as good as opaque: less than 1e-43 passes."""
_PIECES = 2000
"""Cubic pieces per unit of the square root of k."""


@functools.cache
def _plate_pieces() -> Array:
    root = np.linspace(0, np.sqrt(_OPAQUE) + 1, round(_PIECES * (np.sqrt(_OPAQUE) + 1)) + 1)
    k = root[1:] ** 2
    value = np.append(1.0, (1 - k) * np.exp(-k) + k**2 * exp1(k))
    slope = np.append(0.0, 4 * root[1:] * (k * exp1(k) - np.exp(-k)))  # by the root of k
    return np.ascontiguousarray(CubicHermiteSpline(root, value, slope).c)
