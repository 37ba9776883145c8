"""Channel groups and aggregation trees, as plain data.

Contract: a `Tree` says which channels make a group and which units reduce a group's channel tokens to one
token. Every channel belongs to exactly one group and to exactly one unit of the first level; every unit
belongs to exactly one unit of the level above; the last level has one unit per group, in group order.
Nothing here depends on ranks: a rank's part is `tree.keep(channels)`, and so is a subset of the trained
channels at inference.

Letters: C channels, G groups, U units of a level, M members of a unit.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Members = tuple[tuple[int, ...], ...]
GroupSpec = str | int | tuple[tuple[str, ...], ...]
TreeSpec = str | tuple[int, ...]

_TREE_NAME = re.compile(r"^Tree(\d+)$")


@dataclass(frozen=True)
class Tree:
    """How the tokens of C channels become G group tokens.

    Attributes:
        channels: short names, C of them, in input order.
        groups: per group, indices into `channels`.
        levels: per level, per unit, its members: indices into `channels` for the first level, into the units
            of the level below for the others. Empty when there is no partial aggregation: then each channel
            token goes to the final cross-attention as it is.
        unit_names: per level, per unit, "<group>.<unit in group>": the same on every rank.
    """

    channels: tuple[str, ...]
    groups: Members
    levels: tuple[Members, ...]
    unit_names: tuple[tuple[str, ...], ...]

    @property
    def num_outputs(self) -> int:
        """Tokens per patch that leave the tree: G, or C without partial aggregation."""
        return len(self.levels[-1]) if self.levels else len(self.channels)

    def keep(self, channels: Iterable[str]) -> tuple[Tree, Kept]:
        """The tree over some of its channels.

        Args:
            channels: names to keep, in any order; the order of the tree stays.

        Returns:
            The smaller tree, renumbered (units and groups left without members are gone), and which rows of
            this tree it kept.

        Raises:
            ValueError: a name is unknown or repeated, or none is given.
        """
        names = tuple(channels)
        _check_subset(names, self.channels)
        wanted = set(names)
        kept_channels = tuple(i for i, name in enumerate(self.channels) if name in wanted)
        kept_groups, groups = _restrict(self.groups, kept_channels)
        below = kept_channels
        levels: list[Members] = []
        kept_levels: list[tuple[int, ...]] = []
        for members in self.levels:
            below, level = _restrict(members, below)
            levels.append(level)
            kept_levels.append(below)
        small = Tree(
            channels=tuple(self.channels[i] for i in kept_channels),
            groups=groups,
            levels=tuple(levels),
            unit_names=tuple(
                tuple(row[u] for u in kept) for row, kept in zip(self.unit_names, kept_levels, strict=True)
            ),
        )
        return small, Kept(channels=kept_channels, groups=kept_groups, levels=tuple(kept_levels))


@dataclass(frozen=True)
class Kept:
    """Rows of a larger tree that a smaller one kept, each in increasing order: channels, groups, units per level."""

    channels: tuple[int, ...]
    groups: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Bucket:
    """Units of one level that have the same number of members, so that they are computed as one batch.

    Attributes:
        units: U indices of units, increasing.
        members: U x M indices of their members.
    """

    units: tuple[int, ...]
    members: Members


def build_tree(channels: Sequence[str], *, groups: GroupSpec, tree: TreeSpec) -> Tree:
    """Tree of the named channels.

    Args:
        channels: short names such as "z500", unique.
        groups: "all" (one group: flat ClimaX), a number of contiguous groups whose sizes differ by at most one, or
            the groups listed by channel name.
        tree: "Tree0" (one unit per group), "TreeN" (N units, then one that merges them), the numbers of units
            of all levels but the last, e.g. (8, 2), or "none" (no partial aggregation). A group with fewer
            members than units asked for gets one unit per member.

    Raises:
        ValueError: a specification that names nothing here, or leaves a channel in no group or in two.
    """
    names = tuple(channels)
    if not names:
        raise ValueError("channels must name at least one channel, got none")
    repeated = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) != len(names) else []
    if repeated:
        raise ValueError(f"channels must be unique, got {', '.join(repeated)} more than once")
    group_members = channel_groups(names, groups)
    widths = tree_widths(tree)
    if widths is None:
        return Tree(names, group_members, (), ())
    levels: list[Members] = []
    unit_names: list[tuple[str, ...]] = []
    below = group_members
    for width in (*widths, 1):
        units: list[tuple[int, ...]] = []
        level_names: list[str] = []
        next_below: list[tuple[int, ...]] = []
        for g, members in enumerate(below):
            parts = split_evenly(members, min(width, len(members)))
            next_below.append(tuple(range(len(units), len(units) + len(parts))))
            units.extend(parts)
            level_names.extend(f"{g}.{j}" for j in range(len(parts)))
        levels.append(tuple(units))
        unit_names.append(tuple(level_names))
        below = tuple(next_below)
    return Tree(names, group_members, tuple(levels), tuple(unit_names))


def channel_groups(channels: Sequence[str], spec: GroupSpec) -> Members:
    """Groups of channel indices for a specification (see `build_tree`)."""
    everything = tuple(range(len(channels)))
    if spec == "all":
        return (everything,)
    if isinstance(spec, int):
        if not 1 <= spec <= len(channels):
            raise ValueError(f"groups must lie between 1 and the {len(channels)} channels, got {spec}")
        return split_evenly(everything, spec)
    if isinstance(spec, str):
        raise ValueError(f"groups must be 'all', a number or a list of lists, got {spec!r}")
    return _listed_groups(channels, spec)


def tree_widths(tree: TreeSpec) -> tuple[int, ...] | None:
    """Units per group of every level but the last: "Tree0" -> (), "Tree4" -> (4,), "none" -> None."""
    if tree == "none":
        return None
    if isinstance(tree, str):
        match = _TREE_NAME.match(tree)
        if match is None:
            raise ValueError(f"tree must be 'none', 'Tree0', 'Tree2', 'Tree4', ... or a list of widths, got {tree!r}")
        width = int(match.group(1))
        widths: tuple[int, ...] = (width,) if width else ()
    else:
        widths = tuple(tree)
    if any(not isinstance(w, int) or w < 2 for w in widths):
        raise ValueError(f"tree must have at least 2 units on every level but the last, got {widths}")
    if any(a <= b for a, b in itertools.pairwise(widths)):
        raise ValueError(f"tree must narrow from level to level, got {widths}; list the widest level first")
    return widths


def split_evenly(items: Sequence[int], parts: int) -> Members:
    """Contiguous parts whose sizes differ by at most one, the larger first."""
    size, larger = divmod(len(items), parts)
    out: list[tuple[int, ...]] = []
    start = 0
    for i in range(parts):
        stop = start + size + (i < larger)
        out.append(tuple(items[start:stop]))
        start = stop
    return tuple(out)


def buckets(members: Members) -> tuple[Bucket, ...]:
    """Units of a level sorted by their number of members: one bucket per size, no padding."""
    by_size: dict[int, list[int]] = {}
    for u, unit in enumerate(members):
        by_size.setdefault(len(unit), []).append(u)
    return tuple(Bucket(tuple(us), tuple(members[u] for u in us)) for _, us in sorted(by_size.items()))


def _restrict(members: Members, kept: Sequence[int]) -> tuple[tuple[int, ...], Members]:
    """Units that still have members when only `kept` inputs are left, and their members renumbered."""
    new = {old: i for i, old in enumerate(kept)}
    units = [(u, tuple(new[m] for m in unit if m in new)) for u, unit in enumerate(members)]
    left = [(u, unit) for u, unit in units if unit]
    return tuple(u for u, _ in left), tuple(unit for _, unit in left)


def _listed_groups(channels: Sequence[str], spec: Sequence[Sequence[str]]) -> Members:
    listed = [name for group in spec for name in group]
    unknown = sorted(set(listed) - set(channels))
    twice = sorted({name for name in listed if listed.count(name) > 1})
    missing = [name for name in channels if name not in set(listed)]
    problems = [
        f"{what}: {', '.join(found)}"
        for what, found in (("not a channel", unknown), ("listed twice", twice), ("in no group", missing))
        if found
    ]
    if problems or any(not group for group in spec):
        raise ValueError(f"groups must hold every channel once, got {'; '.join(problems) or 'an empty group'}")
    index = {name: i for i, name in enumerate(channels)}
    return tuple(tuple(sorted(index[name] for name in group)) for group in spec)


def _check_subset(names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in set(known)]
    if unknown:
        raise ValueError(f"channels must be among the {len(known)} of the model, got {', '.join(unknown)}")
    if not names or len(set(names)) != len(names):
        raise ValueError(f"channels must be unique and at least one, got {len(names)} names: {', '.join(names[:20])}")
