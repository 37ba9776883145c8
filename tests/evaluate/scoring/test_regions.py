"""Regions: who is in, and how much of the sphere they are."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.scoring.regions import REGIONS, region_weights
from pipeline.grid import Grid

FINE = Grid.regular(2.5)


def test_bands_cover_the_globe_once() -> None:
    """Tropics and extratropics add up to the globe cell by cell, also on a grid with a row at 20 degrees."""
    for grid in (FINE, Grid.regular(5.0, poles=True)):
        w = region_weights(grid)
        bands = w.sel(region=["tropics", "nh_extratropics", "sh_extratropics"])
        np.testing.assert_allclose(bands.sum("region"), w.sel(region="globe"), rtol=1e-14)
        assert w.sel(region="globe").sum().item() == pytest.approx(4 * np.pi)
    exact = 4 * np.pi * np.sin(np.deg2rad(20.0))
    assert region_weights(FINE).sel(region="tropics").sum().item() == pytest.approx(exact, rel=1e-12)


def test_boxes_cross_the_meridian() -> None:
    """Europe runs from 12.5 W to 42.5 E over Greenwich: catches boxes lost at longitude 0 and at 360 - 12.5."""
    w = region_weights(FINE).sel(region="europe")
    inside = (w > 0).any("latitude")
    lon = w["longitude"].values[inside.values]
    assert set(lon) == {*np.arange(0, 43, 2.5), *np.arange(347.5, 360, 2.5)}
    west = Grid(FINE.latitude, np.arange(-180, 180, 2.5))
    assert region_weights(west).sel(region="europe").sum().item() == pytest.approx(w.sum().item())


def test_land_and_sea_follow_the_mask() -> None:
    """Half a cell of land is land; land and sea share no cell and leave none out."""
    mask = np.zeros(FINE.shape)
    mask[10:20, 5:9], mask[30, 30], mask[31, 30] = 1.0, 0.5, 0.49
    w = region_weights(FINE, land_sea_mask=mask)
    np.testing.assert_array_equal(w.sel(region="land") > 0, mask >= 0.5)
    np.testing.assert_array_equal(w.sel(region="land") + w.sel(region="sea"), FINE.cell_area)


def test_what_cannot_be_made_is_said() -> None:
    """No mask, or a regional grid: the region is left out with a reason, not filled with zeros."""
    small = Grid(np.linspace(36, 47, 6), np.linspace(0, 10, 5))
    w = region_weights(small)
    assert w["region"].values.tolist() == ["globe", "nh_extratropics", "europe"]
    left_out = w.attrs["left_out"]
    assert left_out["land"] == "the store has no land-sea mask (lsm)"
    assert left_out["tropics"] == "no cell of the grid lies inside"
    assert len(left_out) + w.sizes["region"] == len(REGIONS)
    with pytest.raises(ValueError, match="land-sea mask must have shape"):
        region_weights(small, land_sea_mask=np.zeros((5, 6)))
    with pytest.raises(ValueError, match=r"0 \.\. 1"):
        region_weights(small, land_sea_mask=np.full((6, 5), 100.0))
