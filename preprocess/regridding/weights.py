"""Regridding weights between rectilinear grids, built here and equal to ESMF's for bilinear.

Contract: each function returns a `scipy.sparse.csr_array` of shape (target.size, source.size) in
float64. Cells are row-major (latitude, longitude) in the order of the Grid given, whatever that
order is. Every row sums to 1 and no weight is negative; weights that are pure rounding (below
1e-11) are left out, so that a target cell reads no source cell that it does not need.

The geometry is that of the sphere:

- bilinear: a source cell is the patch spanned by its four corners as points in space, and the
  target is where its radius meets that patch; this is what ESMF does. For corners on two meridians
  and two parallels the equations solve in closed form (`_chord`), so no iteration is needed.
- conservative (first order): the share of the target cell's area that each source cell covers, with
  cell edges on parallels and meridians. ESMF joins the corners by great circles instead.
- nearest: the source centre at the smallest great-circle distance; of two equally near ones, the
  western, then the southern.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray

from pipeline.grid import Grid, sine_difference

Method = Literal["bilinear", "conservative", "nearest"]
Weights = sparse.csr_array
Array = NDArray[np.float64]
Index = NDArray[np.intp]

METHODS: tuple[Method, ...] = ("bilinear", "conservative", "nearest")

_ROUNDING = 1e-11
"""Fractions of a cell this close to 0 or 1 are taken as 0 or 1."""
_EXTENT = 1e-4
"""Degrees by which a target may leave the source's extent (coordinates stored as float32)."""
_TIE = 1e-9
"""Degrees within which two source centres count as equally near."""
_SLIVER = 1e-12
"""Degrees below which two cell edges are the same edge."""


def builtin_weights(source: Grid, target: Grid, *, method: Method) -> Weights:
    """Weights of one method, after checking that the source covers the target.

    Args:
        source: grid of the field read.
        target: grid of the result.
        method: "bilinear", "conservative" or "nearest".

    Returns:
        Matrix of shape (target.size, source.size), float64.

    Raises:
        ValueError: unknown method, a target outside the source, or a source too coarse for it.
    """
    if method not in METHODS:
        raise ValueError(f"regrid method must be one of {', '.join(METHODS)}, got {method!r}")
    check_coverage(source, target, method=method)
    compute = {"bilinear": bilinear_weights, "conservative": conservative_weights, "nearest": nearest_weights}
    return compute[method](source, target)


def check_coverage(source: Grid, target: Grid, *, method: Method) -> None:
    """Refuse a source that does not cover the target.

    Bilinear needs target centres among the source centres, nearest needs them in source cells, and
    conservative needs target cells in source cells. Rows that run from pole to pole and columns
    that close the circle cover everything in that direction.

    Raises:
        ValueError: the target leaves the source; the message lists both extents.
    """
    at_centres, whole_cells = method == "bilinear", method == "conservative"
    lat_source = source.latitude if at_centres else source.latitude_edges
    lat_target = target.latitude_edges if whole_cells else target.latitude
    lat_fits = source.reaches_poles or (
        lat_target.min() >= lat_source.min() - _EXTENT and lat_target.max() <= lat_source.max() + _EXTENT
    )
    lon_source = source.longitude if at_centres else source.longitude_edges
    lon_target = target.longitude_edges if whole_cells else target.longitude
    width = np.ptp(lon_source) + _EXTENT
    offsets = _eastward(lon_target, lon_source[0], slack=_EXTENT)
    lon_fits = source.is_periodic or bool(np.all(offsets <= width) and not (whole_cells and np.ptp(lon_target) > width))
    if lat_fits and lon_fits:
        return
    kind = "cell centres" if at_centres else "cell edges"
    raise ValueError(
        f"source grid must cover the target grid for {method} regridding, got a source with {kind} at "
        f"{_extent(lat_source, lon_source)} and a target at {_extent(lat_target, lon_target)}; "
        "choose a target inside the source, or a source that covers the globe"
    )


