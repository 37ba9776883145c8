"""How the large arrays of a store are cut: slabs along the first dimension, each one shard of every array.

Contract: pure arithmetic; no file is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ArraySpec:
    """A large array of a store.

    Args:
        dims: names of the dimensions, the slab dimension first.
        shape: full shape.
        chunks: shape of the smallest piece that can be read alone; the shard is one slab, everything else whole.
        dtype: NumPy dtype name.
        attrs: attributes, e.g. units.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str = "float32"
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def shard(self, slab_size: int) -> tuple[int, ...]:
        """Shape of one shard: a slab long, every other dimension rounded up to whole chunks."""
        whole = [-(-size // chunk) * chunk for size, chunk in zip(self.shape[1:], self.chunks[1:], strict=True)]
        return (-(-slab_size // self.chunks[0]) * self.chunks[0], *whole)


@dataclass(frozen=True)
class Slab:
    """A piece of the slab dimension, [start, stop)."""

    index: int
    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """For indexing."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def slabs(length: int, size: int) -> list[Slab]:
    """The slabs of a dimension."""
    return [Slab(i, start, min(start + size, length)) for i, start in enumerate(range(0, length, size))]
