"""Training: one loop that reads from top to bottom, can be killed anywhere and goes on where it was.

Contract: the state after step n is a function of the configuration and the data alone. Sample order, dropout and
augmentation follow from (seed, step, data rank), never from what happened before, so a run resumed from a
checkpoint is bit-identical to one that was not stopped, on the same layout and machine. The same loop runs in plain
python and under torchrun; the loss of a global batch does not depend on the layout. Checkpoints are whole or absent;
a loss that is not finite stops the run before it touches the parameters.

Letters: B batch, C input channels, V predicted channels, K predicted channels read by this rank, H/W grid.
"""

from __future__ import annotations

import json
import math
import signal
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from model.curves import draw_curves
from model.dchag import DCHAG
from model.parallel import launch, wrap
from model.parallel.collectives import local_tensor
from model.parallel.mesh import CHANNEL, DATA, axis_size, build_mesh, channel_rank, data_rank
from model.parallel.rows import RowPart
from model.parallel.targets import whole_target
from model.training import checkpoint, optimise
from model.training.learner import assemble
from model.training.metrics_log import MetricsLog, TrainingBar, has_tensorboard
from model.weather.architecture import model_config
from model.weather.fields import Fields
from model.weather.loss import weighted_mse
from model.weather.samples import Batch, Items, Pairs, Prefetch
from model.weather.training_data import TrainingData
from model.weather.validation import Sums, add_fixed
from model.weights.start import starting_model
from pipeline import files, provenance
from pipeline.grid import Grid
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel


def run_train(config: WeatherConfig) -> None:
    """Train the model of a configuration, or go on where an earlier call was stopped.

    Raises:
        ValueError: an earlier stage is missing, the data do not fit the configuration, the number of ranks is not
            the layout's, or the loss is not finite.
    """
    paths, console = config.paths, Console(stderr=True, soft_wrap=True, quiet=not launch.is_main())
    newest = checkpoint.newest(paths.checkpoints)
    if paths.receipt("train").exists() and newest is not None:
        console.print(f"train: already complete, {newest}")
        return
    Normals.open(paths.normals)  # an earlier stage that is missing is named before anything is written
    with (
        launch.process_group(world_size=config.training.layout.world_size) as device,
        files.lock(paths.train / "train.lock") if launch.is_main() else nullcontext(),
    ):
        trainer = Trainer(config, device=device, console=console)
        trainer.resume()
        trainer.run()
        if launch.is_main():
            label = trainer.fields.contract["source"]["label"]
            figure = draw_curves(paths.metrics, paths.train / "curves.png", label=label)
            outputs = [paths.checkpoints, paths.metrics, figure]
            provenance.write_receipt(config, stage="train", outputs=outputs, facts=trainer.facts())


@dataclass
class Best:
    """The best validation so far, and how many came after it."""

    step: int = 0
    loss: float = math.inf
    since: int = 0