def bilinear_weights(source: Grid, target: Grid) -> Weights:
    """Bilinear weights in three-dimensional space, as ESMF computes them.

    A target beyond the last row of a global source without rows on the poles (Gaussian or
    cell-centred) is interpolated within the triangle of the two nearest points of that row and the
    pole, whose value is the mean of the whole row; this is ESMF's default pole method ("all"). On
    the edge of a regional source, targets are moved onto the edge of the outermost patch.

    Returns:
        Matrix of shape (target.size, source.size) with at most 4 entries a row (a whole row of the
        source more within the polar caps).

    Raises:
        ValueError: the source has fewer than two rows or two columns, or columns 180 degrees apart.
    """
    if min(source.shape) < 2:
        raise ValueError(f"source grid must have at least 2 rows and 2 columns for bilinear regridding, got {source}")
    left, right, start, width, offset = _columns(source, target.longitude)
    if np.any(width >= 180.0 - _EXTENT):
        raise ValueError(
            f"source columns must be less than 180 degrees apart for bilinear regridding, got {width.max():g}; "
            "use a finer source"
        )
    start, width, offset = np.deg2rad(start), np.deg2rad(width), np.deg2rad(offset)
    s = _chord(start, offset, start + width)

    # The great circles through the corners carry the target to this latitude on the bounding meridians.
    half, off_centre = 0.5 * width, offset - start - 0.5 * width
    lat = np.deg2rad(target.latitude)[:, None]
    effective = np.arctan2(np.sin(lat) * np.cos(half), np.cos(lat) * np.cos(off_centre))

    rows, order = _ascending_rows(source)
    caps = source.reaches_poles
    if caps and rows[0] > -90.0:
        rows, order = np.append(-90.0, rows), np.append(-1, order)
    if caps and rows[-1] < 90.0:
        rows, order = np.append(rows, 90.0), np.append(order, -1)
    radians = np.deg2rad(rows)
    below = np.clip(np.searchsorted(radians, effective, side="right") - 1, 0, rows.size - 2)
    t = _chord(radians[below], effective, radians[below + 1])

    cells = np.arange(target.size).reshape(target.shape)
    parts = [
        (cells, order[below + up], np.broadcast_to(column, target.shape), weight_t * weight_s)
        for up, weight_t in ((0, 1.0 - t), (1, t))
        for column, weight_s in ((left, 1.0 - s), (right, s))
    ]
    row, lat_index, lon_index, value = (np.concatenate([np.ravel(part[k]) for part in parts]) for k in range(4))
    return _assemble(source, target, row, lat_index, lon_index, value)


def conservative_weights(source: Grid, target: Grid) -> Weights:
    """First-order conservative weights: exact overlaps of cells bounded by parallels and meridians.

    The area of such an overlap is a difference of sines of latitude times one of longitudes, so the
    matrix is the Kronecker product of one matrix per axis. On global grids the area integral of any
    field is kept to rounding.

    ESMF bounds cells by great circles, which bulge poleward by up to 0.035 degrees between the corners
    of a 5.625 degree cell. From 0.25 to 5.625 degrees its weights differ from these by at most 2.9e-4
    each and 0.9% of a row in sum: 0.02 K root mean square and 0.12 K at most for one field of 2 m
    temperature, whose global mean ESMF shifts by 0.01 K. With such edges put in, ours meet ESMF's to 1e-9.

    Returns:
        Matrix of shape (target.size, source.size).
    """
    from_lat, to_lat = np.sort(source.latitude_edges), np.sort(target.latitude_edges)
    lat = _overlaps(from_lat, np.clip(to_lat, from_lat[0], from_lat[-1]), measure=sine_difference)
    if source.latitude[0] > source.latitude[-1]:
        lat = lat[:, ::-1]
    if target.latitude[0] > target.latitude[-1]:
        lat = lat[::-1]

    origin = source.longitude_edges[0]
    from_lon = source.longitude_edges - origin
    slack = 0.0 if source.is_periodic else _EXTENT
    first = _eastward(target.longitude_edges[:1], origin, slack=slack)
    to_lon = target.longitude_edges - target.longitude_edges[0] + first
    n = source.longitude.size
    if source.is_periodic:
        around = np.concatenate([from_lon[:-1], from_lon + 360.0])
        twice = _overlaps(around, to_lon, measure=_arc)
        lon = twice[:, :n] + twice[:, n:]
    else:
        lon = _overlaps(from_lon, np.clip(to_lon, from_lon[0], from_lon[-1]), measure=_arc)
    return canonical(sparse.kron(sparse.csr_array(lat), sparse.csr_array(lon), format="csr"))


def nearest_weights(source: Grid, target: Grid) -> Weights:
    """One weight of 1 a row, at the source centre nearest on the sphere.

    The nearest column is the nearest in longitude at any latitude. Within it the nearest row is the
    one nearest to the foot of the perpendicular from the target to that meridian.

    Returns:
        Matrix of shape (target.size, source.size) with exactly one entry a row.
    """
    left, right, start, width, offset = _columns(source, target.longitude)
    west, east = np.abs(offset - start), np.abs(start + width - offset)
    go_west = west <= east + _TIE
    column = np.where(go_west, left, right)
    distance = np.deg2rad(np.where(go_west, west, east))

    rows, order = _ascending_rows(source)
    lat = np.deg2rad(target.latitude)[:, None]
    foot = np.rad2deg(np.arctan2(np.sin(lat), np.cos(lat) * np.cos(distance)))
    below = np.clip(np.searchsorted(rows, foot, side="right") - 1, 0, rows.size - 2)
    nearest = below + (foot - rows[below] > rows[below + 1] - foot + _TIE)
    cell = order[nearest] * source.longitude.size + column
    ones, row = np.ones(target.size), np.arange(target.size)
    return canonical(Weights((ones, (row, cell.ravel())), shape=(target.size, source.size)))


