"""Rectilinear latitude-longitude grids with exact cell areas.

Contract: latitudes are cell centres in strictly monotonic order (either direction, poles allowed);
longitudes are cell centres in strictly increasing order within less than one turn, at any origin.
Cell edges are the midpoints between centres; the outermost latitude edges of a grid that reaches
the poles are the poles themselves.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

_POLAR_GAP = 0.8
"""A grid reaches the pole when its last centre is within this many spacings of it: a cell-centred
grid stops 0.5 spacings short, a Gaussian grid 0.77, a regional grid that just misses it 1.0."""

_SEAM_GAP = 1.5
"""Columns close the circle when the gap across the seam is at most this many of the widest other gap: uneven
columns may have their widest gap there, while even columns that lack a single one leave a gap of 2."""


@dataclass(frozen=True, eq=False)
class Grid:
    """A rectilinear grid of cell centres.

    Args:
        latitude: degrees north, shape (n_lat,), strictly monotonic, within [-90, 90].
        longitude: degrees east, shape (n_lon,), strictly increasing, spanning less than 360.

    Raises:
        ValueError: a coordinate is empty, not finite, out of range or not monotonic.
    """

    latitude: Array
    longitude: Array

    def __init__(self, latitude: ArrayLike, longitude: ArrayLike) -> None:
        lat = _coordinate("latitude", latitude)
        lon = _coordinate("longitude", longitude)
        if np.any(np.abs(lat) > 90.0 + 1e-6):
            raise ValueError(f"latitude must lie within [-90, 90] degrees, got {lat.min():g} .. {lat.max():g}")
        if lat.size > 1 and not (np.all(np.diff(lat) > 0) or np.all(np.diff(lat) < 0)):
            raise ValueError("latitude must be strictly increasing or strictly decreasing; sort it and drop duplicates")
        if lon.size > 1 and not np.all(np.diff(lon) > 0):
            raise ValueError("longitude must be strictly increasing; sort it and drop duplicates")
        if lon.size > 1 and lon[-1] - lon[0] >= 360.0 - 1e-6:
            raise ValueError(
                f"longitude must span less than 360 degrees, got {lon[0]:g} .. {lon[-1]:g}; drop the repeated meridian"
            )
        lat = np.clip(lat, -90.0, 90.0)
        for values in (lat, lon):
            values.setflags(write=False)
        object.__setattr__(self, "latitude", lat)
        object.__setattr__(self, "longitude", lon)

    @classmethod
    def regular(cls, resolution: float, *, poles: bool = False) -> Grid:
        """The global regular grid, south to north and from the Greenwich meridian eastward.

        Args:
            resolution: spacing in degrees; must divide 180.
            poles: False puts cell centres half a spacing from the poles (the target grids of this
                project: 5.625 gives 32 x 64); True puts rows on the poles (ERA5: 0.25 gives 721 x 1440).

        Raises:
            ValueError: the resolution does not divide 180 degrees.
        """
        rows = 180.0 / resolution if resolution > 0 else 0.0
        if rows < 1 or abs(rows - round(rows)) > 1e-9:
            raise ValueError(f"grid resolution must divide 180 degrees, got {resolution:g}")
        n = round(rows)
        lat = np.linspace(-90.0, 90.0, n + 1) if poles else -90.0 + (np.arange(n) + 0.5) * (180.0 / n)
        return cls(lat, np.arange(2 * n) * (180.0 / n))

    @classmethod
    def from_dataset(cls, ds: xr.Dataset | xr.DataArray) -> Grid:
        """The grid of a dataset whose coordinates are called latitude and longitude.

        Raises:
            ValueError: a coordinate of that name is missing or not one-dimensional.
        """
        for name in ("latitude", "longitude"):
            if name not in ds.coords or ds[name].ndim != 1:
                raise ValueError(
                    f"dataset must have a one-dimensional coordinate {name!r}, got {sorted(map(str, ds.coords))}"
                )
        return cls(ds["latitude"].values, ds["longitude"].values)

    @property
    def shape(self) -> tuple[int, int]:
        """(number of latitudes, number of longitudes)."""
        return self.latitude.size, self.longitude.size

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.latitude.size * self.longitude.size

    @property
    def reaches_poles(self) -> bool:
        """Whether the rows run from pole to pole."""
        lat = np.sort(self.latitude)
        if lat.size < 2:
            return False
        south, north = lat[1] - lat[0], lat[-1] - lat[-2]
        return bool(lat[0] + 90.0 <= _POLAR_GAP * south and 90.0 - lat[-1] <= _POLAR_GAP * north)

    @property
    def is_periodic(self) -> bool:
        """Whether the columns go all the way round: no column is missing across the seam."""
        lon = self.longitude
        if lon.size < 2:
            return False
        spacing = np.diff(lon)
        return bool(360.0 - (lon[-1] - lon[0]) <= _SEAM_GAP * spacing.max())

    @property
    def is_global(self) -> bool:
        """Whether the grid covers the whole sphere."""
        return self.reaches_poles and self.is_periodic

    @property
    def latitude_edges(self) -> Array:
        """Row edges in degrees, shape (n_lat + 1,), in the order of `latitude`, within [-90, 90]."""
        lat = self.latitude
        if lat.size == 1:
            raise ValueError("a grid of one latitude has no defined cell edges")
        middle = 0.5 * (lat[1:] + lat[:-1])
        first, last = 1.5 * lat[0] - 0.5 * lat[1], 1.5 * lat[-1] - 0.5 * lat[-2]
        if self.reaches_poles:
            first, last = np.copysign(90.0, lat[0]), np.copysign(90.0, lat[-1])
        return np.asarray(np.clip(np.concatenate([[first], middle, [last]]), -90.0, 90.0))

    @property
    def longitude_edges(self) -> Array:
        """Column edges in degrees, shape (n_lon + 1,), increasing; a periodic grid spans exactly 360."""
        lon = self.longitude
        if lon.size == 1:
            raise ValueError("a grid of one longitude has no defined cell edges")
        middle = 0.5 * (lon[1:] + lon[:-1])
        if self.is_periodic:
            seam = 0.5 * (lon[-1] + lon[0] + 360.0)
            return np.concatenate([[seam - 360.0], middle, [seam]])
        return np.concatenate([[1.5 * lon[0] - 0.5 * lon[1]], middle, [1.5 * lon[-1] - 0.5 * lon[-2]]])

    @property
    def cell_area(self) -> Array:
        """Cell areas in steradians, shape (n_lat, n_lon), float64; they sum to 4 pi on a global grid."""
        edges = self.latitude_edges
        bands = np.abs(sine_difference(edges[:-1], edges[1:]))
        widths = np.deg2rad(np.diff(self.longitude_edges))
        return np.asarray(bands[:, None] * widths[None, :])

    @property
    def area_weights(self) -> Array:
        """Cell areas divided by their mean, shape (n_lat, n_lon): the weights w of every loss and score."""
        area = self.cell_area
        return np.asarray(area / area.mean())

    @property
    def digest(self) -> str:
        """A short content hash that two equal grids share on any machine (coordinates rounded to 1e-9 degrees)."""
        text = b"|".join(np.round(v, 9).astype("<f8").tobytes() for v in (self.latitude + 0.0, self.longitude + 0.0))
        return hashlib.sha256(text).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """A JSON-ready summary for contracts and provenance."""
        return {
            "shape": list(self.shape),
            "latitude": [float(self.latitude[0]), float(self.latitude[-1])],
            "longitude": [float(self.longitude[0]), float(self.longitude[-1])],
            "digest": self.digest,
        }

    def allclose(self, other: Grid, *, tolerance: float = 1e-4) -> bool:
        """Whether two grids have the same centres to `tolerance` degrees (float32 coordinates pass)."""
        return self.shape == other.shape and bool(
            np.allclose(self.latitude, other.latitude, rtol=0, atol=tolerance)
            and np.allclose(self.longitude, other.longitude, rtol=0, atol=tolerance)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        (south, north), (west, east) = self.latitude[[0, -1]], self.longitude[[0, -1]]
        return (
            f"Grid({self.shape[0]} x {self.shape[1]}, latitude {south:g} .. {north:g}, longitude {west:g} .. {east:g})"
        )


def sine_difference(low: Array, high: Array) -> Array:
    """Differences sin(high) - sin(low) of latitudes in degrees: the area of a zone over 2 pi.

    Written as a product, since near the poles the difference of sines of a 0.25 degree row loses six digits.
    """
    middle, half = np.deg2rad(0.5 * (low + high)), np.deg2rad(0.5 * (high - low))
    return np.asarray(2.0 * np.cos(middle) * np.sin(half))


def _coordinate(name: str, values: ArrayLike) -> Array:
    out = np.array(values, dtype=np.float64)
    if out.ndim != 1 or out.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {out.shape}")
    if not np.all(np.isfinite(out)):
        raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(out))} values that are not")
    return out
