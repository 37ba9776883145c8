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
from preprocess.ingest.cluster import computed
from preprocess.ingest.gridding import FieldReader, Gridder, open_archive
from preprocess.ingest.reuse import take_over
from preprocess.sources import Archive


def run_regrid(config: WeatherConfig, *, verify: bool = False, command: str = "python -m pipeline regrid") -> None:
    """Read the source, put it on the target grid, and write the training store.

    Args:
        config: the experiment.
        verify: where the store is there, compare every slab with its digest; damaged ones are written again.
        command: that a user runs to have this store written.
    """
    path = config.paths.store
    if _complete(config, verify=verify):
        say(f"regrid: complete in {path}")
        return
    archive = open_archive(config)
    times, missing = select_times(archive.times, config.data)
    _report(archive, times, missing, config)
    gridder = Gridder(archive, config)
    facts = _facts(archive, times, missing)
    channels, grid = config.data.channels.dynamic, config.data.regrid.grid
    state = store.ArraySpec(
        dims=("time", "channel", "latitude", "longitude"),
        shape=(times.size, len(channels), *grid.shape),
        chunks=(1, min(CHUNK_CHANNELS, len(channels)), *grid.shape),
    )
    writer = store.SlabStore(
        path,
        arrays={"state": state},
        coords=_coordinates(archive, times, gridder, channels=config.data.channels),
        slab_dim="time",
        slab_size=config.data.slab_times,
        contract=store_contract(archive, config.data, regrid=gridder.describe()),
        attrs={"title": f"Training store of {data_with_article(archive.label)}", "Conventions": "CF-1.11"},
        command=command,
    )
    with writer.held():
        _fill(writer, FieldReader(config, archive, gridder), times, facts)
    provenance.write_receipt(config, stage="regrid", outputs=[path], facts=facts)
    say(f"regrid: {times.size} times x {len(channels)} channels on {grid}, written to {path}")


def _fill(writer: store.SlabStore, reader: FieldReader, times: Times, facts: dict[str, Any]) -> None:
    """Make every slab that is not there yet."""
    pending = _pending(writer)
    whole, some = take_over(writer, times, pending)
    left = [slab for slab in pending if slab.index not in whole]
    if pending:
        bytes_per_time = 4 * int(np.prod(writer.arrays["state"].shape[1:], dtype=np.int64))
        files.free_space_check(writer.path, sum(len(slab) for slab in left) * bytes_per_time)
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


def _complete(config: WeatherConfig, *, verify: bool) -> bool:
    """Whether the store is finished, undamaged, and of the simulated archive that is there now."""
    path, simulated = config.paths.store, config.paths.simulated
    if not store.finished(path, verify=verify) or not config.paths.receipt("regrid").exists():
        return False
    if not config.simulated or not simulated.exists():
        return True
    archive = store.read_manifest(simulated, stage="python -m pipeline simulate")["digest"]
    return bool(store.read_manifest(path)["contract"]["source"].get("archive") == archive)


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
    start, end = (np.datetime64(t, "ns") for t in (data.period.start, data.period.end))
    wanted = np.arange(start, end + np.timedelta64(1, "ns"), step.astype("timedelta64[ns]"))
    inside = np.isin(wanted, available)
    if not inside.any():
        raise ValueError(
            f"data.period must hold times of the source, got none at steps of {data.step_hours} h within "
            f"{stamp(start)} .. {stamp(end)}; the source has {available.size} times, "
            f"{stamp(available[0])} .. {stamp(available[-1])}"
        )
    return wanted[inside], wanted[~inside]


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


def _pending(writer: store.SlabStore) -> list[store.Slab]:
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
    say(f"regrid: {archive.label}, {times.size} times every {step} h, {stamp(times[0])} .. {stamp(times[-1])}")
    if missing.size:
        listed = gaps(missing, step_hours=step)
        more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
        say(f"regrid: the source lacks {missing.size} times, which stay absent: {', '.join(listed[:3])}{more}")
    if facts["times_with_some_channels_only"]:
        count = len(facts["times_with_some_channels_only"])
        say(f"regrid: {count} times have some channels only and are left out")
    if facts["times_held_more_than_once"]:
        say(f"regrid: {facts['times_held_more_than_once']} times are in several files, with equal values")
    if facts["longer_leads_dropped"]:
        say(f"regrid: {facts['longer_leads_dropped']} forecasts are left out for one of a shorter lead")
    leads = archive.lead_hours(times)
    if leads.max() > 0:
        say(f"regrid: {np.count_nonzero(leads)} times are forecasts of up to {leads.max():g} h, the others analyses")
    if len(facts.get("experiment_versions", [])) > 1:
        say(f"regrid: the source mixes experiment versions {', '.join(facts['experiment_versions'])} (0005 is ERA5T)")
    for change in facts["converted_units"]:
        say(f"regrid: converting {change}")
