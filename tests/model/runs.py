"""What a training left behind, for comparing two of them, and the memory it took."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader

from benchmarks.support.measure import tensor_peak
from model.parallel.launch import process_group
from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.training.trainer import RunFolder, Trainer


def saved_tensors(folder: Path, *, tag: str = "step") -> dict[str, Tensor]:
    """All tensors of the newest checkpoint in the folder of a run."""
    path = checkpoint.newest(RunFolder(folder).checkpoints, tag=tag)
    assert path is not None
    names = FileSystemReader(path).read_metadata().state_dict_metadata
    into = {name: torch.zeros(entry.size, dtype=entry.properties.dtype) for name, entry in names.items()}
    checkpoint.load(path, into, expected={})
    return into


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal to the bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def curve(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run without what depends on the clock."""
    clock = ("samples_per_second", "wait_seconds")
    return [{k: v for k, v in r.items() if k not in clock} for r in read_metrics(RunFolder(folder).metrics)]


def losses(folder: Path, kind: str | None = None) -> list[float]:
    """Losses of a run in order, of one kind of record or of all."""
    return [r["loss"] for r in read_metrics(RunFolder(folder).metrics) if kind in (None, r["kind"])]


def equal_runs(a: Path, b: Path) -> bool:
    """Whether two runs ended in the same state and logged the same."""
    checkpoints = all(same(saved_tensors(a, tag=tag), saved_tensors(b, tag=tag)) for tag in ("step", "best"))
    return checkpoints and curve(a) == curve(b)


def training_peak(make: Callable[[], Trainer[Any]]) -> int:
    """Peak of the tensors of a training on one rank that writes no checkpoints [bytes]."""

    def work() -> None:
        with process_group(world_size=1):
            make().run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda *_, **__: Path())
        return tensor_peak(work)
