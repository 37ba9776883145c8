"""The regrid stage: from a source to the training store, one time slab after the other.

Contract: a slab is read once, all variables and levels together, checked, put on the target grid,
stacked in catalogue order, written as one shard, read back and recorded. Memory is bounded by some
source blocks and two slabs on the target grid per worker; slabs are read while others are written. No store is
made before its first slab has passed every check. A killed run resumes with the slabs not
recorded and ends with the same bytes, whoever computed them. Slabs that a store of another period holds already are
taken over. Times that the source lacks are listed, never filled.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pipeline import files, provenance, store
from pipeline.console import data_with_article, progress, say, stamp
from pipeline.weather.config import WeatherConfig
from pipeline.weather.forecast_store import CHUNK_CHANNELS
from pipeline.weather.sections import Channels, Data
from pipeline.weather.times import Times
from pipeline.words import counted, spanned
from preprocess.complete import complete_regrid, finished_store
from preprocess.ingest.cluster import computed
from preprocess.ingest.gridding import FieldReader, Gridder, open_archive
from preprocess.ingest.reuse import take_over
from preprocess.sources import Archive

COMMAND = "python -m pipeline regrid"


def run_regrid(config: WeatherConfig, *, verify: bool = False, command: str = COMMAND) -> None:
    """Read the source, put it on the target grid, and write the training store.

    Args:
        config: the experiment.
        verify: where the store is there, compare every slab with its digest; damaged ones are written again.
        command: that a user runs to have this store written.
    """
    path = config.paths.store
    if done := complete_regrid(config, verify=verify):
        say(done)
        return
    archive = open_archive(config)
    times, missing = store_times(archive, config.data)
    _report(archive, times, missing, config)
    gridder = Gridder(archive, config)
    facts = _facts(archive, times, missing)
    writer = training_store(config, archive, gridder, times, command=command)
    with writer.held():
        done = finished_store(config, verify=False)
        if done and not pending_slabs(writer):  # the files say which times there are, now
            say(done)
            return
        _fill(writer, FieldReader(config, archive, gridder), times, facts)
    provenance.write_receipt(config, stage="regrid", outputs=[path], facts=facts)
    channels = counted(len(config.data.channels.dynamic), "channel")
    say(f"regrid: {counted(times.size, 'time')} x {channels} on {gridder.target}, written to {path}")


def training_store(
    config: WeatherConfig, archive: Archive, gridder: Gridder, times: Times, *, command: str = COMMAND
) -> store.SlabStore:
    """The training store, described.

    Args:
        config: the experiment.
        archive: what it is made from.
        gridder: how.
        times: those that it holds.
        command: that a user runs to have it written.
    """
    channels, grid = config.data.channels.dynamic, config.data.regrid.grid
    state = store.ArraySpec(
        dims=("time", "channel", "latitude", "longitude"),
        shape=(times.size, len(channels), *grid.shape),
        chunks=(1, min(CHUNK_CHANNELS, len(channels)), *grid.shape),
    )
    return store.SlabStore(
        config.paths.store,
        arrays={"state": state},
        coords=_coordinates(archive, times, gridder, channels=config.data.channels),
        slab_dim="time",
        slab_size=config.data.slab_times,
        contract=store_contract(archive, config.data, regrid=gridder.describe()),
        attrs={"title": f"Training store of {data_with_article(archive.label)}", "Conventions": "CF-1.11"},
        command=command,
    )


def _fill(writer: store.SlabStore, reader: FieldReader, times: Times, facts: dict[str, Any]) -> None:
    """Make every slab that is not there yet."""
    pending = pending_slabs(writer)
    whole, some = take_over(writer, times, pending)
    left = [slab for slab in pending if slab.index not in whole]
    if pending:
        require_space(writer, left)
    needed = {slab.index: times[slab.slice] for slab in left}
    needed |= {i: needed[i][~other.holds(needed[i])] for i, other in some.items()}
    tasks = [_Task(slab, needed[slab.index], reader) for slab in left]
    with progress("times") as bar:
        done = times.size - sum(len(slab) for slab in pending)
        shown = bar.add_task(f"regrid {reader.archive.label}", total=times.size, completed=done)
        results = computed(_Task.read, tasks, compute=reader.config.compute)
        first = next(results, None)  # checked in full before the store is made
        with writer as opened:
            for slab in pending:
                if slab.index in whole:
                    other, number = whole[slab.index]
                    other.link(number, slab, opened)
                    bar.advance(shown, len(slab))
            for task, values in results if first is None else chain([first], results):
                if task.slab.index in some:
                    values = some[task.slab.index].complete(times[task.slab.slice], task.times, values)
                opened.write(task.slab, {"state": values})
                bar.advance(shown, len(task.slab))
            opened.finish(facts)


@dataclass(frozen=True)
class _Task:
    """The times of a slab that have to be read."""

    slab: store.Slab
    times: Times
    reader: FieldReader

    def read(self) -> NDArray[np.float32]:
        return self.reader(self.times)


def _facts(archive: Archive, times: Times, missing: Times) -> dict[str, Any]:
    facts = {
        "label": archive.label,
        "times": int(times.size),
        "first": stamp(times[0]),
        "last": stamp(times[-1]),
        "missing_times": [stamp(t) for t in missing],
        "source": archive.facts,
    }
    leads, counts = np.unique(archive.lead_hours(times), return_counts=True)
    if leads.max() > 0:
        facts["times_by_lead_hours"] = {f"{lead:g}": int(n) for lead, n in zip(leads, counts, strict=True)}
    return facts


def store_times(archive: Archive, data: Data) -> tuple[Times, Times]:
    """`select_times` of an archive.

    Raises:
        ValueError: see `select_times`; or its calendar lacks a 29 February between these times, so that the time that
            passed in it is not the time between the dates.
    """
    present, missing = select_times(archive.times, data)
    if archive.no_leap_days:
        first, last = present[[0, -1]].astype("datetime64[D]")
        days = np.arange(first, last + 1)
        leap = [str(day) for day in days if str(day).endswith("02-29")]
        if leap:
            raise ValueError(
                f"times of a calendar without 29 February must not lie on both sides of one, got {leap[0]} between "
                f"{stamp(present[0])} and {stamp(present[-1])}; choose a data.period between two leap days"
            )
    return present, missing


def select_times(available: Times, data: Data) -> tuple[Times, Times]:
    """Times of the store, and those its step asks for that the source lacks.

    Args:
        available: times of the source, sorted.
        data: period and step.

    Returns:
        (present, missing), both sorted.

    Raises:
        ValueError: the source has none of them.
    """
    step = np.timedelta64(data.step_hours, "h")
    start, end = _span(available, data)
    wanted = np.arange(start, end + np.timedelta64(1, "ns"), step.astype("timedelta64[ns]"))
    inside = np.isin(wanted, available)
    if not inside.any():
        raise ValueError(
            f"data.period must hold times of the source, got none at steps of {data.step_hours} h within "
            f"{stamp(start)} .. {stamp(end)}; the source has {counted(available.size, 'time')}, "
            f"{spanned(stamp(available[0]), stamp(available[-1]))}"
        )
    return wanted[inside], wanted[~inside]


def _span(available: Times, data: Data) -> tuple[np.datetime64, np.datetime64]:
    """First and last time of the store: those of the period, or of the files."""
    if data.period is not None:
        return np.datetime64(data.period.start, "ns"), np.datetime64(data.period.end, "ns")
    hours = available[available == available.astype("datetime64[h]")]
    if not hours.size:
        raise ValueError(
            f"times of the store must be on the full hour, got {stamp(available[0])} .. {stamp(available[-1])} in the "
            "source; shift them"
        )
    return hours[0], hours[-1]


def gaps(missing: Times, *, step_hours: int) -> list[str]:
    """Missing times joined into ranges, one phrase each."""
    if not missing.size:
        return []
    breaks = np.flatnonzero(np.diff(missing) > np.timedelta64(step_hours, "h")) + 1
    return [
        stamp(gap[0]) if gap.size == 1 else f"{stamp(gap[0])} .. {stamp(gap[-1])} ({gap.size} times)"
        for gap in np.split(missing, breaks)
    ]


def store_contract(archive: Archive, data: Data, *, regrid: dict[str, str]) -> dict[str, Any]:
    """What makes a training store this training store."""
    return {
        "kind": "training store",
        "channels": [c.name for c in data.channels.dynamic],
        "static_channels": [c.name for c in data.channels.static],
        "grid": data.regrid.grid.describe(),
        "step_hours": data.step_hours,
        "source": archive.description,
        "regrid": regrid,
    }


def require_space(writer: store.SlabStore, left: list[store.Slab]) -> None:
    """Refuse to start what cannot fit.

    Raises:
        ValueError: the disk has less room than these slabs may take.
    """
    bytes_per_time = 4 * int(np.prod(writer.arrays["state"].shape[1:], dtype=np.int64))
    files.free_space_check(writer.path, sum(map(len, left)) * bytes_per_time)


def pending_slabs(writer: store.SlabStore) -> list[store.Slab]:
    """Slabs to compute, known before the store is opened for writing."""
    if not writer.path.exists():
        return writer.slabs()
    with writer as opened:
        return opened.pending()


def _coordinates(archive: Archive, times: Times, gridder: Gridder, *, channels: Channels) -> xr.Dataset:
    """Coordinates of the store and its static fields, each regridded from its own grid."""
    dynamic, static, grid = channels.dynamic, channels.static, gridder.target
    fields = archive.statics()
    planes = [gridder(xr.Dataset({c.variable: fields[c.variable]}))[c.variable].values for c in static]
    level = np.array([-1 if c.level is None else c.level for c in dynamic], np.int32)
    comment = "pressure in hPa; -1 for a channel that does not lie on a pressure level"
    statics = np.array(planes, np.float32).reshape(-1, *grid.shape)
    return xr.Dataset(
        {"static": (("static_channel", "latitude", "longitude"), statics)},
        coords={
            "time": times,
            "channel": [c.name for c in dynamic],
            "variable": ("channel", [c.variable for c in dynamic]),
            "level": ("channel", level, {"comment": comment}),
            "unit": ("channel", [c.spec.unit for c in dynamic]),
            "static_channel": np.array([c.name for c in static], dtype="U8"),
            "static_unit": ("static_channel", np.array([c.spec.unit for c in static], dtype="U8")),
            "latitude": ("latitude", grid.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", grid.longitude, {"units": "degrees_east"}),
        },
    )


def _report(archive: Archive, times: Times, missing: Times, config: WeatherConfig) -> None:
    """One line for each thing worth knowing about the source."""
    facts, step = archive.facts, config.data.step_hours
    every = f" every {step} h" if times.size > 1 else ""
    span = spanned(stamp(times[0]), stamp(times[-1]))
    say(f"regrid: {archive.label}, {counted(times.size, 'time')}{every}, {span}")
    if missing.size:
        listed = gaps(missing, step_hours=step)
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        lacking = counted(missing.size, "time, which stays absent", "times, which stay absent")
        say(f"regrid: the source lacks {lacking}: {', '.join(listed[:3])}{more}")
    if facts["times_with_some_channels_only"]:
        count = len(facts["times_with_some_channels_only"])
        say(f"regrid: {counted(count, 'time')} with some channels only left out")
    if facts["times_held_more_than_once"]:
        say(f"regrid: {counted(facts['times_held_more_than_once'], 'time')} in several files, with equal values")
    if facts["longer_leads_dropped"]:
        say(f"regrid: {counted(facts['longer_leads_dropped'], 'forecast')} left out for one of a shorter lead")
    leads = archive.lead_hours(times)
    if leads.max() > 0:
        ahead = counted(int(np.count_nonzero(leads)), "time is a forecast", "times are forecasts")
        say(f"regrid: {ahead} of up to {leads.max():g} h{', the others analyses' * bool((leads == 0).any())}")
    if len(facts.get("experiment_versions", [])) > 1:
        say(f"regrid: the source mixes experiment versions {', '.join(facts['experiment_versions'])} (0005 is ERA5T)")
    for line in facts.get("units_by_range", []):
        say(f"regrid: {line}")
    for change in facts["converted_units"]:
        say(f"regrid: converting {change}")
