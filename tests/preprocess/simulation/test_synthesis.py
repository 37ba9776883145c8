"""Spectral states become fields: against scipy, dinosaur's own transforms, and the hydrostatic equation by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dinosaur import spherical_harmonic
from scipy.special import sph_harm_y

from pipeline.grid import Grid
from pipeline.weather.variables import BY_SHORT
from preprocess.simulation import synthesis as module
from preprocess.simulation.atmosphere import REFERENCE_TEMPERATURE, Atmosphere, State
from preprocess.simulation.forcing import GAS_CONSTANT, GRAVITY
from preprocess.simulation.synthesis import Synthesis, legendre

pytestmark = pytest.mark.slow

LEVELS = (30.0, 200.0, 500.0, 850.0, 1000.0)
ERA5 = Grid(np.linspace(90.0, -90.0, 19), np.arange(0.0, 360.0, 10.0))
SPEED = 6.37122e6 * 2.0 * 7.292e-5


@pytest.fixture(scope="module")
def planet() -> Atmosphere:
    return Atmosphere(levels=8, time_step_minutes=40)


@pytest.fixture(scope="module")
def synthesis(planet: Atmosphere) -> Synthesis:
    return Synthesis(planet, grid=ERA5, levels=LEVELS)


@pytest.fixture(scope="module")
def stirred(planet: Atmosphere) -> State:
    """A state with large random winds, everything finite and rough."""
    state = planet.initial_state(np.datetime64("2003-07-10"))
    rng = np.random.default_rng(5)
    shape = 4.0 ** -(planet.wavenumbers / 8.0) * planet.grid.mask * (planet.wavenumbers < 20)
    for name, size in (("vorticity", 0.02), ("divergence", 0.004), ("temperature", 2.0)):
        noise = size * rng.normal(size=state[name].shape) * shape
        noise[:, 0, 0] = 0.0
        state[name] = (state[name] + noise).astype(np.float32)
    return state


def test_legendre_functions_equal_scipys() -> None:
    """Catches a wrong normalisation, sign or order of the basis functions, and wrong slopes."""
    latitude = np.deg2rad(np.array([-80.0, -33.0, 0.0, 11.0, 64.0]))
    p, slope, over = legendre(np.sin(latitude), 7, 9)
    step = 1e-6
    for m in range(7):
        for n in range(m, 9):
            expected = sph_harm_y(n, m, np.pi / 2 - latitude, 0.0).real * np.sqrt(2 * np.pi)
            above = sph_harm_y(n, m, np.pi / 2 - latitude - step, 0.0).real * np.sqrt(2 * np.pi)
            below = sph_harm_y(n, m, np.pi / 2 - latitude + step, 0.0).real * np.sqrt(2 * np.pi)
            np.testing.assert_allclose(p[m, :, n], expected, atol=1e-12)
            np.testing.assert_allclose(slope[m, :, n], (above - below) / (2 * step), atol=1e-7)
            if m:
                np.testing.assert_allclose(over[m, :, n], expected / np.cos(latitude), atol=1e-12)


def test_pole_is_the_limit_of_its_surroundings() -> None:
    """Catches a division by the cosine of 90 degrees, or a pole row left at zero."""
    at, near = (legendre(np.sin(np.deg2rad([a, -a])), 22, 23) for a in (90.0, 89.999))
    for exact, limit in zip(at, near, strict=True):
        assert np.isfinite(exact).all()
        np.testing.assert_allclose(exact, limit, atol=0.1)
    assert np.abs(at[2][1]).max() > 1.0, "m = 1 must survive at the pole: the wind across it"


def test_fields_equal_dinosaurs_on_its_own_grid(planet: Atmosphere, stirred: State) -> None:
    """Catches a swapped wind component, a wrong scale, transposed axes or a flipped latitude."""
    latitude = np.rad2deg(planet.grid.latitudes)
    grid = Grid(latitude, np.rad2deg(planet.grid.longitudes))
    fields = Synthesis(planet, grid=grid, levels=LEVELS).to_era5([stirred])
    u, v = spherical_harmonic.vor_div_to_uv_nodal(planet.grid, stirred["vorticity"], stirred["divergence"], clip=False)
    lowest = {"u10": np.asarray(u)[-1].T * SPEED, "v10": np.asarray(v)[-1].T * SPEED}
    land = module.geography.land_fraction(grid.latitude, grid.longitude)
    for short, wind in lowest.items():
        assert np.abs(wind).max() > 5.0
        np.testing.assert_allclose(fields[BY_SHORT[short].long][0], (0.78 - 0.26 * land) * wind, atol=2e-3)
    temperature = np.asarray(planet.grid.to_nodal(stirred["temperature"])) + REFERENCE_TEMPERATURE
    pressure = np.exp(np.asarray(planet.grid.to_nodal(stirred["pressure"]))[0]) / planet.hectopascal
    for i, j in ((0, 3), (17, 11), (40, 30)):
        log_p = np.log(planet.sigma * pressure[i, j])
        expected = np.interp(np.log(500.0), log_p, temperature[:, i, j])
        assert fields["temperature"][0, 2, j, i] == pytest.approx(expected, abs=0.02)


def test_rows_on_the_poles(synthesis: Synthesis, stirred: State) -> None:
    """Catches scalars that vary along a pole, and winds there that are not one vector seen from every meridian."""
    fields = synthesis.to_era5([stirred])
    for row in (0, -1):
        for short in ("z", "t", "q"):
            values = fields[BY_SHORT[short].long][0, :, row]
            assert np.ptp(values, axis=-1).max() <= 1e-4 * np.abs(values).max()
        u, v = (fields[BY_SHORT[k].long][0, :, row].astype(np.float64) for k in "uv")
        speed = np.hypot(u, v)
        assert speed.max() > 1.0
        np.testing.assert_allclose(speed, speed[:, :1] * np.ones(36), rtol=2e-3, atol=1e-2)
        turn = np.unwrap(np.arctan2(v, u), axis=-1)
        direction = -1.0 if row == 0 else 1.0
        strong = speed[:, 0] > 0.5
        np.testing.assert_allclose(np.diff(turn[strong], axis=-1), direction * np.deg2rad(10.0), atol=0.02)


def test_isothermal_atmosphere_is_hydrostatic(planet: Atmosphere, synthesis: Synthesis) -> None:
    """Catches an error of geopotential with height or over mountains: z = R T ln(p0 / p) everywhere above ground."""
    temperature, sea_level = 270.0, 1010.0
    state = planet.initial_state()
    height = planet._nodal(planet.orography)
    log_pressure = np.log(sea_level * planet.hectopascal) - GRAVITY * height / (GAS_CONSTANT * temperature)
    state["temperature"] = np.zeros_like(state["temperature"])
    state["temperature"][:, 0, 0] = (temperature - REFERENCE_TEMPERATURE) * np.sqrt(4 * np.pi)
    state["pressure"] = np.asarray(planet.grid.to_modal(log_pressure[None].astype(np.float32)))
    fields = synthesis.to_era5([state])
    expected = GAS_CONSTANT * temperature * np.log(sea_level / np.array(LEVELS))
    above_ground = expected[:, None, None] > synthesis.surface_geopotential + 500.0
    error = np.where(above_ground, fields["geopotential"][0] - expected[:, None, None], 0.0)
    assert above_ground[3].mean() > 0.85
    assert np.abs(error).max() < 110.0, "over 8 coarse layers, less than 12 m"
    np.testing.assert_allclose(np.where(above_ground, fields["temperature"][0], 270.0)[:4], 270.0, atol=3.5)


def test_below_ground_is_filled_sensibly(planet: Atmosphere, synthesis: Synthesis, stirred: State) -> None:
    """Catches NaN, wild extrapolation or cold air under mountains."""
    fields = synthesis.to_era5([stirred])
    for name, values in fields.items():
        assert np.isfinite(values).all(), name
    under = synthesis.surface_geopotential > GRAVITY * 2500.0
    assert under.sum() >= 3
    t, z = fields["temperature"][0], fields["geopotential"][0]
    assert (t[4][under] > t[2][under]).all(), "warmer at 1000 hPa under the mountain than at 500 hPa above it"
    assert (z[4] < z[3]).all()
    assert (z[3] < z[2]).all()
    assert fields["specific_humidity"].min() >= 0.0


def test_batches_and_bands_change_nothing(
    planet: Atmosphere, synthesis: Synthesis, stirred: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a last batch dropped, padded into the result or mixed up, and rows cut in bands put back wrongly."""
    still = planet.initial_state()
    states = [stirred, still, stirred, still, stirred]
    whole = synthesis.to_era5(states)
    for block in (5 * 36, 2 * ERA5.size):  # bands of five rows; batches of two
        monkeypatch.setattr(module, "_BLOCK", block)
        other = Synthesis(planet, grid=ERA5, levels=LEVELS).to_era5(states)
        for name, values in whole.items():
            np.testing.assert_allclose(other[name], values, rtol=1e-5, atol=1e-3 * np.abs(values).max())
    assert np.abs(whole["temperature"][0] - whole["temperature"][1]).max() > 0.5


def test_statics_go_together(synthesis: Synthesis) -> None:
    """Catches a mask or orography turned against the other or against the grid."""
    statics: dict[str, Any] = synthesis.statics()
    land, surface = statics["land_sea_mask"], statics["geopotential_at_surface"]
    assert land.shape == surface.shape == ERA5.shape
    assert land.min() >= 0.0
    assert land.max() <= 1.0
    assert surface[land > 0.9].mean() > 20 * abs(surface[land < 0.1].mean())
    assert surface[-1].mean() > GRAVITY * 1500.0, "Antarctica is the last row"
    assert abs(surface[0].mean()) < GRAVITY * 300.0, "the Arctic is the first"
