"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pyproj  # noqa: F401  before ecCodes, which brings a PROJ of its own: the other way round, Python dies when it ends
import pytest
from hypothesis import settings

# No timed assertions, hypothesis' own included: a busy machine must not fail a test.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent


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
