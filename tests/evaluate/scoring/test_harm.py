"""The share of the tropics where forecasts are worse than the climatology."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evaluate.scoring.harm import BELOW, COLUMNS, negative_area, tropics_table
from pipeline.grid import Grid

LATITUDE = np.array([-30.0, -20.0, -5.0, 10.0, 40.0])
LONGITUDE = np.arange(0.0, 360.0, 120.0)


def skill() -> xr.DataArray:
    """Maps of two models at two leads: positive but for the cells that a test makes negative."""
    dims = ("model", "lead", "channel", "latitude", "longitude")
    coords = {"model": ["mine", "other"], "lead": [24, 168], "channel": ["z500"], "latitude": LATITUDE}
    return xr.DataArray(np.full((2, 2, 1, 5, 3), 0.1), {**coords, "longitude": LONGITUDE}, dims)


def test_share_of_the_area_counted_by_hand() -> None:
    """Catches cells counted without their area, the extratropics counted, 20 S left out, and chance counted as harm."""
    maps = skill()
    maps[0, 1, 0, :, 0] = [-1.0, -0.2, BELOW / 2, -0.2, -1.0]
    area = Grid(LATITUDE, LONGITUDE).cell_area
    bad = area[1, 0] + area[3, 0]
    found = negative_area(maps)
    assert found.sel(model="mine", lead=168).item() == pytest.approx(bad / area[1:4].sum(), rel=1e-12)
    assert found.sel(model="mine", lead=24).item() == found.sel(model="other", lead=168).item() == 0.0
    frame = tropics_table(maps)
    assert tuple(frame.columns) == COLUMNS
    assert frame.query("model == 'mine' and lead == 168")["share"].item() == pytest.approx(bad / area[1:4].sum())


def test_no_tropics_no_share() -> None:
    """Europe alone: catches a zero that would read as "nowhere negative"."""
    assert negative_area(skill().isel(latitude=[0, 4])).isnull().all()
