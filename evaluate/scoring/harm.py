"""How much of the tropics has forecasts that are worse than the climatology.

Contract: made from maps of skill, at each cell over all init times. A cell counts with its area where its skill is
below BELOW: near zero a cell is on either side by chance, and does no harm.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from evaluate.scoring.regions import REGIONS
from evaluate.scoring.tables import with_channel
from pipeline.grid import Grid

BELOW = -0.05
"""Skill that counts as negative."""
BELOW_TITLE = f"{BELOW:g}".replace("-", "−")
TROPICS = next(region for region in REGIONS if region.name == "tropics")
COLUMNS = ("model", "variable", "level", "lead", "below", "share")
"""Of tropics.csv."""


def negative_area(skill: xr.DataArray) -> xr.DataArray:
    """The share of the tropics with negative skill.

    Args:
        skill: maps of skill against climatology; latitude, longitude, any other dimensions.

    Returns:
        For the other dimensions the part, 0 .. 1, of the area between 20 S and 20 N with skill below BELOW; NaN where
        the grid has no cell there.
    """
    grid = Grid.from_dataset(skill)
    area = xr.DataArray(np.where(TROPICS.contains(grid), grid.cell_area, 0.0), dims=("latitude", "longitude"))
    negative = (skill < BELOW).astype(np.float64)
    share: xr.DataArray = xr.dot(negative, area, dim=["latitude", "longitude"]) / (float(area.sum()) or np.nan)
    return share


def tropics_table(skill: xr.DataArray) -> pd.DataFrame:
    """The rows of tropics.csv, from maps of skill by (model, lead, channel, latitude, longitude)."""
    share = negative_area(skill).rename("share")
    frame = share.to_dataframe(dim_order=["model", "channel", "lead"]).reset_index()
    return with_channel(frame.assign(below=BELOW))[list(COLUMNS)]
