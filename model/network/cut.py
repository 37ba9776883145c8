"""How a network declares that it may be cut over ranks, so that what cuts it names none of its parts.

Contract: a network is one class on one rank and on many. It says which rows of which parameters a channel rank holds,
which stacks of blocks may be cut by heads and hidden features, and which parts are gathered by themselves where
parameters are sharded. A network with nothing to declare is replicated on every rank.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from model.network.groups import Tree


@dataclass(frozen=True)
class CutRows:
    """Rows of a parameter: `total` in the whole model along the first dim, and which of them row i here is."""

    total: int
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Stack:
    """Equal blocks over (B, L, D) that may be cut over the channel ranks, by the names of their parts.

    Attributes:
        module: holds the blocks; called with (B, L, D).
        blocks: in order.
        columns: linear layers of a block whose outputs may be cut (by heads, by hidden features).
        rows: linear layers of a block whose inputs are cut in the same way.
        norms: norms of a block.
        last: norms of the stack after its blocks.
        modulations: layers of a block whose (B, D') output, the same for all patches, meets its activations.
    """

    module: nn.Module
    blocks: Sequence[nn.Module]
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    norms: tuple[str, ...]
    last: tuple[str, ...]
    modulations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unit:
    """A part whose parameters are gathered by themselves where they are sharded.

    Attributes:
        module: the part.
        methods: called instead of `forward`.
    """

    module: nn.Module
    methods: tuple[str, ...] = ()


class Network(nn.Module):
    """A network, or the part of it that a rank of the channel axis holds.

    Attributes:
        config: what it computes.
        gather: called with the tokens of the groups held, (T, N, D), must return those of all groups in group order.
            The identity unless a wrapper sets it.
        spread: called with values that all ranks hold and from which each goes on for its own channels alone; gives
            them back, and sums their gradient over the ranks. The identity unless a wrapper sets it.
        total: called with values of which each rank has a part; gives their sum. The identity unless a wrapper sets it.
            Nothing else crosses ranks inside a network.
    """

    config: Any
    gather: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor], Tensor]
    total: Callable[[Tensor], Tensor]

    @property
    @abstractmethod
    def channels_held(self) -> tuple[str, ...]:
        """Names of the channels that `forward` expects here, in order."""

    @abstractmethod
    def reset_parameters(self, *, seed: int) -> None:
        """Set every parameter to its start, a function of the seed alone: not of ranks or of the channels held."""

    def set_recompute(self, on: bool) -> None:
        """Activation checkpointing, where the network knows how: less memory, more work."""

    def cut_rows(self) -> Mapping[str, CutRows]:
        """Parameters of which this network holds some rows; all others are held whole, by every rank."""
        return {}

    def stacks(self) -> Sequence[Stack]:
        """Stacks of blocks that may be cut over the channel ranks."""
        return ()

    def units(self) -> Sequence[Unit]:
        """Parts that are gathered by themselves, in order of use; what is left is gathered with the whole."""
        return ()

    def parts(self) -> Sequence[tuple[str, nn.Module]]:
        """Parts that a plan tells apart, by what they do, outer ones before those inside."""
        return ()


class NetworkConfig(Protocol):
    """What defines a network's function; nothing about ranks.

    Attributes:
        channels: input channels by name, in input order.
        image: (H, W) of the grid it is built for.
    """

    @property
    def channels(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def image(self) -> tuple[int, int]: ...  # noqa: D102

    def channel_tree(self) -> Tree:
        """Channels and their groups, which channel ranks hold whole."""

    def build(self, *, groups: Sequence[int] | None = None, seed: int | None = 0) -> Network:
        """The network, or the part with some groups; a seed of None leaves parameters uninitialised."""

    def stack_sizes(self) -> Mapping[str, int]:
        """What the channel ranks must divide where stacks are cut: by name, e.g. heads; empty without stacks."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that the config can be made from again, also after a trip through JSON."""
