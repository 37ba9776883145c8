"""The training store of a simulation, made slab by slab while its archive is still being written.

Contract: a head start for the regrid stage and nothing else: the same slabs, by the same functions, as soon as the
archive has recorded all their times. The regrid stage keeps what is recorded, makes the rest and finishes the store,
so what stops the head start costs time only; it is said once. Made by one thread, beside the integration, which uses
the other processor.
"""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import numpy as np

from pipeline.console import say
from pipeline.weather.config import WeatherConfig
from pipeline.words import counted
from preprocess.ingest.gridding import FieldReader, Gridder, open_archive
from preprocess.ingest.stage import pending_slabs, require_space, store_times, training_store


class HeadStart:
    """Makes slabs of the training store on request. Use as a context manager: it holds the store's lock.

    Args:
        config: the experiment; where its regrid stage computes on a cluster, nothing is made here.
    """

    def __init__(self, config: WeatherConfig) -> None:
        self.config = config
        self.made = 0
        self._stopped = config.compute.scheduler != "threads"
        self._work: _Work | None = None
        self._stack = ExitStack()

    def __enter__(self) -> HeadStart:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        if self.made:
            say(f"regrid: {counted(self.made, 'slab')} of {self.config.paths.store} made while simulating")

    def up_to(self, time: np.datetime64) -> None:
        """Make every slab that is not there and ends at this time or before.

        Args:
            time: the archive has recorded this one and all before.
        """
        if self._stopped:
            return
        try:
            self._work = self._work or _Work(self.config, self._stack)
            while self._work.ready(time):
                self._work.make_next()
                self.made += 1
        except (ValueError, OSError) as error:  # the regrid stage meets it too, where it still matters
            self._stopped = True
            say(f"regrid: no further slab is made while simulating: {error}")


class _Work:
    """The store, and the slabs that it lacks."""

    def __init__(self, config: WeatherConfig, stack: ExitStack) -> None:
        archive = open_archive(config, growing=True)
        self.times, _ = store_times(archive, config.data)
        gridder = Gridder(archive, config, quiet=True)
        self.writer = training_store(config, archive, gridder, self.times)
        stack.enter_context(self.writer.held())
        self.left = pending_slabs(self.writer)
        require_space(self.writer, self.left)
        alone = config.compute.model_copy(update={"threads": 1})
        self.reader = FieldReader(config.model_copy(update={"compute": alone}), archive, gridder)
        self.stack, self.opened = stack, False

    def ready(self, time: np.datetime64) -> bool:
        """Whether the next slab ends at a time or before."""
        return bool(self.left) and bool(self.times[self.left[0].stop - 1] <= time)

    def make_next(self) -> None:
        """Make the next slab; the store comes into being with the first that has passed every check."""
        slab = self.left.pop(0)
        values = self.reader(self.times[slab.slice])
        if not self.opened:
            self.stack.enter_context(self.writer)
            self.opened = True
        self.writer.write(slab, {"state": values})
