"""Seasonal Held-Suarez forcing with a land surface and water vapour, for the simulated atmosphere.

Contract: pure functions and tables, no state. Arrays are on the core's Gaussian grid in its own order
(layer, longitude, latitude). Temperatures in K, pressures in hPa, rates in 1/s. Every constant below was
chosen here, by comparing the climate it gives with ERA5's mean and standard deviation by level
(docs/simulation.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
JaxArray = jax.Array

DAY = 86400.0
YEAR = 365.2425
GRAVITY = 9.80616
"""m s-2, of the core; ECMWF's 9.80665 (`pipeline.weather.variables`) is for data that are read."""
RADIUS = 6.37122e6
"""m, of the planet."""
ROTATION = 7.292e-5
"""s-1, of the planet."""
LATENT_HEAT = 2.5e6
"""J kg-1."""
HEAT_CAPACITY = 1004.0
"""J kg-1 K-1, dry air at constant pressure."""
GAS_CONSTANT = HEAT_CAPACITY * 2.0 / 7.0
"""J kg-1 K-1, of the core's dry air."""
VAPOUR_CONSTANT = 461.5
"""J kg-1 K-1."""
LAPSE_EXPONENT = 287.0 * 0.0065 / GRAVITY
"""R times the standard lapse rate over g: temperature goes like pressure to this power below the lowest layer."""
KAPPA = 2.0 / 7.0
SURFACE_PRESSURE = 1006.0
"""hPa, at sea level, of the atmosphere at rest; also the reference of the potential temperature."""
PHASES = 24
"""Points of the year at which the equilibrium is tabulated; the core interpolates linearly between them."""


@dataclass(frozen=True)
class Climate:
    """What the forcing pulls the atmosphere towards, and how fast. Temperatures in K, times in days."""

    equator: float = 317.0  # equilibrium potential temperature at the equator's surface
    pole_contrast: float = 60.0  # equator minus pole, annual mean
    stability: float = 22.0  # rise of equilibrium potential temperature per e-fold of pressure at the equator
    stability_pole: float = 0.0  # the same at the poles
    season_aloft: float = 15.0  # half the summer-winter difference at the poles in the free troposphere
    season_stratosphere: float = 22.0  # the same at 30 hPa
    season_land: float = 12.0  # the same at the surface far inland, on top of `season_aloft`
    season_ocean: float = -8.0  # the same at the sea surface (negative: the ocean evens the seasons out)
    peak_aloft: float = 182.0  # day of the year of the warmest northern equilibrium aloft; the air follows weeks later
    peak_land: float = 190.0  # the same for land
    peak_ocean: float = 225.0  # the same for the sea
    ice_cooling: float = 14.0  # surface of the ice sheets below the zonal mean
    relax_free: float = 16.0  # relaxation time of temperature aloft
    relax_surface: float = 3.0  # relaxation time of temperature at the equator's surface
    relax_stratosphere: float = 20.0  # relaxation time of temperature above 50 hPa
    friction: float = 1.25  # rayleigh friction time at the surface
    boundary_layer: float = 0.7  # sigma of the top of the boundary layer, in which friction and the surface act
    sponge: float = 2.0  # damping time of waves in the top layer
    sea_exchange: float = 30.0  # time in which the air changes the sea surface: a mixed layer of some 25 m
    sea_memory: float = 120.0  # time in which the sea surface returns to its climate by itself
    land_exchange: float = 0.5  # time in which the air changes the land surface, and sunshine too
    diurnal: float = 15.0  # daily amplitude of the land surface's equilibrium under a sun that reaches the zenith
    evaporation_sea: float = 1.5  # time in which the sea moistens the lowest air
    evaporation_land: float = 4.0  # the same for land
    surface_humidity: float = 0.75  # relative humidity up to which the surface moistens the air
    rain_humidity: float = 0.9  # relative humidity above which vapour rains out
    latent_share: float = 0.6  # part of the heat of condensation that warms the air; the equilibrium holds the rest


@dataclass(frozen=True)
class Surface:
    """The planet on the core's grid, each (longitude, latitude): latitude and longitude in degrees, height in m."""

    latitude: Array
    longitude: Array
    land: Array
    ice: Array
    height: Array

    @property
    def pressure(self) -> Array:
        """Surface pressure of the atmosphere at rest, hPa."""
        return np.asarray(SURFACE_PRESSURE * (1.0 - 0.0065 * np.maximum(self.height, -500.0) / 288.0) ** 5.2559)


