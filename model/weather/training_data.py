"""What one rank reads during training: its channels of the store, the pairs, their order, the fixed validation pairs.

Contract: fields are held in memory when they fit, which is decided once; otherwise they are read from the store
while the step before is computed, with the climatology alone in memory where at least that fits. Both give the same
bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model.training.memory import MEMORY_SHARE, available_memory
from model.weather.fields import Fields
from model.weather.samples import Batch, Items, Order, fixed_items, make_batch
from model.weather.trajectories import Trajectories, make_trajectories
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import Pairs, find_pairs


class TrainingData:
    """Samples of a configuration, as this rank sees them.

    Args:
        config: the experiment.
        normals: of its training periods.
        channels: input channels of this rank, see `Fields`.
        rank: position on the data axis.
        ranks: its length.
        pin: batches in page-locked memory, for a GPU.

    Attributes:
        fields: the store's.
        pairs: of the training periods.
        order: of the training samples.
        validation: pairs and fixed items of the validation periods, None without such periods.

    Raises:
        ValueError: a lead without pairs.
    """

    def __init__(
        self,
        config: WeatherConfig,
        *,
        normals: Normals,
        channels: Sequence[str] | None,
        rank: int,
        ranks: int,
        pin: bool,
    ) -> None:
        options, splits, history = config.training, config.splits, config.model.history_hours
        self.rank, self.ranks, self.pin, self.batch_size = rank, ranks, pin, options.batch_size
        self.config = config
        network_input = config.model.network_input
        self.fields = Fields(config.paths.store, normals, channels=channels, network_input=network_input)
        times, width = self.fields.times, self.fields.grid_shape[1]
        leads, steps = options.step_hours or options.lead_hours, options.most_steps
        self.pairs = find_pairs(times, lead_hours=leads, periods=splits.train, history_hours=history, steps=steps)
        longitudes = width if options.roll_longitude else 1
        self.order = Order(self.pairs, seed=options.seed, lead_weights=options.lead_weights, longitudes=longitudes)
        self.validation: tuple[Pairs, Items] | None = None
        if splits.validation and options.step_hours:
            step, marks = config.validation_steps
            pairs = find_pairs(
                times, lead_hours=[step], periods=splits.validation, history_hours=history, steps=marks[-1]
            )
            self.validation = pairs, fixed_items(pairs, count=max(1, options.validation_samples // len(marks)))
        elif splits.validation:
            pairs = find_pairs(
                times, lead_hours=config.forecast.lead_hours, periods=splits.validation, history_hours=history
            )
            self.validation = pairs, fixed_items(pairs, count=options.validation_samples)

    @property
    def samples(self) -> int:
        """Starts of the training periods, each used once in an epoch."""
        return len(self.pairs)

    def hold(self, *, processes: int, progress: bool) -> None:
        """Read into memory what fits.

        Args:
            processes: that share this machine's memory.
            progress: show a bar.
        """
        used = self.pairs.used_times
        if self.validation:
            used = np.union1d(used, self.validation[0].used_times)
        available = MEMORY_SHARE * available_memory() / processes
        if self.fields.bytes_needed(used) <= available:
            self.fields.load(used, progress=progress)
        elif self.fields.climatology_bytes <= available:
            self.fields.hold_climatology()

    def batch(self, step: int) -> Batch | Trajectories:
        """This data rank's part of a step's global batch; with as many steps in a row as it may need."""
        options = self.config.training
        items = self.order.batch(step, size=self.batch_size, rank=self.rank, ranks=self.ranks)
        if not options.step_hours:
            return make_batch(self.fields, self.pairs, items, pin=self.pin)
        # Where minutes are limited, the schedule follows the clock, which nobody knows when the batch is read.
        steps = options.most_steps if options.minutes else options.rollout_steps(step / options.steps)
        first = step * self.batch_size + self.rank * len(items)
        which = range(len(options.step_hours))
        return self._trajectories(self.pairs, items, marks=range(1, steps + 1), which=which, first_number=first)

    def fixed(self, items: Items) -> Batch | Trajectories:
        """Some of the validation items."""
        assert self.validation is not None
        if not self.config.training.step_hours:
            return make_batch(self.fields, self.validation[0], items, pin=self.pin)
        step, marks = self.config.validation_steps
        which = [self.config.training.step_hours.index(step)]
        return self._trajectories(self.validation[0], items, marks=marks, which=which)

    def _trajectories(self, pairs: Pairs, items: Items, **options: Any) -> Trajectories:
        made = make_trajectories(self.fields, pairs, items, history_hours=self.config.model.history_hours, **options)
        return made.pinned() if self.pin else made

    def describe(self, step: int) -> str:
        """The samples of a step's global batch, as messages name them."""
        items = self.order.batch(step, size=self.batch_size)
        return ", ".join(self.pairs.describe(s, e) for s, e in zip(items.start.tolist(), items.lead.tolist()))
