"""The simulate stage: integrate the made-up atmosphere and stream an archive shaped like ERA5 on the cloud.

Contract: one Zarr group with ERA5's long names, dims (time, level, latitude, longitude), latitude 90 .. -90
and longitude 0 .. 360, labelled "simulated" wherever a label fits, written in whole time slabs. Before a
slab is written the states at both its ends are kept beside the store (`<name>.states/`), so a killed run
goes on at the first unrecorded slab, ends with the same bytes, and any date of the archive can be reached
again. Two threads work: one integrates, one evaluates and writes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import time as clock
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline import files, provenance, store, variables
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.sections import SimulationSource
from preprocess.console import console, say, stamp
from preprocess.sources.atmosphere import Atmosphere, State, time_of
from preprocess.sources.synthesis import NAMES, Synthesis

REVISION = 1
"""Of the simulated planet: raised whenever its numbers change, so that no store mixes two of them."""
LABEL = "simulated"
TITLE = "SIMULATED atmosphere (not ERA5, not observations)"
_LONGEST_STEP = {21: 45, 31: 30, 42: 20, 63: 15, 85: 10, 106: 8}
"""Longest stable time step in minutes by truncation."""
_SLAB_BYTES = 256 << 20
_CHUNK_BYTES = 4 << 20
_SPINUP_STEP_DAYS = 30


def run_simulate(config: Config) -> None:
    """Integrate the embedded atmosphere and write its archive; resumes after a kill.

    Raises:
        ValueError: the source is another, a channel is not simulated, the store belongs to other settings,
            there is no space, or the integration blew up.
    """
    path = config.paths.simulated
    plan = Plan(config)
    if config.paths.receipt("simulate").exists() and path.exists():
        store.read_manifest(path)
        say(f"simulate: complete in {path}")
        return
    started = clock.perf_counter()
    synthesis = plan.synthesis()
    with plan.writer(path, synthesis) as writer:
        pending = writer.pending()
        store.free_space_check(path, sum(len(slab) for slab in pending) * plan.bytes_per_time)
        _produce(plan, synthesis, writer, pending)
        facts = {
            "label": LABEL,
            "times": int(plan.times.size),
            "first": stamp(plan.times[0]),
            "last": stamp(plan.times[-1]),
            "time_step_minutes": plan.atmosphere.time_step_minutes,
            "states": str(plan.states),
        }
        writer.finish(facts)
    facts["seconds"] = round(clock.perf_counter() - started, 1)
    provenance.write_receipt(config, stage="simulate", outputs=[path], facts=facts)
    say(f"simulate: {plan.times.size} times on {plan.grid}, written to {path}; label: {LABEL}")


def restart(config: Config, time: np.datetime64) -> State:
    """The state of the atmosphere at any date, from the nearest kept state before it.

    Args:
        config: the experiment whose archive was simulated.
        time: UTC; a whole number of time steps after the start of the archive.

    Raises:
        ValueError: no state at or before that date is kept.
    """
    plan = Plan(config)
    state = plan.latest_state(time)
    if state is None:
        raise ValueError(
            f"states must be kept at or before {stamp(time)}, got none in {plan.states}; run simulate first"
        )
    return plan.advance_to(state, time)


class Plan:
    """Everything a run needs, from the configuration.

    Raises:
        ValueError: the source is not a simulation, or a channel is not simulated.
    """

    def __init__(self, config: Config) -> None:
        source, data = config.source, config.data
        if not isinstance(source, SimulationSource):
            raise ValueError(f"source.kind must be simulation, got {source.kind!r}; this source is read, not simulated")
        unknown = [c.variable for c in (*data.channels.dynamic, *data.channels.static) if c.variable not in NAMES]
        if unknown:
            raise ValueError(
                f"data.channels must be among those simulated ({', '.join(NAMES)}), "
                f"got {', '.join(dict.fromkeys(unknown))}; leave it out"
            )
        self.source = source
        self.dynamic = list(dict.fromkeys(c.variable for c in data.channels.dynamic))
        self.static = list(dict.fromkeys(c.variable for c in data.channels.static))
        self.levels = sorted({c.level for c in data.channels.dynamic if c.level is not None})
        self.step_hours = data.step_hours
        start, end = np.datetime64(data.period.start, "m"), np.datetime64(data.period.end, "m")
        self.times = np.arange(start, end + np.timedelta64(1, "m"), np.timedelta64(data.step_hours * 60, "m"))
        south_to_north = Grid.regular(source.resolution, poles=True)
        self.grid = Grid(south_to_north.latitude[::-1], south_to_north.longitude)
        planes = sum(len(self.levels) if variables.BY_SHORT[v].levels else 1 for v in self.dynamic)
        self.bytes_per_time = 4 * self.grid.size * planes
        self.slab_times = max(1, min(data.slab_times, _SLAB_BYTES // self.bytes_per_time))
        self.states = config.paths.simulated.with_suffix(".states")
        self.atmosphere = Atmosphere(
            truncation=source.truncation,
            levels=source.levels,
            time_step_minutes=time_step(source, step_hours=data.step_hours),
            seed=source.seed,
        )

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

    def synthesis(self) -> Synthesis:
        """Evaluates states on the output grid."""
        return Synthesis(self.atmosphere, grid=self.grid, levels=self.levels)

    def writer(self, path: Path, synthesis: Synthesis) -> store.SlabStore:
        """The archive, described."""
        return store.SlabStore(
            path,
            arrays={variables.BY_SHORT[v].long: self._spec(v) for v in self.dynamic},
            coords=self._coordinates(synthesis),
            slab_dim="time",
            slab_size=self.slab_times,
            contract=self.contract,
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
        """Keep a state for restarts; atomic, and equal states give equal files."""
        path = self.state_path(time_of(state))
        if path.exists():
            return
        label = np.frombuffer(json.dumps(self.planet, sort_keys=True).encode(), np.uint8)
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:  # np.savez would write the hour of the clock into it
            for name, values in {"planet": label, **state}.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, values)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content.getvalue())
        files.sync(temporary)
        temporary.replace(path)
        files.sync(path.parent)

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
        theirs = json.loads(state.pop("planet").tobytes())
        store.require_same_contract(
            theirs, json.loads(json.dumps(self.planet)), us=f"state {candidates[-1]}", them="this configuration",
            remedy=f"move {self.states} away, or set another directory",
        )  # fmt: skip
        return state

    def _spec(self, short: str) -> store.ArraySpec:
        spec = variables.BY_SHORT[short]
        rows = (len(self.levels), *self.grid.shape) if spec.levels else self.grid.shape
        plane = 4 * self.grid.size
        whole = plane * (len(self.levels) if spec.levels else 1)
        chunk = (max(1, min(self.slab_times, _CHUNK_BYTES // whole)), *rows)
        if whole > 4 * _CHUNK_BYTES:
            chunk = (1, 1, *self.grid.shape)
        return store.ArraySpec(
            dims=("time", "level", "latitude", "longitude") if spec.levels else ("time", "latitude", "longitude"),
            shape=(self.times.size, *rows),
            chunks=chunk,
            attrs=_attributes(spec),
        )

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


def time_step(source: SimulationSource, *, step_hours: int) -> int:
    """Minutes of a time step: as asked, or the longest stable one that divides the output step.

    Raises:
        ValueError: the step asked for does not divide the output step.
    """
    asked = source.time_step_minutes
    if asked is None:
        return max(m for m in range(1, _LONGEST_STEP[source.truncation] + 1) if step_hours * 60 % m == 0)
    if step_hours * 60 % asked:
        raise ValueError(
            f"source.time_step_minutes must divide data.step_hours ({step_hours} h), got {asked}; leave it out"
        )
    return asked


def _attributes(spec: variables.Variable) -> dict[str, str]:
    return {
        "units": spec.unit,
        "standard_name": spec.standard_name,
        "long_name": f"{spec.label} ({LABEL})",
        "short_name": spec.short,
    }


def _produce(plan: Plan, synthesis: Synthesis, writer: store.SlabStore, pending: list[store.Slab]) -> None:
    """Integrate here; evaluate and write the slab before in another thread."""

    def finish(slab: store.Slab, states: list[State]) -> None:
        fields = synthesis.to_era5(states)
        writer.write(slab, {name: fields[name] for name in writer.arrays})

    with _metered(plan, pending) as meter, ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as pool:
        waiting: Future[None] | None = None
        for slab, states in _slabs(plan, pending, meter):
            if waiting is not None:
                waiting.result()
            waiting = pool.submit(finish, slab, states)
        if waiting is not None:
            waiting.result()


def _slabs(plan: Plan, pending: list[store.Slab], meter: _Meter) -> Iterator[tuple[store.Slab, list[State]]]:
    """States at the times of each pending slab; the state at its start, and at the next one's, is kept first."""
    state: State | None = None
    for slab in pending:
        first = plan.times[slab.start]
        if state is None or time_of(state) != first:
            state = _reach(plan, first, meter)
        plan.keep(state)
        states = []
        for _ in range(len(slab)):
            states.append(state)
            state = plan.atmosphere.advance(state, plan.step_hours)
            meter.at(time_of(state), "simulate")
        plan.keep(state)
        yield slab, states


