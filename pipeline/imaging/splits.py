"""Which images train, choose and judge the model: whole images, since neighbouring tiles know one another.

Contract: pure functions of the names of the images and the configuration; the same names give the same splits whatever
their order. The normals keep the lists in their contract.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.imaging.sections import Splits


@dataclass(frozen=True)
class SplitNames:
    """Names of the images of each split, in the order of the store."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def of(self, split: str) -> tuple[str, ...]:
        """The images of one split, by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]

    def describe(self) -> dict[str, list[str]]:
        """JSON-ready, for contracts."""
        return {"train": list(self.train), "validation": list(self.validation), "test": list(self.test)}


def assign(names: Sequence[str], splits: Splits) -> SplitNames:
    """Assign images to splits.

    Args:
        names: of the images, each once.
        splits: shares, or lists of names or patterns.

    Raises:
        ValueError: a name or pattern that fits no image, an image in two splits, or a split for training or testing
            without an image.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    listed = {key: part for key, part in parts.items() if isinstance(part, list)}
    shares = {key: part for key, part in parts.items() if isinstance(part, float)}
    chosen = _listed(names, listed) if listed else _shares(names, shares, seed=splits.seed)
    found = SplitNames(**{key: tuple(name for name in names if name in chosen[key]) for key in parts})
    for key in ("train", "test"):
        if not found.of(key):
            raise ValueError(
                f"data.splits.{key} must hold at least one image, got none of {len(names)}; add images, cut a scene "
                "into data.blocks, or change the shares"
            )
    return found


def _listed(names: Sequence[str], listed: dict[str, list[str]]) -> dict[str, set[str]]:
    chosen: dict[str, set[str]] = {}
    for key, patterns in listed.items():
        chosen[key] = set()
        for pattern in patterns:
            fitting = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
            if not fitting:
                raise ValueError(
                    f"data.splits.{key} must name images of the store, got {pattern!r}; it has {', '.join(names[:5])}"
                    f"{' and more' if len(names) > 5 else ''}"
                )
            chosen[key] |= fitting
    keys = list(chosen)
    for i, one in enumerate(keys):
        for other in keys[i + 1 :]:
            if both := sorted(chosen[one] & chosen[other]):
                raise ValueError(f"data.splits must hold each image once, got {both[0]!r} in {one} and {other}")
    return chosen


def _shares(names: Sequence[str], shares: dict[str, float], *, seed: int) -> dict[str, set[str]]:
    """Images in the order of a hash of seed and name, dealt out by shares; a share above 0 gets at least one."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest())
    chosen: dict[str, set[str]] = {}
    for key in ("test", "validation", "train"):
        last = key == "train" and sum(shares.values()) > 1 - 1e-9
        count = len(order) if last else max(1, round(shares[key] * len(names))) if shares[key] else 0
        chosen[key], order = set(order[:count]), order[count:]
    return chosen
