"""Channel groups and trees as data."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.network.groups import buckets, build_tree, split_evenly, tree_widths

NAMES = ("z500", "t500", "z850", "t850", "u10", "t2m", "q850", "lsm")


def members(channels: tuple[str, ...], **spec: object) -> list[list[str]]:
    tree = build_tree(channels, **{"tree": "Tree0", **spec})
    return [[channels[c] for c in group] for group in tree.groups]


def test_contiguous_and_listed_groups() -> None:
    """Catches uneven parts that differ by more than one, and a listed group that loses the input order."""
    assert [len(group) for group in members(NAMES, groups=3)] == [3, 3, 2]
    listed = (("lsm", "z500"), ("t500", "z850", "t850", "u10", "t2m", "q850"))
    assert members(NAMES, groups=listed)[0] == ["z500", "lsm"]


def test_tree_of_two_levels() -> None:
    """Catches units that mix groups, and a group smaller than the number of units asked for."""
    tree = build_tree(
        tuple(f"c{i}x" for i in range(8)),
        groups=(("c0x", "c1x", "c2x", "c3x", "c4x", "c5x", "c6x"), ("c7x",)),
        tree="Tree4",
    )
    assert tree.levels == (((0, 1), (2, 3), (4, 5), (6,), (7,)), ((0, 1, 2, 3), (4,)))
    assert tree.unit_names == (("0.0", "0.1", "0.2", "0.3", "1.0"), ("0.0", "1.0"))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"groups": "variables"}, "groups must be 'all', a number or a list of lists"),
        ({"groups": 9}, "between 1 and the 8 channels, got 9"),
        ({"groups": 0}, "between 1 and the 8 channels, got 0"),
        ({"groups": (NAMES[:4], NAMES[3:])}, "listed twice: t850"),
        ({"groups": (NAMES[:4], NAMES[5:])}, "in no group: u10"),
        ({"groups": (NAMES, ("sst",))}, "not a channel: sst"),
        ({"groups": (NAMES, ())}, "an empty group"),
        ({"groups": 2, "tree": "tree2"}, "tree must be 'none', 'Tree0'"),
        ({"groups": 2, "tree": "Tree1"}, "at least 2 units"),
        ({"groups": 2, "tree": (2, 4)}, "narrow from level to level"),
    ],
)
def test_wrong_specifications(spec: dict[str, object], message: str) -> None:
    """Catches a specification that is read as another one."""
    with pytest.raises(ValueError, match=message):
        build_tree(NAMES, **{"groups": "all", "tree": "Tree0", **spec})


def test_channels_must_be_unique() -> None:
    """Catches two columns of one name, of which one would never be read."""
    with pytest.raises(ValueError, match="unique, got z500 more than once"):
        build_tree((*NAMES, "z500"), groups="all", tree="Tree0")
    with pytest.raises(ValueError, match="at least one"):
        build_tree((), groups="all", tree="Tree0")


@settings(max_examples=80, deadline=None)
@given(data=st.data(), count=st.integers(1, 40), tree=st.sampled_from(["none", "Tree0", "Tree2", "Tree8", (5, 3, 2)]))
def test_every_input_has_one_unit(data: st.DataObject, count: int, tree: str | tuple[int, ...]) -> None:
    """Catches an input lost, used twice or crossing groups, in whole trees and in what is kept of them."""
    names = tuple(f"c{i}x" for i in range(count))
    whole = build_tree(names, groups=data.draw(st.integers(1, count)), tree=tree)
    wanted = data.draw(st.sets(st.sampled_from(names), min_size=1))
    small, kept = whole.keep(wanted)
    assert set(small.channels) == wanted
    for built in (whole, small):
        below = len(built.channels)
        for level in built.levels:
            assert sorted(m for unit in level for m in unit) == list(range(below))
            below = len(level)
        if built.levels:
            assert below == len(built.groups)
    assert small.num_outputs == (len(small.groups) if small.levels else len(wanted))
    for number, level in enumerate(small.levels):
        inputs = kept.channels if number == 0 else kept.levels[number - 1]
        for unit, row in zip(level, kept.levels[number], strict=True):
            assert {inputs[m] for m in unit} <= set(whole.levels[number][row])
            assert small.unit_names[number][level.index(unit)] == whole.unit_names[number][row]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30))
def test_buckets_hold_every_unit_once(sizes: list[int]) -> None:
    """Catches a unit left out of, or twice in, the batches of equal size."""
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    level = tuple(tuple(range(start, start + size)) for start, size in zip(starts, sizes, strict=True))
    found = buckets(level)
    assert sorted(u for bucket in found for u in bucket.units) == list(range(len(sizes)))
    assert all(level[u] == unit for bucket in found for u, unit in zip(bucket.units, bucket.members, strict=True))
    assert len({len(bucket.members[0]) for bucket in found}) == len(found)


@given(st.integers(1, 60), st.integers(1, 60))
def test_even_split(count: int, parts: int) -> None:
    """Catches empty parts and parts that differ by more than one."""
    split = split_evenly(range(count), min(parts, count))
    assert [item for part in split for item in part] == list(range(count))
    assert max(map(len, split)) - min(map(len, split)) <= 1
    assert min(map(len, split)) >= 1


def test_tree_names() -> None:
    """Catches Tree0 read as a level of no units."""
    assert tree_widths("Tree0") == ()
    assert tree_widths("Tree8") == (8,)
    assert tree_widths((8, 2)) == (8, 2)
    assert tree_widths("none") is None
