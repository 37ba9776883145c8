"""Built-in regridding weights against ESMF's, against algebra on the sphere, and for random grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import Grid
from preprocess.regridding.weights import METHODS, builtin_weights

ERA5 = Grid(90 - 0.25 * np.arange(721), 0.25 * np.arange(1440))
COARSE = Grid.regular(5.625)
GOLDEN = Path(__file__).parents[2] / "data" / "esmf_bilinear.csv"


def directions(grid: Grid) -> np.ndarray:
    """Unit vectors of the cell centres, shape (size, 3)."""
    lat, lon = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1).reshape(-1, 3)


def gaussian(n: int) -> np.ndarray:
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0]))


@st.composite
def global_grids(draw: st.DrawFn, columns: int = 3) -> Grid:
    """Regular grids with and without poles, Gaussian and uneven ones, in both orders, from any origin."""
    rows = draw(st.integers(3, 12))
    kind = draw(st.sampled_from(["poles", "centred", "gaussian", "uneven"]))
    if kind == "poles":
        lat = np.linspace(-90, 90, rows)
    elif kind == "centred":
        lat = -90 + (np.arange(rows) + 0.5) * 180 / rows
    elif kind == "gaussian":
        lat = gaussian(rows)
    else:
        steps = np.array(draw(st.lists(st.integers(2, 9), min_size=rows, max_size=rows)))
        lat = np.append(0, np.cumsum(steps)) / steps.sum() * 180 - 90
    n = rows + draw(st.integers(columns, 15))
    lon = draw(st.floats(-180, 180)) + 360 * np.arange(n) / n
    if draw(st.booleans()):
        gaps = np.array(draw(st.lists(st.integers(3, 4), min_size=n, max_size=n)))
        lon = lon[0] + np.append(0, np.cumsum(gaps))[:-1] / gaps.sum() * 360
    return Grid(lat if draw(st.booleans()) else lat[::-1], lon)


def read_esmf(folder: Path, method: str) -> sparse.csr_array:
    with np.load(folder / "esmf" / f"era5_0p25_to_5p625_{method}.npz") as file:
        assert np.array_equal(file["src_lat"], ERA5.latitude)
        assert np.array_equal(file["dst_lon"], COARSE.longitude)
        return sparse.csr_array((file["S"], (file["row"], file["col"])), shape=(COARSE.size, ERA5.size))


# Bilinear against ESMF


def golden_difference(flat: bool) -> float:
    """Largest difference to ESMF's golden weights, ours or those of a formula flat in latitude and longitude."""
    lines = np.genfromtxt(GOLDEN, delimiter=",", skip_header=3)
    weights = builtin_weights(ERA5, COARSE, method="bilinear")
    worst, total = 0.0, {}
    for lat, lon, from_lat, from_lon, expected in lines:
        row = int(np.flatnonzero(COARSE.latitude == lat)[0] * 64 + np.flatnonzero(COARSE.longitude == lon)[0])
        column = int(
            np.flatnonzero(ERA5.latitude == from_lat)[0] * 1440 + np.flatnonzero(ERA5.longitude == from_lon)[0]
        )
        value = (1 - abs(lat - from_lat) / 0.25) * (1 - abs(lon - from_lon) / 0.25) if flat else weights[row, column]
        worst = max(worst, abs(value - expected))
        total[row] = total.get(row, 0) + 1
    assert len(total) == 13
    if not flat:
        assert all(weights[[row]].nnz == count for row, count in total.items())
    return worst


def test_bilinear_equals_esmf_golden_rows() -> None:
    """Catches any slip in the formula, the row and column order, the seam or the poles, without reference data."""
    assert golden_difference(flat=False) < 1e-10


def test_flat_bilinear_is_not_esmf() -> None:
    """The golden rows can tell: interpolation flat in latitude and longitude, the usual slip, misses ESMF by 1e-5."""
    assert golden_difference(flat=True) > 1e-5


def test_bilinear_equals_esmf_everywhere(shared_reference: Path) -> None:
    """Catches a cell that the golden rows do not hold."""
    difference = abs(builtin_weights(ERA5, COARSE, method="bilinear") - read_esmf(shared_reference, "bilinear"))
    assert difference.max() < 1e-10


# Conservative against ESMF