@dataclass(frozen=True)
class Forcing:
    """Everything `relax` needs, tabulated. Build with `tabulate`."""

    equilibrium: NDArray[np.float32]  # (PHASES, layer, longitude, latitude)
    skin: NDArray[np.float32]  # equilibrium of the surface, (PHASES, longitude, latitude)
    rate: NDArray[np.float32]  # relaxation of temperature, (layer, longitude, latitude)
    coupling: NDArray[np.float32]  # how much of a surface anomaly the layer is relaxed towards, (layer, 1, 1)
    pressure: NDArray[np.float32]  # hPa of the layers at rest, (layer, longitude, latitude)
    evaporation: NDArray[np.float32]  # rate of moistening, (layer, longitude, latitude)
    skin_rate: NDArray[np.float32]  # relaxation of the surface to its equilibrium, (longitude, latitude)
    skin_exchange: NDArray[np.float32]  # relaxation of the surface to the air above it, (longitude, latitude)
    extrapolation: NDArray[np.float32]  # surface air temperature over that of the lowest layer, scalar
    diurnal: NDArray[np.float32]  # daily amplitude of the surface's equilibrium, (PHASES, longitude, latitude)
    longitude: NDArray[np.float32] = field(repr=False)  # longitude over a full turn, (longitude, latitude)
    climate: Climate


def tabulate(surface: Surface, sigma: Array, climate: Climate) -> Forcing:
    """Tabulate the forcing.

    Args:
        surface: the planet on the core's grid.
        sigma: centres of the layers, top down.
        climate: the constants.
    """
    column = sigma[:, None, None]
    low = np.clip((column - climate.boundary_layer) / (1.0 - climate.boundary_layer), 0.0, 1.0)
    pressure = column * surface.pressure
    days = np.arange(PHASES) * YEAR / PHASES
    equilibrium = np.stack([_equilibrium(surface, pressure, low, day, climate) for day in days])
    bottom = np.ones_like(column[:1])
    skin = np.stack([_equilibrium(surface, surface.pressure[None], bottom, day, climate)[0] for day in days])

    upper = np.clip((200.0 - pressure) / 150.0, 0.0, 1.0)
    free = (1.0 - upper) / climate.relax_free + upper / climate.relax_stratosphere
    cos2 = np.cos(np.deg2rad(surface.latitude)) ** 2
    strength = np.maximum(cos2**2, 0.08 + 0.15 * surface.land)
    rate = free + low * strength * (1.0 / climate.relax_surface - 1.0 / climate.relax_free)
    moist = np.clip((column - 0.8) / 0.2, 0.0, 1.0)
    land = surface.land
    evaporation = moist * ((1.0 - land) / climate.evaporation_sea + land / climate.evaporation_land)
    declination = np.deg2rad(23.44) * np.sin(2.0 * np.pi * (days - 80.0) / YEAR)
    latitude = np.deg2rad(surface.latitude)
    height_of_sun = np.maximum(np.cos(latitude[None] - declination[:, None, None]), 0.0)
    diurnal = climate.diurnal * land * (1.0 - surface.ice) * height_of_sun
    return Forcing(
        equilibrium=equilibrium.astype(np.float32),
        skin=skin.astype(np.float32),
        rate=(rate / DAY).astype(np.float32),
        coupling=low.astype(np.float32),
        pressure=pressure.astype(np.float32),
        evaporation=(evaporation / DAY).astype(np.float32),
        skin_rate=(((1.0 - land) / climate.sea_memory + land / climate.land_exchange) / DAY).astype(np.float32),
        skin_exchange=(((1.0 - land) / climate.sea_exchange + land / climate.land_exchange) / DAY).astype(np.float32),
        extrapolation=np.float32(sigma[-1] ** -LAPSE_EXPONENT) * np.ones((), np.float32),
        diurnal=diurnal.astype(np.float32),
        longitude=(surface.longitude / 360.0).astype(np.float32),
        climate=climate,
    )


