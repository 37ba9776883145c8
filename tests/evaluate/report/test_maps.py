"""Maps: closed at the seam, cells where they are, scales that do not mislead."""

from __future__ import annotations

import io

import numpy as np
import pytest

from evaluate.report import maps, style
from evaluate.scoring.regions import REGIONS, region_weights
from pipeline.grid import Grid

LABELS = style.Labels(
    "Skill, 7 days", "Geopotential at 500 hPa · 205 init times, 1 Jan – 1 Aug 2004", "made-up data", "skill [1]"
)


@pytest.mark.parametrize(
    "grid",
    [Grid.regular(11.25), Grid(np.linspace(-80, 80, 9), np.arange(-180, 180, 20.0)), Grid.regular(30, poles=True)],
)
def test_cells_close_the_ring_and_none_is_cut(grid: Grid) -> None:
    """The seam lies on a cell edge for any origin of longitude: catches a stripe or a smeared cell."""
    globe = maps.Globe(grid)
    x, _ = globe._corners
    width = x.max(axis=1) - x.min(axis=1)
    equator = int(np.argmin(abs(grid.latitude_edges)))
    limit = globe.projection.x_limits
    if abs(grid.latitude_edges[equator]) < 1e-9:
        assert width[equator] == pytest.approx(limit[1] - limit[0], rel=1e-5)
    steps = np.diff(x[equator])
    assert np.all(steps > 0)
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-3)
    assert sorted(globe._order) == list(range(grid.longitude.size))


def test_a_value_is_drawn_at_its_own_place() -> None:
    """One coloured cell in Australia must be found there in the picture: catches a roll in the wrong direction."""
    from PIL import Image

    grid = Grid.regular(11.25)
    values = np.zeros(grid.shape)
    row, column = np.argmin(abs(grid.latitude + 28)), np.argmin(abs(grid.longitude - 135))
    values[row, column] = 1.0
    globe = maps.Globe(grid)
    scale = maps.Scale(-1.0, 1.0, style.SKILL)
    png = style.save(globe.draw(maps.MapPanel(values, scale, LABELS)), _tmp() / "a", colours=scale.colours, pdf=False)
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=float)
    map_part = image[: int(0.78 * image.shape[0])]
    teal = np.array(style.SKILL(1.0)[:3]) * 255
    y, x = np.nonzero(abs(map_part - teal).sum(-1) < 40)
    assert y.size > 20
    left, width = 0.015 * image.shape[1], 0.97 * image.shape[1]
    assert 0.80 < (x.mean() - left) / width < 0.90  # 135 E of 360, a little inward at 28 S
    assert y.mean() > 0.5 * map_part.shape[0]


def _tmp():
    import tempfile
    from pathlib import Path

    return Path(tempfile.mkdtemp())


def test_hatching_stays_inside_the_chosen_cells() -> None:
    """Hatched exactly where not significant: every drawn point lies in a chosen cell, and every cell has points."""
    from cartopy import crs

    grid = Grid.regular(22.5)
    globe = maps.Globe(grid)
    chosen = np.zeros(grid.shape, bool)
    chosen[2, 3], chosen[5, 0], chosen[4, 15], chosen[6, 8] = True, True, True, True
    x, y = globe._hatching(chosen)
    inside = np.isfinite(x)
    points = crs.PlateCarree().transform_points(globe.projection, x[inside], y[inside])
    column = np.floor((points[:, 0] - grid.longitude_edges[0]) % 360 / 22.5).astype(int)
    row = np.floor((points[:, 1] + 90) / 22.5).astype(int)
    assert {(r, c) for r, c in zip(row.tolist(), column.tolist())} == {(2, 3), (5, 0), (4, 15), (6, 8)}


def test_coastline_is_the_half_contour_and_crosses_the_seam() -> None:
    """An island over the dateline keeps its coast on both sides of the map; without a mask there is none."""
    grid = Grid.regular(11.25)
    land = np.zeros(grid.shape)
    land[6:9, [0, 1, 14, 15, 16, 17]] = 1.0
    coast = maps.Globe(grid, land)._coast
    x = np.concatenate([line[0] for line in coast])
    x = x[np.isfinite(x)]
    assert x.min() < -1.4e7
    assert x.max() > 1.4e7
    assert maps.Globe(grid)._coast == []