def great_circle_row(cell: int) -> np.ndarray:
    """Conservative weights of one target cell when cell edges are great circles, by quadrature in longitude."""
    nodes, node_weights = np.polynomial.legendre.leggauss(40)
    i, j = divmod(cell, 64)

    def edge(lat: np.ndarray, west: float, east: float, at: np.ndarray) -> np.ndarray:
        return np.arctan2(np.sin(lat) * np.cos(at - (west + east) / 2), np.cos(lat) * np.cos((east - west) / 2))

    south, north = np.deg2rad(COARSE.latitude_edges[[i, i + 1]])
    west, east = np.deg2rad(COARSE.longitude_edges[[j, j + 1]])
    rows = np.deg2rad(ERA5.latitude_edges)[:, None]
    row = np.zeros(ERA5.shape)
    for turn in (-1, 0, 1):
        for k, (a, b) in enumerate(np.deg2rad(np.stack([ERA5.longitude_edges[:-1], ERA5.longitude_edges[1:]], 1))):
            a, b = a + turn * 2 * np.pi, b + turn * 2 * np.pi
            low, high = max(a, west), min(b, east)
            if high - low < 1e-12:
                continue
            at = low + (high - low) * (nodes + 1) / 2
            top = np.minimum(edge(rows[:-1], a, b, at), edge(north, west, east, at))
            bottom = np.maximum(edge(rows[1:], a, b, at), edge(south, west, east, at))
            row[:, k] += np.clip(np.sin(top) - np.sin(bottom), 0, None) @ node_weights * (high - low)
    return row.ravel() / row.sum()


@pytest.mark.parametrize("cell", [0, 64 * 7 + 13, 64 * 31 + 63])
def test_conservative_differs_from_esmf_by_great_circle_edges(shared_reference: Path, cell: int) -> None:
    """Catches a wrong overlap: ESMF is met to 1e-9 once the edges are great circles, and only then."""
    theirs = read_esmf(shared_reference, "conservative")[[cell]].toarray()[0]
    ours = builtin_weights(ERA5, COARSE, method="conservative")[[cell]].toarray()[0]
    assert np.abs(great_circle_row(cell) - theirs).max() < 1e-9
    assert 1e-5 < np.abs(ours - theirs).max() < 3e-4
    assert 1e-3 < np.abs(ours - theirs).sum() < 0.009


def test_conservative_keeps_the_integral_where_esmf_does_not(shared_reference: Path) -> None:
    """The price of great circles: of sin^2(latitude) ESMF loses 6e-4 of the true integral, we lose nothing."""
    field = np.repeat(np.sin(np.deg2rad(ERA5.latitude)) ** 2, 1440)
    truth = ERA5.cell_area.ravel() @ field
    ours = COARSE.cell_area.ravel() @ (builtin_weights(ERA5, COARSE, method="conservative") @ field)
    theirs = COARSE.cell_area.ravel() @ (read_esmf(shared_reference, "conservative") @ field)
    assert abs(ours / truth - 1) < 1e-12
    assert 5e-4 < abs(theirs / truth - 1) < 8e-4


# Nearest against ESMF


def test_nearest_equals_esmf_but_for_ties(shared_reference: Path) -> None:
    """Catches a wrong neighbour: we differ from ESMF only midway between two columns, where it goes by rounding."""
    ours = builtin_weights(ERA5, COARSE, method="nearest").indices
    theirs = read_esmf(shared_reference, "nearest_s2d").indices
    differs = ours != theirs
    midway = np.tile(np.arange(64) % 2 == 1, 32)
    assert not np.any(differs & ~midway)
    source, target = directions(ERA5), directions(COARSE)
    ours_at, theirs_at = (np.sum(source[i] * target, axis=1) for i in (ours, theirs))
    np.testing.assert_allclose(ours_at, theirs_at, rtol=0, atol=1e-15)
    # Ours is the western one each time, so that the answer does not hang on rounding.
    assert np.all(
        np.mod(COARSE.longitude[1::2, None] - ERA5.longitude[ours.reshape(32, 64)[:, 1::2].T % 1440], 360) == 0.125
    )


# Properties under random grids


