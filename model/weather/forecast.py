"""Forecasts: direct at any set of leads, or rolled out, streamed into a Zarr store by one or several ranks.

Contract: the store holds physical fields. Init times are those of the test period whose own time and every valid time
exist and lie in it, the others are listed; or those of initial states from elsewhere, all of them. The order of work
is fixed by the configuration, so a run that was killed ends bit-identical to one that was not. An untrained model gives
the climatology exactly. Rank 0 alone writes.

Letters: N init times of a slab, E leads, V predicted channels, H/W grid.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from model.parallel import launch, wrap
from model.parallel.mesh import CHANNEL, DATA, DeviceMesh, axis_size, build_mesh, channel_rank, data_rank
from model.training import checkpoint
from model.weather.architecture import network_from_dict
from model.weather.fields import Fields
from model.weather.names import history_hours
from model.weather.predict import Predictor, divide, load_model, own_channels
from pipeline import provenance
from pipeline.console import data_with_article, terminal_progress
from pipeline.store import SlabStore, contract_digest, finished, read_manifest
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.forecast_store import forecast_store
from pipeline.weather.times import init_times


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
    path = _path(config, initial)
    done = finished(path, verify=verify, mend=launch.is_main())
    if initial is None and done and paths.receipt("forecast").exists():
        console.print(f"forecast: already complete, {paths.forecast}")
        return
    provenance.read_receipt(config, stage="train")
    found = checkpoint.best_or_last(paths.checkpoints)
    if found is None:
        raise ValueError(f"a checkpoint must exist in {paths.checkpoints}, got none; run python -m pipeline train")
    with launch.process_group(world_size=None) as device:
        facts = write_forecasts(config, found, path, device=device, console=console, initial=initial)
        if launch.is_main():
            provenance.write_receipt(config, stage="forecast", outputs=[path], facts=facts)


def write_forecasts(
    config: WeatherConfig,
    trained: Path,
    path: Path,
    *,
    device: torch.device,
    console: Console,
    initial: Path | None = None,
    made_by: str | None = None,
    command: str = "python -m pipeline forecast",
) -> dict[str, Any]:
    """Write a forecast store, all ranks together.

    Args:
        config: the experiment.
        trained: the checkpoint.
        path: of the store.
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
        console.print(
            f"forecast: {job.missing.size} init times left out, the store lacks them or a valid time of theirs"
        )
    if initial is not None:
        command += f" --initial {config.forecast.initial}"
    opened = _open_store(config, job, path, made_by=made_by or config.name, command=command)
    _fill_store(config, job, opened, console=console)
    return job.facts


@dataclass(frozen=True)
class Job:
    """What a rank needs to issue forecasts.

    Attributes:
        predictor: the model and its fields.
        mesh: of the ranks.
        init: positions of the init times.
        missing: times asked for that cannot be used.
        digest: of the model's weights.
        facts: for the receipt.
    """

    predictor: Predictor
    mesh: DeviceMesh
    init: NDArray[np.int64]
    missing: NDArray[np.datetime64]
    digest: str
    facts: dict[str, Any]


def prepare(config: WeatherConfig, path: Path, *, device: torch.device, initial: Path | None) -> Job:
    """Open everything on this rank.

    Args:
        config: the experiment.
        path: the checkpoint.
        device: of this rank.
        initial: see `run_forecast`.
    """
    options, layout = config.forecast, config.training.layout
    ranks = launch.world_size()
    mesh = build_mesh(channel=layout.channel if ranks > 1 else 1, device_type=device.type)
    description = checkpoint.describe(path)
    shape = network_from_dict(description["model"])
    if options.rollout_hours and history_hours(shape.channels):
        raise ValueError(
            "forecast.rollout_hours must be absent for a model that reads earlier states (model.history_hours), "
            f"got {options.rollout_hours}; issue direct forecasts"
        )
    opened: dict[str, Any] = {"network_input": description["network_input"]}
    if initial is not None:
        opened["like"] = config.paths.store
    normals = Normals.open(config.paths.normals)
    whole = Fields(initial or config.paths.store, normals, channels=shape.channels, **opened)
    own = whole
    if axis_size(mesh, CHANNEL) > 1:
        own = Fields(initial or config.paths.store, normals, channels=own_channels(shape, mesh), **opened)
    model, digest = load_model(
        path,
        whole,
        device=device,
        weights=options.weights,
        mesh=mesh if ranks > 1 else None,
        placement=wrap.Placement(trunk=layout.trunk, data=layout.sharding),
    )
    if initial is None:
        init, missing = init_times(
            whole.times,
            lead_hours=options.lead_hours,
            period=config.data.splits.test,
            step_hours=options.init_step_hours,
            setting="forecast.init_step_hours",
            history_hours=whole.history_hours,
        )
    else:
        init, missing = _complete(whole)
    facts = {
        "init_times": len(init),
        "first": str(np.datetime_as_string(whole.times[init[0]], unit="h")),
        "last": str(np.datetime_as_string(whole.times[init[-1]], unit="h")),
        "missing_init_times": [str(np.datetime_as_string(t, unit="h")) for t in missing],
        "initial": str(initial) if initial else "test period",
        "rollout_hours": options.rollout_hours,
        "checkpoint": path.name,
        "checkpoint_digest": digest,
    }
    predictor = Predictor(model, whole, own)
    return Job(predictor, mesh, init, missing, digest, facts)


