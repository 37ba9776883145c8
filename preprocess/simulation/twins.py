"""The twins stage: forecasts of simulated data by the simulated atmosphere itself.

Contract: a twin is a copy of the atmosphere that made the data. `ceiling` is the same core restarted at init times of
the test period from states with an error of the size of an analysis error: no forecaster who starts from such an
analysis can exceed its anomaly correlation. (It is one run, not damped towards the climatology, so beyond the
limit of predictability its RMSE exceeds the climatology's.) `coarse` is the core at a lower truncation from the
true states, cut to what it can carry, the counterpart of IFS T42 in WeatherBench. Both are written as forecast
stores like a model's, on the target grid by the same regridding as the truth, and scored like any model.
Unperturbed, the ceiling is the training store itself up to rounding. A killed run resumes at the first slab not
recorded; init states are kept beside the archive, so no day is integrated twice.
"""

from __future__ import annotations

import os
import time as clock
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.progress import Progress

from pipeline import provenance, store
from pipeline.console import data_with_article, progress, say, stamp
from pipeline.weather import variables
from pipeline.weather.config import WeatherConfig
from pipeline.weather.forecast_store import forecast_store
from pipeline.weather.times import Times
from pipeline.words import counted
from preprocess.complete import complete_twins
from preprocess.ingest.gridding import Gridder, stack
from preprocess.simulation.atmosphere import State, time_of
from preprocess.simulation.perturb import coarsened, perturbed
from preprocess.simulation.setup import LONGEST_STEP, SimulationSetup, longest_step, twin_starts
from preprocess.simulation.synthesis import Synthesis
from preprocess.sources import open_source

REVISION = 1
"""Raised whenever a twin forecast changes."""
_SLAB_INITS = 4
_APART_DAYS = 30
"""Two states closer than this are not independent."""


def run_twins(config: WeatherConfig, *, verify: bool = False) -> None:
    """Integrate and write the forecasts of evaluation.twins.models; resumes after a kill.

    Args:
        config: the experiment.
        verify: where forecasts are there, compare every slab with its digest; damaged ones are written again.

    Raises:
        ValueError: the source is not simulated, an earlier stage is missing, or no init time qualifies.
    """
    paths = config.paths
    if not paths.twins:
        raise ValueError("evaluation.twins.models must name a model, got none; set it to [ceiling, coarse]")
    if done := complete_twins(config, verify=verify):
        say(done)
        return
    started = clock.perf_counter()
    truth = store.open_store(paths.store, stage="python -m pipeline regrid")
    store.read_manifest(paths.simulated, stage="python -m pipeline simulate")
    setup = SimulationSetup(config)
    times: Times = truth["time"].values.astype("datetime64[ns]")
    init = twin_starts(config, times)
    gridder = Gridder(open_source(config), config)
    if gridder.describe() != truth.attrs["contract"]["regrid"]:
        raise ValueError(
            f"twins must be regridded as the store was ({truth.attrs['contract']['regrid']}), got "
            f"{gridder.describe()}; set data.regrid.engine to the store's"
        )
    facts: dict[str, Any] = {"init_times": int(init.size), "first": stamp(init[0]), "last": stamp(init[-1])}
    facts["perturbation"] = config.evaluation.twins.perturbation
    with progress("init times") as bar:
        task = bar.add_task("reach init times", total=init.size)
        for time in init:
            setup.keep(setup.state_at(time))
            bar.advance(task)
        for name, path in paths.twins.items():
            twin = Twin(name, setup, config, gridder)
            facts[name] = twin.describe() | {"initial_rmse": twin.initial_rmse(init[:1])}
            _write(twin, path, init, truth, facts[name], bar)
            leads = counted(len(config.forecast.lead_hours), "lead")
            say(f"twins: {name}, {counted(init.size, 'init time')} x {leads}, {path}")
    facts["seconds"] = round(clock.perf_counter() - started, 1)
    provenance.write_receipt(config, stage="twins", outputs=list(paths.twins.values()), facts=facts)


def _write(twin: Twin, path: Path, init: Times, truth: xr.Dataset, facts: dict[str, Any], bar: Progress) -> None:
    """One twin's forecasts as a forecast store; two init times at once where there are two processors."""
    label = truth.attrs["contract"]["source"]["label"]
    writer = forecast_store(
        path,
        like=truth,
        init_times=init,
        lead_hours=twin.leads,
        model=twin.name,
        normals=None,
        title=f"Forecasts of {data_with_article(label)} by its own core ({twin.name})",
        slab_inits=_SLAB_INITS,
        command="python -m pipeline twins",
        twin=twin.describe(),
    )
    with writer, ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1), thread_name_prefix="twin") as pool:
        pending = writer.pending()
        task = bar.add_task(f"forecast {twin.name}", total=init.size, completed=init.size - sum(map(len, pending)))
        for slab in pending:
            forecasts = []
            for values in pool.map(twin.forecast, init[slab.slice]):
                forecasts.append(values)
                bar.advance(task)
            writer.write(slab, {"state": np.stack(forecasts)})
        writer.finish(facts)


