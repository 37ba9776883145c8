"""What a training left behind, for comparing two of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader

from model.training import checkpoint
from model.training.metrics_log import read_metrics
from model.training.trainer import RunFolder


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
