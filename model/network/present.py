"""Which channels a pass of the encoder reads: some of those held, or all but those hidden on every rank.

Contract: an absent channel is not zero: units spread over those present, and a group of which nothing is present sends
no token into the merge. On several ranks every rank must send the same number of tokens whatever is hidden, so there an
empty group runs on its first channel and its token is dropped after the gather: what went into it gets a gradient of
exactly zero, as the rows of hidden channels do on one rank.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from model.network.channel_stage import TreeIndex
from model.network.groups import Tree
from model.network.tokenise import Rows


@dataclass(frozen=True)
class Present:
    """What a pass reads.

    Attributes:
        count: channels of the input.
        order: positions in the input of the channels that run, in the order of the tree; None for all as they are.
        index: the rows of the channel stage; None for all.
        tokens: of those that all ranks send, which go on; None for all.
    """

    count: int
    order: list[int] | None = None
    index: TreeIndex | None = None
    tokens: Rows | None = None

    def take(self, x_BKHW: Tensor) -> Tensor:
        """The channels of an input that run."""
        return x_BKHW if self.order is None else x_BKHW[:, self.order]


def of_named(held: Tree, names: Sequence[str]) -> Present:
    """The channels named, in the order of the input; the others are absent.

    Args:
        held: the tree of this rank.
        names: of its channels.
    """
    if tuple(names) == held.channels:
        return Present(len(names))
    small, kept = held.keep(names)
    place = {name: i for i, name in enumerate(names)}
    order = [place[name] for name in small.channels]
    return Present(len(names), order, TreeIndex(small, kept, held=held))


def without(whole: Tree, held: Tree, hidden: Collection[str], *, alone: bool) -> Present:
    """All channels but some, of an input that holds all.

    Args:
        whole: the tree of all ranks.
        held: that of this rank.
        hidden: names of channels of all ranks; others are ignored.
        alone: whether this rank sends its tokens to no other.

    Raises:
        ValueError: nothing is left.
    """
    left = {name for name in whole.channels if name not in set(hidden)}
    if not left:
        raise ValueError(f"at least one of the {len(whole.channels)} channels must be read, got all of them hidden")
    if len(left) == len(whole.channels):
        return Present(len(held.channels))
    run = [name for name in held.channels if name in left]
    tokens = None
    if not alone:
        members = whole.groups if whole.levels else tuple((i,) for i in range(len(whole.channels)))
        tokens = Rows(
            [t for t, group in enumerate(members) if any(whole.channels[c] in left for c in group)],
            total=len(members),
        )
        held_members = held.groups if held.levels else tuple((i,) for i in range(len(held.channels)))
        groups = [[held.channels[c] for c in group] for group in held_members]
        run += [names[0] for names in groups if not left.intersection(names)]
    small, kept = held.keep(run)
    order = [held.channels.index(name) for name in small.channels]
    return Present(len(held.channels), order, TreeIndex(small, kept, held=held), tokens)