def partners(setup: SimulationSetup, time: np.datetime64) -> tuple[np.datetime64, np.datetime64]:
    """Dates of two kept states of the season of `time` that are independent of it and of one another.

    Candidates are the slab boundaries of the archive, whatever else is kept, so the choice is the same in
    every run: the nearest two by position in the year, at least 30 days apart and as far from `time`.

    Raises:
        ValueError: the archive is too short to have two.
    """
    ends = setup.times[:: setup.slab_times]
    apart = np.abs((ends - time) / np.timedelta64(1, "D"))
    candidates = ends[apart >= _APART_DAYS]
    season = np.abs((apart[apart >= _APART_DAYS] + 182.625) % 365.25 - 182.625)
    order = candidates[np.argsort(season, kind="stable")]
    for other in order[1:]:
        if abs((other - order[0]) / np.timedelta64(1, "D")) >= _APART_DAYS:
            return order[0], other
    raise ValueError(
        f"archive must hold two states {_APART_DAYS} days apart from {stamp(time)} and from one another to perturb it, "
        f"got {candidates.size}; lengthen data.period, or set evaluation.twins.perturbation to 0"
    )


class Twin:
    """One of the two models.

    Args:
        name: "ceiling" or "coarse".
        setup: the simulated planet.
        config: the experiment.
        gridder: puts its fields on the target grid.
    """

    def __init__(self, name: str, setup: SimulationSetup, config: WeatherConfig, gridder: Gridder) -> None:
        self.name, self.setup, self.gridder = name, setup, gridder
        self.size = config.evaluation.twins.perturbation
        self.leads = list(config.forecast.lead_hours)
        self.channels = config.data.channels.dynamic
        self.atmosphere = setup.atmosphere
        if name == "coarse":
            lower = config.evaluation.twins.coarse_truncation or coarse_truncation(setup.source.truncation)
            self.atmosphere = setup.planet_at(lower, longest_step(lower, step_hours=config.data.step_hours))
        self.synthesis = setup.synthesis(self.atmosphere)

    def describe(self) -> dict[str, Any]:
        """For the contract of its store."""
        return {
            "revision": REVISION,
            "truncation": self.atmosphere.truncation,
            "time_step_minutes": self.atmosphere.time_step_minutes,
            "perturbation": self.size if self.name == "ceiling" else 0.0,
        }

    def start(self, time: np.datetime64) -> State:
        """The state that its forecast of a date starts from."""
        state = self.setup.state_at(time)
        if self.name == "coarse":
            return coarsened(state, self.setup.atmosphere, self.atmosphere)
        if not self.size:
            return state
        first, second = (self.setup.state_at(t) for t in partners(self.setup, time))
        return perturbed(state, first, second, size=self.size)

    def forecast(self, time: np.datetime64) -> NDArray[np.float32]:
        """Its forecast from one init time, shape (lead, channel, latitude, longitude)."""
        state = self.start(time)
        by_lead: dict[int, State] = {}
        for lead in sorted(self.leads):
            passed = (time_of(state) - time) / np.timedelta64(1, "h")
            by_lead[lead] = state = self.atmosphere.advance(state, lead - float(passed))
        return self.fields([by_lead[lead] for lead in self.leads], self.synthesis)

    def fields(self, states: list[State], synthesis: Synthesis) -> NDArray[np.float32]:
        """States on the target grid, shape (state, channel, latitude, longitude)."""
        fields = synthesis.to_era5(states)
        grid, dims = self.setup.grid, ("time", "level", "latitude", "longitude")
        specs = [variables.BY_SHORT[short] for short in dict.fromkeys(c.variable for c in self.channels)]
        ds = xr.Dataset(
            {s.short: (dims if s.levels else (dims[0], *dims[2:]), fields[s.long]) for s in specs},
            {"level": np.array(self.setup.levels, np.int32), "latitude": grid.latitude, "longitude": grid.longitude},
        )
        return stack(self.gridder(ds).compute(), self.channels)

    def initial_rmse(self, times: Times) -> dict[str, float]:
        """Area-weighted RMSE of its starting points, by channel: the analysis error it stands for."""
        squares = []
        for time in times:
            truth = self.fields([self.setup.state_at(time)], self.setup.synthesis())
            error = self.fields([self.start(time)], self.synthesis) - truth
            squares.append((error**2 * self.gridder.target.area_weights).mean(axis=(0, 2, 3)))
        values = np.sqrt(np.mean(squares, axis=0))
        return {c.name: float(f"{v:.3g}") for c, v in zip(self.channels, values, strict=True)}


def coarse_truncation(truncation: int) -> int:
    """The largest truncation that is at most three quarters of another.

    >>> coarse_truncation(21), coarse_truncation(63)
    (15, 42)
    """
    return max(t for t in LONGEST_STEP if 4 * t <= 3 * truncation)
