"""The report's section on a free run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluate.report.free_run import free_run_section
from pipeline.store import open_store
from pipeline.weather.config import WeatherConfig
from pipeline.weather.free_run_store import STEPS_TOGETHER, free_run_store
from tests.evaluate.conftest import experiment_config
from tests.stores import write_training_store

pytestmark = pytest.mark.slow

DAYS = 75


@pytest.fixture
def free(tmp_path: Path) -> WeatherConfig:
    """A run whose second channel grows from the fortieth day on, with a truth for the first sixty days."""
    asked = {"training__step_hours": [24], "forecast__free_run_days": DAYS, "forecast__calibrate": False}
    config = experiment_config(tmp_path / "results", **asked)
    assert isinstance(config, WeatherConfig)
    grid, channels = config.data.regrid.grid, config.data.channels.dynamic
    times = np.array(["2001-01-01", "2001-01-02"], dtype="datetime64[ns]")
    write_training_store(config, times, np.zeros((2, len(channels), *grid.shape)), np.zeros((1, *grid.shape)))
    like = open_store(config.paths.store).drop_vars(["state", "time"]).load()
    about = {"init_time": "2002-01-01T00", "step_hours": 24, "days": float(DAYS), "source": {"label": "made-up data"}}
    names = [c.name for c in channels]
    shown = config.evaluation.variables
    store = free_run_store(
        config.paths.free_run, like=like, steps=DAYS, past=1, shown=shown, contract=about, title="A free run"
    )
    with store:
        for slab in store.pending():
            days = slab.start * STEPS_TOGETHER + np.arange(1, STEPS_TOGETHER + 1)
            numbers = np.ones((STEPS_TOGETHER, 2, 3, len(names)))
            numbers[:, 0, 2, 1] = np.exp(np.maximum(days - 40, 0) / 5.0)
            numbers[days > 60, 1] = np.nan
            outside = np.zeros((STEPS_TOGETHER, len(names)))
            fields = np.zeros((STEPS_TOGETHER, len(shown), *grid.shape))
            last = np.zeros((1, len(names), *grid.shape))
            store.write(slab, {"numbers": numbers[None], "outside": outside[None], "fields": fields[None],
                               "last": last[None]})  # fmt: skip
        store.finish({})
    return config


def test_the_section_says_what_grew_and_when(free: WeatherConfig) -> None:
    """Catches a run that grows and is called bounded, numbers that are not on the disk, and a figure without words."""
    section = free_run_section(free)
    assert section is not None
    said = " ".join(section.sentences)
    channels = [c.name for c in free.data.channels.dynamic]
    table = pd.read_csv(free.paths.scores / "free_run.csv")
    (grown,) = table[(table["verdict"] == "grows") & (table["season"] == "all")].itertuples()
    assert grown.channel == channels[1]
    assert f"{len(channels) - 1} of {len(channels)} channels stay bounded" in said
    assert re.search(rf"Not bounded: {channels[1]} grows after {grown.day:g} days\.", said)
    assert "Over the 60 days with a truth" in said
    assert len(section.pictures) == 1 + len(free.evaluation.variables)
    assert all(len(picture.alt) > 60 for picture in section.pictures)
    for name in ("all_channels", *free.evaluation.variables):
        for suffix in (".png", ".pdf", ".csv", ".nc"):
            assert (free.paths.figures / "free_run" / f"{name}{suffix}").exists()


def test_nothing_is_said_where_nothing_was_asked(free: WeatherConfig) -> None:
    """Catches a section, or a complaint, in a report without a free run."""
    none = free.model_copy(update={"forecast": free.forecast.model_copy(update={"free_run_days": None})})
    assert free_run_section(none) is None
    longer = free.model_copy(update={"forecast": free.forecast.model_copy(update={"free_run_days": 90})})
    with pytest.raises(ValueError, match="run python -m pipeline free_run"):
        free_run_section(longer)
