"""The simulate stage: integrate the simulated atmosphere and stream an archive shaped like ERA5 in the cloud.

Contract: one Zarr group with ERA5's long names, dims (time, level, latitude, longitude), latitude 90 .. -90
and longitude 0 .. 360, labelled "simulated" wherever a label fits, written in whole time slabs. Before a
slab is written the states at both its ends are kept beside the store (`<name>.states/`), so a killed run
resumes at the first unrecorded slab and ends with the same bytes, and any date of the archive can be reached
again. Two threads work: one integrates, one evaluates and writes, and then makes what it can of the training store
(`preprocess.ingest.ahead`). States from which twins will start are kept on the way.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from rich.progress import Progress

from pipeline import files, provenance, store
from pipeline.behind import Behind
from pipeline.console import progress, say, stamp
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import Times
from pipeline.words import counted
from preprocess.complete import complete_simulate
from preprocess.ingest.ahead import HeadStart
from preprocess.simulation.atmosphere import State, time_of
from preprocess.simulation.setup import LABEL, SimulationSetup, twin_starts
from preprocess.simulation.synthesis import Synthesis

_SPINUP_STEP_DAYS = 30
"""Simulated days between two states kept on the way to the first output."""


def run_simulate(config: WeatherConfig, *, verify: bool = False) -> None:
    """Integrate the embedded atmosphere and write its archive; resumes after a kill.

    Args:
        config: the experiment.
        verify: where the archive is there, compare every slab with its digest; damaged ones are written again.

    Raises:
        ValueError: the source is another, a channel is not simulated, the store belongs to other settings,
            there is no space, or the integration blew up.
    """
    path = config.paths.simulated
    setup = SimulationSetup(config)
    if done := complete_simulate(config, verify=verify):
        say(done)
        return
    if not path.exists():
        files.free_space_check(path, setup.bytes)
    started = clock.perf_counter()
    synthesis = setup.synthesis()
    with setup.writer(path, synthesis) as writer, HeadStart(config) as regridded:
        _produce(setup, _Sink(setup, synthesis, writer, regridded), starts=_twin_starts(config, setup))
        facts = {
            "label": LABEL,
            "times": int(setup.times.size),
            "first": stamp(setup.times[0]),
            "last": stamp(setup.times[-1]),
            "time_step_minutes": setup.atmosphere.time_step_minutes,
            "states": setup.states.name,
        }
        writer.finish(facts)
    facts["seconds"] = round(clock.perf_counter() - started, 1)
    provenance.write_receipt(config, stage="simulate", outputs=[path], facts=facts)
    say(f"simulate: {counted(setup.times.size, 'time')} on {setup.grid}, written to {path}; label: {LABEL}")


@dataclass(frozen=True)
class _Sink:
    """Where the states of a slab go."""

    setup: SimulationSetup
    synthesis: Synthesis
    writer: store.SlabStore
    regridded: HeadStart

    def __call__(self, slab: store.Slab, states: list[State]) -> None:
        fields = self.synthesis.to_era5(states)
        self.writer.write(slab, {name: fields[name] for name in self.writer.arrays})
        self.regridded.up_to(self.setup.times[slab.stop - 1])


def _produce(setup: SimulationSetup, finish: _Sink, *, starts: Times) -> None:
    """Integrate here; evaluate and write the slab before in another thread."""
    pending = finish.writer.pending()
    with progress("days") as bar, Behind() as behind:
        meter = _Meter(bar, _days_left(setup, pending))
        for slab, states in _slabs(setup, pending, meter, starts=starts):
            behind.do(finish, slab, states)


def _twin_starts(config: WeatherConfig, setup: SimulationSetup) -> Times:
    """Times whose states the twins stage will ask for; none where it would refuse, which it says itself."""
    if config.data.splits is not None and config.evaluation.twins.models:
        with suppress(ValueError):
            return twin_starts(config, setup.times.astype("datetime64[ns]"))
    return np.empty(0, "datetime64[ns]")


def _slabs(
    setup: SimulationSetup, pending: list[store.Slab], meter: _Meter, *, starts: Times
) -> Iterator[tuple[store.Slab, list[State]]]:
    """States at the times of each pending slab; the state at its start, at the next one's, and `starts` are kept."""
    state: State | None = None
    for slab in pending:
        first = setup.times[slab.start]
        if state is None or time_of(state) != first:
            state = _reach(setup, first, meter)
        setup.keep(state)
        states = []
        for time in setup.times[slab.slice]:
            if time in starts:
                setup.keep(state)
            states.append(state)
            state = setup.atmosphere.advance(state, setup.step_hours)
            meter.at(time_of(state), "simulate")
        setup.keep(state)
        yield slab, states


def _reach(setup: SimulationSetup, time: np.datetime64, meter: _Meter) -> State:
    """The state at a date, from the last kept one or from rest, keeping some on the way."""
    state = setup.latest_state(time)
    if state is None:
        state = setup.atmosphere.initial_state(setup.spinup_start)
    while time_of(state) < time:
        meter.at(time_of(state), "spin up")
        state = setup.advance_to(state, min(time, time_of(state) + np.timedelta64(_SPINUP_STEP_DAYS, "D")))
        setup.keep(state)
    return state


class _Meter:
    """A progress bar in simulated days."""

    def __init__(self, bar: Progress, days: float) -> None:
        self.bar = bar
        self.task = bar.add_task("simulate", total=days)
        self.last: np.datetime64 | None = None

    def at(self, time: np.datetime64, activity: str) -> None:
        """Show where the integration is; a step back is not counted."""
        days = 0.0 if self.last is None else float((time - self.last) / np.timedelta64(1, "D"))
        self.last = time
        self.bar.update(self.task, advance=max(days, 0.0), description=f"{activity} {str(time)[:10]}")


def _days_left(setup: SimulationSetup, pending: list[store.Slab]) -> float:
    """Simulated days that are still to integrate."""
    days = sum(len(slab) for slab in pending) * setup.step_hours / 24.0
    if pending:
        first = setup.times[pending[0].start]
        kept = setup.latest_state(first)
        since = setup.spinup_start if kept is None else time_of(kept)
        days += float((first - since) / np.timedelta64(1, "D"))
    return days
