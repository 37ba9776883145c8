"""Rows of a tensor that a rank holds, in the form that torch.distributed.checkpoint reads and writes.

Contract: a parameter of the channel stage exists once, with one row (or block of rows) per channel or unit; a rank
of the channel axis holds some of them, in any pattern, and FSDP may cut those again over the data axis. `RowPart`
says which, so that a checkpoint written by any number of ranks is read by any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorProperties
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset


class RowPart:
    """Some rows of a tensor cut along its first dim.

    Args:
        held: what this rank (or its group on the data axis, as a DTensor) holds.
        total: rows of the whole tensor.
        rows: which row of the whole each row of `held` is, increasing.

    Attributes:
        shape: of the whole tensor.
    """

    def __init__(self, held: Tensor, *, total: int, rows: Sequence[int]) -> None:
        self.shape = torch.Size((total, *held.shape[1:]))
        local, mine = held, list(rows)
        if isinstance(held, DTensor):
            local = held.to_local()
            _, offset = compute_local_shape_and_global_offset(held.shape, held.device_mesh, held.placements)
            mine = mine[offset[0] : offset[0] + local.shape[0]]
        local = local.detach()
        breaks = [i for i in range(1, len(mine)) if mine[i] != mine[i - 1] + 1]
        edges = [0, *breaks, len(mine)] if mine else []
        self._runs = {mine[a]: local[a:b] for a, b in pairwise(edges)}

    def run_at(self, index: MetadataIndex) -> Tensor:
        """The consecutive rows that an index means."""
        assert index.offset is not None
        return self._runs[index.offset[0]]

    def __create_write_items__(self, fqn: str, _object: object) -> list[WriteItem]:
        """What this rank writes."""
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=chunk, properties=TensorProperties.create_from_tensor(run), size=self.shape
                ),
            )
            for chunk, run in zip(self.__create_chunk_list__(), self._runs.values(), strict=True)
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        """What this rank wants to read."""
        rest = (0,) * (len(self.shape) - 1)
        return [
            ChunkStorageMetadata(offsets=torch.Size((start, *rest)), sizes=run.shape)
            for start, run in self._runs.items()
        ]


class SavePlanner(DefaultSavePlanner):
    """The default, which also knows `RowPart`."""

    def lookup_object(self, index: MetadataIndex) -> object:
        """What an index of the plan means."""
        held = self.state_dict[index.fqn]
        return held.run_at(index) if isinstance(held, RowPart) else super().lookup_object(index)


class LoadPlanner(DefaultLoadPlanner):
    """The default for a flat dictionary of tensors that exist already, which also knows `RowPart`."""

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Take the tensors as they are (the default replaces what is no tensor by None)."""
        self.state_dict = self.original_state_dict = state_dict
        self.metadata, self.is_coordinator, self.mappings = metadata, is_coordinator, {}

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        """The tensor to fill."""
        held = self.state_dict[index.fqn]
        return held.run_at(index) if isinstance(held, RowPart) else super().lookup_tensor(index)
