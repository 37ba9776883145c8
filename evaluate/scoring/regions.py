"""Where a score is taken: the globe, latitude bands, continents, land and sea.

Contract: a cell belongs to a region when its centre lies inside, bounds included; `tropics` and the
two extratropics share no cell and together are the globe. The weight of a cell is its exact area.
Land is where the land-sea mask is at least one half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.grid import Grid


@dataclass(frozen=True)
class Region:
    """A part of the globe.

    Args:
        name: as in scores.csv.
        title: as in figures and tables.
        south, north: bounds in degrees north; `south_open` leaves the southern bound out, `north_open` the northern.
        west, east: bounds in degrees east, -180 .. 180, or None for all longitudes.
        surface: only cells of this surface.
    """

    name: str
    title: str
    south: float = -90.0
    north: float = 90.0
    west: float | None = None
    east: float | None = None
    surface: Literal["land", "sea"] | None = None
    south_open: bool = False
    north_open: bool = False

    def contains(self, grid: Grid, *, land: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which cells of a grid lie inside, shape (latitude, longitude)."""
        lat = grid.latitude
        rows = (lat > self.south if self.south_open else lat >= self.south) & (
            lat < self.north if self.north_open else lat <= self.north
        )
        columns = np.ones(grid.longitude.size, bool)
        if self.west is not None and self.east is not None:
            columns = (grid.longitude - self.west) % 360.0 <= (self.east - self.west) % 360.0
        inside = rows[:, None] & columns[None, :]
        if self.surface is not None:
            assert land is not None, "land is needed for a land or sea region"
            inside &= land if self.surface == "land" else ~land
        return np.asarray(inside)


REGIONS: tuple[Region, ...] = (
    Region("globe", "Globe"),
    Region("tropics", "Tropics", -20, 20),
    Region("nh_extratropics", "Northern extratropics", 20, 90, south_open=True),
    Region("sh_extratropics", "Southern extratropics", -90, -20, north_open=True),
    Region("europe", "Europe", 35, 75, -12.5, 42.5),
    Region("north_america", "North America", 25, 60, -120, -75),
    Region("east_asia", "East Asia", 25, 60, 102.5, 150),
    Region("land", "Land", surface="land"),
    Region("sea", "Sea", surface="sea"),
)
"""Tropics up to 20 degrees; the three continents are the boxes of WMO and ECMWF scorecards."""

TITLES = {region.name: region.title for region in REGIONS}


def region_weights(
    grid: Grid, *, land_sea_mask: NDArray[np.floating] | None = None, regions: Sequence[Region] = REGIONS
) -> xr.DataArray:
    """Cell areas inside each region, zero outside.

    Args:
        grid: any grid; `globe` means all of it.
        land_sea_mask: land fraction, shape (latitude, longitude), 0 .. 1; without it land and sea are left out.
        regions: which ones.

    Returns:
        Shape (region, latitude, longitude), steradians. `attrs["left_out"]` maps every region that
        could not be made to the reason, so that a caller can say so.

    Raises:
        ValueError: the mask has another shape or is not between 0 and 1.
    """
    land = None
    if land_sea_mask is not None:
        mask = np.asarray(land_sea_mask, dtype=np.float64)
        if mask.shape != grid.shape or not (np.all(mask >= -1e-3) and np.all(mask <= 1.001)):
            raise ValueError(
                f"land-sea mask must have shape {grid.shape} and values 0 .. 1, got {mask.shape} and "
                f"{np.nanmin(mask):g} .. {np.nanmax(mask):g}; regrid it with the fields"
            )
        land = mask >= 0.5
    area, kept, rows, left_out = grid.cell_area, [], [], {}
    for region in regions:
        if region.surface is not None and land is None:
            left_out[region.name] = "the store has no land-sea mask (lsm)"
            continue
        inside = region.contains(grid, land=land)
        if not inside.any():
            left_out[region.name] = "no cell of the grid lies inside"
            continue
        kept.append(region.name)
        rows.append(np.where(inside, area, 0.0))
    return xr.DataArray(
        np.stack(rows),
        dims=("region", "latitude", "longitude"),
        coords={"region": kept, "latitude": grid.latitude, "longitude": grid.longitude},
        name="region_weight",
        attrs={"units": "sr", "left_out": left_out},
    )
