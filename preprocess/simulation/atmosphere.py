"""The dynamical core of the simulated atmosphere: primitive equations from dinosaur under our forcing.

Contract: an `Atmosphere` is built from plain numbers and is immutable; all that changes is the state, a flat dict of
NumPy arrays that `np.savez` keeps exactly. Time is part of the state as an integer (minutes since 2000-01-01T00), and
one compiled loop serves every length of run, so a run that is saved, loaded and continued gives the same bytes as one
that never stopped. Internally dinosaur's nondimensional units; `synthesis` turns states into fields.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dinosaur import (
    coordinate_systems,
    leapfrog_utils,
    primitive_equations,
    sigma_coordinates,
    spherical_harmonic,
    units,
)
from numpy.typing import NDArray

from preprocess.simulation import forcing as forcings
from preprocess.simulation import geography

State = dict[str, NDArray[Any]]
"""vorticity, divergence, temperature, humidity (layer, m, l), pressure (1, m, l), each also with the prefix
`previous_` (the leapfrog's other time level); skin (longitude, latitude); minutes, an integer."""

SPECTRAL = ("vorticity", "divergence", "temperature", "humidity", "pressure")
EPOCH = np.datetime64("2000-01-01T00:00", "m")
REFERENCE_TEMPERATURE = 300.0
"""K; the linear part of the equations is solved implicitly about an isothermal atmosphere of this temperature."""
_CONSTANT = 3.5449077018110318
"""Spectral coefficient of the field 1 in the orthonormal basis: sqrt(4 pi)."""

_SIGMA_15 = (
    0.0, 0.03, 0.065, 0.105, 0.155, 0.21, 0.27, 0.34, 0.42, 0.505, 0.595, 0.69, 0.78, 0.865, 0.94, 1.0,
)  # fmt: skip
_NODES = {10: 8, 15: 12, 21: 16, 31: 24, 42: 32, 63: 48, 85: 64, 106: 80}


def sigma_boundaries(levels: int) -> NDArray[np.float64]:
    """Boundaries of the layers: close near the ground and in the stratosphere; 15 is the tuned case."""
    return np.interp(np.linspace(0.0, 1.0, levels + 1), np.linspace(0.0, 1.0, len(_SIGMA_15)), _SIGMA_15)


@dataclass(frozen=True)
class Atmosphere:
    """A planet with an atmosphere.

    Args:
        truncation: triangular truncation, one of 10, 15, 21, 31, 42, 63, 85, 106; below 21 only for coarse forecasts.
        levels: number of sigma layers.
        time_step_minutes: must divide 60.
        seed: of the noise in the initial state; nothing else is random.
        climate: constants of the forcing.

    Raises:
        ValueError: an argument breaks its rule.
    """

    truncation: int = 21
    levels: int = 15
    time_step_minutes: int = 30
    seed: int = 0
    climate: forcings.Climate = field(default_factory=forcings.Climate)

    def __post_init__(self) -> None:
        if self.truncation not in _NODES:
            raise ValueError(f"truncation must be one of {sorted(_NODES)}, got {self.truncation}")
        if self.levels < 5:
            raise ValueError(f"levels must be at least 5, got {self.levels}; 15 is the tuned case")
        if self.time_step_minutes < 1 or 1440 % self.time_step_minutes:
            raise ValueError(f"time_step_minutes must divide a day, got {self.time_step_minutes}; try 30 or 45")

    @functools.cached_property
    def grid(self) -> spherical_harmonic.Grid:
        """The grid of dinosaur: spectral truncation and the Gaussian nodes of the nonlinear terms."""
        return spherical_harmonic.Grid.construct(self.truncation, _NODES[self.truncation])

    @functools.cached_property
    def coords(self) -> coordinate_systems.CoordinateSystem:
        """Grid and layers together."""
        return coordinate_systems.CoordinateSystem(
            self.grid, sigma_coordinates.SigmaCoordinates(sigma_boundaries(self.levels))
        )

    @functools.cached_property
    def specs(self) -> units.SimUnits:
        """Physical constants in the core's units."""
        return units.SimUnits.from_si()

    @functools.cached_property
    def hectopascal(self) -> float:
        """One hPa in the core's units."""
        return float(self.specs.nondimensionalize(1.0 * units.scales.units.hPa))

    @functools.cached_property
    def sigma(self) -> NDArray[np.float64]:
        """Centres of the layers, top down."""
        return np.asarray(self.coords.vertical.centers, dtype=np.float64)

    @functools.cached_property
    def wavenumbers(self) -> NDArray[np.float64]:
        """Total wavenumber l of every spectral column, (l,)."""
        return np.asarray(self.grid.modal_axes[1], dtype=np.float64)

    @functools.cached_property
    def orography(self) -> NDArray[np.float64]:
        """Spectral surface height in metres, (m, l): the analytic mountains, truncated and smoothed."""
        return self._analyse(geography.elevation)

    @functools.cached_property
    def surface(self) -> forcings.Surface:
        """The planet on the nodes."""
        latitude = np.rad2deg(np.asarray(self.grid.latitudes, dtype=np.float64))
        longitude = np.rad2deg(np.asarray(self.grid.longitudes, dtype=np.float64))
        lon, lat = np.meshgrid(longitude, latitude, indexing="ij")

        def smooth(function: Any) -> NDArray[np.float64]:
            return np.clip(self._nodal(self._analyse(function)), 0.0, 1.0)

        return forcings.Surface(
            latitude=lat,
            longitude=lon,
            land=smooth(geography.land_fraction),
            ice=smooth(geography.ice_fraction),
            height=self._nodal(self.orography),
        )

    @functools.cached_property
    def forcing(self) -> forcings.Forcing:
        """Tables of the forcing on the nodes."""
        return forcings.tabulate(self.surface, self.sigma, self.climate)

    def initial_state(self, time: np.datetime64 = EPOCH) -> State:
        """An atmosphere at rest in radiative equilibrium, with noise that lets the weather start.

        Args:
            time: UTC; rounded down to the minute.
        """
        minutes = int((time.astype("datetime64[m]") - EPOCH).astype(np.int64))
        season = forcings.season_of(jnp.asarray(minutes, jnp.int32))
        temperature = np.asarray(forcings.at_season(self.forcing.equilibrium, season), dtype=np.float64)
        log_pressure = np.log(self.hectopascal * self.surface.pressure)
        humidity = 0.5 * np.asarray(forcings.saturation(jnp.asarray(temperature), jnp.asarray(self.forcing.pressure)))
        humidity = np.minimum(humidity, np.where(self.forcing.pressure < 90.0, 3e-6, 1.0))
        to_modal = self.grid.to_modal
        noise = np.random.default_rng(self.seed).normal(size=(self.levels, *self.grid.modal_shape))
        noise *= np.where((self.wavenumbers > 0) & (self.wavenumbers < self.truncation), 1e-4, 0.0) * self.grid.mask
        fields = {
            "vorticity": noise,
            "divergence": np.zeros_like(noise),
            "temperature": to_modal(jnp.asarray(temperature - REFERENCE_TEMPERATURE, jnp.float32)),
            "humidity": to_modal(jnp.asarray(humidity, jnp.float32)),
            "pressure": to_modal(jnp.asarray(log_pressure[None], jnp.float32)),
        }
        state: State = {name: np.asarray(values, dtype=np.float32) for name, values in fields.items()}
        state |= {f"previous_{name}": values.copy() for name, values in state.items()}
        state["skin"] = np.asarray(forcings.at_season(self.forcing.skin, season), dtype=np.float32)
        state["minutes"] = np.asarray(minutes, dtype=np.int32)
        return state

    def advance(self, state: Mapping[str, NDArray[Any]], hours: float) -> State:
        """The state `hours` later.

        Raises:
            ValueError: `hours` is not a whole number of time steps, or the run blew up.
        """
        steps = hours * 60.0 / self.time_step_minutes
        if steps < 0 or steps != round(steps):
            raise ValueError(f"hours must be whole steps of {self.time_step_minutes} minutes, got {hours:g}")
        out = self._run({name: jnp.asarray(values) for name, values in state.items()}, round(steps))
        result = {name: np.asarray(values) for name, values in out.items()}
        if not np.isfinite(result["temperature"]).all():
            when = time_of(state)
            raise ValueError(
                f"simulation must stay finite, got infinities within {hours:g} h of {when}; use a shorter time step "
                f"than {self.time_step_minutes} minutes"
            )
        return result

    @functools.cached_property
    def _run(self) -> Any:
        step = self._step_function()

        @jax.jit
        def run(state: dict[str, jax.Array], steps: jax.Array) -> dict[str, jax.Array]:
            out: dict[str, jax.Array] = jax.lax.fori_loop(0, steps, lambda _, s: step(s), state)
            return out

        return run

    def _step_function(self) -> Any:
        """One leapfrog step: dynamics centred, forcing implicit from the older time level, then the time filter."""
        grid, specs = self.grid, self.specs
        seconds = 60.0 * self.time_step_minutes
        dt = float(specs.nondimensionalize(seconds * units.scales.units.s))
        equations = _Equations(
            np.full(self.levels, REFERENCE_TEMPERATURE),
            self.orography / forcings.RADIUS,
            self.coords,
            specs,
            vertical_advection=_vertical_advection,
        )
        leap = leapfrog_utils.semi_implicit_leapfrog(equations, dt, alpha=0.55)
        damp_wind, damp_scalar = self._damping(2.0 * seconds)
        table = self.forcing
        mean_pressure = float(self._mean(self.surface.pressure)) * self.hectopascal

        def to_struct(state: Mapping[str, jax.Array], prefix: str) -> Any:
            return primitive_equations.State(
                vorticity=state[f"{prefix}vorticity"],
                divergence=state[f"{prefix}divergence"],
                temperature_variation=state[f"{prefix}temperature"],
                log_surface_pressure=state[f"{prefix}pressure"],
                tracers={"humidity": state[f"{prefix}humidity"]},
            )

        def step(state: dict[str, jax.Array]) -> dict[str, jax.Array]:
            _, future = leap((to_struct(state, "previous_"), to_struct(state, "")))
            minutes = state["minutes"] + self.time_step_minutes
            temperature = grid.to_nodal(future.temperature_variation) + REFERENCE_TEMPERATURE
            humidity = grid.to_nodal(future.tracers["humidity"])
            warming, moistening = forcings.relax(
                table, temperature, humidity, state["skin"], minutes, seconds=2.0 * seconds
            )
            surface_pressure = jnp.exp(grid.to_nodal(future.log_surface_pressure))
            mass = jnp.log(mean_pressure / self._mean(surface_pressure))
            new = {
                "vorticity": future.vorticity * damp_wind,
                "divergence": future.divergence * damp_wind,
                "temperature": (future.temperature_variation + grid.to_modal(warming)) * damp_scalar,
                "humidity": (future.tracers["humidity"] + grid.to_modal(moistening)) * damp_scalar,
                "pressure": future.log_surface_pressure.at[:, 0, 0].add(_CONSTANT * mass),
            }
            out = {}
            for name in SPECTRAL:
                old, now = state[f"previous_{name}"], state[name]
                out[f"previous_{name}"] = now + 0.04 * (old - 2.0 * now + new[name])
                out[name] = new[name]
            out["skin"] = forcings.evolve_skin(
                table, state["skin"], temperature[-1] + warming[-1], minutes, seconds=seconds
            )
            out["minutes"] = minutes
            return out

        return step

    def _damping(self, seconds: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Factors (layer, m, l) over `seconds`: scale-selective diffusion; friction and a sponge on the wind."""
        climate = self.climate
        degree = self.wavenumbers * (self.wavenumbers + 1.0)
        top = self.truncation * (self.truncation + 1.0)
        timescale = DIFFUSION_HOURS * 3600.0 * 21.0 / self.truncation
        diffusion = np.exp(-seconds / timescale * (degree / top) ** 4)[None, None, :]
        low = np.clip((self.sigma - climate.boundary_layer) / (1.0 - climate.boundary_layer), 0.0, 1.0)
        friction = low / (climate.friction * forcings.DAY)
        sponge = np.clip(np.log(0.08 / self.sigma), 0.0, None) / np.log(0.08 / 0.015) / (climate.sponge * forcings.DAY)
        waves = np.where(np.asarray(self.grid.modal_axes[0]) == 0, 0.1, 1.0)[None, :, None]
        rate = friction[:, None, None] + sponge[:, None, None] * waves
        wind = diffusion / (1.0 + seconds * rate)
        return wind.astype(np.float32), diffusion.astype(np.float32)

    def _mean(self, nodal: Any) -> Any:
        """Global mean of a nodal field (..., longitude, latitude)."""
        weight = np.asarray(self.grid.spherical_harmonics.basis.w)
        return (nodal * (weight / (4.0 * np.pi))).sum(axis=(-2, -1))

    def _nodal(self, modal: NDArray[np.float64]) -> NDArray[np.float64]:
        basis = self.grid.spherical_harmonics.basis
        return np.asarray(np.einsum("im,mjl,ml->ij", basis.f, basis.p, modal, optimize=True))

    def _analyse(self, function: Any) -> NDArray[np.float64]:
        """Spectral coefficients (m, l) of a function of (latitudes, longitudes), smoothed against ripples."""
        fine = spherical_harmonic.Grid.construct(self.truncation, 4 * _NODES[self.truncation])
        basis = fine.spherical_harmonics.basis
        values = function(np.rad2deg(fine.latitudes), np.rad2deg(fine.longitudes)).T
        modal = np.einsum("im,mjl,ij->ml", basis.f, basis.p, values * basis.w, optimize=True)
        top = self.truncation * (self.truncation + 1.0)
        keep = np.where(self.wavenumbers <= self.truncation, 1.0, 0.0)
        return np.asarray(modal * keep * np.exp(-1.2 * (self.wavenumbers * (self.wavenumbers + 1.0) / top)))


class _Equations(primitive_equations.PrimitiveEquationsSigma):  # type: ignore[misc]
    """The same equations; one term spelled without a reduction that takes a CPU 0.3 ms a step."""

    def kinetic_energy_tendency(self, aux_state: Any) -> jax.Array:
        grid = self.coords.horizontal
        u, v = aux_state.cos_lat_u
        kinetic = (u * u + v * v) * (0.5 * np.asarray(grid.sec2_lat))
        tendency: jax.Array = -grid.laplacian(grid.to_modal(kinetic))
        return tendency


def _vertical_advection(w: jax.Array, x: jax.Array, coordinates: Any) -> jax.Array:
    """-w dx/dsigma, centred, no flux through top and bottom: dinosaur's scheme, spelled with fewer copies."""
    flux = w * (x[1:] - x[:-1]) * (1.0 / coordinates.center_to_center)[:, None, None]
    return -0.5 * (jnp.pad(flux, ((0, 1), (0, 0), (0, 0))) + jnp.pad(flux, ((1, 0), (0, 0), (0, 0))))


DIFFUSION_HOURS = 8.0
"""Time in which diffusion takes all but 1/e of the smallest scale at T21; in proportion shorter at finer ones."""


def time_of(state: Mapping[str, NDArray[Any]]) -> np.datetime64:
    """The date of a state, UTC."""
    return np.datetime64(EPOCH + np.timedelta64(int(state["minutes"]), "m"))
