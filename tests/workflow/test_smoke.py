"""The full pipeline on a tiny experiment: its report, a second run, a changed setting, and kill -9.

One run is shared by the tests below; the group keeps them on one worker.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline.weather.config import WeatherPaths as Paths
from tests.evaluate.report.browser import browse
from tests.pipeline.test_cli import HEAVY
from tests.workflow.runner import ROOT, command, environment, run, settings_in, stages_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smoke")]
CONFIG = Path(__file__).with_name("smoke.yaml")
STAGES = ["simulate", "regrid", "normals", "train", "forecast", "score", "report"]


def paths_of(folder: Path) -> Paths:
    return settings_in(CONFIG, folder).paths


def times_written(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in (folder / "results").rglob("*") if p.is_file()}


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, and its manifest where it has one."""
    files = [*store.rglob("*"), store.with_name(f"{store.stem}.manifest.json")]
    return {str(p.relative_to(store.parent)): p.read_bytes() for p in sorted(files) if p.is_file()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the workflow ran undisturbed."""
    folder = tmp_path_factory.mktemp("smoke")
    assert stages_run(run(CONFIG, folder)) == STAGES
    return folder


def test_report_stands_alone_and_says_what_it_shows(finished: Path) -> None:
    """Catches a page that needs the network or other files, or that may be taken for real forecasts."""
    page = paths_of(finished).report.read_text()
    assert "simulated" in page.lower()
    assert page.count("data:image/png;base64,") >= 4
    assert not re.search(r"""(?:src|href)=["'](?!data:|#|https?://)""", page), "refers to another file"
    assert not re.search(r"""(?:<script|<link|<img)[^>]*(?:src|href)=["']https?:""", page), "loads from the network"
    for word in ("z500", "t2m", "persistence", "climatology"):
        assert word in page.lower()


def test_scores_are_complete(finished: Path) -> None:
    """Catches a missing model, lead, channel or metric, and scores on unequal init times."""
    table = pd.read_csv(paths_of(finished).scores / "scores.csv", dtype={"level": str}, keep_default_na=False)
    assert {"model", "variable", "level", "lead", "region", "metric", "value", "n_init", "unit"} <= set(table.columns)
    globe = table[table["region"] == "globe"]
    assert set(globe["model"]) == {"smoke", "persistence", "climatology", "damped_persistence", "linear"}
    assert set(globe["lead"]) == {24, 72}
    assert {"rmse", "mse", "bias", "acc", "skill"} <= set(globe["metric"])
    channels = {f"{v}{p}" for v, p in zip(globe["variable"], globe["level"], strict=True)}
    assert {"z500", "z850", "t500", "t850", "t2m", "u10"} <= channels
    assert table["n_init"].nunique() == 1
    skill = globe[(globe["metric"] == "skill") & (globe["model"] == "climatology")]["value"].astype(float)
    assert skill.abs().max() < 1e-6


def test_a_second_run_does_nothing(finished: Path) -> None:
    """Catches a stage that runs again, or a file that is touched, although nothing changed."""
    before = times_written(finished)
    assert stages_run(run(CONFIG, finished)) == []
    assert times_written(finished) == before


def test_a_complete_stage_loads_little(finished: Path) -> None:
    """Catches a stage that takes seconds to load torch, JAX or xarray only to find that nothing is left to do."""
    before, stages = times_written(finished), [*(s for s in STAGES if s != "normals"), "normals"]
    code = f"""
import sys
from pipeline.__main__ import main
for stage in {stages}:
    sys.argv = ["pipeline", stage, "--config", {str(CONFIG)!r}]
    try:
        main()
    except SystemExit as done:
        assert not done.code, stage
    print(stage, [name for name in {HEAVY} if name in sys.modules])
"""
    options: dict[str, Any] = {"cwd": finished, "capture_output": True, "text": True, "check": True}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)
    assert done.stdout.splitlines() == [*(f"{stage} []" for stage in stages[:-1]), "normals ['zarr']"]
    assert done.stderr.count("complete") == len(STAGES)
    after = times_written(finished)
    assert {name for name in after if after[name] != before.get(name) and not name.endswith(".lock")} == set()


