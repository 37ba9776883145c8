"""Scores of arrays against algebra and another program; colours against the CIE's tables."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.imaging.colour import Rendering, covers_the_visible, matching_functions, true_colour_weights
from evaluate.imaging.scores import psnr, spectral_angle, ssim_map

RANDOM = np.random.default_rng(0)


def test_ssim_is_that_of_the_paper() -> None:
    """Local means, variances and covariance by explicit 11 x 11 Gaussian windows (Wang et al. 2004, eq. 13 and 14),
    away from the edges; catches another window, constant or normalisation, and colours that are mixed."""
    one = RANDOM.random((14, 15, 3))
    other = np.clip(one + 0.2 * RANDOM.standard_normal(one.shape), 0, 1)
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    found = ssim_map(one, other)
    for y in range(5, 9):
        for x in range(5, 10):
            values = []
            for colour in range(3):
                a, b = (image[y - 5 : y + 6, x - 5 : x + 6, colour] for image in (one, other))
                ma, mb = (window * a).sum(), (window * b).sum()
                va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
                ab = (window * (a - ma) * (b - mb)).sum()
                likeness = (2 * ma * mb + 1e-4) * (2 * ab + 9e-4)
                values.append(likeness / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
            assert found[y, x] == pytest.approx(np.mean(values), rel=1e-9)
    np.testing.assert_allclose(ssim_map(one, one), 1.0)


def test_spectral_angle_is_that_of_the_formula() -> None:
    """Known angles, whatever the brightness; catches radians, a missing norm, values that are not valid."""
    a = np.array([[1.0, 1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 1.0]])
    b = np.array([[0.0, 1.0, 3.0, 1.0, 0.0], [2.0, 1.0, 0.0, 0.0, 0.0]])
    found = spectral_angle(a, b, valid=np.ones(a.shape, bool))
    np.testing.assert_allclose(found, [90.0, 45.0, 45.0, 90.0, np.nan])
    masked = spectral_angle(a[:, :1], np.array([[5.0], [np.nan]]), valid=np.array([[True], [False]]))
    np.testing.assert_allclose(masked, 0.0)


def test_psnr_of_a_known_error() -> None:
    """An error of a tenth of the range is 20 dB; catches a missing square."""
    np.testing.assert_allclose(psnr(np.array(0.04**2), value_range=0.4), 20.0)


def test_matching_functions_are_those_of_the_cie() -> None:
    """The CIE 1931 table at its peaks and crossings, to what the fit allows; catches swapped widths or columns."""
    table = {450: (0.3362, 0.0380, 1.7721), 500: (0.0049, 0.3230, 0.2720), 555: (0.5121, 1.0, 0.0057),
             600: (1.0622, 0.6310, 0.0008), 650: (0.2835, 0.1070, 0.0)}  # fmt: skip
    np.testing.assert_allclose(matching_functions(np.array(list(table), float)), list(table.values()), atol=0.03)


def test_colours_are_those_of_the_spectrum() -> None:
    """White stays white with any spacing of bands, a red filter is red, chlorophyll's is green; near infrared and an
    exposure change what they must."""
    wavelengths = np.concatenate([np.arange(400.0, 600.0, 4.0), np.arange(600.0, 900.0, 9.0)])
    np.testing.assert_allclose(true_colour_weights(wavelengths).sum(axis=0), 1.0)
    flat = np.full(len(wavelengths), 0.5)
    rendering = Rendering.of(wavelengths, mean=flat, std=0 * flat)
    assert rendering.true_colour
    spectra = np.stack(
        [flat, 0.5 * (wavelengths > 610), 0.4 * np.exp(-(((wavelengths - 550) / 30) ** 2)), 1.0 * (wavelengths > 790)]
    )
    white, red, green, infrared = rendering(spectra.T[:, :, None])[:, 0]
    np.testing.assert_allclose(white, 1.0, atol=1e-6)
    assert np.argmax(red) == 0
    assert np.argmax(green) == 1
    assert red[0] > 2 * max(red[1], 0.01)
    np.testing.assert_allclose(infrared, 0.0, atol=0.02)
    even = np.arange(400.0, 900.0, 2.0)
    same = Rendering.of(even, mean=np.full(250, 0.5), std=np.zeros(250))
    np.testing.assert_allclose(
        same(0.4 * np.exp(-(((even - 610) / 40) ** 2))[:, None, None])[0, 0],
        rendering(0.4 * np.exp(-(((wavelengths - 610) / 40) ** 2))[:, None, None])[0, 0],
        atol=0.02,
    )
    assert np.isnan(rendering(np.full((len(wavelengths), 1, 1), np.nan))).all()


def test_an_instrument_without_visible_bands_says_so() -> None:
    """Catches colours that pretend to be true."""
    infrared = np.arange(900.0, 1700.0, 10.0)
    assert not covers_the_visible(infrared)
    assert not covers_the_visible(np.array([400.0, 430.0, 560.0, 700.0]))
    rendering = Rendering.of(infrared, mean=np.full(80, 0.3), std=np.full(80, 0.1))
    assert rendering.title == "false colour, 1560, 1300, 1030 nm"
    assert rendering.weights[:, 0].argmax() > rendering.weights[:, 2].argmax()
