"""The same workflow on real files: GFS analyses of the 10 m wind, with a gap in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.store import open_store, read_manifest
from tests.evaluate.report.browser import browse
from tests.workflow.runner import WORKFLOWS, run, settings_in, stages_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("real")]
CONFIG = WORKFLOWS / "config" / "gfs_wind.yaml"
SHORTER = ("training.steps=20", "training.validate_every=10", "training.checkpoint_every=10")
GAP = np.datetime64("2018-10-10T18")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, shared_reference: Path) -> Path:
    """A folder in which the workflow ran, beside the data as a checkout is."""
    top = tmp_path_factory.mktemp("real")
    (top / "shared").symlink_to(shared_reference.parent)
    folder = top / "project"
    folder.mkdir()
    output = run(CONFIG, folder, overrides=SHORTER)
    assert stages_run(output) == ["regrid", "normals", "train", "forecast", "score", "report"]
    return folder


def test_the_gap_is_reported_and_left_open(finished: Path) -> None:
    """Catches a missing time that is filled in, or not listed."""
    settings = settings_in(CONFIG, finished, *SHORTER)
    ds = open_store(settings.paths.store)
    times = ds["time"].values
    missing = np.array(read_manifest(settings.paths.store)["facts"]["missing_times"], dtype="datetime64[h]")
    assert GAP in missing
    assert GAP not in times
    wanted = np.arange(np.datetime64("2018-09-14T18"), np.datetime64("2018-10-16T19"), np.timedelta64(6, "h"))
    np.testing.assert_array_equal(np.union1d(missing, times), wanted)
    assert not np.isin(missing, times).any()
    assert len(times) == 21 + 40
    assert np.isfinite(ds["state"].values).all()
    assert list(ds["channel"].values) == ["u10", "v10"]


def test_no_forecast_starts_or_is_judged_in_the_gap(finished: Path) -> None:
    """Catches a forecast from a time that does not exist, or inits that differ between leads."""
    settings = settings_in(CONFIG, finished, *SHORTER)
    ds = open_store(settings.paths.forecast)
    valid = ds["init_time"].values[:, None] + ds["lead_time"].values[None, :]
    assert np.isin(valid, open_store(settings.paths.store)["time"].values).all()
    assert ds["init_time"].size == 8
    facts = json.loads(settings.paths.receipt("score").read_text())["facts"]
    assert facts["n_init"] == 8


def test_scores_and_report_are_of_real_data(finished: Path) -> None:
    """Catches a report that calls real files simulated, or lacks a lead or the comparison with persistence."""
    settings = settings_in(CONFIG, finished, *SHORTER)
    table = pd.read_csv(settings.paths.scores / "scores.csv")
    globe = table[(table["region"] == "globe") & (table["metric"] == "rmse")]
    assert set(globe["lead"]) == {6, 24, 72}
    assert set(globe["model"]) == {"gfs_wind", "persistence", "climatology", "damped_persistence"}
    assert set(globe["variable"]) == {"u10", "v10"}
    persistence = globe[(globe["model"] == "persistence") & (globe["variable"] == "u10")].set_index("lead")["value"]
    assert 0.5 < persistence[6] < persistence[24] < persistence[72] < 10.0
    page = settings.paths.report.read_text()
    assert "GFS analysis" in page
    assert "simulated" not in page.lower()


@pytest.mark.parametrize("width", [390, 1280])
def test_report_of_real_data_in_a_browser(finished: Path, tmp_path: Path, width: int) -> None:
    """Catches pictures that do not load, requests, console messages and sideways scrolling, on a phone and a desk."""
    page = settings_in(CONFIG, finished, *SHORTER).paths.report.read_text()
    assert browse(page, tmp_path, width=width)["images"] > 10