class Trainer:
    """The state of a run on this rank, and the loop over it.

    Args:
        config: the experiment.
        device: of this rank.
        console: for messages and the progress bar.

    Raises:
        ValueError: a lead without pairs, or a batch or channels that the ranks do not divide.
    """

    def __init__(self, config: WeatherConfig, *, device: torch.device, console: Console) -> None:
        self.config, self.device, self.console = config, device, console
        options = config.training
        self.options = options
        self.mesh = build_mesh(channel=options.layout.channel, device_type=device.type)
        normals = Normals.open(config.paths.normals)
        everything = Fields(config.paths.store, normals)  # names and sizes alone
        self.shape = model_config(
            config.model, channels=everything.channels, static_channels=everything.static_channels,
            image=everything.grid_shape,
        )  # fmt: skip
        self.plan = wrap.plan_for(self.shape, ranks=axis_size(self.mesh, CHANNEL))
        own = self.plan.channels[channel_rank(self.mesh)]
        self.data = TrainingData(
            config, normals=normals, channels=own, rank=data_rank(self.mesh), ranks=axis_size(self.mesh, DATA),
            pin=device.type == "cuda",
        )  # fmt: skip
        self.fields = self.data.fields
        grid = Grid(self.fields.coords["latitude"].values, self.fields.coords["longitude"].values)
        self.area_HW = torch.from_numpy(grid.area_weights).float().to(device)
        named = [(c.name, c.variable, c.level) for c in map(parse_channel, self.shape.out_channels)]
        rows = normals.channel_indices(self.shape.out_channels)
        self.std = normals.std[rows]
        self.channel_V = optimise.channel_weights(
            named, weights=options.channel_weights, pressure_weighted=options.pressure_weighted,
            factors=((self.std / normals.anomaly_std[rows]) ** 2).tolist() if options.anomaly_weighted else None,
        ).to(device)  # fmt: skip
        start = self._start(config.paths.checkpoints)
        learner = assemble(self.shape, options, mesh=self.mesh, device=device, seed=options.seed, start=start)
        self.model, self.parameters, self.dtype = learner.model, learner.parameters, learner.dtype
        self.optimiser, self.average = learner.optimiser, learner.average
        if options.compile:
            self.model.compile()
        self.step = 0
        self.best = Best()
        self.log = MetricsLog(
            config.paths.metrics, silent=not launch.is_main(),
            events=config.paths.train / "tensorboard" if options.tensorboard and has_tensorboard() else None,
        )  # fmt: skip
        self._seconds = self._waited = 0.0

    # ------------------------------------------------------------------ the loop

    def run(self) -> None:
        """Train up to the configured number of steps."""
        options, first = self.options, self.step
        if self.finished:
            return
        if options.tensorboard and not has_tensorboard():
            self.console.print(f"train: TensorBoard is not installed (pip install tensorboard); see {self.log.path}")
        self.data.hold(processes=launch.local_ranks(), progress=self.console.is_terminal and launch.is_main())
        batches = Prefetch(self.data.batch, range(self.step, options.steps))
        bar = TrainingBar(self.console, total=options.steps, done=self.step, batch_size=options.batch_size)
        began, waited = time.perf_counter(), 0.0
        try:
            with bar, launch.stop_signal() as stopping:
                for batch in batches:
                    loss, norm, stop = self._train_step(batch, stop=stopping.seen)
                    self.step += 1
                    rate = (self.step - first) * options.batch_size / (time.perf_counter() - began)
                    self.log.write("train", step=self.step, loss=loss, gradient_norm=norm,
                                   learning_rate=self._learning_rate(self.step - 1),
                                   samples_per_second=round(rate, 2),
                                   wait_seconds=round(batches.waited - waited, 6))  # fmt: skip
                    waited = batches.waited
                    bar.update(self.step, loss=loss)
                    fixed = self.data.validation
                    if fixed and (self.finished or self.step % options.validate_every == 0):
                        bar.note(self._validate(*fixed))
                    last = self.finished
                    if last or stop or self.step % options.checkpoint_every == 0:
                        self.save("step")
                    if stop and not last:
                        bar.note(f"stopped by a signal after step {self.step}, which is saved; run it again to go on")
                        raise SystemExit(128 + signal.SIGTERM)
                    if last:
                        break
        finally:
            batches.close()
            self.log.close()
            self._seconds, self._waited = time.perf_counter() - began, batches.waited
        share = self._waited / max(self._seconds, 1e-9)
        self.console.print(f"train: {self._seconds:.0f} s, {share:.2%} of them waiting for data", highlight=False)

    def _train_step(self, batch: Batch, *, stop: bool) -> tuple[float, float, bool]:
        """One optimiser step on the global batch.

        Args:
            batch: this data rank's part.
            stop: whether this rank was asked to end.

        Returns:
            Loss and norm of its gradient before clipping, of the global batch, and whether any rank was asked to end.
        """
        options = self.options
        self.model.train()
        torch.manual_seed(optimise.step_seed(options.seed, self.step, data_rank=data_rank(self.mesh)))
        batch = batch.to(self.device, self.dtype)
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in batch.split(options.micro_batch):
            y, target = self._predict(part)
            share = weighted_mse(y, target, area_HW=self.area_HW, channel_V=self.channel_V)
            share = share * (len(part.x) / len(batch.x))
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
        norm = wrap.gradient_norm(self.model, mesh=self.mesh).item()
        ranks = self.mesh.size()
        told = torch.stack([loss / ranks, loss.new_tensor(float(stop))])
        value, asked = launch.sum_over_ranks(told).tolist()
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._stop_not_finite(value, norm)
        if norm > options.clip_norm:
            wrap.scale_gradients(self.model, options.clip_norm / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = self._learning_rate(self.step)
        self.optimiser.step()
        if self.average:
            optimise.update_average(_local(self.average), _local(self.parameters), decay=options.ema_decay,
                                    step=self.step)  # fmt: skip
        return value, norm, asked > 0

    def _predict(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Prediction and target of all predicted channels."""
        with self._autocast():
            y = self.model(batch.x, batch.lead_hours)
        group = self.mesh.get_group(CHANNEL)
        return y, whole_target(batch.target, plan=self.plan, channels=self.shape.out_channels, group=group)

    # ------------------------------------------------------------------ validation

    def _validate(self, pairs: Pairs, items: Items) -> str:
        """Score the fixed pairs with the weights that forecasts will use; returns a line for people."""
        sums = Sums.zero(leads=len(pairs.lead_hours), channels=len(self.shape.out_channels), device=self.device)
        self.model.eval()
        with optimise.averaged_weights(_local(self.parameters), _local(self.average)):
            add_fixed(
                sums, items, lambda some: self._predict(self.data.fixed(some).to(self.device, self.dtype)),
                area_HW=self.area_HW, rank=data_rank(self.mesh), ranks=axis_size(self.mesh, DATA),
                batch_size=self.options.micro_batch or self.options.batch_size // axis_size(self.mesh, DATA),
            )  # fmt: skip
        wrap.drop_gathered(self.model)
        sums.merge(lambda values: launch.sum_over_ranks(values, group=self.mesh.get_group(DATA)))
        scores = sums.scores(
            lead_hours=pairs.lead_hours, channel_V=self.channel_V, channels=self.shape.out_channels,
            std=self.std, shown=self.config.evaluation.variables,
        )  # fmt: skip
        self.log.write("validation", step=self.step, **scores)
        if scores["loss"] < self.best.loss:
            self.best = Best(step=self.step, loss=scores["loss"])
            self.save("best")
        else:
            self.best.since += 1
        skills = ", ".join(f"{hours} h {entry['skill']:+.3f}" for hours, entry in scores["leads"].items())
        return f"step {self.step}: validation loss {scores['loss']:.4f}; skill against climatology at {skills}"

    # ------------------------------------------------------------------ state

    def tensors(self) -> dict[str, Tensor | RowPart]:
        """Everything that a checkpoint holds as tensors, by name; the tensors themselves, not copies."""
        found = {f"model.{name}": p.detach() for name, p in self.parameters.items()}
        found |= {f"average.{name}": t for name, t in self.average.items()}
        found |= checkpoint.optimiser_tensors(self.parameters, self.optimiser)
        return checkpoint.with_rows(found, cut=self.model.cut_rows())

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with to be resumed here."""
        entries = {
            "contract": self.fields.contract,
            "normals": self.fields.normals.digest,
            "model": self.shape.to_dict(),
            "network_input": self.config.model.network_input,
            "splits": self.config.data.splits.model_dump(mode="json"),
        }
        return dict(json.loads(json.dumps(entries)))

    def save(self, tag: str) -> Path:
        """Write a checkpoint of the present state; all ranks together."""
        self.log.flush()
        description = {
            **self.identity(),
            "config": self.config.model_dump(mode="json"),
            "sampler": {"seed": self.options.seed, "next_sample": self.step * self.options.batch_size},
            "best": asdict(self.best) if self.best.step else None,
            "weights": "average" if self.average else "model",
            "start_from": self.options.start_from,
            "ranks": {axis: axis_size(self.mesh, axis) for axis in (DATA, CHANNEL)},
            "commit": provenance.commit(),
        }
        keep = self.options.keep_checkpoints if tag == "step" else 2
        return checkpoint.save(
            self.config.paths.checkpoints, self.tensors(), description, tag=tag, step=self.step, keep=keep
        )

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one, and cut the metrics to its step."""
        folder = self.config.paths.checkpoints
        newest = checkpoint.newest(folder)
        if newest is not None:
            found = checkpoint.load(newest, self.tensors(), expected=self.identity())
            self.step = found["step"]
            self.best = Best(**found["best"]) if found["best"] else Best()
            self.console.print(f"train: going on from step {self.step} of {self.options.steps}")
        if launch.is_main():
            checkpoint.clean(folder, tag="best", step=self.step)
        self.log.cut(self.step)
        launch.wait_for_ranks()

    def facts(self) -> dict[str, Any]:
        """What the receipt says."""
        seconds = max(self._seconds, 1e-9)
        rows = self.model.cut_rows()
        sizes = {n: math.prod((rows[n].total, *p.shape[1:])) if n in rows else p.numel()
                 for n, p in self.parameters.items()}  # fmt: skip
        return {
            "steps": self.step,
            "parameters": sum(sizes.values()),
            "starts": len(self.data.pairs),
            "epochs": round(self.step * self.options.batch_size / len(self.data.pairs), 3),
            "best_validation": {"step": self.best.step, "loss": self.best.loss} if self.best.step else None,
            "checkpoint": str(checkpoint.best_or_last(self.config.paths.checkpoints)),
            "seconds": round(self._seconds, 1),
            "share_waiting_for_data": round(self._waited / seconds, 4),
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
        }

    # ------------------------------------------------------------------ parts

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or validation has not improved for long enough."""
        patience = self.options.patience
        return self.step >= self.options.steps or 0 < patience <= self.best.since

    def _learning_rate(self, step: int) -> float:
        options = self.options
        return optimise.learning_rate(
            step, peak=options.learning_rate, warmup_steps=options.warmup_steps, steps=options.steps
        )

    def _start(self, checkpoints: Path) -> DCHAG | None:
        """The model of `start_from`, at the beginning of a run that asks for one."""
        options = self.options
        if options.start_from is None or checkpoint.newest(checkpoints) is not None:
            return None
        model, taken = starting_model(
            self.shape, Path(options.start_from), seed=options.seed, network_input=self.config.model.network_input,
            climax_channels=options.climax_channels,
        )  # fmt: skip
        self.console.print(f"train: {taken}", highlight=False)
        return model

    def _autocast(self) -> Any:
        if self.options.precision == "bfloat16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _stop_not_finite(self, loss: float, norm: float) -> None:
        kept = self.save("step") if self.step else "their initial state"
        named = self.data.name_batch(self.step)
        raise ValueError(
            f"loss and gradient must be finite, got loss {loss:g} and gradient norm {norm:g} at step {self.step} "
            f"for the batch {named}; the parameters before this step are kept in {kept}; look at these times, "
            "or lower training.learning_rate"
        )


def _local(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: local_tensor(tensor.detach()) for name, tensor in tensors.items()}
