"""Training: one loop that reads from top to bottom, can be killed anywhere and goes on where it was.

Contract: the state after step n is a function of the configuration and the data alone. Sample order, dropout and
augmentation follow from (seed, step), never from what happened before, so a run resumed from a checkpoint is
bit-identical to one that was not stopped, on the same layout and machine. Checkpoints are whole or absent; a
loss that is not finite stops the run before it touches the parameters.

Letters: B batch, C input channels, V predicted channels, H/W grid.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from model import checkpoint, optimise
from model.build import model_config
from model.curves import draw_curves
from model.dchag import DCHAG
from model.fields import Fields, available_memory
from model.loss import channel_mse, weighted_mse
from model.metrics_log import MetricsLog, TrainingBar
from model.samples import Batch, Items, Order, Pairs, Prefetch, find_pairs, fixed_items, make_batch
from pipeline import files, provenance
from pipeline.climatology import Normals
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.variables import parse_channel

_MEMORY_SHARE = 0.6
"""Of the free memory that the store's fields may take; they are read from the store during training otherwise."""


def run_train(config: Config) -> None:
    """Train the model of a configuration, or go on where an earlier call was stopped.

    Raises:
        ValueError: an earlier stage is missing, the data do not fit the configuration, or the loss is not finite.
    """
    paths, console = config.paths, Console(stderr=True)
    newest = checkpoint.newest(paths.checkpoints)
    if paths.receipt("train").exists() and newest is not None:
        console.print(f"train: already complete, {newest}")
        return
    normals = Normals.open(paths.normals)
    fields = Fields(paths.store, normals, network_input=config.model.network_input)
    with files.lock(paths.train / "train.lock"):
        trainer = Trainer(config, fields, console=console)
        trainer.resume()
        trainer.run()
        figure = draw_curves(paths.metrics, paths.train / "curves.png", label=fields.contract["source"]["label"])
    provenance.write_receipt(
        config, stage="train", outputs=[paths.checkpoints, paths.metrics, figure], facts=trainer.facts()
    )


@dataclass
class Best:
    """The best validation so far."""

    step: int = 0
    loss: float = math.inf


