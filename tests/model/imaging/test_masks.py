"""What is hidden: how much, from whom, and that every rank draws the same."""

from __future__ import annotations

import numpy as np
import pytest

from model.imaging.masks import Hiding, band_windows, in_windows, some_of, visible_patches

WAVELENGTHS = [400.0 + 5 * i for i in range(41)]
HIDING = Hiding(0.75, share=0.5, nanometres=50.0, seed=3)


def test_patches_are_divided_into_visible_and_hidden() -> None:
    """Catches a patch that is both or neither, and samples that hide different numbers."""
    visible, hidden = visible_patches(HIDING, np.arange(20), patches=24)
    assert visible.shape == (20, 6)
    for seen, masked in zip(visible, hidden, strict=True):
        assert sorted([*seen, *masked]) == list(range(24))
        assert list(seen) == sorted(seen)


def test_a_mask_follows_from_the_number_of_the_sample_alone() -> None:
    """Catches masks drawn from a stream that others have drawn from before."""
    together = visible_patches(HIDING, np.array([7, 2, 9]), patches=24)[0]
    alone = visible_patches(HIDING, np.array([2]), patches=24)[0]
    assert np.array_equal(together[1], alone[0])
    assert len({tuple(row) for row in visible_patches(HIDING, np.arange(50), patches=24)[0]}) > 45
    assert not np.array_equal(alone, visible_patches(Hiding(0.75, seed=4), np.array([2]), patches=24)[0])


def test_every_patch_is_hidden_as_often() -> None:
    """Catches a draw that favours some places."""
    hidden = visible_patches(HIDING, np.arange(2000), patches=16)[1]
    share = np.bincount(hidden.ravel(), minlength=16) / 2000
    assert np.abs(share - 0.75).max() < 0.05


def test_windows_are_contiguous_and_as_wide_as_asked() -> None:
    """Catches windows that are cut off at the ends, or drawn for another share of the samples."""
    drawn = [band_windows(HIDING, number, wavelengths=WAVELENGTHS) for number in range(400)]
    some = [windows for windows in drawn if windows]
    assert 160 < len(some) < 240
    for windows in some:
        bands = np.flatnonzero(in_windows(WAVELENGTHS, windows))
        assert np.array_equal(bands, np.arange(bands[0], bands[0] + 11))  # 50 nm at 5 nm, both ends
    starts = {windows[0][0] for windows in some}
    assert min(starts) == 400.0
    assert max(starts) == 550.0


def test_without_hidden_patches_every_sample_has_a_window() -> None:
    """Catches samples of which nothing is hidden, whose loss would be a division by zero."""
    hiding = Hiding(0.0, share=0.1, nanometres=50.0)
    assert all(band_windows(hiding, number, wavelengths=WAVELENGTHS) for number in range(50))


def test_windows_that_could_hide_every_band_are_refused() -> None:
    """Catches a step in which nothing is read."""
    with pytest.raises(
        ValueError, match=r"masking\.bands must leave bands that are read, got 4 x 50 nm hidden of 200 nm"
    ):
        band_windows(Hiding(0.0, share=1.0, windows=4, nanometres=50.0), 0, wavelengths=WAVELENGTHS)


def test_a_step_predicts_some_of_what_is_wanted() -> None:
    """Catches patches predicted that were not wanted, and the same ones in every sample."""
    wanted = visible_patches(HIDING, np.arange(10), patches=24)[1]
    chosen = some_of(Hiding(0.75, predicted=0.3), np.arange(10), wanted)
    assert chosen.shape == (10, 5)
    assert all(set(row) <= set(all_of) for row, all_of in zip(chosen, wanted, strict=True))
    assert np.array_equal(some_of(HIDING, np.arange(10), wanted), wanted)
