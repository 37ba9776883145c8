"""The free_run stage: a model with steps applied again and again for a long time, and the truth of the same days.

Contract: one run from the first time of the test period on, with the longest step that the model rolls out with, never
calibrated, each value within its possible range as in forecasts. What was predicted before these limits is looked at
too, so that limits cannot hide a run that leaves the climate. A run that was killed goes on with the block of steps
that it was in and ends bit-identical. Rank 0 alone writes.

Letters: V predicted channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from model.complete import complete_free_run
from model.parallel import launch
from model.training import checkpoint
from model.weather.job import Job, prepare
from model.weather.predict import Step
from pipeline import damage, provenance
from pipeline.console import data_with_article, terminal_progress
from pipeline.grid import Grid
from pipeline.store import Slab, SlabStore, contract_digest
from pipeline.weather.config import WeatherConfig
from pipeline.weather.free_run_store import MOMENTS, SOURCES, STEPS_TOGETHER, free_run_store, moments
from pipeline.weather.times import find_times, init_times
from pipeline.weather.variables import NOT_NEGATIVE, Channel, parse_channel, plausible_range


def run_free_run(config: WeatherConfig, *, verify: bool = False) -> None:
    """Make the free run of a configuration, or resume where an earlier call was stopped.

    Args:
        config: the experiment.
        verify: where a run is there, compare every block with its digest; damaged ones are made again.

    Raises:
        ValueError: none is asked for, or an earlier stage is missing.
    """
    paths, console = config.paths, Console(stderr=True, soft_wrap=True, quiet=not launch.is_main())
    if config.forecast.free_run_days is None:
        raise ValueError("forecast.free_run_days must say how long the free run is, got none; set it to e.g. 365")
    if done := complete_free_run(config, verify=verify, mend=launch.is_main()):
        console.print(done, markup=False)
        return
    provenance.read_receipt(config, stage="train")
    found = checkpoint.to_use(paths.checkpoints)
    with launch.process_group(world_size=None) as device:
        facts = write_free_run(config, found, paths.free_run, device=device, console=console)
        if launch.is_main():
            provenance.write_receipt(config, stage="free_run", outputs=[paths.free_run], facts=facts)


def write_free_run(
    config: WeatherConfig, trained: Path, path: Path, *, device: torch.device, console: Console
) -> dict[str, Any]:
    """Write the store of a free run, all ranks together.

    Args:
        config: the experiment.
        trained: the checkpoint.
        path: of the store.
        device: of this rank.
        console: for the progress bar and a message.

    Returns:
        Facts for a receipt.

    Raises:
        ValueError: the checkpoint is one of direct forecasts.
    """
    run = FreeRun.of(config, prepare(config, trained, device=device, initial=None))
    with ExitStack() as stack:
        store = stack.enter_context(run.store(config, path)) if launch.is_main() else None
        pending: list[Slab] = launch.from_main(store.pending() if store else [])
        blocks = -(-run.steps // STEPS_TOGETHER)
        progress = stack.enter_context(terminal_progress("steps", on=console))
        behind = min((blocks - len(pending)) * STEPS_TOGETHER, run.steps)
        task = progress.add_task("free run", total=run.steps, completed=behind)
        for slab in pending:
            past = run.before(slab, path)
            content = run.block(slab, past, tick=lambda: progress.advance(task))
            if store:
                store.write(slab, {name: values[None] for name, values in content.items()})
        if store:
            store.finish(run.facts)
            console.print(f"free_run: {run.facts['days']:g} days from {run.facts['init_time']}, {path}", markup=False)
    return run.facts


@dataclass(frozen=True)
class FreeRun:
    """One long roll-out on this rank.

    Attributes:
        job: the model and its fields.
        init: position of the init time, shape (1,).
        step_hours: length of a step [h].
        steps: how many.
        shown: positions of the channels whose fields are kept.
        area: (H, W) of the cells.
        low: (V, 1, 1) below which a channel has left its range, canonical units; likewise `high`.
    """

    job: Job
    init: NDArray[np.int64]
    step_hours: int
    steps: int
    shown: NDArray[np.int64]
    area: NDArray[np.floating]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @classmethod
    def of(cls, config: WeatherConfig, job: Job) -> FreeRun:
        """The run that a configuration asks for.

        Raises:
            ValueError: the model has no steps, or the test period no time to start from.
        """
        days = config.forecast.free_run_days
        assert days is not None
        if not job.steps:
            raise ValueError(
                "forecast.free_run_days must be absent for a checkpoint of direct forecasts, which is not applied "
                f"again and again, got {days}; train on training.step_hours, e.g. [24]"
            )
        whole, step = job.predictor.whole, max(job.steps)
        init, _ = init_times(
            whole.times,
            lead_hours=[step],
            period=config.splits.test,
            step_hours=config.data.step_hours,
            setting="data.step_hours",
            history_hours=whole.history_hours,
        )
        ranges = np.array([_limits(parse_channel(name)) for name in whole.channels], dtype=np.float32)
        shown = [whole.channels.index(name) for name in config.evaluation.variables]
        return cls(
            job,
            init[:1],
            step,
            -(-days * 24 // step),
            np.array(shown, dtype=np.int64),
            Grid(whole.coords["latitude"].values, whole.coords["longitude"].values).area_weights,
            ranges[:, 0, None, None],
            ranges[:, 1, None, None],
        )

    @property
    def facts(self) -> dict[str, Any]:
        """For the receipt and the store's contract."""
        start = self.job.predictor.whole.times[self.init[0]]
        return {
            "init_time": str(np.datetime_as_string(start, unit="h")),
            "step_hours": self.step_hours,
            "days": self.steps * self.step_hours / 24,
            "checkpoint": self.job.digest,
        }

    def store(self, config: WeatherConfig, path: Path) -> SlabStore:
        """Describe the store."""
        whole = self.job.predictor.whole
        source = whole.contract["source"]
        return free_run_store(
            path,
            like=whole.coords.sel(channel=list(whole.channels)),
            steps=self.steps,
            past=1 + len(whole.history_hours),
            shown=[whole.channels[i] for i in self.shown],
            title=f"A free run of {config.name} from {data_with_article(source['label'])}",
            contract=self.facts
            | {
                "model": config.name,
                "channels": list(whole.channels),
                "source": source,
                "store": contract_digest(whole.contract),
                "normals": whole.normals.digest,
            },
        )

    def before(self, slab: Slab, path: Path) -> list[Tensor]:
        """What a block starts from, the same on every rank: the init time's states, or what the block before ended in.

        Args:
            slab: the block.
            path: of the store, in which the blocks before are written.
        """
        if not slab.start:
            return self.job.predictor.beginning(self.init)
        states: list[NDArray[np.float32]] = []
        if launch.is_main():
            before = {"start": slab.start - 1, "stop": slab.start}
            states = [*damage.read_slab(path, before, arrays=["last"])["last"][0]]
        return [torch.from_numpy(state[None]) for state in launch.from_main(states)]

    def block(self, slab: Slab, past: list[Tensor], *, tick: Callable[[], None]) -> dict[str, NDArray[Any]]:
        """The arrays of a block, without its first dimension.

        Args:
            slab: the block.
            past: what it starts from.
            tick: called after every step.
        """
        whole = self.job.predictor.whole
        V, grid = len(whole.channels), whole.grid_shape
        numbers = np.full((STEPS_TOGETHER, len(SOURCES), len(MOMENTS), V), np.nan)
        outside = np.full((STEPS_TOGETHER, V), np.nan, np.float32)
        fields = np.full((STEPS_TOGETHER, len(self.shown), *grid), np.nan, np.float32)
        first = slab.start * STEPS_TOGETHER
        hours = {"after": first * self.step_hours, "step_hours": self.step_hours}
        until = min(first + STEPS_TOGETHER, self.steps) * self.step_hours
        last = tuple(past)
        for k, step in enumerate(self.job.predictor.follow(self.init, past, until=until, **hours)):
            climatology, unlimited = step.climatology[0], step.unlimited[0]
            numbers[k, 0] = moments(step.state[0], climatology, area=self.area)
            truth = self._truth(step)
            if truth is not None:
                numbers[k, 1] = moments(truth, climatology, area=self.area)
            outside[k] = 1.0 - ((unlimited >= self.low) & (unlimited <= self.high)).mean(axis=(1, 2))
            fields[k] = step.state[0][self.shown]
            last = step.past
            tick()
        return {"numbers": numbers, "outside": outside, "fields": fields, "last": torch.cat(last).numpy()}

    def _truth(self, step: Step) -> NDArray[np.float32] | None:
        """The state of the training store at a step's valid time, (V, H, W); None where it has none."""
        whole = self.job.predictor.whole
        valid = whole.times[self.init] + np.timedelta64(step.hours, "h")
        position = find_times(whole.times, valid)
        if position[0] < 0:
            return None
        truth: NDArray[np.float32] = whole.scaling.physical(whole.anomalies(position).numpy(), step.climatology)[0]
        return truth


def _limits(channel: Channel) -> tuple[float, float]:
    """The plausible range; negative moisture, which every step sets to zero, is no sign of a run that leaves it."""
    low, high = plausible_range(channel)
    return (-np.inf if channel.variable in NOT_NEGATIVE else low), high
