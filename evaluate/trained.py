"""The baselines stage: climate-learn's networks trained on the same store with the same budget.

Contract: what the model is given, they are given: the same training pairs and leads, inputs, statics, batch,
number of samples (or the same minutes), averaged weights and turning of samples where the configuration
says so. The lead time goes in as one more channel, lead / 100 h, which is climate-learn's own way with several
leads. They predict the anomaly at the valid time over its spread; the loss is the area-weighted mean square.
Each ends as a forecast store that is scored like any model. Training can be killed: it goes on at its last
checkpoint and takes the same steps; the receipt is written last.
"""

from __future__ import annotations

import hashlib
import time as clock
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from evaluate import climatelearn
from evaluate.reading.align import Times, valid_times
from pipeline import files, provenance
from pipeline.console import data_with_article
from pipeline.grid import Grid
from pipeline.store import ArraySpec, SlabStore, contract_digest, open_store, read_manifest
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import issue_times

LEARNING_RATE, WEIGHT_DECAY, WARMUP = 5e-4, 1e-5, 0.05
"""Of AdamW with a linear warm-up (a share of all steps) and a cosine; climate-learn's schedule."""
MEMORY_BYTES = 4_000_000_000
"""Anomalies of the training times are held in memory up to this; else they are read for every batch."""
_SAVE_SECONDS = 60.0
_SLAB_INITS = 16
_CHUNK_CHANNELS = 16