class Trainer:
    """The state of a run, and the loop over it.

    Args:
        config: the experiment.
        fields: its store.
        console: for messages and the progress bar.

    Raises:
        ValueError: a lead without pairs, or a batch that the ranks do not divide.
    """

    def __init__(self, config: Config, fields: Fields, *, console: Console) -> None:
        self.config, self.fields, self.console = config, fields, console
        options = self.options = config.training
        splits = config.data.splits
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pairs = find_pairs(fields.times, lead_hours=options.lead_hours, periods=splits.train)
        self.order = Order(
            self.pairs, seed=options.seed, lead_weights=options.lead_weights,
            longitudes=fields.grid_shape[1] if options.roll_longitude else 1,
        )  # fmt: skip
        self.validation: tuple[Pairs, Items] | None = None
        if splits.validation:
            pairs = find_pairs(fields.times, lead_hours=options.lead_hours, periods=splits.validation)
            self.validation = pairs, fixed_items(pairs, count=options.validation_samples)
        grid = Grid(fields.coords["latitude"].values, fields.coords["longitude"].values)
        self.area_HW = torch.from_numpy(grid.area_weights).float().to(self.device)
        named = [(c.name, c.variable, c.level) for c in map(parse_channel, fields.channels)]
        self.channel_V = optimise.channel_weights(
            named, weights=options.channel_weights, pressure_weighted=options.pressure_weighted
        ).to(self.device)
        shape = model_config(
            config.model, channels=fields.channels, static_channels=fields.static_channels, image=fields.grid_shape
        )
        self.model = DCHAG(shape, seed=options.seed).to(self.device)
        self.parameters = dict(self.model.named_parameters())
        self.optimiser = torch.optim.AdamW(
            optimise.parameter_groups(self.parameters, weight_decay=options.weight_decay),
            lr=options.learning_rate, betas=options.betas,
        )  # fmt: skip
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()} if options.ema_decay else {}
        self.step = 0
        self.best = Best()
        self.log = MetricsLog(config.paths.metrics)
        self._seconds = self._waited = 0.0

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Train up to the configured number of steps."""
        options, first = self.options, self.step
        if self.step >= options.steps:
            return
        self._load_fields()
        batches = Prefetch(self._make_batch, range(self.step, options.steps))
        bar = TrainingBar(self.console, total=options.steps, done=self.step, batch_size=options.batch_size)
        began = time.perf_counter()
        try:
            with bar, stop_signal() as stopping:
                for batch in batches:
                    loss, norm = self._train_step(batch)
                    self.step += 1
                    seconds = time.perf_counter() - began
                    self.log.write(
                        "train",
                        step=self.step,
                        loss=loss,
                        gradient_norm=norm,
                        learning_rate=self._learning_rate(self.step - 1),
                        samples_per_second=round((self.step - first) * options.batch_size / seconds, 2),
                    )
                    bar.update(self.step, loss=loss)
                    last = self.step == options.steps
                    if self.validation and (last or self.step % options.validate_every == 0):
                        bar.note(self._validate())
                    if last or stopping.seen or self.step % options.checkpoint_every == 0:
                        self.save("step")
                    if stopping.seen and not last:
                        bar.note(f"stopped by a signal after step {self.step}, which is saved; run it again to go on")
                        raise SystemExit(128 + signal.SIGTERM)
        finally:
            batches.close()
        self._seconds, self._waited = time.perf_counter() - began, batches.waited

    def _train_step(self, batch: Batch) -> tuple[float, float]:
        """One optimiser step; returns the loss and the norm of its gradient before clipping."""
        options = self.options
        self.model.train()
        torch.manual_seed(optimise.step_seed(options.seed, self.step))
        batch = batch.to(self.device)
        with self._autocast():
            prediction = self.model(batch.x, batch.lead_hours)
        loss = weighted_mse(prediction, batch.target, area_HW=self.area_HW, channel_V=self.channel_V)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.parameters.values(), options.clip_norm)
        value, length = loss.item(), norm.item()
        if not (math.isfinite(value) and math.isfinite(length)):
            self._stop_not_finite(value, length, batch.items)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self.optimiser.step()
        if self.average:
            optimise.update_average(self.average, self.parameters, decay=options.ema_decay, step=self.step)
        return value, length

    # ------------------------------------------------------------------ validation

    @torch.no_grad()
    def _validate(self) -> str:
        """Score the fixed pairs with the weights that forecasts will use; returns a line for people."""
        assert self.validation is not None
        pairs, items = self.validation
        sums: dict[int, list[Tensor]] = {}
        self.model.eval()
        with optimise.averaged_weights(self.parameters, self.average):
            for first in range(0, len(items), self.options.batch_size):
                part = slice(first, first + self.options.batch_size)
                some = Items(items.start[part], items.lead[part], items.roll[part])
                batch = make_batch(self.fields, pairs, some).to(self.device)
                with self._autocast():
                    prediction = self.model(batch.x, batch.lead_hours)
                for i, lead in enumerate(some.lead.tolist()):
                    one, target = prediction[i : i + 1].float(), batch.target[i : i + 1]
                    error = channel_mse(one, target, area_HW=self.area_HW)
                    nothing = channel_mse(torch.zeros_like(one), target, area_HW=self.area_HW)
                    entry = sums.setdefault(
                        lead, [torch.zeros_like(error), torch.zeros_like(error), error.new_zeros(1)]
                    )
                    for total, value in zip(entry, (error, nothing, error.new_ones(1)), strict=True):
                        total += value
        leads: dict[str, Any] = {}
        weights = self.channel_V / self.channel_V.mean()
        for lead, (error, nothing, count) in sorted(sums.items()):
            mse, mse_climatology = error / count, nothing / count
            rmse = mse.sqrt().cpu().double().numpy() * self.fields.scaling.std
            names = [n for n in self.config.evaluation.variables if n in self.fields.channels]
            leads[str(pairs.lead_hours[lead])] = {
                "loss": (mse * weights).mean().item(),
                "skill": 1.0 - ((mse * weights).mean() / (mse_climatology * weights).mean()).item(),
                "rmse": {n: float(rmse[self.fields.channels.index(n)]) for n in names},
                "skill_by_channel": {
                    n: float(1.0 - (mse / mse_climatology)[self.fields.channels.index(n)]) for n in names
                },
            }
        loss = float(np.mean([entry["loss"] for entry in leads.values()]))
        self.log.write("validation", step=self.step, loss=loss, leads=leads)
        if loss < self.best.loss:
            self.best = Best(step=self.step, loss=loss)
            self.save("best")
        skills = ", ".join(f"{hours} h {entry['skill']:+.3f}" for hours, entry in leads.items())
        return f"step {self.step}: validation loss {loss:.4f}; skill against climatology at {skills}"

    # ------------------------------------------------------------------ state

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds as tensors, by name; the tensors themselves, not copies."""
        found = {f"model.{name}": p.detach() for name, p in self.parameters.items()}
        found |= {f"average.{name}": t for name, t in self.average.items()}
        return found | checkpoint.optimiser_tensors(self.parameters, self.optimiser)

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be resumed here."""
        entries = {
            "contract": self.fields.contract,
            "normals": self.fields.normals.digest,
            "model": self.model.config.to_dict(),
            "network_input": self.config.model.network_input,
            "splits": self.config.data.splits.model_dump(mode="json"),
        }
        return dict(json.loads(json.dumps(entries)))

    def save(self, tag: str) -> Path:
        """Write a checkpoint of the present state."""
        self.log.flush()
        description = {
            **self.identity(),
            "config": self.config.model_dump(mode="json"),
            "sampler": {"seed": self.options.seed, "next_sample": self.step * self.options.batch_size},
            "best": {"step": self.best.step, "loss": self.best.loss} if self.best.step else None,
            "weights": "average" if self.average else "model",
            "commit": provenance.commit(),
        }
        keep = self.options.keep_checkpoints if tag == "step" else 2
        return checkpoint.save(
            self.config.paths.checkpoints, self.tensors(), description, tag=tag, step=self.step, keep=keep
        )

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one, and cut the metrics to its step."""
        checkpoint.clean(self.config.paths.checkpoints)
        newest = checkpoint.newest(self.config.paths.checkpoints)
        if newest is not None:
            found = checkpoint.load(newest, self.tensors(), expected=self.identity())
            self.step = found["step"]
            if found["best"]:
                self.best = Best(**found["best"])
            checkpoint.discard_after(self.config.paths.checkpoints, tag="best", step=self.step)
            self.console.print(f"train: going on from step {self.step} of {self.options.steps}")
        self.log.cut(self.step)

    def facts(self) -> dict[str, Any]:
        """What the receipt says."""
        seconds = max(self._seconds, 1e-9)
        return {
            "steps": self.step,
            "parameters": sum(p.numel() for p in self.parameters.values()),
            "starts": len(self.pairs),
            "epochs": round(self.step * self.options.batch_size / len(self.pairs), 3),
            "best_validation": {"step": self.best.step, "loss": self.best.loss} if self.best.step else None,
            "checkpoint": str(forecast_checkpoint(self.config.paths.checkpoints)),
            "seconds": round(self._seconds, 1),
            "share_waiting_for_data": round(self._waited / seconds, 4),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        }

    # ------------------------------------------------------------------ parts

    def _learning_rate(self, step: int) -> float:
        options = self.options
        return optimise.learning_rate(
            step, peak=options.learning_rate, warmup_steps=options.warmup_steps, steps=options.steps
        )

    def _make_batch(self, step: int) -> Batch:
        items = self.order.batch(step, size=self.options.batch_size)
        return make_batch(self.fields, self.pairs, items, pin=self.device.type == "cuda")

    def _load_fields(self) -> None:
        used = self.pairs.used_times
        if self.validation:
            used = np.union1d(used, self.validation[0].used_times)
        if self.fields.bytes_needed(used) <= _MEMORY_SHARE * available_memory():
            self.fields.load(used)

    def _autocast(self) -> Any:
        if self.options.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _stop_not_finite(self, loss: float, norm: float, items: Items) -> None:
        kept = self.save("step") if self.step else checkpoint.newest(self.config.paths.checkpoints)
        named = ", ".join(self.pairs.describe(s, e) for s, e in zip(items.start.tolist(), items.lead.tolist()))
        raise ValueError(
            f"loss and gradient must be finite, got loss {loss:g} and gradient norm {norm:g} at step {self.step} "
            f"for the batch {named}; the parameters before this step are kept in {kept}; look at these times, "
            "or lower training.learning_rate"
        )


def forecast_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that forecasts use: the best by validation, or the last where nothing was validated."""
    return checkpoint.newest(folder, tag="best") or checkpoint.newest(folder)


class _StopSignal:
    """Remembers that the process was asked to end."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.seen = True


@contextmanager
def stop_signal() -> Iterator[_StopSignal]:
    """Turn SIGTERM (which SLURM sends before it takes a machine away) into a flag while the context lasts."""
    stopping = _StopSignal()
    before = signal.signal(signal.SIGTERM, stopping)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before)
