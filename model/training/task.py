"""What the trainer knows of a workload.

Contract: trainer, checkpoints, metrics log, planner and rehearsal work on a `Task` and know nothing else of what is
trained. A task holds what the whole run shares; `data` opens what one rank reads. Everything that a rank does with the
others goes through the mesh that it is given, so one rank and many compute the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor

from model.network.cut import Network, NetworkConfig
from model.parallel.mesh import DeviceMesh

Predict = Callable[..., Tensor]
"""The network under the run's precision: called as the network is."""


class Batch(Protocol):
    """Samples of one data rank, as far as the trainer handles them."""

    def __len__(self) -> int:
        """Number of samples."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """The same on a device, its fields in a type; without waiting where the memory is pinned."""

    def split(self, size: int | None) -> Iterator[Self]:
        """Parts of at most `size` samples, in order; the whole for None."""

    def tensors(self) -> Sequence[Tensor]:
        """All tensors, for counting their memory."""


B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


class TrainingData(Protocol[B_co]):
    """What one rank reads."""

    @property
    def samples(self) -> int:
        """Samples of one epoch, of all ranks."""

    def batch(self, step: int) -> B_co:
        """This data rank's part of a step's global batch: a function of the step, called from several threads."""

    def hold(self, *, processes: int, progress: bool) -> None:
        """Read into memory what fits.

        Args:
            processes: that share this machine's memory.
            progress: show a bar.
        """

    def describe(self, step: int) -> str:
        """The samples of a step's global batch, as messages name them."""


class PlannedTask(Protocol[B]):
    """What the memory planner needs of a workload; no data need exist."""

    @property
    def network(self) -> NetworkConfig:
        """The network: how it is built, and how it may be cut."""

    def loss(self, predict: Predict, batch: B, *, mesh: DeviceMesh) -> Tensor:
        """Mean loss of some samples of this rank, in float32 at least."""

    def example(self, samples: int, *, channels: Sequence[str], device: torch.device, dtype: torch.dtype) -> B:
        """A batch of the right shapes."""

    def validation_samples(self) -> int:
        """How many fixed samples a validation has, 0 for none."""


class Task(PlannedTask[B], Protocol[B]):
    """One workload, ready to be trained."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a checkpoint must agree with to be resumed here; JSON-ready."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What else a checkpoint should say, e.g. the configuration; JSON-ready."""

    def start(self) -> tuple[Network, str] | None:
        """A whole network to begin with instead of random numbers, and a line that says so; None for none."""

    def data(self, *, channels: Sequence[str], rank: int, ranks: int, pin: bool) -> TrainingData[B]:
        """Open what one rank reads.

        Args:
            channels: input channels of this rank.
            rank: position on the data axis.
            ranks: its length.
            pin: batches in page-locked memory, for a GPU.
        """

    def used(self, batch: B, *, progress: float) -> B:
        """The part of a batch that a step uses, where that changes in the course of the training.

        Args:
            batch: from `data`.
            progress: share of the training that is over, by steps or by time; the same on all ranks.
        """

    def passes(self, progress: float) -> int:
        """How often a step applies the network to each sample, where that changes in the course of the training.

        Args:
            progress: share of the training that is over, as for `used`.
        """

    def validate(self, predict: Predict, data: Any, *, mesh: DeviceMesh, at_once: int) -> dict[str, Any] | None:
        """Scores of fixed samples with "loss" among them, equal on all ranks; None where nothing is validated.

        Args:
            predict: with the weights that will be used.
            data: from `data`.
            mesh: of the ranks, over which the samples are divided.
            at_once: most samples of one forward pass.
        """

    def summary(self, scores: Mapping[str, Any]) -> str:
        """Scores of a validation in one line."""
