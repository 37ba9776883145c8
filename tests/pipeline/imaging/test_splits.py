"""Images dealt out to splits."""

from __future__ import annotations

import pytest

from pipeline.imaging.sections import Splits
from pipeline.imaging.splits import assign

NAMES = [f"plant{i:02d}" for i in range(20)]


def test_shares_are_kept_and_nothing_is_in_two() -> None:
    """Catches an image in two splits, one in none although the shares add up, and shares that are not met."""
    found = assign(NAMES, Splits(train=0.7, validation=0.1, test=0.2))
    assert [len(found.of(key)) for key in ("train", "validation", "test")] == [14, 2, 4]
    assert sorted([*found.train, *found.validation, *found.test]) == NAMES
    assert list(found.train) == [name for name in NAMES if name in found.train], "in the order of the store"
    part = assign(NAMES, Splits(train=0.5, validation=0.0, test=0.2))
    assert [len(part.of(key)) for key in ("train", "validation", "test")] == [10, 0, 4]
    assert not set(part.train) & set(part.test)


def test_the_draw_depends_on_the_seed_and_the_names_alone() -> None:
    """Catches splits that change with the order of the files, and a seed that is not used."""
    shares = Splits(train=0.7, validation=0.1, test=0.2, seed=1)
    found = assign(NAMES, shares)
    other = assign(NAMES[::-1], shares)
    assert set(found.test) == set(other.test)
    assert found != assign(NAMES, Splits(train=0.7, validation=0.1, test=0.2, seed=2))


def test_small_shares_of_few_images_get_one_each() -> None:
    """Catches a test without an image after rounding."""
    found = assign(NAMES[:4], Splits(train=0.8, validation=0.1, test=0.1))
    assert [len(found.of(key)) for key in ("train", "validation", "test")] == [2, 1, 1]


def test_lists_and_patterns() -> None:
    """Catches a pattern that is taken for a name, and images of one plant on both sides."""
    found = assign(NAMES, Splits(train=["plant0*"], validation=["plant10"], test=["plant1[1-3]"]))
    assert found.train == tuple(NAMES[:10])
    assert found.validation == ("plant10",)
    assert found.test == ("plant11", "plant12", "plant13")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": ["plant00"], "validation": [], "test": ["plant99"]},
            "data.splits.test must name images of the store",
        ),
        ({"train": ["plant0*"], "validation": [], "test": ["plant05"]}, "'plant05' in train and test"),
    ],
)
def test_lists_that_do_not_fit(splits: dict[str, list[str]], message: str) -> None:
    """Catches a name that is misspelled and a leak from training to test."""
    with pytest.raises(ValueError, match=message):
        assign(NAMES, Splits(**splits))  # type: ignore[arg-type]


def test_too_few_images() -> None:
    """Catches a training on nothing, which fails much later."""
    with pytest.raises(ValueError, match=r"data.splits.train must hold at least one image, got none of 1"):
        assign(["only"], Splits(train=0.5, validation=0.0, test=0.5))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": 0.7, "validation": 0.2, "test": 0.2}, "must add up to at most 1, got 1.1"),
        ({"train": 0.7, "validation": 0.2, "test": ["a"]}, "got some of each"),
        ({"train": 0.0, "validation": 0.2, "test": 0.2}, "must have images for training"),
    ],
)
def test_shares_that_cannot_be(splits: dict[str, object], message: str) -> None:
    """Catches shares whose images would overlap."""
    with pytest.raises(ValueError, match=message):
        Splits(**splits)  # type: ignore[arg-type]
