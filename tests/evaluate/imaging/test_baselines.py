"""Baselines: each against algebra or a plain loop, and none of them sees what was hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.decomposition import PCA

from evaluate.imaging.baselines.models import NAMES, Baselines, Seen
from evaluate.imaging.baselines.spatial import POWERS, positions, spread
from evaluate.imaging.baselines.spectral import Components, bridge

RANDOM = np.random.default_rng(1)
WAVELENGTHS = np.array([400.0, 410.0, 430.0, 460.0, 500.0, 550.0])


def test_interpolation_is_shepards() -> None:
    """Against loops over pixels and powers; catches a power that is not reset, or swapped rows and columns."""
    mask = RANDOM.random((5, 7)) < 0.3
    values = RANDOM.random((int(mask.sum()), 2))
    found = spread(values, known=positions(mask), wanted=positions(~mask), powers=POWERS)
    for i, power in enumerate(POWERS):
        for j, (y, x) in enumerate(np.argwhere(~mask)):
            weights = [np.hypot(y - v, x - u) ** -power for v, u in np.argwhere(mask)]
            np.testing.assert_allclose(found[i, j], np.average(values, axis=0, weights=weights), rtol=1e-4)


@pytest.mark.parametrize("gap", [[2, 3], [0, 1], [4, 5], [0, 2, 5], []])
def test_bridge_is_linear_interpolation(gap: list[int]) -> None:
    """Against numpy's; catches a gap at an end, several gaps, bands at uneven distances."""
    spectra, hidden = RANDOM.random((3, 6)), np.isin(np.arange(6), gap)
    spoiled = np.where(hidden, np.nan, spectra)
    expected = [np.interp(WAVELENGTHS, WAVELENGTHS[~hidden], one[~hidden]) for one in spectra]
    np.testing.assert_allclose(bridge(spoiled, WAVELENGTHS, gap=hidden), expected)


def test_components_are_those_of_another_program_and_complete_spectra() -> None:
    """Axes and variances of scikit-learn; spectra of low rank are completed exactly, also where a third is hidden."""
    spectra = 0.3 + RANDOM.random((200, 2)) @ RANDOM.random((2, 12))
    components, other = Components.fit(spectra, components=2), PCA(2).fit(spectra)
    np.testing.assert_allclose(np.abs(np.sum(components.axes * other.components_, axis=1)), 1.0)
    np.testing.assert_allclose(components.variances, other.explained_variance_)
    gap = np.arange(12) >= 8
    completed = components.spectra(components.scores(np.where(gap, np.nan, spectra[:5]), gap=gap))
    np.testing.assert_allclose(completed, spectra[:5], atol=1e-4)


def test_scores_are_the_most_likely_ones() -> None:
    """One component, one visible band: a x / r over a^2 / r + 1 / v, by Bayes' rule; catches a prior that is left out,
    which lets noise into spectra of which little is seen."""
    components = Components(np.zeros(2), np.full((1, 2), 0.5**0.5), np.array([2.0]), np.array([0.5, 0.5]))
    found = components.scores(np.array([[1.0, np.nan]]), gap=np.array([False, True]))
    np.testing.assert_allclose(found, 2**0.5 / (1.0 + 0.5))


def tile(seed: int, *, window: slice = slice(2, 4)) -> Seen:
    """A smooth field of spectra of low rank, three quarters of its patches hidden; one pixel is not valid."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:12, :16] / 12
    weights = np.stack([np.sin(3 * x + random.random() * 6), np.cos(2 * y + random.random() * 6)])
    truth = 0.5 + np.einsum("kyx,kb->byx", weights, np.array([[1, 2, 3, 2, 1, 0.5], [0.2, 0, -0.5, 1, 1, 2]])) / 10
    patches = random.permutation(12).reshape(3, 4) < 8
    hidden = patches.repeat(4, axis=0).repeat(4, axis=1)
    bands = np.zeros(6, bool)
    bands[window] = True
    valid = np.ones(truth.shape, bool)
    valid[:, 0, 0] = False
    return Seen(np.where(valid, truth, np.nan).astype(np.float32), valid, hidden, bands)


@pytest.fixture(scope="module")
def fitted() -> Baselines:
    """Baselines fitted on a few tiles."""
    tiles = [tile(seed) for seed in range(6)]
    mean = np.nanmean(np.stack([t.truth for t in tiles]), axis=(0, 2, 3))
    return Baselines.fit(tiles, wavelengths=WAVELENGTHS, mean=mean.astype(float), seed=0)


def test_no_baseline_sees_what_was_hidden(fitted: Baselines) -> None:
    """Another truth where something was hidden, in place or wavelength, changes no guess. Catches a leak, which would
    make a baseline unbeatable."""
    seen = tile(11)
    spoiled = seen.truth.copy()
    spoiled[:, seen.hidden] = 7.0
    spoiled[seen.window] = -3.0
    honest, other = fitted.guess(seen), fitted.guess(dataclasses.replace(seen, truth=spoiled))
    assert set(honest) == set(NAMES)
    for name in NAMES:
        assert np.isfinite(honest[name]).all()
        np.testing.assert_array_equal(honest[name][:, seen.hidden], other[name][:, seen.hidden], err_msg=name)
        np.testing.assert_array_equal(honest[name][seen.window], other[name][seen.window], err_msg=name)


def test_guesses_are_what_their_names_say(fitted: Baselines) -> None:
    """Means against plain ones; completion of low-rank spectra is nearly exact in hidden bands, and in smooth fields
    better than the mean in hidden patches."""
    seen = tile(12)
    guesses = fitted.guess(seen)
    np.testing.assert_allclose(guesses["band_mean"][:, 3, 3], fitted.mean, rtol=1e-6)
    visible = seen.truth[:, ~seen.hidden & seen.valid.all(axis=0)].mean(axis=1)
    np.testing.assert_allclose(guesses["visible_mean"][~seen.window, 5, 5], visible[~seen.window], rtol=1e-5)
    there = ~seen.hidden & seen.valid.all(axis=0)

    def error(name: str, where: np.ndarray, bands: np.ndarray) -> float:
        return float(np.sqrt(np.mean((guesses[name][bands][:, where] - seen.truth[bands][:, where]) ** 2)))

    assert error("low_rank", there, seen.window) < 1e-3 < error("interpolation", there, seen.window)
    hidden = [error(name, seen.hidden & seen.valid.all(axis=0), ~seen.window) for name in NAMES]
    assert max(hidden[2:]) < 0.8 * min(hidden[:2])


def test_a_tile_without_visible_pixels_gets_the_training_mean(fitted: Baselines) -> None:
    """Padding or clouds where the visible patches are: no baseline fails."""
    seen = tile(13)
    valid = seen.valid & seen.hidden
    guesses = fitted.guess(Seen(np.where(valid, seen.truth, np.nan), valid, seen.hidden, seen.window))
    for name in NAMES:
        np.testing.assert_allclose(guesses[name][:, 4, 4], fitted.mean, rtol=1e-6)


def test_bands_that_are_never_valid_are_refused() -> None:
    """One message with the remedy."""
    seen = tile(1)
    valid = seen.valid.copy()
    valid[1] = False
    with pytest.raises(ValueError, match=r"valid in every band.*data\.bands"):
        Baselines.fit([dataclasses.replace(seen, valid=valid)], wavelengths=WAVELENGTHS, mean=np.zeros(6), seed=0)