def forecast_fields(config: WeatherConfig, job: Job, init: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """Forecasts of some init times, made by all ranks together.

    Args:
        config: the experiment.
        job: of this rank.
        init: positions of N init times.

    Returns:
        (N, E, V, H, W), canonical units, on rank 0; None on the others.
    """
    options, mesh = config.forecast, job.mesh
    ranks = axis_size(mesh, DATA)
    mine = init[divide(len(init), ranks=ranks, rank=data_rank(mesh))]
    if options.rollout_hours is None:
        values = job.predictor.direct(mine, lead_hours=options.lead_hours, batch_size=options.batch_size)
    else:
        values = job.predictor.roll_out(
            mine, lead_hours=options.lead_hours, step_hours=options.rollout_hours, batch_size=options.batch_size
        )
    if channel_rank(mesh) > 0:
        return None
    if ranks == 1:
        return values
    mine_there = torch.from_numpy(values).to(job.predictor.device)
    parts = launch.gather_to_main(mine_there, group=mesh.get_group(DATA))
    return None if parts is None else torch.cat(parts)[: len(init)].cpu().numpy()


def _complete(states: Fields) -> tuple[NDArray[np.int64], NDArray[np.datetime64]]:
    """Positions of the states with all the earlier ones that the network reads, and the times of the others."""
    everything = np.arange(len(states.times))
    there = np.all([states.earlier(everything, hours=h) >= 0 for h in (0, *states.history_hours)], axis=0)
    if not there.any():
        raise ValueError(
            f"initial states must come with those {', '.join(map(str, states.history_hours))} h earlier, which the "
            f"network reads too, got {', '.join(np.datetime_as_string(states.times, unit='h'))}; put them in one folder"
        )
    return everything[there], states.times[~there]


def _path(config: WeatherConfig, initial: Path | None) -> Path:
    """Of the forecast store: one of its own for other initial states, also where their files have the same names."""
    path = config.paths.forecast
    if initial is None:
        return path
    manifest = read_manifest(initial)
    content = contract_digest({"axis": manifest["axis"], "slabs": manifest["slabs"]})[:8]
    return path.with_name(f"{path.stem}-from-{manifest['axis']['first'][:13]}-{content}.zarr")


def _open_store(config: WeatherConfig, job: Job, path: Path, *, made_by: str, command: str) -> SlabStore | None:
    """The store that the main rank writes; None on the others."""
    if not launch.is_main():
        return None
    fields = job.predictor.whole
    source = fields.contract["source"]
    label, learned = source["label"], fields.trained_on["source"]["label"]
    data = data_with_article(label)
    if label != "simulated" and learned == "simulated":
        data = f"{label}, by a model of the simulated atmosphere"
        source = {**source, "label": data}
    extra: dict[str, Any] = {"rollout_hours": config.forecast.rollout_hours} if config.forecast.rollout_hours else {}
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
        command=command,
        checkpoint=job.digest,
        **extra,
    )


def _fill_store(config: WeatherConfig, job: Job, opened: SlabStore | None, *, console: Console) -> None:
    progress: Any = terminal_progress("init times", on=console)
    with opened or nullcontext() as store, progress:
        pending = launch.from_main(store.pending() if store else [])
        done = len(job.init) - sum(len(slab) for slab in pending)
        task = progress.add_task("forecast", total=len(job.init), completed=done)
        for slab in pending:
            values = forecast_fields(config, job, job.init[slab.slice])
            if store and values is not None:
                store.write(slab, {"state": values})
            progress.advance(task, len(slab))
        if store:
            store.finish(job.facts)
            console.print(
                f"forecast: {store.length} init times x {len(config.forecast.lead_hours)} leads, {store.path}"
            )
