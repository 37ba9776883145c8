"""The core: restarts to the byte, an exact calendar, seasons, and a forcing that does what it says."""

from __future__ import annotations

import datetime as dt
import io

import jax.numpy as jnp
import numpy as np
import pytest

from preprocess.simulation import forcing
from preprocess.simulation.atmosphere import EPOCH, REFERENCE_TEMPERATURE, Atmosphere, State, time_of

pytestmark = pytest.mark.slow

START = np.datetime64("2004-02-27T12:00")


@pytest.fixture(scope="module")
def planet() -> Atmosphere:
    return Atmosphere(levels=7, time_step_minutes=40, seed=11)


@pytest.fixture(scope="module")
def running(planet: Atmosphere) -> State:
    """Two days after the start."""
    return planet.advance(planet.initial_state(START), 48)


def same(a: State, b: State) -> bool:
    return set(a) == set(b) and all(a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


def test_steps_taken_apart_give_the_same_bytes(planet: Atmosphere, running: State) -> None:
    """Catches a run whose bits depend on how many steps were asked for at once, so that a resumed run differs."""
    whole = planet.advance(running, 32)
    parts = running
    for hours in (2, 18, 0, 12):
        parts = planet.advance(parts, hours)
    assert same(parts, whole)
    assert not same(whole, running)


def test_a_state_survives_a_file(planet: Atmosphere, running: State) -> None:
    """Catches anything that lives outside the state: the calendar, the leapfrog's other level, the land surface."""
    file = io.BytesIO()
    np.savez(file, **running)  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as kept:
        loaded = {name: kept[name] for name in kept.files}
    twin = Atmosphere(levels=7, time_step_minutes=40, seed=99)  # the seed only matters at the start
    assert same(twin.advance(loaded, 24), planet.advance(running, 24))


def test_calendar_is_gregorian(planet: Atmosphere, running: State) -> None:
    """Catches a leap day lost: the run crosses 29 February 2004."""
    assert time_of(running) == np.datetime64("2004-02-29T12:00")
    assert time_of(planet.advance(running, 24)) == np.datetime64("2004-03-01T12:00")


@pytest.mark.parametrize("year", [1940, 1979, 2000, 2023, 2100])
def test_sun_keeps_to_the_calendar(year: int) -> None:
    """Catches seasons that drift against the date, before and after the epoch."""
    for day in (dt.date(year, 1, 1), dt.date(year, 6, 21), dt.date(year, 12, 31)):
        minutes = int((np.datetime64(day, "m") - EPOCH).astype(int))
        season = float(forcing.season_of(jnp.asarray(minutes, jnp.int32)))
        expected = (day.timetuple().tm_yday - 1) / forcing.YEAR
        drift = (season - expected + 0.5) % 1.0 - 0.5
        assert abs(drift) * forcing.YEAR < 1.6, f"{day}: {drift * forcing.YEAR:.2f} days"


def test_summer_changes_hemisphere(planet: Atmosphere) -> None:
    """Catches a forcing without seasons, or with January's summer in the north; land must feel them more than sea."""
    january, july = (planet.initial_state(np.datetime64(d)) for d in ("2001-01-15", "2001-07-15"))
    north = planet.surface.latitude > 40.0
    land, sea = north & (planet.surface.land > 0.8), north & (planet.surface.land < 0.2)
    difference = july["skin"] - january["skin"]
    assert difference[land].mean() > 20.0
    assert difference[land].mean() > 2.0 * difference[sea].mean() > 0.0
    assert difference[planet.surface.latitude < -40.0].mean() < -5.0
    aloft = np.asarray(planet.grid.to_nodal(july["temperature"] - january["temperature"]))[3]
    assert aloft[north].mean() > 5.0


def test_table_wraps_at_new_year() -> None:
    """Catches a jump of the forcing between 31 December and 1 January."""
    table = np.sin(2 * np.pi * np.arange(forcing.PHASES) / forcing.PHASES).astype(np.float32)
    late, early = (float(forcing.at_season(table, jnp.float32(s))) for s in (0.9999, 0.0001))
    assert abs(late - early) < 2e-3
    assert float(forcing.at_season(table, jnp.float32(2.5 / forcing.PHASES))) == pytest.approx(
        (table[2] + table[3]) / 2
    )


@pytest.mark.parametrize(
    ("celsius", "hectopascal"), [(-60.0, 0.0108), (-30.0, 0.380), (0.0, 6.11), (20.0, 23.37), (35.0, 56.2)]
)
def test_saturation_equals_the_tables(celsius: float, hectopascal: float) -> None:
    """Catches a wrong vapour pressure over water or ice (Smithsonian tables)."""
    q = float(forcing.saturation(jnp.float32(celsius + 273.15), jnp.float32(1000.0)))
    assert q == pytest.approx(0.622 * hectopascal / (1000.0 - 0.378 * hectopascal), rel=0.02)


def test_rain_warms_and_dries_and_the_sea_moistens(planet: Atmosphere) -> None:
    """Catches condensation of the wrong sign, vapour made from nothing aloft, and negative humidity."""
    table = planet.forcing
    temperature = jnp.asarray(forcing.at_season(table.equilibrium, jnp.float32(0.3)))
    skin = forcing.at_season(table.skin, jnp.float32(0.3))
    minutes = jnp.asarray(int(0.3 * forcing.YEAR * 1440), jnp.int32)
    saturated = forcing.saturation(temperature, jnp.asarray(table.pressure))

    def step(humidity: jnp.ndarray) -> tuple[np.ndarray, np.ndarray]:
        warming, moistening = forcing.relax(table, temperature, humidity, skin, minutes, seconds=4800.0)
        return np.asarray(warming), np.asarray(moistening)

    warm, dry = step(1.2 * saturated)
    calm, still = step(0.8 * saturated)
    share = planet.climate.latent_share
    np.testing.assert_allclose((warm - calm), -share * 2.5e6 / 1004.0 * dry, rtol=0.05, atol=2e-3)
    assert dry.max() < 0.0
    assert np.abs(still).max() == 0.0, "between the two thresholds nothing happens"
    _, moist = step(jnp.zeros_like(saturated))
    assert moist.min() >= 0.0
    sea, land = planet.surface.land < 0.1, planet.surface.land > 0.9
    saturated_low = np.asarray(saturated)[-1]
    assert moist[0].max() < 1e-6
    assert (moist[-1] / saturated_low).min() > 1e-3
    assert (moist[-1] / saturated_low)[sea].mean() > 1.5 * (moist[-1] / saturated_low)[land].mean()
    _, cured = step(jnp.full_like(saturated, -1e-4))
    assert (cured - 1e-4).min() > 0.0, "a negative value left by the transform is filled"


def test_sea_remembers_and_land_follows_the_day(planet: Atmosphere) -> None:
    """Catches land and sea exchanged in the surface slab, and a noon that comes at the same hour everywhere."""
    table, land = planet.forcing, planet.surface.land
    minutes = jnp.asarray(int(0.22 * forcing.YEAR * 1440), jnp.int32)
    skin = forcing.at_season(table.skin, forcing.season_of(minutes))
    air = skin / table.extrapolation + 10.0
    after = np.asarray(forcing.evolve_skin(table, skin, air, minutes, seconds=2400.0) - skin)
    assert after[land > 0.9].mean() > 5.0 * after[land < 0.1].mean() > 0.0
    noon = [
        np.asarray(forcing.evolve_skin(table, skin, skin / table.extrapolation, minutes + shift, seconds=2400.0) - skin)
        for shift in (0, 720)
    ]
    tropics = (np.abs(planet.surface.latitude) < 30.0) & (land > 0.9)
    daily = noon[0] - noon[1]
    east = np.deg2rad(planet.surface.longitude)
    hour = 2 * np.pi * (int(minutes) % 1440) / 1440.0
    assert np.corrcoef(daily[tropics], np.cos(east + hour - 2 * np.pi * 14 / 24)[tropics])[0, 1] > 0.95


def test_mass_is_kept_and_weather_starts(planet: Atmosphere, running: State) -> None:
    """Catches an atmosphere that leaks, and one that stays at rest."""

    def mass(state: State) -> float:
        return float(planet._mean(np.exp(np.asarray(planet.grid.to_nodal(state["pressure"]), np.float64)))[0])

    later = planet.advance(running, 72)
    assert mass(later) == pytest.approx(mass(planet.initial_state(START)), rel=1e-4)
    assert np.abs(later["vorticity"]).max() > 1e-3
    temperature = np.asarray(planet.grid.to_nodal(later["temperature"])) + REFERENCE_TEMPERATURE
    assert 170.0 < temperature.min() < temperature.max() < 330.0


def test_seed_makes_another_weather(planet: Atmosphere) -> None:
    """Catches a seed that is ignored, and randomness that is not from the seed."""
    again = Atmosphere(levels=7, time_step_minutes=40, seed=11)
    other = Atmosphere(levels=7, time_step_minutes=40, seed=12)
    assert same(again.initial_state(START), planet.initial_state(START))
    assert not same(other.initial_state(START), planet.initial_state(START))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"truncation": 20}, "truncation must be one of"),
        ({"levels": 3}, "levels must be at least 5, got 3"),
        ({"time_step_minutes": 50}, "time_step_minutes must divide a day, got 50"),
    ],
)
def test_wrong_arguments(arguments: dict[str, int], message: str) -> None:
    """Catches a planet built from numbers that cannot work."""
    with pytest.raises(ValueError, match=message):
        Atmosphere(**arguments)


def test_errors_of_a_run(planet: Atmosphere, running: State) -> None:
    """Catches a half step taken silently, and a blow-up that is passed on as data."""
    with pytest.raises(ValueError, match=r"hours must be whole steps of 40 minutes, got 1\b"):
        planet.advance(running, 1)
    storm = running | {"vorticity": running["vorticity"] * np.float32(1e4)}
    with pytest.raises(ValueError, match=r"must stay finite.*within 48 h of 2004-02-29T12:00; use a shorter time step"):
        planet.advance(storm, 48)