@settings(max_examples=60, deadline=None)
@given(source=global_grids(), target=global_grids(), method=st.sampled_from(METHODS))
def test_a_constant_stays_constant_and_no_weight_is_negative(source: Grid, target: Grid, method: str) -> None:
    """Catches lost or doubled weights at seams and poles; with sum 1 and no sign the range of the source is kept."""
    weights = builtin_weights(source, target, method=method)
    assert weights.shape == (target.size, source.size)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert weights.data.min() >= 0.0


@settings(max_examples=40, deadline=None)
@given(source=global_grids(), target=global_grids(), method=st.sampled_from(METHODS))
def test_latitude_order_does_not_matter(source: Grid, target: Grid, method: str) -> None:
    """Catches row numbers taken before or after a flip."""
    weights = builtin_weights(source, target, method=method).toarray().reshape(*target.shape, *source.shape)
    flipped = builtin_weights(
        Grid(source.latitude[::-1], source.longitude), Grid(target.latitude[::-1], target.longitude), method=method
    )
    expected = flipped.toarray().reshape(*target.shape, *source.shape)[::-1, :, ::-1]
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(source=global_grids(), target=global_grids(), method=st.sampled_from(METHODS), data=st.data())
def test_rolling_longitude_commutes(source: Grid, target: Grid, method: str, data: st.DataObject) -> None:
    """Catches a seam tied to 0, 180 or the first column, on either side of the regridding."""
    lon, to_lon = source.longitude, target.longitude
    k, m = data.draw(st.integers(0, lon.size - 1)), data.draw(st.integers(0, to_lon.size - 1))
    turns = 360 * data.draw(st.integers(-1, 1))
    rolled = Grid(source.latitude, np.append(lon[k:], lon[:k] + 360) + turns)
    to_rolled = Grid(target.latitude, np.append(to_lon[m:], to_lon[:m] + 360) - turns)
    weights = builtin_weights(source, target, method=method).toarray().reshape(*target.shape, *source.shape)
    again = builtin_weights(rolled, to_rolled, method=method).toarray().reshape(*target.shape, *source.shape)
    np.testing.assert_allclose(again, np.roll(weights, (-m, -k), axis=(1, 3)), rtol=0, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(target=global_grids(), origin=st.floats(-180, 180), share=st.floats(0.01, 0.99), method=st.sampled_from(METHODS))
def test_no_seam(target: Grid, origin: float, share: float, method: str) -> None:
    """Catches a column at the seam that is treated unlike the others: evenly spaced columns must all look alike."""
    n = 17
    source = Grid(gaussian(6), origin + 360 * np.arange(n) / n)
    even = Grid(target.latitude, origin + 360 * (np.arange(n) + share) / n)
    weights = builtin_weights(source, even, method=method).toarray().reshape(even.shape[0], n, 6, n)
    for j in range(n):
        np.testing.assert_allclose(weights[:, j], np.roll(weights[:, 0], j, axis=-1), rtol=0, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(source=global_grids(), target=global_grids())
def test_bilinear_meets_the_radius_of_the_target(source: Grid, target: Grid) -> None:
    """ESMF's definition: the weighted corners lie on the target's radius, with at most four corners, all around it."""
    weights = builtin_weights(source, target, method="bilinear")
    lat = np.repeat(np.sort(source.latitude)[[0, -1]][None], target.size, axis=0)
    inside = np.diff(weights.indptr) <= 4
    outermost = np.repeat(target.latitude, target.shape[1])
    assert np.all(inside | (outermost < lat[:, 0]) | (outermost > lat[:, 1]))
    meets = (weights @ directions(source))[inside]
    np.testing.assert_allclose(np.cross(meets, directions(target)[inside]), 0.0, atol=1e-10)
    assert np.all(np.sum(meets * directions(target)[inside], axis=1) > 0)


@settings(max_examples=60, deadline=None)
@given(source=global_grids(), target=global_grids())
def test_conservative_keeps_every_cell(source: Grid, target: Grid) -> None:
    """Catches a wrong area: each source cell must hand on exactly its own area, so any field keeps its integral."""
    given_away = target.cell_area.ravel() @ builtin_weights(source, target, method="conservative")
    np.testing.assert_allclose(given_away, source.cell_area.ravel(), rtol=1e-10, atol=1e-13)
    field = np.random.default_rng(7).normal(3.0, 1.0, source.size)
    after = target.cell_area.ravel() @ (builtin_weights(source, target, method="conservative") @ field)
    assert abs(after / (source.cell_area.ravel() @ field) - 1) < 1e-12


@settings(max_examples=40, deadline=None)
@given(source=global_grids(), target=global_grids(), method=st.sampled_from(METHODS), seed=st.integers(0, 99))
def test_values_stay_in_range_and_finite_at_the_poles(source: Grid, target: Grid, method: str, seed: int) -> None:
    """Catches extrapolation beyond the source's values, and poles left empty, for targets with rows on both poles."""
    inner = np.sort(target.latitude)
    inner = inner[np.abs(inner) < 89.9]
    poles = Grid(np.concatenate([[-90.0], inner, [90.0]]), target.longitude)
    field = np.random.default_rng(seed).normal(size=source.size)
    after = builtin_weights(source, poles, method=method) @ field
    assert np.isfinite(after).all()
    assert after.min() >= field.min() - 1e-12
    assert after.max() <= field.max() + 1e-12


def test_bilinear_does_not_keep_the_integral() -> None:
    """The check above can fail: bilinear from 0.25 to 5.625 degrees reads 4 of about 500 cells."""
    field = np.random.default_rng(7).normal(3.0, 1.0, ERA5.size)
    after = COARSE.cell_area.ravel() @ (builtin_weights(ERA5, COARSE, method="bilinear") @ field)
    assert abs(after / (ERA5.cell_area.ravel() @ field) - 1) > 1e-4


@settings(max_examples=60, deadline=None)
@given(source=global_grids(), target=global_grids())
def test_nearest_is_nearest_on_the_sphere(source: Grid, target: Grid) -> None:
    """Catches distances taken in degrees: near the poles the nearest row is not the nearest latitude."""
    weights = builtin_weights(source, target, method="nearest")
    assert np.array_equal(np.diff(weights.indptr), np.ones(target.size))
    closeness = directions(target) @ directions(source).T
    chosen = closeness[np.arange(target.size), weights.indices]
    np.testing.assert_allclose(chosen, closeness.max(axis=1), rtol=0, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(grid=global_grids(), method=st.sampled_from(METHODS))
def test_the_same_grid_is_the_identity(grid: Grid, method: str) -> None:
    """Catches rounding that lets a cell read its neighbour, and with it the neighbour's NaN."""
    weights = builtin_weights(grid, grid, method=method)
    assert np.array_equal(weights.indices, np.arange(grid.size))
    assert np.all(weights.data == 1.0)


# Poles and edges


def test_pole_is_the_mean_of_the_last_row_and_the_cap_a_triangle() -> None:
    """Catches poles left empty, and a cap filled by anything but ESMF's pole triangle."""
    n = 12
    source, pole, between = Grid([-75.0, -45, -15, 15, 45, 75], 30.0 * np.arange(n)), -90.0, 83.0
    weights = builtin_weights(source, Grid([pole, between], [0.0, 37.0]), method="bilinear").toarray()
    for j in range(2):
        np.testing.assert_allclose(weights[j, :n], 1 / n, rtol=0, atol=1e-15)
        assert np.all(weights[j, n:] == 0)
    # Barycentric coordinates of the target's radius in the triangle of two corners and the pole.
    corners = np.append(directions(source)[[5 * n + 1, 5 * n + 2]], [[0, 0, 1]], axis=0)
    shares = np.linalg.solve(corners.T, directions(Grid([0.0, between], [0.0, 37.0]))[3])
    shares /= shares.sum()
    expected = np.full(n, shares[2] / n)
    expected[1:3] += shares[:2]
    np.testing.assert_allclose(weights[3, 5 * n :], expected, rtol=0, atol=1e-14)


def test_row_on_the_pole_is_read_as_it_is() -> None:
    """Catches averaging over a pole row that the source has: u at the pole depends on longitude."""
    source = Grid(np.linspace(90, -90, 7), 20.0 * np.arange(18))
    weights = builtin_weights(source, Grid([90.0, 0.0], [25.0]), method="bilinear").toarray()[0]
    assert np.flatnonzero(weights).tolist() == [1, 2]
    np.testing.assert_allclose(weights[1] / weights[2], np.sin(np.deg2rad(15)) / np.sin(np.deg2rad(5)), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_source_that_does_not_cover_the_target(method: str) -> None:
    """Catches extrapolation: both extents must be in the message."""
    europe = Grid(np.arange(70, 29, -1.0), np.arange(-20, 41, 1.0))
    with pytest.raises(ValueError, match=rf"cover the target grid for {method}.*latitude (29.5|30) \.\. (70|70.5)"):
        builtin_weights(europe, COARSE, method=method)
    band = Grid(np.arange(-60, 61, 2.0), np.arange(0, 360, 2.0))
    with pytest.raises(ValueError, match="must cover the target"):
        builtin_weights(band, COARSE, method=method)
    with pytest.raises(ValueError, match="longitude"):
        builtin_weights(Grid(np.linspace(-90, 90, 61), np.arange(0, 300, 3.0)), COARSE, method=method)


def test_source_that_leaves_a_gap_between_the_target_edges() -> None:
    """Catches a globe of two columns taken for covered because its edges all happen to lie in the region."""
    region = Grid(np.linspace(-90, 90, 61), np.arange(0, 300, 3.0))
    with pytest.raises(ValueError, match=r"longitude -1.5 \.\. 298.5"):
        builtin_weights(region, Grid(np.linspace(-80, 80, 5), [100.0, 280.0]), method="conservative")


def test_nearest_just_outside_the_first_and_last_centre() -> None:
    """Catches a target half a cell west of a region being sent to its eastern end."""
    europe = Grid(np.arange(70, 29, -1.0), np.arange(-20, 41, 1.0))
    weights = builtin_weights(europe, Grid([70.3, 29.6], [-20.4, 40.3]), method="nearest")
    assert weights.indices.tolist() == [0, 60, 40 * 61, 40 * 61 + 60]


@pytest.mark.parametrize("origin", [0.0, -180.0, 17.3])
def test_conservative_reads_no_cell_beyond_a_shared_edge(origin: float) -> None:
    """Catches slivers: edges that differ by rounding only would let in the neighbour, and with it its NaN."""
    source = Grid(-90 + (np.arange(150) + 0.5) * 1.2, origin + (np.arange(300) + 0.5) * 1.2)
    target = Grid(-90 + (np.arange(50) + 0.5) * 3.6, origin + 360 + (np.arange(100) + 0.5) * 3.6)
    assert np.array_equal(np.diff(builtin_weights(source, target, method="conservative").indptr), np.full(5000, 9))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("turn", [0, 360])
def test_regional_source_across_greenwich(method: str, turn: int) -> None:
    """Catches a region cut at 0 degrees: the same box must work whichever way its longitudes are counted."""
    europe = Grid(np.arange(70, 29, -1.0), np.arange(-20, 41, 1.0))
    inside = Grid([40.2, 55.5, 61.25], np.array([-10.3, -4.0, 0.4, 7.75]) + turn)
    weights = builtin_weights(europe, inside, method=method)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    centre = (weights @ directions(europe))[2]
    cosine = centre @ directions(inside)[2] / np.linalg.norm(centre)
    assert np.rad2deg(np.arccos(min(cosine, 1.0))) < (2.0 if method == "conservative" else 0.8)


def test_target_on_the_edge_of_a_region() -> None:
    """Catches a target on the equatorward edge that falls below the chord of its patch and out of the source."""
    europe = Grid(np.arange(30, 71, 5.0), np.arange(-20, 41, 10.0))
    weights = builtin_weights(europe, Grid([30.0, 70.0], [-20.0, 5.0, 40.0]), method="bilinear")
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=0, atol=1e-12)
    assert weights[0, 0] == 1.0
    np.testing.assert_allclose(weights[[1]].data, 0.5)


def test_too_coarse_and_unknown() -> None:
    """Catches patches that span half the globe, and a method name that is quietly taken for another."""
    with pytest.raises(ValueError, match="less than 180 degrees apart"):
        builtin_weights(Grid([-60.0, 0.0, 60.0], [0.0, 180.0]), Grid([10.0, 20.0], [5.0, 8.0, 9.0]), method="bilinear")
    with pytest.raises(ValueError, match="at least 2 rows"):
        builtin_weights(Grid([0.0], np.arange(0, 360, 30.0)), Grid([0.0], [5.0, 8.0]), method="bilinear")
    with pytest.raises(ValueError, match="must be one of bilinear, conservative, nearest, got 'cubic'"):
        builtin_weights(ERA5, COARSE, method="cubic")  # type: ignore[arg-type]
