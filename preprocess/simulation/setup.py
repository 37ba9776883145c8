"""What a simulation is made of: the planet, the archive's axes and layout, and the states kept for restarts.

Contract: a `SimulationSetup` is derived from the configuration alone and touches no file before it is asked to. What
decides the trajectory (`planet`) is written into every kept state and into the archive's contract, so that
no archive mixes two planets.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from pipeline import store
from pipeline.console import stamp
from pipeline.grid import Grid
from pipeline.weather import variables
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import SimulationSource
from pipeline.weather.times import Times, init_times
from preprocess.npz import write_npz
from preprocess.simulation.atmosphere import Atmosphere, State, time_of
from preprocess.simulation.synthesis import SIMULATED, Synthesis

REVISION = 1
"""Of the simulated planet: raised whenever its numbers change, so that no store mixes two of them."""
LABEL = "simulated"
TITLE = "SIMULATED atmosphere (not ERA5, not observations)"
LONGEST_STEP = {10: 60, 15: 45, 21: 40, 31: 26, 42: 20, 63: 13, 85: 10, 106: 8}
"""Longest stable time step in minutes by truncation."""
_SLAB_BYTES = 256 << 20
_CHUNK_BYTES = 4 << 20


class SimulationSetup:
    """Everything a run needs, from the configuration.

    Raises:
        ValueError: the source is not a simulation, or a channel is not simulated.
    """

    def __init__(self, config: WeatherConfig) -> None:
        source, data = config.source, config.data
        if not isinstance(source, SimulationSource):
            raise ValueError(f"source.kind must be simulation, got {source.kind!r}; this source is read, not simulated")
        unknown = [c.variable for c in (*data.channels.dynamic, *data.channels.static) if c.variable not in SIMULATED]
        if unknown:
            raise ValueError(
                f"data.channels must be among those simulated ({', '.join(SIMULATED)}), "
                f"got {', '.join(dict.fromkeys(unknown))}; leave it out"
            )
        self.source = source
        self.dynamic = list(dict.fromkeys(c.variable for c in data.channels.dynamic))
        self.static = list(dict.fromkeys(c.variable for c in data.channels.static))
        self.levels = sorted({c.level for c in data.channels.dynamic if c.level is not None})
        self.step_hours = data.step_hours
        assert data.period is not None  # of files only, as the configuration checks
        start, end = np.datetime64(data.period.start, "m"), np.datetime64(data.period.end, "m")
        self.times = np.arange(start, end + np.timedelta64(1, "m"), np.timedelta64(data.step_hours * 60, "m"))
        south_to_north = Grid.regular(source.resolution, poles=True)
        self.grid = Grid(south_to_north.latitude[::-1], south_to_north.longitude)
        planes = sum(len(self.levels) if variables.BY_SHORT[v].levels else 1 for v in self.dynamic)
        self.bytes_per_time = 4 * self.grid.size * planes
        self.slab_times = max(1, min(data.slab_times, _SLAB_BYTES // self.bytes_per_time))
        self.states = config.paths.simulated.with_suffix(".states")
        self.atmosphere = self.planet_at(source.truncation, time_step(source, step_hours=data.step_hours))

    @property
    def bytes(self) -> int:
        """Disk space the whole archive takes at most."""
        return self.bytes_per_time * int(self.times.size)

    @property
    def spinup_start(self) -> np.datetime64:
        """When the integration begins."""
        return np.datetime64(self.times[0] - np.timedelta64(self.source.spinup_days, "D"))

    @property
    def planet(self) -> dict[str, Any]:
        """What decides the trajectory; kept with every state."""
        return {
            "revision": REVISION,
            "dinosaur": metadata.version("dinosaur"),
            "truncation": self.source.truncation,
            "levels": self.source.levels,
            "time_step_minutes": self.atmosphere.time_step_minutes,
            "seed": self.source.seed,
            "start": stamp(self.spinup_start),
            "climate": dataclasses.asdict(self.atmosphere.climate),
        }

    @property
    def contract(self) -> dict[str, Any]:
        """What makes the archive this archive."""
        return {
            "kind": "simulated archive",
            "label": LABEL,
            "planet": self.planet,
            "variables": self.dynamic,
            "statics": self.static,
            "levels": self.levels,
            "grid": self.grid.describe(),
            "first": stamp(self.times[0]),
            "last": stamp(self.times[-1]),
            "step_hours": self.step_hours,
        }

    def planet_at(self, truncation: int, time_step_minutes: int) -> Atmosphere:
        """The same planet at some resolution; one object in a process, so that it is compiled once."""
        return _planet(truncation, self.source.levels, time_step_minutes, self.source.seed)

    def synthesis(self, atmosphere: Atmosphere | None = None) -> Synthesis:
        """Evaluates states of an atmosphere, by default of this one, on the output grid."""
        return _synthesis(atmosphere or self.atmosphere, self.grid, tuple(self.levels))

    def writer(self, path: Path, synthesis: Synthesis) -> store.SlabStore:
        """The archive, described."""
        return store.SlabStore(
            path,
            arrays={variables.BY_SHORT[v].long: self._spec(v) for v in self.dynamic},
            coords=self._coordinates(synthesis),
            slab_dim="time",
            slab_size=self.slab_times,
            contract=self.contract,
            command="python -m pipeline simulate",
            attrs={
                "title": TITLE,
                "label": LABEL,
                "source": f"dinosaur {metadata.version('dinosaur')}: primitive equations at "
                f"T{self.source.truncation} with {self.source.levels} sigma levels under seasonal Held-Suarez "
                "forcing, analytic continents and mountains",
                "history": "made by the simulate stage; every value is simulated, none is observed or reanalysed",
                "institution": "none; the planet is made up and its weather never happened",
                "Conventions": "CF-1.11",
            },
        )

    def advance_to(self, state: State, time: np.datetime64) -> State:
        """Integrate a state up to a date.

        Raises:
            ValueError: the date precedes the state or lies between time steps.
        """
        return self.atmosphere.advance(state, (time - time_of(state)) / np.timedelta64(1, "m") / 60.0)

    def state_path(self, time: np.datetime64) -> Path:
        """Where the state of a date is kept."""
        return self.states / f"state-{stamp(time).replace('-', '').replace(':', '')}.npz"

    def keep(self, state: State) -> None:
        """Keep a state for restarts; equal states give equal files."""
        path = self.state_path(time_of(state))
        if not path.exists():
            planet = np.frombuffer(json.dumps(self.planet, sort_keys=True).encode(), np.uint8)
            write_npz(path, {"planet": planet, **state}.items())

    def latest_state(self, time: np.datetime64) -> State | None:
        """The last kept state at or before a date, None where there is none.

        Raises:
            ValueError: it was kept by another planet.
        """
        candidates = [p for p in sorted(self.states.glob("state-*.npz")) if p.name <= self.state_path(time).name]
        if not candidates:
            return None
        with np.load(candidates[-1]) as kept:
            state = {name: kept[name] for name in kept.files}
        theirs, ours = json.loads(state.pop("planet").tobytes()), json.loads(json.dumps(self.planet))
        remedy = f"move {self.states} away, or set another directory"
        us, them = f"state {candidates[-1]}", "this configuration"
        store.require_same_contract(theirs, ours, us=us, them=them, remedy=remedy)
        return state

    def state_at(self, time: np.datetime64) -> State:
        """The state at a date, integrated from the last kept one at or before it.

        Raises:
            ValueError: no state at or before that date is kept, or the date lies between time steps.
        """
        state = self.latest_state(time)
        if state is None:
            raise ValueError(f"states must be kept at or before {stamp(time)}, got none in {self.states}; run simulate")
        return self.advance_to(state, time.astype("datetime64[m]"))

    def _spec(self, short: str) -> store.ArraySpec:
        spec = variables.BY_SHORT[short]
        dims: tuple[str, ...] = ("time", "latitude", "longitude")
        field: tuple[int, ...] = self.grid.shape
        if spec.levels:
            dims, field = ("time", "level", "latitude", "longitude"), (len(self.levels), *self.grid.shape)
        size = 4 * int(np.prod(field))
        most = max(1, min(self.slab_times, _CHUNK_BYTES // size))
        chunk: tuple[int, ...] = (max(n for n in range(1, most + 1) if self.slab_times % n == 0), *field)
        if size > 4 * _CHUNK_BYTES:
            chunk = (1, 1, *self.grid.shape)
        shape = (int(self.times.size), *field)
        return store.ArraySpec(dims=dims, shape=shape, chunks=chunk, attrs=_attributes(spec))

    def _coordinates(self, synthesis: Synthesis) -> xr.Dataset:
        statics = synthesis.statics()
        specs = [variables.BY_SHORT[short] for short in self.static]
        return xr.Dataset(
            {s.long: (("latitude", "longitude"), statics[s.long], _attributes(s)) for s in specs},
            coords={
                "time": ("time", self.times.astype("datetime64[ns]"), {"long_name": "simulated time"}),
                "level": ("level", np.array(self.levels, np.int32), {"units": "hPa", "positive": "down"}),
                "latitude": ("latitude", self.grid.latitude, {"units": "degrees_north"}),
                "longitude": ("longitude", self.grid.longitude, {"units": "degrees_east"}),
            },
        )


def twin_starts(config: WeatherConfig, times: Times) -> Times:
    """Init times of the twins' forecasts.

    Args:
        config: the experiment.
        times: of the store.

    Raises:
        ValueError: no time qualifies.
    """
    positions, _ = init_times(
        times,
        lead_hours=config.forecast.lead_hours,
        period=config.splits.test,
        step_hours=config.twin_step_hours,
        setting="evaluation.twins.init_step_hours",
    )
    starts: Times = times[positions]
    return starts


def time_step(source: SimulationSource, *, step_hours: int) -> int:
    """Minutes of a time step: as asked, or the longest stable one that divides the output step.

    Raises:
        ValueError: the step asked for does not divide the output step.
    """
    asked = source.time_step_minutes
    if asked is None:
        return longest_step(source.truncation, step_hours=step_hours)
    if step_hours * 60 % asked:
        raise ValueError(
            f"source.time_step_minutes must divide data.step_hours ({step_hours} h), got {asked}; leave it out"
        )
    return asked


def longest_step(truncation: int, *, step_hours: int) -> int:
    """The longest stable time step in minutes that divides `step_hours`."""
    return max(m for m in range(1, LONGEST_STEP[truncation] + 1) if step_hours * 60 % m == 0)


@functools.lru_cache(maxsize=4)
def _planet(truncation: int, levels: int, time_step_minutes: int, seed: int) -> Atmosphere:
    return Atmosphere(truncation=truncation, levels=levels, time_step_minutes=time_step_minutes, seed=seed)


@functools.lru_cache(maxsize=4)
def _synthesis(atmosphere: Atmosphere, grid: Grid, levels: tuple[int, ...]) -> Synthesis:
    return Synthesis(atmosphere, grid=grid, levels=levels)


def _attributes(spec: variables.Variable) -> dict[str, str]:
    return {
        "units": spec.unit,
        "standard_name": spec.standard_name,
        "long_name": f"{spec.label} ({LABEL})",
        "short_name": spec.short,
    }
