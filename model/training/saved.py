"""Which checkpoints a run has: names and folders only, so that asking does not load torch.

Contract: a checkpoint is a folder `<tag>-<step>` with `checkpoint.json`; `model.training.checkpoint` writes and reads
it.
"""

from __future__ import annotations

import re
from pathlib import Path

DESCRIPTION = "checkpoint.json"
"""File of a checkpoint that says what it belongs to; written last."""
_NAME = re.compile(r"^(?P<tag>[a-z]+)-(?P<step>\d{9})$")


def saved(folder: Path, *, tag: str = "step") -> list[Path]:
    """The checkpoints of a tag, by increasing step."""
    if not folder.exists():
        return []
    matches = [(m, p) for p in folder.iterdir() if (m := _NAME.match(p.name)) and (p / DESCRIPTION).exists()]
    return sorted((p for m, p in matches if m["tag"] == tag), key=lambda p: p.name)


def newest(folder: Path, *, tag: str = "step") -> Path | None:
    """The checkpoint of the highest step, or None."""
    found = saved(folder, tag=tag)
    return found[-1] if found else None


def best_or_last(folder: Path) -> Path | None:
    """The checkpoint that forecasts use: the best by validation, or the last where nothing was validated."""
    return newest(folder, tag="best") or newest(folder)


def to_use(folder: Path) -> Path:
    """The checkpoint that forecasts use, where there must be one.

    Raises:
        ValueError: nothing has been trained.
    """
    found = best_or_last(folder)
    if found is None:
        raise ValueError(f"a checkpoint must exist in {folder}, got none; run python -m pipeline train")
    return found
