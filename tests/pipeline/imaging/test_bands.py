"""Names of bands, and bands of one instrument brought to those of another."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.imaging.bands import band_names, require_increasing, resampling, wavelength_of
from pipeline.imaging.sections import BandRange, Bands


def test_names_differ_sort_and_are_read_back() -> None:
    """Catches names that are equal for neighbouring bands, and names that sort otherwise than their wavelengths."""
    for wavelengths in ([400.0, 899.5, 1000.0, 2500.0], [400.01, 400.02, 1000.3]):
        names = band_names(wavelengths)
        assert names == sorted(set(names))
        assert [wavelength_of(name) for name in names] == wavelengths
    with pytest.raises(ValueError, match="must have different wavelengths, got 2 with 1 different"):
        band_names([400.0, 400.0])


def test_a_range_has_both_its_ends() -> None:
    """Catches a last band lost to rounding, and one too many."""
    assert BandRange(start=400, stop=899, step=1).wavelengths == [float(nm) for nm in range(400, 900)]
    assert BandRange(start=400, stop=401, step=0.1).wavelengths[-1] == pytest.approx(401)
    assert BandRange(start=400, stop=409, step=4).wavelengths == [400, 404, 408]


def test_averaged_bands_take_what_lies_around_them() -> None:
    """Catches a band counted twice or not at all, and edges that do not lie in the middle between two bands."""
    given = np.array([398.0, 400.0, 402.0, 404.0, 405.0, 407.0, 411.0, 414.9, 415.1])
    found = resampling(given, Bands(wavelengths=[400, 410], method="averaged"), origin="a")
    assert found.members == ((0, 1, 2, 3), (4, 5, 6, 7))  # 395 .. 405, the edge to the upper one, and 405 .. 415
    assert found.used == tuple(range(8))
    values = np.arange(9.0, dtype=np.float32)[:, None, None] ** 2
    valid = np.ones((9, 1, 1), bool)
    means, good = found(values[:8], valid[:8])
    np.testing.assert_allclose(means[:, 0, 0], [(0 + 1 + 4 + 9) / 4, (16 + 25 + 36 + 49) / 4])
    assert good.all()


def test_a_mean_with_a_missing_part_is_missing() -> None:
    """Catches a mean that is filled from the bands that are left, which lie elsewhere than its wavelength."""
    found = resampling(np.array([400.0, 404.0, 410.0]), Bands(wavelengths=[401, 411], method="averaged"), origin="a")
    valid = np.array([True, False, True])[:, None, None]
    means, good = found(np.array([0.2, np.nan, 0.4], np.float32)[:, None, None], valid)
    np.testing.assert_allclose(means[:, 0, 0], [np.nan, 0.4])
    assert good[:, 0, 0].tolist() == [False, True]


def test_nearest_bands() -> None:
    """Catches the next band taken instead of the nearest, and values in another order than the bands asked for."""
    given = np.array([400.0, 403.0, 407.0, 412.0])
    found = resampling(given, Bands(start=401, stop=411, step=5, method="nearest"), origin="a")
    assert found.members == ((0,), (2,), (3,))
    values, _ = found(np.array([1, 3, 4], np.float32)[:, None, None], np.ones((3, 1, 1), bool))
    assert values[:, 0, 0].tolist() == [1, 3, 4]


@pytest.mark.parametrize("method", ["nearest", "averaged"])
@pytest.mark.parametrize("wanted", [397.0, 420.0, 1400.0])
def test_no_band_is_made_up(wanted: float, method: str) -> None:
    """Catches values beyond the range of an instrument, and inside a gap that bad bands left, taken from its edge."""
    given = np.concatenate([np.arange(400.0, 411.0, 2.0), np.arange(430.0, 441.0, 2.0)])
    with pytest.raises(ValueError, match=rf"data.bands must lie where scan.hdr has bands, got {wanted:g} nm"):
        resampling(given, Bands(wavelengths=[wanted], method=method), origin="scan.hdr")  # type: ignore[arg-type]


def test_wavelengths_must_increase() -> None:
    """Catches bands out of order, twice the same, and what is no wavelength."""
    require_increasing(np.array([400.0, 400.5]), origin="a")
    for values in ([400.0, 399.0], [400.0, 400.0]):
        with pytest.raises(
            ValueError, match=r"of a must increase from band to band, got 400 nm and then .*bands 1 and 2"
        ):
            require_increasing(np.array(values), origin="a")
    for bad in (np.nan, -1.0):
        with pytest.raises(ValueError, match="must be positive numbers"):
            require_increasing(np.array([bad, 400.0]), origin="a")
