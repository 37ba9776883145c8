"""Grid: exact areas against algebra, edges, poles and seam, equality and errors."""

from __future__ import annotations

import pickle
from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import Grid


def gaussian(n: int) -> np.ndarray:
    return np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(n)[0]))


def test_areas_against_algebra() -> None:
    """Catches cos(latitude) weights in place of areas: sines of the edges -90, -30, 30, 90 give heights 1/2, 1, 1/2."""
    grid = Grid.regular(60.0)
    assert grid.shape == (3, 6)
    expected = np.array([0.5, 1.0, 0.5]) * np.pi / 3
    np.testing.assert_allclose(grid.cell_area, np.repeat(expected[:, None], 6, axis=1), rtol=1e-15)
    np.testing.assert_allclose(grid.area_weights[:, 0], [0.75, 1.5, 0.75], rtol=1e-15)
    cosines = np.cos(np.deg2rad(grid.latitude))
    assert np.abs(cosines / cosines.mean() - grid.area_weights[:, 0]).max() < 1e-15  # the same for even rows ...
    uneven = Grid([-75.0, -50, 0, 50, 75], 30.0 * np.arange(12))
    cosines = np.cos(np.deg2rad(uneven.latitude))
    assert np.abs(cosines / cosines.mean() - uneven.area_weights[:, 0]).max() > 0.1  # ... but not for others


def test_row_on_the_pole_is_half_a_row_wide() -> None:
    """Catches polar cells of a full row: their cap has area 2 pi (1 - cos(d / 2)) in all."""
    grid = Grid.regular(0.25, poles=True)
    assert grid.shape == (721, 1440)
    exact = 4 * np.pi * np.sin(np.deg2rad(0.125) / 2) ** 2
    np.testing.assert_allclose(grid.cell_area[[0, -1]].sum(axis=1), exact, rtol=1e-14)
    assert grid.latitude_edges[0] == -90.0
    assert grid.latitude_edges[1] == -89.875


@pytest.mark.parametrize(
    "latitude",
    [
        np.linspace(-90, 90, 721),
        Grid.regular(5.625).latitude,
        gaussian(32),
        gaussian(2),
        gaussian(7)[::-1],
        np.array([80.0, 20.0, -30.0, -85.0]),
    ],
    ids=["poles", "centred", "Gaussian", "Gaussian of 2", "Gaussian from north", "uneven"],
)
@pytest.mark.parametrize("origin", [-180.0, 0.0, 11.3])
def test_global_areas_sum_to_the_sphere(latitude: np.ndarray, origin: float) -> None:
    """Catches a missing polar cap (Gaussian rows stop short of the pole) and a seam counted twice or not at all."""
    grid = Grid(latitude, origin + 360 / 50 * np.arange(50))
    assert grid.is_global
    assert abs(grid.cell_area.sum() / (4 * np.pi) - 1) < 1e-14
    assert grid.cell_area.min() > 0
    assert np.ptp(grid.longitude_edges) == pytest.approx(360.0, abs=1e-12)
    assert abs(grid.latitude_edges[0]) == abs(grid.latitude_edges[-1]) == 90.0


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(2, 9), min_size=2, max_size=20),
    columns=st.integers(3, 40),
    origin=st.floats(-360, 360),
    north_first=st.booleans(),
)
def test_areas_of_uneven_grids(steps: list[int], columns: int, origin: float, north_first: bool) -> None:
    """Catches any pair of edges that leave a gap or overlap, in either latitude order."""
    lat = np.append(0, np.cumsum(steps)) / sum(steps) * 180 - 90
    grid = Grid(lat[::-1] if north_first else lat, origin + 360 * np.arange(columns) / columns)
    assert abs(grid.cell_area.sum() / (4 * np.pi) - 1) < 1e-13
    assert grid.cell_area.shape == grid.shape == (len(steps) + 1, columns)
    assert grid.size == grid.cell_area.size
    other = Grid(grid.latitude[::-1], grid.longitude)
    np.testing.assert_array_equal(other.cell_area, grid.cell_area[::-1])


def test_regional_grid() -> None:
    """Catches a region taken for the globe: its edges lie half a cell outside, its area is that of the box."""
    grid = Grid(np.arange(60, 29, -5.0), np.arange(-20, 41, 10.0))
    assert not grid.reaches_poles
    assert not grid.is_periodic
    assert not grid.is_global
    assert grid.latitude_edges[[0, -1]].tolist() == [62.5, 27.5]
    assert grid.longitude_edges[[0, -1]].tolist() == [-25.0, 45.0]
    box = (np.sin(np.deg2rad(62.5)) - np.sin(np.deg2rad(27.5))) * np.deg2rad(70)
    assert grid.cell_area.sum() == pytest.approx(box, rel=1e-14)


