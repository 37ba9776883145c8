"""What forecasts are issued with, opened on each rank: the model, its fields, the init times, the steps.

Contract: init times are those of the test period whose own time and every valid time exist and lie in it; or all those
of initial states from elsewhere that come with the earlier states that the network reads.

Letters: N init times of a slab, E leads, V predicted channels, H/W grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.parallel import launch, wrap
from model.parallel.mesh import CHANNEL, DATA, DeviceMesh, axis_size, build_mesh, channel_rank, data_rank
from model.training import checkpoint
from model.training.host_memory import memory_for_fields
from model.weather.architecture import network_from_dict
from model.weather.fields import Fields
from model.weather.names import history_hours
from model.weather.predict import Predictor, divide, load_model, own_channels
from model.weather.stepping import Stepper, Units, trained_steps
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import init_times


@dataclass(frozen=True)
class Job:
    """What a rank needs to issue forecasts.

    Attributes:
        predictor: the model and its fields.
        mesh: of the ranks.
        init: positions of the init times.
        missing: times asked for that cannot be used.
        digest: of the model's weights.
        steps: with which forecasts are rolled out [h], none for direct ones.
        facts: for the receipt.
    """

    predictor: Predictor
    mesh: DeviceMesh
    init: NDArray[np.int64]
    missing: NDArray[np.datetime64]
    digest: str
    steps: tuple[int, ...]
    facts: dict[str, Any]


def prepare(config: WeatherConfig, path: Path, *, device: torch.device, initial: Path | None) -> Job:
    """Open everything on this rank.

    Args:
        config: the experiment.
        path: the checkpoint.
        device: of this rank.
        initial: see `run_forecast`.

    Raises:
        ValueError: a checkpoint of direct forecasts where the experiment has steps, or the reverse, or of other data.
    """
    options, layout = config.forecast, config.training.layout
    ranks = launch.world_size()
    mesh = build_mesh(channel=layout.channel if ranks > 1 else 1, device_type=device.type)
    description = checkpoint.describe(path)
    shape = network_from_dict(description["model"])
    predicts, trained = trained_steps(description)
    _require_kind(config, trained, path=path)
    steps = ways(config, trained, direct=description.get("config", {}).get("training", {}).get("lead_hours"))
    _require_one_state(config, shape.channels, rolled_out=bool(steps), trained=trained)
    normals = Normals.open(config.paths.normals)
    whole, own = _open_fields(config, normals, description, mesh=mesh, initial=initial, hold=bool(steps))
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
            period=config.splits.test,
            step_hours=options.init_step_hours,
            setting="forecast.init_step_hours",
            history_hours=whole.history_hours,
        )
    else:
        init, missing = _complete(whole)
    facts = _times_facts(whole, init, missing) | {
        "initial": str(initial) if initial else "test period",
        "rollout_hours": options.rollout_hours or list(steps) or None,
        "checkpoint": path.name,
        "checkpoint_digest": digest,
    }
    units = Units.of(
        normals,
        channels=whole.channels,
        predicts=predicts,
        step_hours=trained or steps or (1,),
        network_input=description["network_input"],
        device=torch.device("cpu"),
    )
    stepper, precision = Stepper(shape, units, mesh=mesh), config.training.matmul_precision
    predictor = Predictor(model, whole, own, stepper, trained or steps, matmul_precision=precision)
    return Job(predictor, mesh, init, missing, digest, steps, facts)


def _times_facts(fields: Fields, init: NDArray[np.int64], missing: NDArray[np.datetime64]) -> dict[str, Any]:
    """The init times, as a receipt lists them."""
    first, last = (str(np.datetime_as_string(fields.times[init[at]], unit="h")) for at in (0, -1))
    gone = [str(np.datetime_as_string(time, unit="h")) for time in missing]
    return {"init_times": len(init), "first": first, "last": last, "missing_init_times": gone}


def _open_fields(
    config: WeatherConfig,
    normals: Normals,
    description: Mapping[str, Any],
    *,
    mesh: DeviceMesh,
    initial: Path | None,
    hold: bool,
) -> tuple[Fields, Fields]:
    """Fields of all channels, and of those that this rank reads; with their climatology in memory for a roll-out."""
    shape, store = network_from_dict(description["model"]), initial or config.paths.store
    opened: dict[str, Any] = {"network_input": description["network_input"]}
    if initial is not None:
        opened["like"] = config.paths.store
    whole = own = Fields(store, normals, channels=shape.channels, **opened)
    if axis_size(mesh, CHANNEL) > 1:
        own = Fields(store, normals, channels=own_channels(shape, mesh), **opened)
    for fields in {id(f): f for f in (whole, own)}.values() if hold else ():  # it is read for every step
        if fields.climatology_bytes <= memory_for_fields(processes=launch.local_ranks()):
            fields.hold_climatology()
    return whole, own


def _require_kind(config: WeatherConfig, trained: Sequence[int], *, path: Path) -> None:
    """Refuse a checkpoint of direct forecasts where the experiment has steps, the reverse, and other steps."""

    def kind(steps: Sequence[int]) -> str:
        return f"a model with steps of {', '.join(map(str, steps))} h" if steps else "direct forecasts"

    wanted = config.training.step_hours
    if sorted(trained) != sorted(wanted):
        raise ValueError(
            f"checkpoint {path} must be one of {kind(wanted)}, as training.step_hours says, got one of {kind(trained)}"
            f"; run python -m pipeline train, or set training.step_hours: {list(trained)}"
        )


def _require_one_state(
    config: WeatherConfig, channels: Sequence[str], *, rolled_out: bool, trained: Sequence[int]
) -> None:
    """Refuse to roll out a network that reads earlier states and was not trained on steps."""
    if rolled_out and not trained and history_hours(channels):
        raise ValueError(
            "forecast.rollout_hours must be absent for a model that reads earlier states (model.history_hours) and was "
            f"not trained on training.step_hours, got {config.forecast.rollout_hours}; issue direct forecasts"
        )


def ways(config: WeatherConfig, trained: Sequence[int], *, direct: Sequence[int] | None) -> tuple[int, ...]:
    """With which steps forecasts are rolled out [h]; none for direct ones.

    Args:
        config: the experiment.
        trained: steps that the network was trained on.
        direct: leads that a network without steps was trained on; None where that is not known.

    Raises:
        ValueError: a step that the network was not trained on, or a lead that none of its steps divides.
    """
    asked, leads = config.forecast.rollout_hours, config.forecast.lead_hours
    if trained:
        if asked and asked not in trained:
            raise ValueError(
                f"forecast.rollout_hours must be one of the steps that the network was trained on, {list(trained)} h, "
                f"got {asked}"
            )
        steps = (asked,) if asked else tuple(trained)
        unreached = [hours for hours in leads if all(hours % step for step in steps)]
        if unreached:
            raise ValueError(
                f"forecast.lead_hours must be multiples of a step of the network, {list(steps)} h, got {unreached}; it "
                "was trained to be applied again and again and cannot forecast them directly"
            )
        return steps
    if asked and direct and asked not in direct:
        raise ValueError(
            f"forecast.rollout_hours must be one of the leads that the network was trained on, {list(direct)} h, got "
            f"{asked}; train it on training.step_hours: [{asked}] to roll it out"
        )
    return (asked,) if asked else ()


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
    if job.steps:
        values = job.predictor.roll_out(
            mine, lead_hours=options.lead_hours, step_hours=job.steps, batch_size=options.batch_size
        )
    else:
        values = job.predictor.direct(mine, lead_hours=options.lead_hours, batch_size=options.batch_size)
    if channel_rank(mesh) > 0:
        return None
    if ranks == 1:
        return values
    mine_there = torch.from_numpy(values).to(job.predictor.device)
    parts = launch.gather_to_main(mine_there, group=mesh.get_group(DATA))
    return None if parts is None else torch.cat(parts)[: len(init)].cpu().numpy()


def climatology_at_leads(job: Job, init: NDArray[np.int64], lead_hours: Sequence[int]) -> NDArray[np.float32]:
    """The climatology at the valid times of some forecasts: (N, E, V, H, W), canonical units.

    Args:
        job: of this rank.
        init: positions of N init times.
        lead_hours: E leads [h].
    """
    fields = job.predictor.whole
    valid = fields.times[init][:, None] + np.asarray(lead_hours).astype("timedelta64[h]")
    return fields.normals.climatology_at(valid, channels=fields.channels)


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