def test_scales() -> None:
    """Bias and skill are symmetric about zero, errors start at zero, skill ends at 1, noise stays pale."""
    rng = np.random.default_rng(0)
    lopsided = rng.normal(3.0, 1.0, 5000)
    for name in ("bias", "skill", "field"):
        scale = maps.scale_for(name, lopsided)
        assert scale.low == -scale.high
    assert maps.scale_for("skill", lopsided).high == 1.0
    assert maps.scale_for("skill", 1e-3 * lopsided).high == maps.LEAST_SKILL
    error = maps.scale_for("rmse", abs(lopsided))
    assert error.low == 0.0
    assert error.high >= np.quantile(lopsided, 0.995)
    assert maps.scale_for("acc", rng.normal(0.5, 0.4, 100)).extend == "min"
    assert maps.scale_for("rmse", np.array([np.nan])).high == 1.0


@pytest.mark.parametrize("resolution", [5.625, 15.0])
@pytest.mark.parametrize("name", [region.name for region in REGIONS])
def test_a_window_holds_the_cells_of_its_region_and_no_others(name: str, resolution: float) -> None:
    """Centres of cells against the window, for every region and several grids; catches a window that is half a cell
    off, one that is cut by the seam of the map, and a region drawn on the whole globe."""
    grid = Grid.regular(resolution)
    mask = (np.random.default_rng(0).random(grid.shape) > 0.6).astype(float)
    inside = region_weights(grid, land_sea_mask=mask).sel(region=name).values > 0
    globe = maps.Globe(grid, mask, None if name == "globe" else inside)
    if name in ("globe", "land", "sea"):
        assert globe.window.extent is None
        return
    left, right, low, high = globe.window.extent
    x, y = globe._project(*np.meshgrid((grid.longitude + 180) % 360 - 180, grid.latitude))
    within = (x > left) & (x < right) & (y > low) & (y < high)
    np.testing.assert_array_equal(within, inside)
    assert globe.window.labelled == (name in ("europe", "north_america", "east_asia"))


@pytest.mark.parametrize("colours", [style.BIAS, style.SKILL, style.ERROR, style.CORRELATION])
def test_colour_maps_are_even(colours) -> None:
    """Lightness runs evenly, and symmetrically in diverging maps: catches a rainbow, or one louder side."""
    rgb = colours(np.linspace(0, 1, 101))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cone = linear @ np.array([[0.41222, 0.21190, 0.08830], [0.53633, 0.68070, 0.28172], [0.05145, 0.10740, 0.62998]])
    light = np.cbrt(cone) @ [0.21045, 0.79362, -0.00407]  # OKLab
    if colours in (style.BIAS, style.SKILL):
        np.testing.assert_allclose(light, light[::-1], atol=0.03)
        light = light[50:]
    steps = -np.diff(light)
    assert np.all(steps > -1e-3)
    assert steps.max() < 4 * steps.mean()


def test_png_keeps_its_colours_and_is_small() -> None:
    """The palette holds the whole colour bar and pure white paper, in less than 120 kB."""
    from PIL import Image

    grid = Grid.regular(5.625)
    field = np.sin(np.deg2rad(grid.latitude))[:, None] * np.ones(grid.shape)
    figure = maps.Globe(grid).draw(maps.MapPanel(field, maps.Scale(-1, 1, style.BIAS), LABELS))
    png = style.save(figure, _tmp() / "b", colours=style.BIAS, pdf=False)
    assert len(png) < 120_000
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    assert tuple(image[0, 0]) == (255, 255, 255)
    bar = image[int(0.85 * image.shape[0]), int(0.13 * image.shape[1]) : int(0.87 * image.shape[1])]
    assert len(np.unique(bar, axis=0)) > 80


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, 1.0), (0.99, 1.0), (1.01, 1.2), (73.0, 80.0), (0.0041, 0.005), (-3.0, 1.0), (8.0, 8.0), (9.1, 10.0)],
)
def test_nice_ceiling(value: float, text: float) -> None:
    """The next round number, never below the value; catches a scale that cuts its maximum."""
    assert style.nice_ceiling(value) == pytest.approx(text)
