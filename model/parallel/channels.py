"""Which rank of the channel axis holds which groups, and so which channels: plain data.

Contract: every rank holds the same number of groups, whole, and so the number of groups is a multiple of
the number of ranks; the number of channels is any. A rank's groups are neighbours, unless another assignment
takes more than a tenth off the largest number of channels on a rank (groups by variable: 15 levels, or one channel).

Letters: C channels, G groups, R ranks of the channel axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.network.groups import Tree

WORTH_MOVING = 0.1


@dataclass(frozen=True)
class ChannelPlan:
    """The assignment of groups to ranks.

    Attributes:
        groups: per rank, indices of its groups, increasing.
        channels: per rank, names of its channels in the order of the tree.
        tokens: per rank, tokens per patch that it sends: its groups, or its channels without partial aggregation.
        order: position of each token of the whole tree among the gathered ones, rank after rank.
    """

    groups: tuple[tuple[int, ...], ...]
    channels: tuple[tuple[str, ...], ...]
    tokens: tuple[int, ...]
    order: tuple[int, ...]


def channel_plan(tree: Tree, *, ranks: int) -> ChannelPlan:
    """Assigns the groups of a tree to ranks.

    Args:
        tree: all groups.
        ranks: R.

    Raises:
        ValueError: the number of groups is not a multiple of the number of ranks.
    """
    num_groups = len(tree.groups)
    if ranks < 1 or num_groups % ranks:
        remedy = "groups belong to the architecture: choose a number that every number of ranks in use divides"
        if num_groups == 1:
            remedy = "a network with one group cannot be cut over channels: use training.layout.data instead"
        raise ValueError(
            f"groups must be a multiple of the channel ranks, got {num_groups} groups on {ranks} ranks; {remedy}"
        )
    sizes = [len(group) for group in tree.groups]
    contiguous = [list(range(r * num_groups // ranks, (r + 1) * num_groups // ranks)) for r in range(ranks)]
    balanced = _balanced(sizes, ranks)
    gain = 1 - _largest(balanced, sizes) / _largest(contiguous, sizes)
    assigned = balanced if gain > WORTH_MOVING else contiguous
    parts = [tree.keep(tree.channels[c] for g in groups for c in tree.groups[g]) for groups in assigned]
    sent = [
        part_groups if tree.levels else kept.channels for part_groups, (_, kept) in zip(assigned, parts, strict=True)
    ]
    position = {token: i for i, token in enumerate(token for tokens in sent for token in tokens)}
    return ChannelPlan(
        groups=tuple(tuple(groups) for groups in assigned),
        channels=tuple(part.channels for part, _ in parts),
        tokens=tuple(len(tokens) for tokens in sent),
        order=tuple(position[token] for token in range(len(position))),
    )


def _balanced(sizes: list[int], ranks: int) -> list[list[int]]:
    """Largest group first to the rank with the fewest channels so far that may take another."""
    most = len(sizes) // ranks
    assigned: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for group in sorted(range(len(sizes)), key=lambda g: (-sizes[g], g)):
        rank = min((r for r in range(ranks) if len(assigned[r]) < most), key=lambda r: (load[r], r))
        assigned[rank].append(group)
        load[rank] += sizes[group]
    return [sorted(groups) for groups in assigned]


def _largest(assigned: list[list[int]], sizes: list[int]) -> int:
    return max(sum(sizes[g] for g in groups) for groups in assigned)