def _chord(a: Array, x: Array, b: Array) -> Array:
    """Where the ray at angle x meets the chord from angle a to angle b, as a fraction in [0, 1] (radians).

    With corners on two meridians and two parallels, ESMF's equations
    (1-s)(1-t) P0 + s(1-t) P1 + s t P2 + (1-s) t P3 = r D reduce to this, once for s and once for t.
    """
    to, rest = np.sin(x - a), np.sin(b - x)
    fraction = np.clip(to / (to + rest), 0.0, 1.0)
    return np.where(fraction < _ROUNDING, 0.0, np.where(fraction > 1.0 - _ROUNDING, 1.0, fraction))


def _columns(source: Grid, longitude: Array) -> tuple[Index, Index, Array, Array, Array]:
    """The pair of source columns around each longitude.

    Returns:
        Indices of the western and eastern column, and in degrees eastward of the first source
        column: the western column, its distance to the eastern one, and the longitude.
    """
    along = source.longitude - source.longitude[0]
    n = along.size
    offset = _eastward(longitude, source.longitude[0], slack=0.0 if source.is_periodic else _EXTENT)
    if source.is_periodic:
        along = np.append(along, 360.0)
    else:
        # Nearest takes targets up to half a cell outside the first and last centre: back to the closer end.
        middle = 0.5 * (along[-1] + 360.0)
        offset = np.clip(np.where(offset > middle, 0.0, offset), 0.0, along[-1])
    left = np.clip(np.searchsorted(along, offset, side="right") - 1, 0, along.size - 2)
    return left, (left + 1) % n, along[left], along[left + 1] - along[left], offset


def _eastward(longitude: Array, origin: float, *, slack: float) -> Array:
    """Degrees eastward from an origin, in [-slack, 360 - slack]: just west of a region counts as on its edge."""
    return np.asarray(np.mod(longitude - origin + slack, 360.0) - slack)


def _ascending_rows(grid: Grid) -> tuple[Array, Index]:
    """Latitudes from south to north and the index of each in the grid."""
    order = np.argsort(grid.latitude)
    return grid.latitude[order], order


def _arc(low: Array, high: Array) -> Array:
    return high - low


def _overlaps(source: Array, target: Array, *, measure: Callable[[Array, Array], Array]) -> Any:
    """Shares of each target interval that lie in each source interval.

    Args:
        source: increasing edges, shape (m + 1,), covering the target.
        target: increasing edges, shape (n + 1,).
        measure: length of intervals given by low and high ends.

    Returns:
        Sparse matrix of shape (n, m) whose rows sum to 1.
    """
    near = np.clip(np.searchsorted(source, target), 1, source.size - 1)
    near = near - (target - source[near - 1] < source[near] - target)
    target = np.where(np.abs(target - source[near]) < _SLIVER, source[near], target)

    inside = source[(source > target[0]) & (source < target[-1])]
    edges = np.union1d(target, inside)
    middle = 0.5 * (edges[1:] + edges[:-1])
    row = np.searchsorted(target, middle) - 1
    column = np.searchsorted(source, middle) - 1
    length = measure(edges[:-1], edges[1:])
    total = np.bincount(row, weights=length, minlength=target.size - 1)
    return sparse.csr_array((length / total[row], (row, column)), shape=(target.size - 1, source.size - 1))


def _assemble(source: Grid, target: Grid, row: Index, lat: Index, lon: Index, value: Array) -> Weights:
    """The matrix; entries at row index -1 (a pole the source lacks) become means of the last source row."""
    n = source.longitude.size
    pole = (lat < 0) & (value > 0)
    here = lat >= 0
    rows, columns, values = [row[here]], [lat[here] * n + lon[here]], [value[here]]
    if np.any(pole):
        north = target.latitude[row[pole] // target.longitude.size] > 0
        last = np.where(north, np.argmax(source.latitude), np.argmin(source.latitude))
        rows.append(np.repeat(row[pole], n))
        columns.append((last[:, None] * n + np.arange(n)).ravel())
        values.append(np.repeat(value[pole] / n, n))
    entries = (np.concatenate(rows), np.concatenate(columns))
    return canonical(Weights((np.concatenate(values), entries), shape=(target.size, source.size)))


def canonical(weights: Any) -> Weights:
    """Canonical CSR (sorted, no duplicates, no explicit zeros) with 32-bit indices where they fit."""
    out = Weights(weights)
    out.sum_duplicates()
    out.eliminate_zeros()
    if max(out.nnz, *out.shape) < 2**31:
        out.indices, out.indptr = out.indices.astype(np.int32), out.indptr.astype(np.int32)
    return out


def _extent(latitude: Array, longitude: Array) -> str:
    return (
        f"latitude {latitude.min():g} .. {latitude.max():g}, longitude {longitude[0]:g} .. {longitude[-1]:g} "
        f"({longitude.size} columns)"
    )
