"""From spectral states of the simulated atmosphere to fields shaped like ERA5.

Contract: `Synthesis.to_era5` evaluates the spherical harmonics at the rows and columns of any
`pipeline.grid.Grid`, poles included, and interpolates from sigma to pressure levels: linear in the logarithm
of pressure, geopotential by the hydrostatic equation along the same profile. Below ground, temperature
follows the standard lapse rate from the lowest layer, geopotential goes with it, wind is that of the lowest
layer, humidity too but never above saturation. Nothing is ever NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from pipeline.grid import Grid
from pipeline.weather.variables import BY_SHORT
from preprocess.simulation import forcing, geography
from preprocess.simulation.atmosphere import REFERENCE_TEMPERATURE, Atmosphere
from preprocess.simulation.forcing import GAS_CONSTANT, GRAVITY, RADIUS, ROTATION

Field = NDArray[np.float32]
Array = NDArray[np.float64]

SIMULATED = ("z", "t", "u", "v", "q", "t2m", "u10", "v10", "lsm", "orog")
"""Short names of the variables."""
_BLOCK = 60_000
"""Columns evaluated in one piece: bounds the memory at any resolution."""


def legendre(sine: Array, wavenumbers: int, degrees: int) -> tuple[Array, Array, Array]:
    """Orthonormal associated Legendre functions and what winds need of them, finite at the poles.

    Args:
        sine: sine of latitude, (n,).
        wavenumbers: number of zonal wavenumbers m.
        degrees: number of total wavenumbers l.

    Returns:
        P, dP/d(latitude) and P / cos(latitude), each (m, n, l); the last is zero for m = 0, where no wind
        needs it. P_m / cos obeys the same recurrence in l as P_m, started one power of the cosine lower, so
        nothing is divided by zero.
    """
    cosine = np.sqrt(np.maximum(1.0 - sine**2, 0.0))
    p = np.zeros((wavenumbers, sine.size, degrees + 1))
    over = np.zeros_like(p)
    diagonal = np.full(sine.shape, np.sqrt(0.5))
    diagonal_over = np.zeros_like(diagonal)
    for m in range(wavenumbers):
        if m > 0:
            factor = -np.sqrt(1.0 + 0.5 / m)
            diagonal_over = factor * diagonal
            diagonal = factor * cosine * diagonal
        for target, start in ((p, diagonal), (over, diagonal_over)):
            target[m, :, m] = start
            for n in range(m + 1, degrees + 1):
                a = np.sqrt((4.0 * n * n - 1.0) / (n * n - m * m))
                b = np.sqrt(((n - 1.0) ** 2 - m * m) / (4.0 * (n - 1.0) ** 2 - 1.0)) if n > m + 1 else 0.0
                target[m, :, n] = a * (sine * target[m, :, n - 1] - b * (target[m, :, n - 2] if n > m + 1 else 0.0))
    slope = np.zeros((wavenumbers, sine.size, degrees))
    for n in range(degrees):
        slope[0, :, n] = -np.sqrt(n * (n + 1.0)) * p[1, :, n]
        for m in range(1, min(n + 1, wavenumbers)):
            below = np.sqrt((n * n - m * m) / (4.0 * n * n - 1.0))
            above = np.sqrt(((n + 1.0) ** 2 - m * m) / (4.0 * (n + 1.0) ** 2 - 1.0))
            slope[m, :, n] = (n + 1.0) * below * over[m, :, n - 1] - n * above * over[m, :, n + 1]
    return p[:, :, :degrees], slope, over[:, :, :degrees]


class _Columns(NamedTuple):
    """Fields of the layers, (time, layer, latitude, longitude), and of the ground, (time, latitude, longitude)."""

    temperature: jax.Array
    humidity: jax.Array
    u: jax.Array
    v: jax.Array
    log_pressure: jax.Array
    skin: jax.Array
    surface: jax.Array
    land: jax.Array


class Synthesis:
    """Evaluates states of one atmosphere on one grid.

    Args:
        atmosphere: whose states will come.
        grid: any grid; ERA5's has latitude 90 .. -90 and longitude 0 .. 360.
        levels: pressure levels, hPa.
    """

    def __init__(self, atmosphere: Atmosphere, *, grid: Grid, levels: Sequence[float]) -> None:
        self.atmosphere = atmosphere
        self.grid = grid
        self.levels = tuple(float(level) for level in levels)
        wavenumbers, degrees = atmosphere.truncation + 1, atmosphere.grid.total_wavenumbers
        bases = legendre(np.sin(np.deg2rad(grid.latitude)), wavenumbers, degrees)
        # The core keeps rows m = 0, cos 1, sin 1, cos 2, sin 2 ...
        self._legendre = tuple(np.repeat(b, 2, axis=0)[1:].astype(np.float32) for b in bases)
        angle = np.deg2rad(grid.longitude)[:, None] * np.arange(1, wavenumbers)
        fourier = np.empty((grid.longitude.size, 2 * wavenumbers - 1))
        fourier[:, 0] = np.sqrt(0.5 / np.pi)
        fourier[:, 1::2] = np.cos(angle) / np.sqrt(np.pi)
        fourier[:, 2::2] = np.sin(angle) / np.sqrt(np.pi)
        self._fourier = fourier.astype(np.float32)
        self.land = geography.land_fraction(grid.latitude, grid.longitude).astype(np.float32)
        height = np.einsum(
            "im,mjl,ml->ji", fourier, np.repeat(bases[0], 2, axis=0)[1:], atmosphere.orography, optimize=True
        )
        self.surface_geopotential = (GRAVITY * height).astype(np.float32)
        rows = max(1, _BLOCK // grid.longitude.size)
        self._bands = [slice(i, i + rows) for i in range(0, grid.latitude.size, rows)]
        self._evaluate = jax.jit(self._band)

    def statics(self) -> dict[str, Field]:
        """land_sea_mask in [0, 1] and geopotential_at_surface in m2 s-2, each (latitude, longitude)."""
        return {BY_SHORT["lsm"].long: self.land, BY_SHORT["orog"].long: self.surface_geopotential}

    def to_era5(self, states: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Field]:
        """Fields of a batch of states.

        Args:
            states: as `Atmosphere.advance` returns them.

        Returns:
            By ERA5's long name: upper air (time, level, latitude, longitude), surface (time, latitude, longitude).
        """
        names = ("vorticity", "divergence", "temperature", "humidity", "pressure", "skin")
        specs = [BY_SHORT[short] for short in SIMULATED if not BY_SHORT[short].static]
        rows_by_kind = {True: (len(self.levels), *self.grid.shape), False: self.grid.shape}
        out: dict[str, Field] = {s.long: np.empty((len(states), *rows_by_kind[s.levels]), np.float32) for s in specs}
        rows = max(1, _BLOCK // self.grid.size)
        for first in range(0, len(states), rows):
            part = states[first : first + rows]
            padded = [*part, *[part[-1]] * (rows - len(part))] if len(states) > rows else part
            stacked = {name: jnp.asarray(np.stack([s[name] for s in padded])) for name in names}
            for band in self._bands:
                legendre_rows = tuple(jnp.asarray(b[:, band]) for b in self._legendre)
                fields = self._evaluate(stacked, legendre_rows, self.surface_geopotential[band], self.land[band])
                for k, values in fields.items():
                    out[BY_SHORT[k].long][first : first + len(part), ..., band, :] = np.asarray(values)[: len(part)]
        return out

    def _band(self, state: dict[str, jax.Array], legendre_rows: Any, surface: Any, land: Any) -> dict[str, jax.Array]:
        """All fields on a band of rows; `state` has a leading time dimension."""
        p, slope, over = legendre_rows
        fourier = jnp.asarray(self._fourier)

        def rows(basis: Any, modal: jax.Array) -> jax.Array:
            return jnp.einsum("mjl,...ml->...mj", basis, modal)

        def around(values: jax.Array) -> jax.Array:
            return jnp.einsum("im,...mj->...ji", fourier, values)

        grid = self.atmosphere.grid
        skin = around(rows(p, grid.to_modal(state["skin"])))
        scalars = jnp.concatenate([state["temperature"], state["humidity"], state["pressure"]], axis=1)
        scalars = around(rows(p, scalars))
        n = self.atmosphere.levels
        temperature, humidity = scalars[:, :n] + REFERENCE_TEMPERATURE, scalars[:, n : 2 * n]
        log_pressure = scalars[:, -1] - np.log(self.atmosphere.hectopascal)
        stream, potential = (grid.inverse_laplacian(state[k]) for k in ("vorticity", "divergence"))
        speed = RADIUS * 2.0 * ROTATION
        u = around(rows(over, grid.d_dlon(potential)) - rows(slope, stream)) * speed
        v = around(rows(over, grid.d_dlon(stream)) + rows(slope, potential)) * speed
        columns = _Columns(temperature, humidity, u, v, log_pressure, skin, jnp.asarray(surface), jnp.asarray(land))
        return self._profile(columns)

    def _profile(self, columns: _Columns) -> dict[str, jax.Array]:
        """Vertical interpolation to the pressure levels; fields by short name."""
        t, q, u, v, log_pressure, skin, surface, land = columns
        x = [float(value) for value in np.log(self.atmosphere.sigma)]
        n, top, bottom = len(x), x[0], x[-1]
        alpha = forcing.LAPSE_EXPONENT
        lowest = t[:, -1]
        base = surface + GAS_CONSTANT * lowest / alpha * (np.exp(-alpha * bottom) - 1.0)

        def interpolate(level: jax.Array) -> dict[str, jax.Array]:
            # Sums over layers are written out: the compiler then makes one loop of them instead of a strided reduction.
            s = jnp.log(level) - log_pressure
            place = jnp.clip(s, top, bottom)
            weight = []
            for k in range(n):
                rising = (place - x[k - 1]) / (x[k] - x[k - 1]) if k > 0 else 1.0
                falling = (x[k + 1] - place) / (x[k + 1] - x[k]) if k < n - 1 else 1.0
                weight.append(jnp.maximum(jnp.minimum(rising, falling), 0.0))

            def at_level(field: jax.Array) -> jax.Array:
                return sum((weight[k] * field[:, k] for k in range(1, n)), weight[0] * field[:, 0])

            thickness = t[:, 0] * jnp.maximum(top - s, 0.0)
            for k in range(n - 1):
                depth = x[k + 1] - jnp.clip(s, x[k], x[k + 1])
                lapse = (t[:, k + 1] - t[:, k]) / (x[k + 1] - x[k])
                thickness += depth * (t[:, k + 1] - 0.5 * depth * lapse)
            growth = jnp.exp(alpha * jnp.maximum(s - bottom, 0.0))
            temperature = at_level(t) * growth
            vapour = jnp.minimum(at_level(q), forcing.saturation(temperature, level))
            return {
                "z": base + GAS_CONSTANT * (thickness - lowest / alpha * (growth - 1.0)),
                "t": temperature,
                "u": at_level(u),
                "v": at_level(v),
                "q": jnp.maximum(vapour, 0.0),
            }

        stacked = jax.lax.map(interpolate, jnp.asarray(self.levels, jnp.float32))
        fields = {k: jnp.moveaxis(values, 0, 1) for k, values in stacked.items()}
        air = lowest * np.exp(-alpha * bottom)
        drag = 0.78 - 0.26 * land
        return fields | {"t2m": air + (0.7 - 0.2 * land) * (skin - air), "u10": drag * u[:, -1], "v10": drag * v[:, -1]}
