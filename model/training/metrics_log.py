"""What a run reports: metrics.jsonl, a copy for TensorBoard, a progress bar.

Contract: one JSON object a line with "kind" and "step" (steps done). A resumed run first cuts the file to the step
it resumes from, so that the file never holds a step twice; a line cut short by a kill is dropped with the rest.
TensorBoard shows a copy, which never decides anything.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from pipeline import files
from pipeline.console import MinuteLine, duration


class MetricsLog:
    """Appends records to a file.

    Args:
        path: the file; made with its folder at the first record.
        silent: write nothing (ranks other than the first).
        events: folder of a copy for TensorBoard, None for none; see `has_tensorboard`.
    """

    def __init__(self, path: Path, *, silent: bool = False, events: Path | None = None) -> None:
        self.path, self._silent, self._folder = path, silent, events
        self._file: TextIO | None = None
        self._events: Any = None
        self._first = 0

    def write(self, kind: str, *, step: int, **values: Any) -> None:
        """Append a record."""
        if self._silent:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a")
        self._file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        if self._folder is not None:
            if self._events is None:
                from torch.utils.tensorboard import SummaryWriter

                self._events = SummaryWriter(str(self._folder), purge_step=self._first)
            for name, value in _flat(values, prefix=kind):
                self._events.add_scalar(name, value, global_step=step)

    def flush(self) -> None:
        """Bring everything to the disk; called before each checkpoint."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._events is not None:
            self._events.flush()

    def cut(self, step: int) -> None:
        """Drop every record after a step; TensorBoard hides its own."""
        self.close()
        self._first = step + 1
        if self.path.exists() and not self._silent:
            kept = [record for record in read_metrics(self.path) if record["step"] <= step]
            files.write_text(self.path, "".join(json.dumps(record) + "\n" for record in kept))

    def close(self) -> None:
        """Close the files; a later record opens them again."""
        for file in (self._file, self._events):
            if file is not None:
                file.close()
        self._file = self._events = None


def has_tensorboard() -> bool:
    """Whether TensorBoard is installed; it is an extra."""
    return importlib.util.find_spec("tensorboard") is not None


def _flat(values: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, float]]:
    """Numbers of nested mappings with their paths."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, prefix=f"{prefix}/{name}")
        elif isinstance(value, int | float):
            yield f"{prefix}/{name}", float(value)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, in order; a last line cut short is left out.

    Raises:
        ValueError: a line before the last is not JSON.
    """
    lines = files.read_text(path).splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(
                    f"metrics must hold one JSON object a line, got {path}, line {number}: {error}"
                ) from None
    return records


class TrainingBar:
    """Loss, samples per second and time left; a line a minute where there is no terminal.

    Args:
        console: where to.
        total: steps of the whole run.
        done: steps done before.
        batch_size: samples a step.
        passes: how often the network is applied in a step, by the share of the training that is over; steps take
            time in proportion to it.
        seconds: time that is left for training where that is limited.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        done: int,
        batch_size: int,
        passes: Callable[[float], int] = lambda _: 1,
        seconds: float | None = None,
    ) -> None:
        self._console, self._total, self._batch_size, self._done = console, total, batch_size, done
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._passes = list(accumulate((passes(step / total) for step in range(total)), initial=0))
        columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("train", total=total, completed=done, text="")
        self._began, self._line = time.monotonic(), MinuteLine(done=done)

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, step: int, *, loss: float) -> None:
        """After a step."""
        now = time.monotonic()
        rate = (step - self._done) / max(now - self._began, 1e-9)
        passed = self._passes[step] - self._passes[self._done]
        left = (self._passes[-1] - self._passes[step]) / passed * (now - self._began)
        left = left if self._ends is None else max(0.0, min(left, self._ends - now))
        text = f"loss {loss:.4f}, {rate * self._batch_size:.1f} samples/s, {duration(left)} left"
        self._progress.update(self._task, completed=step, text=text)
        if not self._console.is_terminal and self._line.due(step) is not None:
            self._console.print(f"train: step {step} of {self._total}, {text}", highlight=False)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(f"train: {text}", highlight=False)
