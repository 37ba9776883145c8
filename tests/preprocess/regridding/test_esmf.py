"""The xESMF engine: against ESMF itself where it is installed, and our side of it everywhere.

The stand-in below speaks xESMF's interface (lat, lon, lat_b, lon_b in; a DataArray around sparse COO
out; cells numbered row-major) and works out weights by search and Newton's method, one target at a
time, sharing no code and no closed form with preprocess.regridding.weights.
"""

from __future__ import annotations

import itertools
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.grid import Grid
from preprocess.regrid import regrid_weights, resolve_engine
from preprocess.regridding import esmf
from preprocess.regridding.weights import METHODS, builtin_weights


def point(lat: float, lon: float) -> np.ndarray:
    lat, lon = np.deg2rad(lat), np.deg2rad(lon)
    return np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def newton(corners: list[np.ndarray], target: np.ndarray) -> list[float] | None:
    """Weights of four corners whose sum lies on the target's radius, or None if the target is outside."""
    p0, p1, p2, p3 = corners
    s = t = 0.5
    r = 1.0
    for _ in range(60):
        value = (1 - s) * (1 - t) * p0 + s * (1 - t) * p1 + s * t * p2 + (1 - s) * t * p3 - r * target
        slope = np.stack([(1 - t) * (p1 - p0) + t * (p2 - p3), (1 - s) * (p3 - p0) + s * (p2 - p1), -target], axis=1)
        step = np.linalg.lstsq(slope, value, rcond=None)[0]
        s, t, r = np.array([s, t, r]) - step
        if np.abs(step).max() < 1e-15:
            break
    if r <= 0 or np.abs(value).max() > 1e-9 or not (-1e-10 <= s <= 1 + 1e-10 and -1e-10 <= t <= 1 + 1e-10):
        return None
    return [(1 - s) * (1 - t), s * (1 - t), s * t, (1 - s) * t]


def bilinear(lat: np.ndarray, lon: np.ndarray, to: np.ndarray, periodic: bool) -> dict[int, float]:
    n, m = lon.size, lat.size
    out: dict[int, float] = {}
    pairs = [(j, (j + 1) % n) for j in range(n if periodic else n - 1)]
    cells = [([(i, a), (i, b), (i + 1, b), (i + 1, a)], None) for i in range(m - 1) for a, b in pairs]
    if periodic and np.abs(lat).max() < 90:
        cells += [([(i, a), (i, b)], 90.0 * np.sign(lat[i])) for i in (0, m - 1) for a, b in pairs]
    for nodes, pole in cells:
        corners = [point(lat[i], lon[j]) for i, j in nodes] + ([point(pole, 0.0)] * 2 if pole else [])
        if min(corner @ to for corner in corners) < 0:
            continue
        weights = newton(corners, to)
        if weights is None:
            continue
        for (i, j), weight in zip(nodes, weights, strict=False):
            out[i * n + j] = out.get(i * n + j, 0.0) + weight
        if pole:
            for j in range(n):
                out[nodes[0][0] * n + j] = out.get(nodes[0][0] * n + j, 0.0) + (weights[2] + weights[3]) / n
        break
    return out


def overlap(low: float, high: float, edges: np.ndarray, turns: tuple[int, ...]) -> list[float]:
    pairs = [sorted(pair) for pair in itertools.pairwise(edges)]
    return [sum(max(0.0, min(high, b + t) - max(low, a + t)) for t in turns) for a, b in pairs]


class StandIn:
    """xesmf.Regridder as far as this project uses it."""

    calls: list[dict[str, Any]]
    column_major = False

    def __init__(self, ds_in: xr.Dataset, ds_out: xr.Dataset, method: str, periodic: bool = False) -> None:
        StandIn.calls.append({"method": method, "periodic": periodic, "names": set(ds_in.variables)})
        lat, lon, to_lat, to_lon = (ds[name].values for ds in (ds_in, ds_out) for name in ("lat", "lon"))
        rows: list[dict[int, float]] = []
        for i, j in itertools.product(range(to_lat.size), range(to_lon.size)):
            to = point(to_lat[i], to_lon[j])
            if method == "bilinear":
                rows.append(bilinear(lat, lon, to, periodic))
            elif method == "nearest_s2d":
                closeness = [point(a, b) @ to for a, b in itertools.product(lat, lon)]
                rows.append({int(np.argmax(closeness)): 1.0})
            else:
                sines = [np.sin(np.deg2rad(ds["lat_b"].values)) for ds in (ds_in, ds_out)]
                up = overlap(*sorted(sines[1][[i, i + 1]]), sines[0], (0,))
                along = overlap(*ds_out["lon_b"].values[[j, j + 1]], ds_in["lon_b"].values, (-720, -360, 0, 360, 720))
                area = np.outer(up, along).ravel()
                rows.append({int(k): area[k] / area.sum() for k in np.flatnonzero(area > 0)})
        coords = np.array([(row, column) for row, entries in enumerate(rows) for column in entries]).T
        if StandIn.column_major:
            coords[1] = coords[1] % lon.size * lat.size + coords[1] // lon.size
        data = np.array([weight for entries in rows for weight in entries.values()])
        shape = (to_lat.size * to_lon.size, lat.size * lon.size)
        self.weights = SimpleNamespace(data=SimpleNamespace(coords=coords, data=data, shape=shape))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    module = ModuleType("xesmf")
    module.Regridder = StandIn  # type: ignore[attr-defined]
    module.__version__ = "0.0-stand-in"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "xesmf", module)
    StandIn.calls, StandIn.column_major = [], False
    return StandIn


