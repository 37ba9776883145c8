"""The simulate stage: integrate the made-up atmosphere and stream an archive shaped like ERA5 on the cloud.

Contract: one Zarr group with ERA5's long names, dims (time, level, latitude, longitude), latitude 90 .. -90
and longitude 0 .. 360, labelled "simulated" wherever a label fits, written in whole time slabs. Before a
slab is written the states at both its ends are kept beside the store (`<name>.states/`), so a killed run
goes on at the first unrecorded slab, ends with the same bytes, and any date of the archive can be reached
again. Two threads work: one integrates, one evaluates and writes.
"""

from __future__ import annotations

import time as clock
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline import files, provenance, store
from pipeline.console import console, say, stamp
from pipeline.weather.config import WeatherConfig
from preprocess.simulation.atmosphere import State, time_of
from preprocess.simulation.setup import LABEL, Plan
from preprocess.simulation.synthesis import Synthesis

_SPINUP_STEP_DAYS = 30
"""Simulated days between two states kept on the way to the first output."""


def run_simulate(config: WeatherConfig) -> None:
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
    if not path.exists():
        files.free_space_check(path, plan.bytes)
    started = clock.perf_counter()
    synthesis = plan.synthesis()
    with plan.writer(path, synthesis) as writer:
        _produce(plan, synthesis, writer, writer.pending())
        facts = {
            "label": LABEL,
            "times": int(plan.times.size),
            "first": stamp(plan.times[0]),
            "last": stamp(plan.times[-1]),
            "time_step_minutes": plan.atmosphere.time_step_minutes,
            "states": plan.states.name,
        }
        writer.finish(facts)
    facts["seconds"] = round(clock.perf_counter() - started, 1)
    provenance.write_receipt(config, stage="simulate", outputs=[path], facts=facts)
    say(f"simulate: {plan.times.size} times on {plan.grid}, written to {path}; label: {LABEL}")


def restart(config: WeatherConfig, time: np.datetime64) -> State:
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
