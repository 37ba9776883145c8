"""The twins stage: forecasts of simulated data by the simulated atmosphere itself.

Contract: `ceiling` is the same core restarted at init times of the test period from states with an error of
the size of an analysis error: what it knows of the weather, that is its anomaly correlation, no forecaster who
starts from such an analysis can exceed. (It is one run, not damped towards the climatology, so beyond the
limit of predictability its RMSE exceeds the climatology's.) `coarse` is the core at a lower truncation from the
true states, cut to what it can carry, the counterpart of IFS T42 in WeatherBench. Both are written as forecast
stores like a model's, on the target grid by the same regridding as the truth, and scored like any model.
Unperturbed, the ceiling is the training store itself up to rounding. A killed run goes on at the first slab not
recorded; init states are kept beside the archive, so no day is integrated twice.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline import provenance, store
from pipeline.console import data_with_article, progress, say, stamp
from pipeline.grid import Grid
from pipeline.weather import variables
from pipeline.weather.config import WeatherConfig
from pipeline.weather.forecast_store import forecast_store
from pipeline.weather.sections import SimulationSource
from pipeline.weather.times import Times, init_times
from preprocess.ingest.gridding import Gridder, stack
from preprocess.simulation.atmosphere import Atmosphere, State, time_of
from preprocess.simulation.perturb import coarsened, perturbed
from preprocess.simulation.setup import Plan, longest_step
from preprocess.simulation.synthesis import Synthesis
from preprocess.sources import open_source

REVISION = 1
"""Raised whenever a twin forecast changes."""
_SLAB_INITS = 4
_APART_DAYS = 30
"""Two states closer than this know of one another."""


def run_twins(config: WeatherConfig) -> None:
    """Integrate and write the forecasts of evaluation.twins.models; resumes after a kill.

    Raises:
        ValueError: the source is not simulated, an earlier stage is missing, or no init time qualifies.
    """
    paths = config.paths
    if not paths.twins:
        raise ValueError("evaluation.twins.models must name a model, got none; set it to [ceiling, coarse]")
    if paths.receipt("twins").exists() and all(p.exists() for p in paths.twins.values()):
        say(f"twins: complete in {', '.join(str(p) for p in paths.twins.values())}")
        return
    started = clock.perf_counter()
    truth = store.open_store(paths.store, stage="python -m pipeline regrid")
    store.read_manifest(paths.simulated, stage="python -m pipeline simulate")
    plan = Plan(config)
    times: Times = truth["time"].values.astype("datetime64[ns]")
    places, _ = init_times(
        times,
        lead_hours=config.forecast.lead_hours,
        period=config.data.splits.test,
        step_hours=config.twin_step_hours,
        setting="evaluation.twins.init_step_hours",
    )
    init = times[places]
    gridder = Gridder(open_source(config), config)
    if gridder.describe() != truth.attrs["contract"]["regrid"]:
        raise ValueError(
            f"twins must be regridded as the store was ({truth.attrs['contract']['regrid']}), got "
            f"{gridder.describe()}; set data.regrid.engine to the store's"
        )
    facts: dict[str, Any] = {
        "init_times": int(init.size), "first": stamp(init[0]), "last": stamp(init[-1]),
        "perturbation": config.evaluation.twins.perturbation,
    }  # fmt: skip
    with progress("init times") as bar:
        task = bar.add_task("reach init times", total=init.size)
        for time in init:
            plan.keep(state_at(plan, time))
            bar.advance(task)
        for name, path in paths.twins.items():
            twin = Twin(name, plan, config, gridder)
            data = data_with_article(truth.attrs["contract"]["source"]["label"])
            with forecast_store(
                path,
                like=truth,
                init_times=init,
                lead_hours=config.forecast.lead_hours,
                model=name,
                normals=None,
                title=f"Forecasts of {data} by its own core ({name})",
                slab_inits=_SLAB_INITS,
                twin=twin.describe(),
            ) as writer:
                pending = writer.pending()
                task = bar.add_task(f"forecast {name}", total=init.size, completed=init.size - sum(map(len, pending)))
                for slab, values in _forecasts(twin, init, pending, lambda: bar.advance(task)):  # noqa: B023
                    writer.write(slab, {"state": values})
                facts[name] = twin.describe() | {"initial_rmse": twin.initial_rmse(init[:1])}
                writer.finish(facts[name])
            say(f"twins: {name}, {init.size} init times x {len(config.forecast.lead_hours)} leads, {path}")
    facts["seconds"] = round(clock.perf_counter() - started, 1)
    provenance.write_receipt(config, stage="twins", outputs=list(paths.twins.values()), facts=facts)


def state_at(plan: Plan, time: np.datetime64) -> State:
    """The true state at a date, from the nearest kept one.

    Raises:
        ValueError: no state at or before that date is kept.
    """
    state = plan.latest_state(time)
    if state is None:
        raise ValueError(f"states must be kept at or before {stamp(time)}, got none in {plan.states}; run simulate")
    return plan.advance_to(state, time.astype("datetime64[m]"))


def partners(plan: Plan, time: np.datetime64) -> tuple[np.datetime64, np.datetime64]:
    """Dates of two kept states of the season of `time` that know nothing of it nor of one another.

    Candidates are the slab boundaries of the archive, whatever else is kept, so the choice is the same in
    every run: the nearest two by position in the year, at least 30 days apart and as far from `time`.

    Raises:
        ValueError: the archive is too short to have two.
    """
    ends = plan.times[:: plan.slab_times]
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
        plan: the simulated planet.
        config: the experiment.
        gridder: puts its fields on the target grid.
    """

    def __init__(self, name: str, plan: Plan, config: WeatherConfig, gridder: Gridder) -> None:
        source = config.source
        assert isinstance(source, SimulationSource)
        self.name, self.plan, self.gridder = name, plan, gridder
        self.size = config.evaluation.twins.perturbation
        self.leads = list(config.forecast.lead_hours)
        self.channels = config.data.channels.dynamic
        self.atmosphere = plan.atmosphere
        if name == "coarse":
            lower = config.evaluation.twins.coarse_truncation or coarse_truncation(source.truncation)
            self.atmosphere = Atmosphere(
                truncation=lower, levels=source.levels, seed=source.seed, climate=plan.atmosphere.climate,
                time_step_minutes=longest_step(lower, step_hours=config.data.step_hours),
            )  # fmt: skip
        self.synthesis = (
            plan.synthesis()
            if self.atmosphere is plan.atmosphere
            else Synthesis(self.atmosphere, grid=plan.grid, levels=plan.levels)
        )

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
        state = state_at(self.plan, time)
        if self.name == "coarse":
            return coarsened(state, self.plan.atmosphere, self.atmosphere)
        if not self.size:
            return state
        first, second = (state_at(self.plan, t) for t in partners(self.plan, time))
        return perturbed(state, first, second, size=self.size)

    def forecast(self, time: np.datetime64) -> NDArray[np.float32]:
        """Its forecast from one init time, shape (lead, channel, latitude, longitude)."""
        state = self.start(time)
        found: dict[int, State] = {}
        for lead in sorted(self.leads):
            passed = (time_of(state) - time) / np.timedelta64(1, "h")
            state = self.atmosphere.advance(state, lead - float(passed))
            found[lead] = state
        return self.fields([found[lead] for lead in self.leads], self.synthesis)

    def fields(self, states: list[State], synthesis: Synthesis) -> NDArray[np.float32]:
        """States on the target grid, shape (state, channel, latitude, longitude)."""
        made = synthesis.to_era5(states)
        space = ("latitude", "longitude")
        shorts = {c.variable: variables.BY_SHORT[c.variable] for c in self.channels}
        ds = xr.Dataset(
            {
                short: (("time", "level", *space) if spec.levels else ("time", *space), made[spec.long])
                for short, spec in shorts.items()
            },
            coords={
                "time": [time_of(s).astype("datetime64[ns]") for s in states],
                "level": np.array(self.plan.levels, np.int32),
                "latitude": self.plan.grid.latitude,
                "longitude": self.plan.grid.longitude,
            },
        )
        ds["time"] = np.arange(len(states))
        return stack(self.gridder(ds).compute(), self.channels)

    def initial_rmse(self, times: Times) -> dict[str, float]:
        """Area-weighted RMSE of its starting points, by channel: the analysis error it stands for."""
        weight = Grid.from_dataset(self.gridder(self._grid())).area_weights
        squares = []
        for time in times:
            truth = self.fields([state_at(self.plan, time)], self.plan.synthesis())
            squares.append(
                ((self.fields([self.start(time)], self.synthesis) - truth) ** 2 * weight).mean(axis=(0, 2, 3))
            )
        values = np.sqrt(np.mean(squares, axis=0))
        return {c.name: float(f"{v:.3g}") for c, v in zip(self.channels, values, strict=True)}

    def _grid(self) -> xr.Dataset:
        grid = self.plan.grid
        return xr.Dataset(
            {"x": (("latitude", "longitude"), np.zeros(grid.shape, np.float32))},
            coords={"latitude": grid.latitude, "longitude": grid.longitude},
        )


def coarse_truncation(truncation: int) -> int:
    """The largest truncation that is at most three quarters of another.

    >>> coarse_truncation(21), coarse_truncation(63)
    (15, 42)
    """
    return max(t for t in (10, 15, 21, 31, 42, 63) if 4 * t <= 3 * truncation)


def _forecasts(
    twin: Twin, init: Times, pending: list[store.Slab], tick: Callable[[], None]
) -> Iterator[tuple[store.Slab, NDArray[np.float32]]]:
    """Slabs in order; two init times are integrated at once where there are two processors."""

    def one(time: np.datetime64) -> NDArray[np.float32]:
        values = twin.forecast(time)
        tick()
        return values

    with ThreadPoolExecutor(max_workers=min(2, os.cpu_count() or 1), thread_name_prefix="twin") as pool:
        for slab in pending:
            yield slab, np.stack(list(pool.map(one, init[slab.slice])))
