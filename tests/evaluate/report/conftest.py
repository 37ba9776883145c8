"""A scored and reported experiment that tests of the report read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evaluate.report.stage import run_report
from evaluate.scoring.stage import run_score
from pipeline.config import Config
from tests.evaluate.conftest import second_year_until, write_ceiling


@pytest.fixture(scope="session")
def reported(build_experiment: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A simulated experiment with a ceiling on every tenth init time, scored and reported."""
    twins = {"models": ["ceiling"], "init_step_hours": 240}
    shown = {"variables": ["z500", "t2m"], "cases": ["2002-02-07T00:00"], "animation_frames": 5, "twins": twins}
    config = build_experiment(
        tmp_path_factory.mktemp("reported"),
        source={"kind": "simulation"},
        evaluation=shown,
        **second_year_until("2002-04-30"),
    )
    write_ceiling(config)
    run_score(config)
    run_report(config)
    return config
