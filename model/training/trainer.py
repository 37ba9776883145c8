"""Training: one loop that reads from top to bottom, can be killed anywhere and resumes where it was.

Contract: the state after step n is a function of the task, the options and the data alone. Sample order, dropout and
augmentation follow from (seed, step, data rank), never from what happened before, so a run resumed from a checkpoint is
bit-identical to one that was not stopped, on the same layout and machine. The same loop runs in plain python and under
torchrun; the loss of a global batch does not depend on the layout. Checkpoints are whole or absent; a loss that is not
finite stops the run before it touches the parameters. A limit in minutes is the one thing that depends on the machine.
"""

from __future__ import annotations

import json
import math
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic

import torch
from rich.console import Console

from model.parallel import launch, wrap
from model.parallel.mesh import CHANNEL, DATA, axis_size, build_mesh, channel_rank, data_rank
from model.training import checkpoint, optimise
from model.training.learner import assemble
from model.training.metrics_log import MetricsLog, TrainingBar, has_tensorboard
from model.training.prefetch import Prefetch
from model.training.step import NotFiniteError, StepResult, training_step
from model.training.task import B, Task
from pipeline import provenance
from pipeline.sections import Training


class RunFolder:
    """Where a run writes: checkpoints, the metrics log, TensorBoard's copy of it, and the lock of who trains.

    Args:
        root: folder of the run.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints, self.events = root / "checkpoints", root / "tensorboard"
        self.metrics, self.lock = root / "metrics.jsonl", root / "train.lock"


@dataclass
class Best:
    """The best validation so far, and how many came after it."""

    step: int = 0
    loss: float = math.inf
    since: int = 0


class Trainer(Generic[B]):
    """The state of a run on this rank, and the loop over it.

    Args:
        task: what is trained.
        options: of the training.
        folder: of the run.
        device: of this rank.
        console: for messages and the progress bar.

    Raises:
        ValueError: a batch or channels that the ranks do not divide, or what the task refuses.
    """

    def __init__(
        self, task: Task[B], options: Training, *, folder: RunFolder, device: torch.device, console: Console
    ) -> None:
        self.task, self.options, self.folder, self.console = task, options, folder, console
        self.mesh = build_mesh(channel=options.layout.channel, device_type=device.type)
        plan = wrap.plan_for(task.network, ranks=axis_size(self.mesh, CHANNEL))
        self.data = task.data(
            channels=plan.channels[channel_rank(self.mesh)],
            rank=data_rank(self.mesh),
            ranks=axis_size(self.mesh, DATA),
            pin=device.type == "cuda",
        )
        start = task.start() if checkpoint.newest(folder.checkpoints) is None else None
        if start is not None:
            console.print(f"train: {start[1]}", highlight=False)
        network = start[0] if start else None
        self.learner = assemble(task.network, options, mesh=self.mesh, device=device, seed=options.seed, start=network)
        if options.compile:
            self.learner.network.compile()
        self.step = 0
        self.seconds = 0.0
        self._seconds_of_main = 0.0
        self.best = Best()
        events = folder.events if options.tensorboard and has_tensorboard() else None
        self.log = MetricsLog(folder.metrics, silent=not launch.is_main(), events=events)
        self._waited = 0.0

    def run(self) -> None:
        """Train up to the configured number of steps."""
        options, first = self.options, self.step
        if self.finished:
            return
        if options.tensorboard and not has_tensorboard():
            self.console.print(f"train: TensorBoard is not installed (pip install tensorboard); see {self.log.path}")
        self.data.hold(processes=launch.local_ranks(), progress=launch.is_main())
        batches = Prefetch(self.data.batch, range(self.step, options.steps))
        limit = None if options.minutes is None else 60.0 * options.minutes - self.seconds
        steps = {"total": options.steps, "done": self.step, "batch_size": options.batch_size}
        bar = TrainingBar(self.console, **steps, passes=self.task.passes, seconds=limit)
        began, before, waited = time.perf_counter(), self.seconds, 0.0
        try:
            with bar, launch.stop_signal() as stopping:
                for batch in batches:
                    result = self._train_step(batch, stop=stopping.seen)
                    self.step += 1
                    self.seconds = before + time.perf_counter() - began
                    rate = (self.step - first) * options.batch_size / (self.seconds - before)
                    self._seconds_of_main = result.seconds
                    self._log(result, rate=rate, wait=batches.waited - waited)
                    waited = batches.waited
                    bar.update(self.step, loss=result.loss)
                    last = self.finished
                    if last or self.step % options.validate_every == 0:
                        self._validate(bar)
                        last = last or self.finished
                    if last or result.stop or self.step % options.checkpoint_every == 0:
                        self.save("step")
                    if result.stop and not last:
                        bar.note(f"stopped by a signal after step {self.step}, which is saved; resumes when rerun")
                        raise SystemExit(128 + signal.SIGTERM)
                    if last:
                        break
        finally:
            batches.close()
            self.log.close()
            self._waited = batches.waited
        spent = self.seconds - before
        share = self._waited / max(spent, 1e-9)
        self.console.print(f"train: {spent:.0f} s, {share:.2%} of them waiting for data", highlight=False)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, the time is up, or validation has not improved for long enough."""
        patience = self.options.patience
        limit = math.inf if self.options.minutes is None else 60.0 * self.options.minutes
        return self.step >= self.options.steps or 0 < patience <= self.best.since or self._seconds_of_main >= limit

    def save(self, tag: str) -> Path:
        """Write a checkpoint of the present state; all ranks together."""
        self.log.flush()
        description = {
            **self._identity(),
            **self.task.description,
            "sampler": {"seed": self.options.seed, "next_sample": self.step * self.options.batch_size},
            "best": asdict(self.best) if self.best.step else None,
            "seconds": self.seconds,
            "weights": "average" if self.learner.average else "model",
            "start_from": self.options.start_from,
            "ranks": {axis: axis_size(self.mesh, axis) for axis in (DATA, CHANNEL)},
            "commit": provenance.commit(),
        }
        keep = self.options.keep_checkpoints if tag == "step" else 2
        return checkpoint.save(
            self.folder.checkpoints, self.learner.tensors(), description, tag=tag, step=self.step, keep=keep
        )

    def resume(self) -> None:
        """Take up the newest checkpoint, if there is one, and cut the metrics to its step."""
        newest = checkpoint.newest(self.folder.checkpoints)
        if newest is not None:
            found = checkpoint.load(newest, self.learner.tensors(), expected=self._identity())
            self.step = found["step"]
            self.seconds = self._seconds_of_main = found.get("seconds", 0.0)
            self.best = Best(**found["best"]) if found["best"] else Best()
            self.console.print(f"train: resuming at step {self.step} of {self.options.steps}")
        if launch.is_main():
            checkpoint.clean(self.folder.checkpoints, tag="best", step=self.step)
        self.log.cut(self.step)
        launch.wait_for_ranks()

    def facts(self) -> dict[str, Any]:
        """For the receipt; JSON-ready."""
        learner = self.learner
        rows = learner.network.cut_rows()
        sizes = [
            math.prod((rows[name].total, *p.shape[1:])) if name in rows else p.numel()
            for name, p in learner.parameters.items()
        ]
        cuda = learner.device.type == "cuda"
        return {
            "steps": self.step,
            "parameters": sum(sizes),
            "starts": self.data.samples,
            "epochs": round(self.step * self.options.batch_size / self.data.samples, 3),
            "best_validation": {"step": self.best.step, "loss": self.best.loss} if self.best.step else None,
            "checkpoint": str(checkpoint.best_or_last(self.folder.checkpoints)),
            "seconds": round(self.seconds, 1),
            "share_waiting_for_data": round(self._waited / max(self.seconds, 1e-9), 4),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "threads": torch.get_num_threads(),
        }

    def _train_step(self, batch: B, *, stop: bool) -> StepResult:
        """One step; a loss that is not finite leaves a checkpoint of the state before it and names the batch."""
        done = optimise.reached(self.options, step=self.step, seconds=self._seconds_of_main)
        batch = self.task.used(batch, progress=done / self.options.steps)
        try:
            return training_step(self.learner, self.task, batch, step=self.step, stop=stop, seconds=self.seconds)
        except NotFiniteError as error:
            kept = self.save("step") if self.step else "their initial state"
            raise ValueError(
                f"{error} at step {self.step} for the batch {self.data.describe(self.step)}; the parameters before "
                f"this step are kept in {kept}; look at these samples, or lower training.learning_rate"
            ) from None

    def _validate(self, bar: TrainingBar) -> None:
        """Score the fixed samples with the weights that will be used; keep the best."""
        at_once = self.options.micro_batch or self.options.batch_size // axis_size(self.mesh, DATA)
        with self.learner.evaluating():
            scores = self.task.validate(self.learner.predict, self.data, mesh=self.mesh, at_once=at_once)
        if scores is None:
            return
        self.log.write("validation", step=self.step, **scores)
        if scores["loss"] < self.best.loss:
            self.best = Best(step=self.step, loss=scores["loss"])
            self.save("best")
        else:
            self.best.since += 1
        bar.note(f"step {self.step}: {self.task.summary(scores)}")

    def _log(self, result: StepResult, *, rate: float, wait: float) -> None:
        self.log.write(
            "train",
            step=self.step,
            loss=result.loss,
            gradient_norm=result.gradient_norm,
            learning_rate=optimise.scheduled_rate(self.options, step=self.step - 1, seconds=result.seconds),
            samples_per_second=round(rate, 2),
            wait_seconds=round(wait, 6),
        )

    def _identity(self) -> dict[str, Any]:
        return dict(json.loads(json.dumps({**self.task.identity, "model": self.task.network.to_dict()})))