def _equilibrium(surface: Surface, pressure: Array, low: Array, day: float, climate: Climate) -> Array:
    """Equilibrium temperature at `pressure` (layer, longitude, latitude) on a day of the year."""
    latitude = np.deg2rad(surface.latitude)
    sine, cos2 = np.sin(latitude), np.cos(latitude) ** 2
    relative = pressure / SURFACE_PRESSURE

    def season(peak: float) -> float:
        return float(np.cos(2.0 * np.pi * (day - peak) / YEAR))

    near_surface = (
        climate.season_land * surface.land * season(climate.peak_land)
        + climate.season_ocean * (1.0 - surface.land) * season(climate.peak_ocean)
    ) * sine - climate.ice_cooling * surface.ice
    potential = (
        climate.equator
        - climate.pole_contrast * sine**2
        + climate.season_aloft * sine * season(climate.peak_aloft)
        - (climate.stability_pole + (climate.stability - climate.stability_pole) * cos2**2) * np.log(relative)
        + low * near_surface
    )
    troposphere = relative**KAPPA * potential
    above = np.log(np.maximum(100.0 / pressure, 1.0))
    polar = np.clip(np.log(300.0 / pressure) / np.log(10.0), 0.0, 1.5)
    stratosphere = (
        196.0 * cos2
        + (214.0 + 3.0 * polar) * sine**2
        + 16.0 * above * cos2
        + climate.season_stratosphere * polar * sine * np.abs(sine) * season(climate.peak_aloft)
    )
    width = 6.0
    return np.asarray(width * np.logaddexp(troposphere / width, stratosphere / width))


def season_of(minutes: JaxArray) -> JaxArray:
    """Position in the year, [0, 1), of an integer count of minutes since 2000-01-01T00.

    Integer arithmetic (a year is 5 * 525949.2 fifths of a minute), so it is exact at any date.
    """
    year = 2629746
    return jnp.mod(5 * minutes, year).astype(jnp.float32) / year


def at_season(table: NDArray[np.float32], season: JaxArray) -> JaxArray:
    """Linear interpolation in a periodic table of PHASES entries."""
    position = season * PHASES
    first = jnp.floor(position).astype(jnp.int32)
    weight = position - first
    rows = jnp.asarray(table)
    return (1.0 - weight) * rows[jnp.mod(first, PHASES)] + weight * rows[jnp.mod(first + 1, PHASES)]


def saturation(temperature: JaxArray, pressure: JaxArray) -> JaxArray:
    """Saturation specific humidity, kg/kg; pressure in hPa. Magnus form, over ice below 250 K, mixed up to 273 K."""
    ice = jnp.clip((273.16 - temperature) / 23.0, 0.0, 1.0)
    a = 17.502 + (22.587 - 17.502) * ice
    b = 32.19 + (-0.7 - 32.19) * ice
    vapour = 6.1121 * jnp.exp(a * (temperature - 273.16) / jnp.maximum(temperature - b, 50.0))
    return 0.622 * vapour / jnp.maximum(pressure - 0.378 * vapour, 0.5 * pressure)


def relax(
    forcing: Forcing, temperature: JaxArray, humidity: JaxArray, skin: JaxArray, minutes: JaxArray, *, seconds: float
) -> tuple[JaxArray, JaxArray]:
    """Increments of temperature and humidity over `seconds`, implicit, each (layer, longitude, latitude)."""
    season = season_of(minutes)
    skin_equilibrium = at_season(forcing.skin, season)
    target = at_season(forcing.equilibrium, season) + forcing.coupling * (skin - skin_equilibrium)
    gain = seconds * forcing.rate
    warming = (target - temperature) * (gain / (1.0 + gain))

    saturated = saturation(temperature + warming, jnp.asarray(forcing.pressure))
    wet = seconds * forcing.evaporation
    source = jnp.maximum(forcing.climate.surface_humidity * saturated - humidity, 0.0) * (wet / (1.0 + wet))
    moistened = jnp.maximum(humidity + source, 1e-7)
    steepness = LATENT_HEAT**2 / (HEAT_CAPACITY * VAPOUR_CONSTANT) * saturated / temperature**2
    rain = jnp.maximum(moistened - forcing.climate.rain_humidity * saturated, 0.0) / (1.0 + steepness)
    warming = warming + forcing.climate.latent_share * LATENT_HEAT / HEAT_CAPACITY * rain
    return warming, moistened - rain - humidity


def evolve_skin(
    forcing: Forcing, skin: JaxArray, lowest_temperature: JaxArray, minutes: JaxArray, *, seconds: float
) -> JaxArray:
    """Surface temperature after `seconds`, (longitude, latitude): a slab that remembers, deep at sea, thin on land."""
    season = season_of(minutes)
    hour = jnp.mod(minutes, 1440).astype(jnp.float32) / 1440.0
    daily = jnp.cos(2.0 * jnp.pi * (hour + forcing.longitude - 14.0 / 24.0))
    target = at_season(forcing.skin, season) + at_season(forcing.diurnal, season) * daily
    air = lowest_temperature * forcing.extrapolation
    return skin + seconds * (forcing.skin_rate * (target - skin) + forcing.skin_exchange * (air - skin))