def test_each_stage_keeps_its_log_and_receipt(finished: Path) -> None:
    """Catches a stage that says nothing, or leaves no provenance."""
    paths = paths_of(finished)
    for stage in STAGES:
        receipt = paths.receipt(stage)
        log = paths.root / "logs" / receipt.with_suffix(".log").name
        assert f"pipeline {stage}" in log.read_text().replace("__main__.py", "pipeline")
        assert len(log.read_text().splitlines()) >= 2, stage
        assert '"commit"' in receipt.read_text()


def test_a_changed_training_option_reruns_training_and_what_follows(finished: Path) -> None:
    """Catches work done again upstream, and results of the old setting lost or overwritten."""
    before = times_written(finished)
    assert stages_run(run(CONFIG, finished, "--until", "forecast", overrides=("training.steps=8",))) == [
        "train",
        "forecast",
    ]
    after = times_written(finished)
    assert {name for name in before if after[name] != before[name] and not name.endswith(".lock")} == set()
    assert len(after) > len(before)


def test_going_back_to_a_setting_shows_its_report_again(finished: Path) -> None:
    """Catches the report of another setting left in place under the shared name results/<name>/report.html."""
    other = ("evaluation.variables=[t2m]",)
    assert stages_run(run(CONFIG, finished, overrides=other)) == ["score", "report"]
    assert stages_run(run(CONFIG, finished, "--dry-run")) == ["report"]
    assert stages_run(run(CONFIG, finished, "--dry-run", overrides=other)) == []


def kill_when(folder: Path, ready: Callable[[], bool]) -> None:
    """Start the workflow and kill -9 it with everything it started, as soon as `ready` says so."""
    with (folder / "output.txt").open("a") as output:
        running = subprocess.Popen(
            [sys.executable, "-m", *command(CONFIG)],
            cwd=folder,
            stdout=output,
            stderr=output,
            process_group=0,
            env=environment(),
        )
        try:
            until = time.monotonic() + 300
            while not ready() and running.poll() is None and time.monotonic() < until:
                time.sleep(0.01)
            assert running.poll() is None, (folder / "output.txt").read_text()[-3000:]
            assert ready(), "the moment to kill never came"
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def test_killed_at_three_stages_and_finished(finished: Path, tmp_path: Path) -> None:
    """Catches a kill -9 after which the same command does not finish, or ends with other bytes than undisturbed."""
    ours, theirs = paths_of(tmp_path), paths_of(finished)

    def recorded(store: Path) -> Callable[[], bool]:
        manifest = store.with_name(f"{store.stem}.manifest.json")
        return lambda: manifest.exists() and '"sha256"' in manifest.read_text()

    def steps() -> bool:
        return ours.metrics.exists() and ours.metrics.read_text().count('"train"') >= 3

    kill_when(tmp_path, recorded(ours.simulated))
    kill_when(tmp_path, recorded(ours.store))
    kill_when(tmp_path, steps)
    assert stages_run(run(CONFIG, tmp_path, "--until", "forecast"))[-1] == "forecast"
    for store in ("simulated", "store", "normals", "forecast"):
        a, b = content(getattr(ours, store)), content(getattr(theirs, store))
        assert sorted(a) == sorted(b), store
        assert [name for name in a if a[name] != b[name]] == [], store


@pytest.mark.parametrize("width", [390, 1280])
def test_report_of_a_simulation_in_a_browser(finished: Path, tmp_path: Path, width: int) -> None:
    """Catches pictures that do not load, requests, console messages and sideways scrolling, on a phone and a desk."""
    assert browse(paths_of(finished).report.read_text(), tmp_path, width=width)["images"] > 10