def _reach(plan: Plan, time: np.datetime64, meter: _Meter) -> State:
    """The state at a date, from the last kept one or from rest, keeping some on the way."""
    state = plan.latest_state(time)
    if state is None:
        state = plan.atmosphere.initial_state(plan.spinup_start)
    while time_of(state) < time:
        meter.at(time_of(state), "spin up")
        state = plan.advance_to(state, min(time, time_of(state) + np.timedelta64(_SPINUP_STEP_DAYS, "D")))
        plan.keep(state)
    return state


class _Meter:
    """A progress bar in simulated days."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self.bar, self.task = bar, task
        self.last: np.datetime64 | None = None
        self.days = 0.0
        self.started = clock.perf_counter()

    def at(self, time: np.datetime64, what: str) -> None:
        """Tell where the integration is; a step back is not counted."""
        passed = 0.0 if self.last is None else float((time - self.last) / np.timedelta64(1, "D"))
        self.last = time
        self.days += max(passed, 0.0)
        rate = self.days / max(clock.perf_counter() - self.started, 1e-3)
        self.bar.update(
            self.task,
            advance=max(passed, 0.0),
            description=f"{what} {str(time)[:10]}",
            rate=f"{rate:.1f} simulated days/s",
        )


@contextmanager
def _metered(plan: Plan, pending: list[store.Slab]) -> Iterator[_Meter]:
    """A running progress bar over what is still to integrate."""
    days = sum(len(slab) for slab in pending) * plan.step_hours / 24.0
    if pending:
        first = plan.times[pending[0].start]
        kept = plan.latest_state(first)
        since = plan.spinup_start if kept is None else time_of(kept)
        days += float((first - since) / np.timedelta64(1, "D"))
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} days"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        yield _Meter(bar, bar.add_task("simulate", total=days, rate=""))