TARGET = Grid([-74.0, -33.3, 5.1, 61.7], 3.1 + 51.0 * np.arange(7))
SOURCES = {
    "north to south": Grid(np.linspace(90, -90, 9), 40.0 * np.arange(9)),
    "from -180": Grid(np.linspace(-90, 90, 7), -180 + 30.0 * np.arange(12)),
    "Gaussian": Grid(np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(6)[0])), 17.0 + 36.0 * np.arange(10)),
    "centred, flipped": Grid(np.linspace(81, -81, 10), 24.0 * np.arange(15)),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_engine_reads_cells_in_our_order(stand_in: type[StandIn], source: Grid, method: str) -> None:
    """Catches flipped rows, swapped axes, a lost seam, a missing `periodic` and missing cell edges."""
    theirs = regrid_weights(source, TARGET, method=method, engine="xesmf").toarray()
    ours = builtin_weights(source, TARGET, method=method).toarray()
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-10)
    assert np.abs(ours - np.roll(ours, 1, axis=1)).max() > 0.1
    (call,) = stand_in.calls
    assert call["method"] == {"nearest": "nearest_s2d"}.get(method, method)
    assert call["periodic"] is (method != "conservative")
    assert {"lat", "lon"} <= call["names"]
    assert ({"lat_b", "lon_b"} <= call["names"]) is (method == "conservative")


def test_wrong_cell_numbers_would_be_seen(stand_in: type[StandIn]) -> None:
    """The check above can fail: an engine that numbers source cells column by column gives other weights."""
    stand_in.column_major = True
    source = SOURCES["from -180"]
    theirs = esmf.esmf_weights(source, TARGET, method="bilinear").toarray()
    assert np.abs(theirs - builtin_weights(source, TARGET, method="bilinear").toarray()).max() > 0.1


def test_regional_source_is_not_periodic(stand_in: type[StandIn]) -> None:
    """Catches `periodic=True` for a box, with which ESMF would bend it round the globe."""
    box, inside = Grid(np.arange(30, 71, 5.0), np.arange(-20, 41, 6.0)), Grid([41.0, 52.0], [-11.0, 2.0, 33.0])
    theirs = esmf.esmf_weights(box, inside, method="bilinear")
    assert abs(theirs - builtin_weights(box, inside, method="bilinear")).max() < 1e-10
    assert stand_in.calls[0]["periodic"] is False
    with pytest.raises(ValueError, match="must cover the target"):
        esmf.esmf_weights(box, TARGET, method="bilinear")


def test_cells_that_esmf_left_empty_are_an_error(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches unmapped target cells, which ESMF leaves without weights and a product would turn into zeros."""
    monkeypatch.setattr(f"{__name__}.bilinear", lambda *_: {0: 0.25})
    with pytest.raises(ValueError, match=r"28 of 28 that do not .first at latitude -74, longitude 3.1"):
        esmf.esmf_weights(SOURCES["Gaussian"], TARGET, method="bilinear")


def test_auto_prefers_esmf_and_its_absence_is_named(stand_in: type[StandIn], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an engine other than the one recorded, and a bare ImportError for a user without conda."""
    assert resolve_engine("auto") == resolve_engine("xesmf") == "xesmf"
    assert resolve_engine("builtin") == "builtin"
    assert "xesmf 0.0-stand-in" in esmf.version()
    monkeypatch.setitem(sys.modules, "xesmf", None)
    assert resolve_engine("auto") == "builtin"
    with pytest.raises(ValueError, match=r"environment\.yml"):
        regrid_weights(SOURCES["Gaussian"], TARGET, method="nearest", engine="xesmf")
    with pytest.raises(ValueError, match="auto, builtin or xesmf, got 'cdo'"):
        resolve_engine("cdo")  # type: ignore[arg-type]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_builtin_equals_installed_esmf(source: Grid) -> None:
    """Catches a change in xESMF or ESMF; runs in the conda environment only."""
    pytest.importorskip("xesmf", reason="xESMF is not installed: it comes with the conda environment, not from PyPI")
    theirs = regrid_weights(source, TARGET, method="bilinear", engine="xesmf")
    assert abs(theirs - builtin_weights(source, TARGET, method="bilinear")).max() < 1e-10
    nearest = regrid_weights(source, TARGET, method="nearest", engine="xesmf")
    assert np.array_equal(nearest.indices, builtin_weights(source, TARGET, method="nearest").indices)
    conservative = regrid_weights(source, TARGET, method="conservative", engine="xesmf")
    np.testing.assert_allclose(conservative.sum(axis=1), 1.0, rtol=0, atol=1e-9)
