"""Fixtures every test may use."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pyproj  # noqa: F401  before ecCodes, which brings a PROJ of its own: the other way round, Python dies when it ends
import pytest
from hypothesis import settings

# No timed assertions, hypothesis' own included: a busy machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
WHOLLY_SLOW = re.compile(r"^pytestmark = .*\bpytest\.mark\.slow\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out files that are slow as a whole before they are imported, where no slow test is wanted."""
    if config.option.markexpr != "not slow" or collection_path.suffix != ".py":
        return None
    return True if WHOLLY_SLOW.search(collection_path.read_text()) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps the slow tests of a file on one worker, so that what they share is made once; xdist reads the groups."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(ROOT).as_posix()))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Reference data made by other programs; kept outside the repository."""
    path = ROOT.parent / "shared" / "reference"
    if not path.exists():
        pytest.skip("reference data are not on this machine (expected at ../shared/reference)")
    return path
