"""Forecasts: direct, at any set of leads, from every init time of the test period, streamed into a Zarr store.

Contract: the store holds physical fields, climatology at the valid time plus the predicted anomaly, for init times
whose own time and every valid time exist and lie in the test period; the others are listed. The order of work is
fixed by the configuration, so a run that was killed ends bit-identical to one that was not. An untrained model
gives the climatology exactly.

Letters: N init times of a slab, E leads, B batch, C input channels, V predicted channels, H/W grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from model import checkpoint
from model.dchag import DCHAG, DCHAGConfig
from model.fields import Fields
from model.samples import find_pairs
from pipeline import provenance
from pipeline.climatology import Normals
from pipeline.config import Config
from pipeline.sections import Period
from pipeline.store import ArraySpec, SlabStore, contract_digest, read_manifest

_SLAB_INITS = 16
_CHUNK_CHANNELS = 16


def run_forecast(config: Config) -> None:
    """Issue the forecasts of a configuration, or go on where an earlier call was stopped.

    Raises:
        ValueError: an earlier stage is missing, the checkpoint belongs to other data, or no init time qualifies.
    """
    paths, console = config.paths, Console(stderr=True)
    if paths.receipt("forecast").exists() and paths.forecast.exists():
        read_manifest(paths.forecast, stage="python -m pipeline forecast")
        console.print(f"forecast: already complete, {paths.forecast}")
        return
    provenance.read_receipt(config, stage="train")
    found = checkpoint.best_or_last(paths.checkpoints)
    if found is None:
        raise ValueError(f"a checkpoint must exist in {paths.checkpoints}, got none; run python -m pipeline train")
    trained = checkpoint.describe(found)
    fields = Fields(
        paths.store, Normals.open(paths.normals), channels=trained["model"]["channels"],
        network_input=trained["network_input"],
    )  # fmt: skip
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, digest = load_model(found, fields, device=device)
    init, missing = init_times(
        fields.times, lead_hours=config.forecast.lead_hours, period=config.data.splits.test,
        step_hours=config.forecast.init_step_hours, history_hours=fields.history_hours,
    )  # fmt: skip
    facts = {
        "init_times": len(init),
        "first": str(np.datetime_as_string(fields.times[init[0]], unit="h")),
        "last": str(np.datetime_as_string(fields.times[init[-1]], unit="h")),
        "missing_init_times": [str(np.datetime_as_string(t, unit="h")) for t in missing],
        "checkpoint": found.name,
        "checkpoint_digest": digest,
    }
    if missing.size:
        console.print(f"forecast: {missing.size} init times left out, the store lacks them or a valid time of theirs")
    with _open_store(config, fields, init, digest=digest) as store:
        _fill_store(config, store, model, fields, init, console=console)
        store.finish(facts)
    provenance.write_receipt(config, stage="forecast", outputs=[paths.forecast], facts=facts)


def init_times(
    times: NDArray[np.datetime64],
    *,
    lead_hours: list[int],
    period: Period,
    step_hours: int,
    history_hours: Sequence[int] = (),
) -> tuple[NDArray[np.int64], NDArray[np.datetime64]]:
    """Common init times of all leads.

    Args:
        times: of the store.
        lead_hours: leads [h].
        period: init and all valid times lie in it.
        step_hours: spacing of init times, counted from the period's start.
        history_hours: how much earlier the other states are that the network reads [h].

    Returns:
        Their positions in `times`, and the times that the spacing asks for but that cannot be used because the
        store lacks them, a valid time of theirs or an earlier one that the network reads.

    Raises:
        ValueError: none qualifies.
    """
    pairs = find_pairs(times, lead_hours=lead_hours, periods=[period], history_hours=history_hours, all_leads=True)
    start, end = np.datetime64(period.start, "ns"), np.datetime64(period.end, "ns")
    spacing = np.timedelta64(step_hours, "h")
    wanted = np.arange(start, end - np.timedelta64(max(lead_hours), "h") + np.timedelta64(1, "ns"), spacing)
    chosen = pairs.init[np.isin(pairs.times[pairs.init], wanted)]
    if not len(chosen):
        raise ValueError(
            f"test period must hold an init time every {step_hours} h from {start} with all leads {lead_hours} h, "
            "got none; lengthen it or choose forecast.init_step_hours on the store's hours"
        )
    return chosen, wanted[~np.isin(wanted, pairs.times[chosen])]


def load_model(path: Path, fields: Fields, *, device: torch.device) -> tuple[DCHAG, str]:
    """The trained model for a store's fields, with averaged weights where training kept them.

    Args:
        path: a checkpoint.
        fields: the store that forecasts start from; its contract and normals must be those of training.
        device: where to put it.

    Returns:
        The model in evaluation mode, and a digest of its weights that does not depend on how they were saved.

    Raises:
        ValueError: the checkpoint belongs to other data.
    """
    description = checkpoint.describe(path)
    model = DCHAG(DCHAGConfig.from_dict(description["model"]), seed=None)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    prefix = description["weights"]
    checkpoint.load(
        path, {f"{prefix}.{name}": p for name, p in parameters.items()},
        expected={"contract": fields.contract, "normals": fields.normals.digest},
    )  # fmt: skip
    return model.to(device).eval(), weights_digest(parameters)


def weights_digest(parameters: dict[str, Tensor]) -> str:
    """A short hash of names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(parameters):
        values = parameters[name].cpu().contiguous().numpy()
        digest.update(f"{name}{values.shape}{values.dtype}".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()[:16]


@torch.inference_mode()
def forecast_fields(
    model: DCHAG, fields: Fields, init: NDArray[np.int64], *, lead_hours: list[int], batch_size: int
) -> NDArray[np.float32]:
    """Physical forecasts.

    Args:
        model: in evaluation mode.
        fields: the store.
        init: positions of N init times in the store.
        lead_hours: E leads [h].
        batch_size: samples a forward pass.

    Returns:
        (N, E, V, H, W), canonical units.
    """
    device = next(model.parameters()).device
    N, E = len(init), len(lead_hours)
    out = np.empty((N * E, len(fields.channels), *fields.grid_shape), dtype=np.float32)
    leads = np.tile(np.asarray(lead_hours, dtype=np.int64), N)
    inits = np.repeat(init, E)
    for first in range(0, N * E, batch_size):
        part = slice(first, first + batch_size)
        x_BCHW = fields.inputs(inits[part]).to(device)
        lead_B = torch.from_numpy(leads[part].astype(np.float32)).to(device)
        anomaly = model(x_BCHW, lead_B).float().cpu().numpy()
        valid = fields.times[inits[part]] + leads[part].astype("timedelta64[h]")
        climatology = fields.normals.climatology_at(valid, channels=fields.channels)
        out[part] = fields.scaling.physical(anomaly, climatology)
    return out.reshape(N, E, *out.shape[1:])


def _open_store(config: Config, fields: Fields, init: NDArray[np.int64], *, digest: str) -> SlabStore:
    lead_hours = np.asarray(config.forecast.lead_hours, dtype=np.int64)
    coords = xr.Dataset(
        coords={
            "init_time": ("init_time", fields.times[init]),
            "lead_time": ("lead_time", lead_hours.astype("timedelta64[h]").astype("timedelta64[ns]")),
            **{name: fields.coords[name] for name in ("channel", "variable", "level", "unit", "latitude", "longitude")},
        }
    )
    coords["lead_time"].encoding = {"units": "hours", "dtype": "int64"}
    source = fields.contract["source"]
    shape = (len(init), len(lead_hours), len(fields.channels), *fields.grid_shape)
    spec = ArraySpec(
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
        shape=shape,
        chunks=(1, 1, min(_CHUNK_CHANNELS, len(fields.channels)), *fields.grid_shape),
        attrs={"long_name": "forecast state", "units": "see coordinate unit"},
    )
    data = "simulated atmosphere" if source["label"] == "simulated" else source["label"]
    return SlabStore(
        config.paths.forecast, arrays={"state": spec}, coords=coords, slab_dim="init_time", slab_size=_SLAB_INITS,
        contract={
            "kind": "forecast",
            "channels": list(fields.channels),
            "grid": fields.contract["grid"],
            "source": source,
            "lead_hours": lead_hours.tolist(),
            "store": contract_digest(fields.contract),
            "normals": fields.normals.digest,
            "train": fields.normals.contract.get("train", []),
            "checkpoint": digest,
            "model": config.name,
        },
        attrs={"title": f"Forecasts of {config.name} from {data}"},
    )  # fmt: skip


def _fill_store(
    config: Config, store: SlabStore, model: DCHAG, fields: Fields, init: NDArray[np.int64], *,
    console: Console,
) -> None:  # fmt: skip
    progress: Any = Progress(
        TextColumn("forecast"), BarColumn(), MofNCompleteColumn(), TextColumn("init times"), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip
    pending = store.pending()
    done = store.length - sum(len(slab) for slab in pending)
    with progress:
        task = progress.add_task("forecast", total=store.length, completed=done)
        for slab in pending:
            values = forecast_fields(
                model, fields, init[slab.slice], lead_hours=config.forecast.lead_hours,
                batch_size=config.forecast.batch_size,
            )  # fmt: skip
            store.write(slab, {"state": values})
            progress.advance(task, len(slab))
    console.print(f"forecast: {store.length} init times x {len(config.forecast.lead_hours)} leads, {store.path}")
