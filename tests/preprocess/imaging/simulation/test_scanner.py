"""Noise, smile and stripes."""

from __future__ import annotations

import numpy as np
import pytest

from preprocess.imaging.simulation.scanner import READING, add_noise, add_smile, column_gains, response

BANDS = np.arange(400.0, 900.0, 10.0)


def test_noise_has_its_size_and_grows_to_both_ends() -> None:
    """Catches noise of the wrong size, the same in all bands, or independent of the signal."""
    best = int(response(BANDS).argmax())
    assert 550 < BANDS[best] < 750
    assert response(BANDS)[best] == pytest.approx(1, abs=0.01)
    white = np.ones((len(BANDS), 90, 110))
    white[:, :, 55:] = 0.04
    spread = add_noise(white, wavelengths=BANDS, noise=0.01, rng=np.random.default_rng(3)) - white
    bright, dim = spread[:, :, :55].std(axis=(1, 2)), spread[:, :, 55:].std(axis=(1, 2))
    assert bright[best] == pytest.approx(0.01, rel=0.05)
    assert dim[best] == pytest.approx(0.01 * np.sqrt(0.04 + READING**2), rel=0.05)
    assert bright[0] > 1.6 * bright[best] < bright[-1]
    assert np.abs(spread.mean(axis=(1, 2))).max() < 0.002


def test_smile_shifts_wavelengths_at_both_edges() -> None:
    """Catches a shift of the wrong sign or size; a spectrum that is the wavelength itself shows it exactly."""
    image = np.tile(BANDS[:, None, None], (1, 3, 5))
    shifted = add_smile(image, wavelengths=BANDS, smile=-6.0)
    expected = BANDS[:, None] - 6.0 * np.array([1, 0.25, 0, 0.25, 1])
    np.testing.assert_allclose(shifted[1:, 2], expected[1:], atol=1e-9)
    np.testing.assert_allclose(shifted[0], 400.0)  # nothing was measured below the first band


def test_stripes_belong_to_columns() -> None:
    """Catches gains of the wrong size, and the same gain in all bands, which any normalisation would remove."""
    gains = column_gains(4000, wavelengths=BANDS, stripes=0.03, rng=np.random.default_rng(1))
    assert gains.shape == (len(BANDS), 4000)
    assert gains.mean() == pytest.approx(1, abs=0.002)
    assert gains.std() == pytest.approx(0.03, rel=0.1)
    assert np.corrcoef(gains[0], gains[-1])[0, 1] < 0.8
