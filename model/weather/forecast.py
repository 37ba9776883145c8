"""Forecasts: direct at any set of leads, or rolled out, streamed into a Zarr store by one or several ranks.

Contract: the store holds physical fields. Init times are those of the test period whose own time and every valid time
exist and lie in it, the others are listed; or those of initial states from elsewhere, all of them. The order of work
is fixed by the configuration, so a run that was killed ends bit-identical to one that was not. An untrained model gives
the climatology exactly. Rank 0 alone writes.

Letters: N init times of a slab, E leads, V predicted channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from model.complete import complete_forecast
from model.parallel import launch
from model.training import checkpoint
from model.weather.calibration import Calibration, calibrate
from model.weather.job import Job, climatology_at_leads, forecast_fields, prepare
from model.weather.predict import limits
from pipeline import provenance
from pipeline.behind import Behind
from pipeline.console import data_with_article, terminal_progress
from pipeline.store import SlabStore, contract_digest, finished, read_manifest
from pipeline.weather.config import WeatherConfig
from pipeline.weather.forecast_store import forecast_store
from pipeline.words import counted


def run_forecast(config: WeatherConfig, *, initial: Path | None = None, verify: bool = False) -> None:
    """Issue the forecasts of a configuration, or resume where an earlier call was stopped.

    Args:
        config: the experiment.
        initial: a store of states to start from instead of the test period's.
        verify: where forecasts are there, compare every slab with its digest; damaged ones are issued again.

    Raises:
        ValueError: an earlier stage is missing, the checkpoint belongs to other data, the states do not fit the model,
            or no init time qualifies.
    """
    paths, console = config.paths, Console(stderr=True, soft_wrap=True, quiet=not launch.is_main())
    stores, main = [paths.forecast, *paths.uncalibrated.values()], launch.is_main()
    if initial is None and (done := complete_forecast(config, verify=verify, mend=main)):
        console.print(done, markup=False)
        return
    provenance.read_receipt(config, stage="train")
    found = checkpoint.to_use(paths.checkpoints)
    with launch.process_group(world_size=None) as device:
        written = [_path(path, initial) for path in stores]
        if initial is not None:
            for path in written:
                finished(path, verify=verify, mend=main)
        facts = write_forecasts(config, found, written, device=device, console=console, initial=initial)
        if launch.is_main():
            provenance.write_receipt(config, stage="forecast", outputs=written, facts=facts)


def write_forecasts(
    config: WeatherConfig,
    trained: Path,
    paths: Sequence[Path],
    *,
    device: torch.device,
    console: Console,
    initial: Path | None = None,
    made_by: str | None = None,
    command: str = "python -m pipeline forecast",
) -> dict[str, Any]:
    """Write a forecast store, all ranks together; beside a calibrated one also the forecasts as they were.

    Args:
        config: the experiment.
        trained: the checkpoint.
        paths: of the store, and of the uncalibrated forecasts where these are kept.
        device: of this rank.
        console: for messages and the progress bar.
        initial: see `run_forecast`.
        made_by: what the store's title calls the model; the experiment's name by default.
        command: what a user runs to have the store written.

    Returns:
        Facts for a receipt.
    """
    job = prepare(config, trained, device=device, initial=initial)
    if job.missing.size:
        left_out = counted(job.missing.size, "init time")
        console.print(f"forecast: {left_out} left out: not in the store, or without a valid time there")
    calibration = None
    if config.calibrates:
        own = job if initial is None else prepare(config, trained, device=device, initial=None)
        calibration = calibrate(config, own, trained.parent.parent, console=console)
        job.facts["calibrated_on"] = len(calibration.init_times)
    if initial is not None:
        command += f" --initial {config.forecast.initial}"
    about = {"made_by": made_by or config.name, "command": command}
    wanted = zip(paths, (calibration, None), strict=False) if launch.is_main() else ()
    opened = [_open_store(config, job, path, applied, **about) for path, applied in wanted]
    _fill_stores(config, job, opened, calibration, console=console)
    return job.facts


def _path(path: Path, initial: Path | None) -> Path:
    """Of a forecast store: one of its own for other initial states, also where their files have the same names."""
    if initial is None:
        return path
    manifest = read_manifest(initial)
    content = contract_digest({"axis": manifest["axis"], "slabs": manifest["slabs"]})[:8]
    return path.with_name(f"{path.stem}-from-{manifest['axis']['first'][:13]}-{content}.zarr")


def _open_store(
    config: WeatherConfig, job: Job, path: Path, calibration: Calibration | None, *, made_by: str, command: str
) -> SlabStore:
    fields = job.predictor.whole
    source = fields.contract["source"]
    label, learned = source["label"], fields.trained_on["source"]["label"]
    data = data_with_article(label)
    if label != "simulated" and learned == "simulated":
        data = f"{label}, by a model of the simulated atmosphere"
        source = {**source, "label": data}
    extra: dict[str, Any] = {}
    if job.steps:
        extra["rollout_hours"] = config.forecast.rollout_hours or list(job.steps)
    if calibration is not None:
        extra["calibrated"] = contract_digest(asdict(calibration))
    if fields.trained_on is not fields.contract:
        extra["initial"] = contract_digest(fields.contract)
    return forecast_store(
        path,
        like=fields.coords.sel(channel=list(fields.channels)),
        init_times=fields.times[job.init],
        lead_hours=config.forecast.lead_hours,
        model=config.name,
        normals=fields.normals,
        title=f"Forecasts of {made_by} from {data}",
        trained_on=fields.trained_on,
        source=source,
        calibration=None if calibration is None else calibration.array,
        command=command,
        checkpoint=job.digest,
        **extra,
    )


def _fill_stores(
    config: WeatherConfig,
    job: Job,
    opened: Sequence[SlabStore],
    calibration: Calibration | None,
    *,
    console: Console,
) -> None:
    """The forecasts, calibrated in the first store and as they were in the second, if there are two; rank 0 alone."""
    progress, leads = terminal_progress("init times", on=console), config.forecast.lead_hours
    with ExitStack() as stack:
        stores = [stack.enter_context(store) for store in opened]
        stack.enter_context(progress)
        missing = [store.pending() for store in stores]
        pending = launch.from_main(sorted({slab for slabs in missing for slab in slabs}, key=lambda slab: slab.start))
        done = len(job.init) - sum(len(slab) for slab in pending)
        task = progress.add_task("forecast", total=len(job.init), completed=done)
        behind = stack.enter_context(Behind())
        for slab in pending:
            init = job.init[slab.slice]
            values = forecast_fields(config, job, init)
            progress.advance(task, len(slab))
            if values is None:
                continue
            scaled = values
            if calibration is not None:
                scaled = calibration.applied(values, climatology_at_leads(job, init, leads))
                scaled = np.clip(scaled, *limits(job.predictor.whole.channels))
            for store, content, slabs in zip(stores, (scaled, values), missing, strict=False):
                if slab in slabs:
                    behind.do(store.write, slab, {"state": content})
        behind.finish()
        for store in stores:
            store.finish(job.facts)
        if stores:
            size = f"{counted(stores[0].length, 'init time')} x {counted(len(leads), 'lead')}"
            console.print(f"forecast: {size}, {stores[0].path}")
