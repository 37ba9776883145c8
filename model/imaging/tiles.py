"""Samples: tiles of images with what is hidden from each, as tensors.

Contract: all samples of a batch have as many visible patches, and the same bands hidden: ranges of bands are drawn for
a whole step of the training, so that a pass reads the same channels of all its samples.

Letters: B batch, K bands of this rank, Y/X pixels of a tile, L patches, M visible, Q predicted, P pixels of a patch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """Samples of one data rank.

    Attributes:
        x: (B, K, Y, X) normalised reflectance, zero where invalid.
        valid: (B, K, Y, X) where it counts.
        visible: (B, M) positions of the patches that are read.
        predicted: (B, Q) of those that are predicted: the hidden ones, or all where bands are hidden.
        hides: (B, Q) whether a predicted patch is hidden.
        band_hidden: (K,) whether a band of this rank is hidden.
        hidden: names of the hidden bands of all ranks.
    """

    x: Tensor
    valid: Tensor
    visible: Tensor
    predicted: Tensor
    hides: Tensor
    band_hidden: Tensor
    hidden: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.x)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, for counting their memory."""
        return self.x, self.valid, self.visible, self.predicted, self.hides, self.band_hidden

    def to(self, device: torch.device, dtype: torch.dtype) -> Tiles:
        """The same on a device, its reflectance in a type; without waiting where the memory is pinned."""
        others = {name: getattr(self, name).to(device, non_blocking=True) for name in _OTHERS}
        return replace(self, x=self.x.to(device, dtype, non_blocking=True), **others)

    def split(self, size: int | None) -> Iterator[Tiles]:
        """Parts of at most `size` samples, in order; the whole for None."""
        for first in range(0, len(self), size or len(self)):
            part = slice(first, first + (size or len(self)))
            yield replace(self, **{name: getattr(self, name)[part] for name in _PER_SAMPLE})

    def pinned(self) -> Tiles:
        """The same in page-locked memory, for a GPU."""
        return replace(self, x=self.x.pin_memory(), **{name: getattr(self, name).pin_memory() for name in _OTHERS})


_PER_SAMPLE = ("x", "valid", "visible", "predicted", "hides")
_OTHERS = ("valid", "visible", "predicted", "hides", "band_hidden")


def cut_patches(fields_BKYX: Tensor, *, patch: int, wanted_BQ: Tensor) -> Tensor:
    """Pixels of some patches, row by row: (B, Q, K, P).

    Args:
        fields_BKYX: whole tiles.
        patch: side of a patch [pixels].
        wanted_BQ: positions of the patches, row by row.
    """
    B, K, Y, X = fields_BKYX.shape
    cut = fields_BKYX.view(B, K, Y // patch, patch, X // patch, patch).permute(0, 2, 4, 1, 3, 5)
    rows_BQ, columns_BQ = wanted_BQ // (X // patch), wanted_BQ % (X // patch)
    sample_B1 = torch.arange(B, device=fields_BKYX.device).unsqueeze(1)
    return cut[sample_B1, rows_BQ, columns_BQ].flatten(3)


def join_patches(patches_BLKP: Tensor, *, patch: int, grid: tuple[int, int]) -> Tensor:
    """All patches, row by row, back to tiles: (B, L, K, P) to (B, K, Y, X)."""
    B, _, K, _ = patches_BLKP.shape
    whole = patches_BLKP.view(B, *grid, K, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return whole.reshape(B, K, grid[0] * patch, grid[1] * patch)
