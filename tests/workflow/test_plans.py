"""The workflow before it runs: every configuration parses, plans, lints, and names what changed settings rerun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from pipeline.config import load
from tests.workflow.runner import WORKFLOWS, attempt, planned, run

pytestmark = pytest.mark.slow

CONFIGS = sorted((WORKFLOWS / "config").glob("*.yaml"))
STAGES = ["regrid", "normals", "train", "forecast", "score", "report"]
OF_IMAGES = ["normals", "train", "reconstruct", "score", "report"]


def test_there_are_the_three_experiments() -> None:
    """Catches tests below that pass because they looked at nothing."""
    assert {"demo.yaml", "era5.yaml", "gfs_wind.yaml"} <= {p.name for p in CONFIGS}


def test_lint(tmp_path: Path) -> None:
    """Catches a rule without log, environment or the like."""
    assert "good condition" in run(None, tmp_path, "--lint")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_experiment_plans_its_stages(path: Path, tmp_path: Path) -> None:
    """Catches a configuration that does not validate or lacks a stage, and a dry run that writes something."""
    lines = planned(run(path, tmp_path, "--dry-run"))
    raw = yaml.safe_load(path.read_text())
    kind, images = raw["source"]["kind"], raw.get("task") == "reconstruct"
    first = {"simulation": ["simulate"] if images else ["simulate", "twins"], "cds": ["fetch"], "images": ["ingest"]}
    assert sorted(lines) == sorted([*(OF_IMAGES if images else STAGES), *first.get(kind, [])])
    assert all(f"--config {path}" in line for line in lines.values())
    assert [p.name for p in tmp_path.iterdir() if p.name != ".snakemake"] == []


def finish(config: Path, folder: Path, *overrides: str) -> None:
    """Pretend that all stages have run: write their receipts, oldest first, and the report."""
    settings = load(config, overrides)
    for i, stage in enumerate(["simulate", "regrid", "twins", *STAGES[1:]]):
        path = folder / settings.paths.receipt(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (1e9 + i, 1e9 + i))
    (folder / settings.paths.report).write_text("<html></html>")


@pytest.mark.parametrize(
    ("override", "first", "others"),
    [
        (None, None, []),
        ("training.steps=7", "train", []),
        ("forecast.init_step_hours=72", "forecast", ["twins"]),
        ("evaluation.trained_baselines=[unet]", "score", ["baselines"]),
    ],
)
def test_a_changed_setting_reruns_what_follows_it(
    override: str | None, first: str | None, others: list[str], tmp_path: Path
) -> None:
    """Catches work that is redone for nothing, and old results shown for new settings.

    Which stages a setting moves is tested with the table (tests/pipeline/test_stages.py); here, that the rules follow.
    """
    config = WORKFLOWS / "config" / "demo.yaml"
    finish(config, tmp_path)
    lines = planned(run(config, tmp_path, "--dry-run", overrides=(override,) if override else ()))
    assert sorted(lines) == sorted([*others, *STAGES[STAGES.index(first) :]] if first else [])
    if first:
        assert f"--set '{override}'" in lines[first] or f"--set {override}" in lines[first]


@pytest.mark.parametrize(
    ("setting", "messages"),
    [
        ("set=training.stepz=3 model.widht=4", ["widht: unknown key; did you mean 'width'?", "stepz: unknown key"]),
        ("training={steps: 3}", ["--config must be set="]),
        ("set=nonsense", ["must look like section.key=value, got 'nonsense'"]),
    ],
)
def test_bad_settings_stop_the_plan(setting: str, messages: list[str], tmp_path: Path) -> None:
    """Catches an override that is ignored, and a fault shown as a traceback."""
    done = attempt(None, tmp_path, "--dry-run", "--config", setting)
    assert done.returncode != 0
    assert [message for message in messages if message not in done.stdout] == []
    assert "Traceback" not in done.stdout


def test_cluster_profile_is_understood(tmp_path: Path) -> None:
    """Catches an option in the SLURM profile that Snakemake or its plugin does not know."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    profile = WORKFLOWS / "profiles" / "slurm"
    assert "train" in planned(run(None, tmp_path, "--dry-run", "--workflow-profile", str(profile)))


def test_stages_are_started_as_the_table_says(tmp_path: Path) -> None:
    """Catches training or forecasts on one rank where the layout asks for several, other stages on several, and a
    stage beside the training that takes the processors from it, or draws a second progress bar."""
    overrides = ("training.layout.data=2", "training.layout.channel=3")
    lines = planned(run(WORKFLOWS / "config" / "demo.yaml", tmp_path, "--dry-run", overrides=overrides))
    start = "python -m model.parallel.torchrun --standalone --nproc-per-node=6 -m pipeline"
    assert {stage for stage, line in lines.items() if start in line} == {"train", "forecast"}
    gives_way = "env TTY_COMPATIBLE=0 nice -n 19 python -m pipeline"
    assert {stage for stage, line in lines.items() if gives_way in line} == {"twins"}
    lines = planned(run(WORKFLOWS / "config" / "plants.yaml", tmp_path, "--dry-run", overrides=overrides[1:]))
    start = start.replace("node=6", "node=3")
    assert {stage for stage, line in lines.items() if start in line} == {"train", "reconstruct"}
