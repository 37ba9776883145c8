"""The workflow's files: YAML that parses, a schema in step, and rules that follow the table of stages."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from pipeline import workloads
from pipeline.config import json_schema, load
from pipeline.yaml_text import read_yaml
from tests.workflow.runner import ROOT, WORKFLOWS, run

CONFIGS = sorted((WORKFLOWS / "config").glob("*.yaml"))


def yaml_files() -> Iterator[Path]:
    for pattern in ("*.yml", "*.yaml", "*.cff"):
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if not {".venv", "results", "node_modules", ".snakemake"} & set(parts):
                yield path


@pytest.mark.parametrize("path", sorted(yaml_files()), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_yaml_parses(path: Path) -> None:
    """Catches a file of ours with a syntax error or a repeated key that YAML silently drops."""
    assert read_yaml(path.read_text(), origin=str(path))


def test_schema_is_in_step() -> None:
    """Catches a key added, removed or renamed without its schema: editors and Snakemake would check the old one."""
    path = WORKFLOWS / "schemas" / "config.schema.json"
    ours = (json.dumps(json_schema(), indent=2) + "\n").splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(path.read_text().splitlines(keepends=True), ours, "stored", "current"))
    assert not difference, (
        f"{difference}\nregenerate it: PYTHONPATH=. .venv/bin/python -m pipeline schema > {path.relative_to(ROOT)}"
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_stage_has_what_its_rule_needs(path: Path) -> None:
    """Catches a stage without caption, category, summary or resources, and a caption that names a key we lack."""
    config = load(path)
    if config.task == "forecast":
        config = load(path, ["evaluation.trained_baselines=[unet]"])  # so that this stage is there too
    snakemake = {"config": config.model_dump(mode="json")}
    for stage in config.stages:
        assert stage.category, stage.name
        assert re.fullmatch(r"[A-Z].*\.", stage.summary), stage.name
        assert stage.resources.threads > 0, stage.name
        assert stage.resources.mem_mb > 0, stage.name
        assert re.fullmatch(r"\d+[mhd]", stage.resources.runtime), stage.name
        assert config.paths.receipt(stage.name).suffix == ".json"
        places = [WORKFLOWS / "report" / config.task / f"{stage.name}.rst", WORKFLOWS / "report" / f"{stage.name}.rst"]
        caption = next(place for place in places if place.exists()).read_text()
        assert jinja2.Template(caption, undefined=jinja2.StrictUndefined).render(snakemake=snakemake), stage.name


def test_every_caption_is_of_a_stage() -> None:
    """Catches a caption left behind by a stage that was renamed."""
    stages = {stage.name for task in workloads.WORKLOADS for stage in workloads.stages(task)}
    assert {path.stem for path in (WORKFLOWS / "report").glob("*.rst")} == stages
    for task in workloads.WORKLOADS:
        own = {path.stem for path in (WORKFLOWS / "report" / task).glob("*.rst")}
        assert own <= {stage.name for stage in workloads.stages(task)}


@pytest.mark.slow
def test_rules_follow_the_table(tmp_path: Path) -> None:
    """Catches a stage without a rule, and a rule that watches a store, which Snakemake would delete to run it again."""
    config = load(WORKFLOWS / "config" / "demo.yaml")
    table = run(None, tmp_path, "--detailed-summary")
    rows = [line.split("\t") for line in table.splitlines() if line.startswith("results/")]
    outputs = {(row[2], row[0]) for row in rows}
    receipts = {(stage.name, str(config.paths.receipt(stage.name))) for stage in config.stages}
    assert outputs == receipts | {("report", str(config.paths.report))}


def test_rules_have_what_a_rule_needs() -> None:
    """Catches a rule without log, benchmark, resources or environment, or of more than one line."""
    rules = (WORKFLOWS / "rules" / "stages.smk").read_text()
    for part in ("log:", "benchmark:", "threads:", "mem_mb=", "runtime=", "conda:", "message:"):
        assert part in rules, part
    assert rules.split("shell:")[1].strip().count("\n") == 0
