"""Fields of some times on the target grid: the one task of the regrid stage.

Contract: a task is a list of times in, an array out, and can be sent to another process: it carries the
configuration, not the data; the process opens the source once and reads the weights from their file. Every value
is checked before it is used. A result depends neither on the process nor on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline.console import say
from pipeline.grid import Grid
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import Times
from pipeline.weather.variables import Channel
from preprocess.decode import partial_chunks
from preprocess.decode.canonical import align, alignment
from preprocess.regrid import regrid, resolve_engine
from preprocess.sources import Archive, open_source


class Gridder:
    """Puts fields of an archive on the target grid; fields that lie on it already are only put in order."""

    def __init__(self, archive: Archive, config: WeatherConfig, *, quiet: bool = False) -> None:
        settings = config.data.regrid
        self.target = settings.grid
        self.method = settings.method
        self.directory = config.paths.weights
        self.same = alignment(archive.grid, self.target) is not None
        self.engine = resolve_engine(settings.engine)
        if quiet:
            return
        if self.same:
            say(f"regrid: the source lies on the target grid {self.target}; nothing to interpolate")
        elif settings.engine == "auto" and self.engine == "builtin":
            say("regrid: xESMF is not installed here; using the built-in weights (engine: builtin)")

    def describe(self) -> dict[str, str]:
        """For the contract."""
        return {"method": "none", "engine": "none"} if self.same else {"method": self.method, "engine": self.engine}

    def __call__(self, ds: xr.Dataset) -> xr.Dataset:
        """Fields on the target grid; lazy where `ds` is."""
        grid = Grid.from_dataset(ds)
        if alignment(grid, self.target) is not None:
            return xr.Dataset({n: align(v, grid=grid, other=self.target) for n, v in ds.items()}, attrs=ds.attrs)
        return regrid(ds, target=self.target, method=self.method, engine=self.engine, weights_directory=self.directory)


class FieldReader:
    """Reads, checks and regrids all channels of some times; safe to pickle."""

    def __init__(self, config: WeatherConfig, archive: Archive, gridder: Gridder) -> None:
        self.config, self.archive, self.gridder = config, archive, gridder
        self.channels = config.data.channels.dynamic

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _opened, (self.config.model_dump_json(),)

    def __call__(self, times: Times) -> NDArray[np.float32]:
        """Shape (time, channel, latitude, longitude).

        Raises:
            ValueError: a value is missing or not plausible; of several, the earliest is named.
        """
        if not times.size:
            return np.empty((0, len(self.channels), *self.gridder.target.shape), np.float32)
        threads = self.config.compute.threads or (None if self.config.compute.scheduler == "threads" else 1)
        # Never the distributed scheduler, whose worker this may be: its other workers have their own slabs.
        how: dict[str, Any] = {"scheduler": "threads"} | ({} if threads is None else {"num_workers": threads})
        try:
            return stack(self.gridder(self.archive.dataset(times)).compute(**how), self.channels)
        except ValueError:
            # Blocks are read in any order: look again for the earliest time at fault, so that it is the one named.
            for time in times:
                self.archive.dataset(np.array([time])).compute(**how)
            raise


@lru_cache(maxsize=1)
def _opened(settings: str) -> FieldReader:
    """The task in another process; the source is opened once there."""
    config = WeatherConfig.model_validate_json(settings)
    archive = open_archive(config)
    return FieldReader(config, archive, Gridder(archive, config, quiet=True))


def open_archive(config: WeatherConfig, *, growing: bool = False) -> Archive:
    """The source of an experiment, its chunks read in part where only some levels are wanted.

    Args:
        config: the experiment.
        growing: whether a simulated archive may be one that is still being written.
    """
    partial_chunks.enable()
    return open_source(config, growing=growing)


def stack(ds: xr.Dataset, channels: Sequence[Channel]) -> NDArray[np.float32]:
    """Channels of a computed canonical dataset side by side.

    Returns:
        Shape (time, channel, latitude, longitude), float32, in the order of `channels`.
    """
    shape = (ds.sizes["time"], len(channels), ds.sizes["latitude"], ds.sizes["longitude"])
    out = np.empty(shape, np.float32)
    for i, channel in enumerate(channels):
        field = ds[channel.variable]
        if channel.level is not None:
            field = field.sel(level=channel.level)
        out[:, i] = field.transpose("time", "latitude", "longitude").values
    return out