@pytest.mark.parametrize(
    ("grid", "poles", "periodic"),
    [
        (Grid(np.arange(-89, 90, 1.0), np.arange(0, 360, 3.0)), False, True),
        (Grid(np.arange(-60, 61, 2.0), np.arange(0, 360, 2.0)), False, True),
        (Grid(np.arange(-90, 90, 1.0), np.arange(0, 360, 2.0)), False, True),
        (Grid(np.linspace(-90, 90, 19), np.arange(0, 350, 5.0)), True, False),
        (Grid(gaussian(64).astype(np.float32), np.arange(0, 360, 2.8125, dtype=np.float32)), True, True),
        (Grid(np.linspace(-90, 90, 19), np.arange(0, 355, 5.0)), True, False),
        (Grid(np.linspace(-90, 90, 19), [0.0, 60.0, 110.0, 170.0, 220.0, 275.0]), True, True),
        (Grid([10.0], [20.0]), False, False),
    ],
)
def test_poles_and_seam_are_told_from_gaps(grid: Grid, poles: bool, periodic: bool) -> None:
    """Catches grids one row or one column short of the globe passing for global."""
    assert grid.reaches_poles is poles
    assert grid.is_periodic is periodic
    assert grid.is_global is (poles and periodic)


def test_regular_gives_the_grids_of_the_project() -> None:
    """Catches a shifted origin or order of the target grid."""
    grid = Grid.regular(5.625)
    assert grid.shape == (32, 64)
    assert grid.latitude[[0, -1]].tolist() == [-87.1875, 87.1875]
    assert grid.longitude[[0, 1, -1]].tolist() == [0.0, 5.625, 354.375]
    assert Grid.regular(float(Fraction(180, 7))).shape == (7, 14)


@pytest.mark.parametrize("resolution", [0.0, -1.0, 7.0, float("nan"), 400.0])
def test_regular_refuses_what_does_not_divide_180(resolution: float) -> None:
    """Catches a last row that is not where the first one is mirrored."""
    with pytest.raises(ValueError, match="must divide 180"):
        Grid.regular(resolution)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([91.0, 0.0], [0.0, 1.0], r"within \[-90, 90\]"),
        ([0.0, 10.0, 5.0], [0.0, 1.0], "latitude must be strictly"),
        ([0.0, 0.0], [0.0, 1.0], "latitude must be strictly"),
        ([0.0, 1.0], [0.0, 90.0, -90.0], "longitude must be strictly increasing"),
        ([0.0, 1.0], [0.0, 120.0, 240.0, 360.0], "drop the repeated meridian"),
        ([0.0, np.nan], [0.0, 1.0], "latitude must be finite, got 1 value"),
        ([], [0.0, 1.0], "latitude must be one-dimensional and not empty"),
        ([[0.0, 1.0]], [0.0, 1.0], "latitude must be one-dimensional"),
    ],
)
def test_errors(latitude: list[float], longitude: list[float], message: str) -> None:
    """Catches coordinates whose areas and weights would be nonsense."""
    with pytest.raises(ValueError, match=message):
        Grid(latitude, longitude)


def test_one_row_has_no_edges() -> None:
    """Catches a made-up cell height."""
    with pytest.raises(ValueError, match="one latitude has no defined cell edges"):
        _ = Grid([10.0], [0.0, 1.0]).cell_area


def test_from_dataset() -> None:
    """Catches coordinates under another name, or curvilinear ones, being taken or ignored."""
    grid = Grid.regular(30.0)
    ds = xr.Dataset(coords={"latitude": grid.latitude, "longitude": grid.longitude})
    assert Grid.from_dataset(ds) == grid
    with pytest.raises(ValueError, match="coordinate 'latitude'"):
        Grid.from_dataset(ds.rename(latitude="lat"))
    curved = xr.Dataset(
        coords={"latitude": (("y", "x"), np.zeros((2, 3))), "longitude": (("y", "x"), np.zeros((2, 3)))}
    )
    with pytest.raises(ValueError, match="one-dimensional"):
        Grid.from_dataset(curved)


def test_equality_hash_and_copies() -> None:
    """Catches two machines, or a worker after pickling, that disagree about whether grids are the same."""
    grid = Grid.regular(5.625)
    assert grid == Grid(grid.latitude + 1e-13, grid.longitude)
    assert grid != Grid(grid.latitude[::-1], grid.longitude)
    assert grid != Grid(grid.latitude, grid.longitude + 0.001)
    assert len({grid, Grid.regular(5.625), Grid.regular(5.625, poles=True)}) == 2
    assert pickle.loads(pickle.dumps(grid)) == grid
    assert grid.allclose(Grid(grid.latitude + 5e-5, grid.longitude))
    assert not grid.allclose(Grid(grid.latitude + 5e-4, grid.longitude))
    assert not grid.allclose(Grid.regular(5.625, poles=True))
    with pytest.raises(ValueError, match="read-only"):
        grid.latitude[0] = 3.0
    assert grid.describe()["digest"] == grid.digest