def run_baselines(config: WeatherConfig) -> None:
    """Train evaluation.trained_baselines and issue their forecasts, or go on where an earlier call was stopped.

    Raises:
        ValueError: none is named, an earlier stage is missing, or climate-learn is not installed.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    if not paths.network_forecasts:
        raise ValueError("evaluation.trained_baselines must name a network, got none; set it to [resnet, unet]")
    if paths.receipt("baselines").exists() and all(p.exists() for p in paths.network_forecasts.values()):
        console.print(f"baselines: complete in {', '.join(map(str, paths.network_forecasts.values()))}", markup=False)
        return
    samples = Samples(config)
    facts: dict[str, Any] = {}
    for name, path in paths.network_forecasts.items():
        folder = paths.networks / name
        with files.lock(folder / "train.lock"):
            model, report = train(name, samples, folder=folder, console=console)
            facts[name] = report | issue(name, model, samples, path, console=console)
    provenance.write_receipt(config, stage="baselines", outputs=list(paths.network_forecasts.values()), facts=facts)


class Samples:
    """Training pairs and forecast inputs of one experiment, as tensors.

    Args:
        config: the experiment.

    Raises:
        ValueError: the store or the normals are missing, or there is no training pair.
    """

    def __init__(self, config: WeatherConfig) -> None:
        self.config = config
        self.truth = open_store(config.paths.store, stage="python -m pipeline regrid")
        self.normals = Normals.open(config.paths.normals)
        self.channels = list(map(str, self.truth["channel"].values))
        self.grid = Grid.from_dataset(self.truth)
        self.times: Times = self.truth["time"].values.astype("datetime64[ns]")
        self._place = {int(t): i for i, t in enumerate(self.times.astype(np.int64))}
        rows = self.normals.channel_indices(self.channels)
        self._spread = self.normals.anomaly_std[rows].astype(np.float32)[:, None, None]
        self._mean, self._std = (
            a[rows].astype(np.float32)[:, None, None] for a in (self.normals.mean, self.normals.std)
        )
        statics = self.truth["static"].values if "static" in self.truth else np.zeros((0, *self.grid.shape))
        scale = np.where(self.normals.static_std > 0, self.normals.static_std, 1.0)[:, None, None]
        self._statics = ((statics - self.normals.static_mean[:, None, None]) / scale).astype(np.float32)
        training = config.training
        pairs = []
        for lead in training.lead_hours:
            for period in config.data.splits.train:
                start, end = np.datetime64(period.start, "ns"), np.datetime64(period.end, "ns")
                inside = self.times[(self.times >= start) & (self.times <= end)]
                found = inside[np.isin(inside + np.timedelta64(lead, "h"), inside)]
                pairs.append(np.stack([found.astype(np.int64), np.full(found.size, lead, np.int64)], axis=1))
        self.pairs: NDArray[np.int64] = np.concatenate(pairs)
        self._leads = np.asarray(training.lead_hours)
        if not len(self.pairs):
            raise ValueError(f"training periods must hold pairs {training.lead_hours} h apart, got none; lengthen them")
        wanted = training.lead_weights or [1.0] * len(self._leads)
        self._lead_share = np.asarray(wanted, float) / np.sum(wanted)
        self._by_lead = [np.flatnonzero(self.pairs[:, 1] == lead) for lead in self._leads]
        self._memory: NDArray[np.float32] | None = None
        self._row: dict[int, int] = {}

    @property
    def in_channels(self) -> int:
        """Dynamic and static channels, and the lead time."""
        return len(self.channels) + len(self._statics) + 1

    def load(self, console: Console) -> None:
        """Hold the anomalies of all training times in memory where they fit."""
        used = np.unique(np.concatenate([self.pairs[:, 0], self.pairs[:, 0] + self.pairs[:, 1] * 3_600_000_000_000]))
        if 4 * used.size * len(self.channels) * self.grid.size > MEMORY_BYTES:
            console.print("baselines: the training times do not fit in memory and are read as they are needed")
            return
        memory = np.empty((used.size, len(self.channels), *self.grid.shape), np.float32)
        for first in range(0, used.size, 64):
            part = slice(first, first + 64)
            memory[part] = self._read(used[part])
        self._row = {int(t): i for i, t in enumerate(used)}
        self._memory = memory

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a training step; depends on the seed and the step alone."""
        training = self.config.training
        generator = np.random.default_rng([training.seed, step, 6])
        choice = generator.choice(len(self._leads), size=training.batch_size, p=self._lead_share)
        rows = np.array([generator.choice(self._by_lead[c]) for c in choice])
        init, lead = self.pairs[rows].T
        x, y = self.inputs(init, lead), self._anomalies(init + lead * 3_600_000_000_000) / self._spread
        if training.roll_longitude:
            for i, cells in enumerate(generator.integers(0, self.grid.shape[1], size=len(rows))):
                x[i], y[i] = np.roll(x[i], cells, axis=-1), np.roll(y[i], cells, axis=-1)
        return torch.from_numpy(x), torch.from_numpy(y)

    def inputs(self, init: NDArray[np.int64], lead: NDArray[np.int64]) -> NDArray[np.float32]:
        """What a network reads, shape (sample, channel, latitude, longitude).

        Args:
            init: times, int64 ns.
            lead: hours.
        """
        k, s = len(self.channels), len(self._statics)
        x = np.empty((len(init), self.in_channels, *self.grid.shape), np.float32)
        anomalies = self._anomalies(init)
        if self.config.model.network_input == "anomaly":
            x[:, :k] = anomalies / self._spread
        else:
            climatology = self.normals.climatology_at(init.astype("datetime64[ns]"), channels=self.channels)
            x[:, :k] = (anomalies + climatology - self._mean) / self._std
        x[:, k : k + s] = self._statics
        x[:, k + s] = lead.astype(np.float32)[:, None, None] / 100.0
        return x

    def physical(self, made: NDArray[np.float32], valid: Times) -> NDArray[np.float32]:
        """From what a network predicts to fields."""
        return made * self._spread + self.normals.climatology_at(valid, channels=self.channels)

    def _anomalies(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._memory is not None and all(int(t) in self._row for t in times):
            return self._memory[[self._row[int(t)] for t in times]]
        unique, inverse = np.unique(times, return_inverse=True)
        return self._read(unique)[inverse]

    def _read(self, times: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = [self._place[int(t)] for t in times]
        state = np.asarray(self.truth["state"].isel(time=rows).values, np.float32)
        found = state - self.normals.climatology_at(times.astype("datetime64[ns]"), channels=self.channels)
        if not np.isfinite(found).all():
            raise ValueError(
                f"store must hold finite values only, got {int((~np.isfinite(found)).sum())} others in "
                f"{self.config.paths.store}; run python -m pipeline regrid anew"
            )
        return found


def train(name: str, samples: Samples, *, folder: Path, console: Console) -> tuple[nn.Module, dict[str, Any]]:
    """Train a network, or go on with it.

    Args:
        name: "resnet" or "unet".
        samples: of the experiment.
        folder: for the checkpoint.
        console: for the progress bar.

    Returns:
        The network in evaluation mode with the weights that forecasts use, and facts.
    """
    training, budget = samples.config.training, samples.config.evaluation.trained_budget
    steps = budget.steps or training.steps
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(training.seed)
    model = climatelearn.network(name, in_channels=samples.in_channels, out_channels=len(samples.channels)).to(device)
    decay = training.ema_decay
    average: Any = None
    if decay:
        blend: Any = torch.optim.swa_utils.get_ema_multi_avg_fn
        average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=blend(decay), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.99))
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer} | ({"average": average} if average else {})
    step, seconds, losses = _resume(folder / "checkpoint.pt", parts, device)
    area = torch.from_numpy(samples.grid.area_weights.astype(np.float32)).to(device)
    limit = budget.minutes * 60.0 if budget.minutes else float("inf")
    if step < steps and seconds < limit:
        samples.load(console)
    progress = Progress(
        TextColumn(f"baselines: train {name}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TextColumn("{task.fields[loss]}"), TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    )  # fmt: skip
    with progress:
        task = progress.add_task("train", total=steps, completed=step, loss="")
        began = saved = clock.monotonic()
        while step < steps and seconds < limit:
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * _schedule(max(step, steps * seconds / limit), steps)
            torch.manual_seed(training.seed * 1_000_003 + step)  # of the dropout, so that a resumed run takes it up
            model.train()
            x, y = (t.to(device) for t in samples.batch(step))
            loss = ((model(x) - y).square() * area).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            step += 1
            losses.append(float(loss.detach()))
            if not np.isfinite(losses[-1]):
                raise ValueError(f"loss of {name} must stay finite, got {losses[-1]} at step {step}")
            now = clock.monotonic()
            seconds, began = seconds + now - began, now
            progress.update(task, completed=step, loss=f"loss {np.mean(losses[-20:]):.3f}")
            if now - saved > _SAVE_SECONDS or step == steps or seconds >= limit:
                _save(folder / "checkpoint.pt", parts, step, seconds, losses)
                saved = now
    final = average.module if average is not None else model
    facts = {
        "steps": step, "samples": step * training.batch_size, "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in model.parameters()), "device": device.type,
        "loss": round(float(np.mean(losses[-20:])), 5), "architecture": climatelearn.ARCHITECTURES[name],
        "climate_learn": metadata.version(climatelearn.PACKAGE), "weights": _digest(final),
    }  # fmt: skip
    console.print(f"baselines: {name} trained on {facts['samples']} samples, loss {facts['loss']:.3f}", markup=False)
    return final.eval(), facts


@torch.inference_mode()
def issue(name: str, model: nn.Module, samples: Samples, path: Path, *, console: Console) -> dict[str, Any]:
    """Write the forecasts of a trained network for the init times of the test period.

    Args:
        name: what it is called.
        model: in evaluation mode.
        samples: of the experiment.
        path: of the store.
        console: for a message.
    """
    config = samples.config
    leads = np.asarray(config.forecast.lead_hours, np.int64)
    init = issue_times(
        samples.times, lead_hours=config.forecast.lead_hours, period=config.data.splits.test,
        step_hours=config.forecast.init_step_hours, setting="forecast.init_step_hours",
    )  # fmt: skip
    device = next(model.parameters()).device
    with _writer(name, samples, path, init, leads, weights=_digest(model)) as writer:
        for slab in writer.pending():
            inits = init[slab.slice]
            valid = valid_times(inits, leads)
            values = np.empty((len(slab), len(leads), len(samples.channels), *samples.grid.shape), np.float32)
            for column, lead in enumerate(leads):
                x = torch.from_numpy(samples.inputs(inits.astype(np.int64), np.full(len(slab), lead)))
                made = model(x.to(device)).float().cpu().numpy()
                values[:, column] = samples.physical(made, valid[:, column])
            writer.write(slab, {"state": values})
        writer.finish({"init_times": int(init.size)})
    read_manifest(path)
    console.print(f"baselines: {name}, {init.size} init times x {len(leads)} leads, {path}", markup=False)
    return {"init_times": int(init.size)}


def _writer(
    name: str, samples: Samples, path: Path, init: Times, leads: NDArray[np.int64], *, weights: str
) -> SlabStore:
    truth, contract = samples.truth, samples.truth.attrs["contract"]
    names = ("channel", "variable", "level", "unit", "latitude", "longitude")
    coords = xr.Dataset(
        coords={
            "init_time": ("init_time", init),
            "lead_time": ("lead_time", leads.astype("timedelta64[h]").astype("timedelta64[ns]")),
            **{key: truth[key].variable for key in names},
        }
    )
    coords["lead_time"].encoding = {"units": "hours", "dtype": "int64"}
    channels = len(samples.channels)
    spec = ArraySpec(
        dims=("init_time", "lead_time", "channel", "latitude", "longitude"),
        shape=(init.size, leads.size, channels, *samples.grid.shape),
        chunks=(1, 1, min(_CHUNK_CHANNELS, channels), *samples.grid.shape),
        attrs={"long_name": "forecast state", "units": "see coordinate unit"},
    )
    label = contract["source"]["label"]
    return SlabStore(
        path, arrays={"state": spec}, coords=coords, slab_dim="init_time", slab_size=_SLAB_INITS,
        contract={
            "kind": "forecast",
            "channels": samples.channels,
            "grid": contract["grid"],
            "source": contract["source"],
            "lead_hours": leads.tolist(),
            "store": contract_digest(contract),
            "normals": samples.normals.digest,
            "train": samples.normals.contract.get("train", []),
            "checkpoint": weights,
            "model": name,
        },
        attrs={"title": f"Forecasts of climate-learn's {name} from {data_with_article(label)}"},
    )  # fmt: skip


def _schedule(step: float, steps: int) -> float:
    """Share of the full learning rate: linear up, cosine down. Of a budget of minutes, `step` is the share spent."""
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return float(0.5 * (1.0 + np.cos(np.pi * (step - warm) / max(1, steps - warm))))


def _resume(path: Path, parts: Mapping[str, Any], device: torch.device) -> tuple[int, float, list[float]]:
    """(steps taken, seconds spent, losses so far) of a checkpoint, loaded into `parts`; zeros where there is none."""
    if not path.exists():
        return 0, 0.0, []
    content = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(content[name])
    return int(content["step"]), float(content["seconds"]), list(content["losses"])


def _save(path: Path, parts: Mapping[str, Any], step: int, seconds: float, losses: list[float]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "step": step, "seconds": seconds, "losses": losses}, temporary)
    files.sync(temporary)
    temporary.replace(path)


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values.cpu().numpy()).tobytes())
    return digest.hexdigest()[:16]
