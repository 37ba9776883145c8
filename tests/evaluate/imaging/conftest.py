"""A scored experiment with made-up images, which tests only read."""

from __future__ import annotations

import pytest

from evaluate.imaging.stage import run_score
from pipeline.imaging.config import ImagingConfig
from tests.evaluate.imaging.made import build


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ImagingConfig:
    """Fourteen images of two kinds of tiles, four of them held out; every tile reconstructed twice."""
    config = build(tmp_path_factory.mktemp("scored"), reconstruct={"repeats": 2})
    run_score(config)
    return config
