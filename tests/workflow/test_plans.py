"""The workflow before it runs: every configuration parses, plans, lints, and names what changed settings rerun."""

from __future__ import annotations

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import json_schema, load

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "workflows" / "config").glob("*.yaml"))
STAGES = ["regrid", "normals", "train", "forecast", "score", "report"]


def snakemake(*arguments: str, folder: Path, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Snakemake on our workflow in a folder of its own."""
    given = ["--configfile", str(config)] if config else []
    return subprocess.run(
        [
            sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflows" / "Snakefile"),
            "--workflow-profile", str(ROOT / "workflows" / "profiles" / "default"), "--cores", "1",
            *given, *arguments,
        ],
        cwd=folder, capture_output=True, text=True, check=False,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )  # fmt: skip


def planned(output: str) -> dict[str, str]:
    """Stages that a dry run would run, with their command lines."""
    return {m[1]: m[0].strip() for m in re.finditer(r"python -m [^\n]*?pipeline (\w+) --config[^\n]*", output)}


def yaml_files() -> Iterator[Path]:
    for pattern in ("*.yml", "*.yaml", "*.cff"):
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if not {".venv", "results", "node_modules", ".snakemake"} & set(parts):
                yield path


def test_there_are_the_three_experiments() -> None:
    """Catches tests below that pass because they looked at nothing."""
    assert {"demo.yaml", "era5.yaml", "gfs_wind.yaml"} <= {p.name for p in CONFIGS}


@pytest.mark.parametrize("path", sorted(yaml_files()), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_yaml_parses(path: Path) -> None:
    """Catches a file of ours with a syntax error or a repeated key that YAML silently drops."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader: Strict, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [loader.construct_object(k) for k, _ in node.value]  # type: ignore[no-untyped-call]
        assert len(keys) == len(set(keys)), f"repeated key in {path}: {keys}"
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert yaml.load(path.read_text(), Strict)


def test_schema_is_in_step() -> None:
    """Catches a key added, removed or renamed without its schema: editors and Snakemake would check the old one."""
    path = ROOT / "workflows" / "schemas" / "config.schema.json"
    ours = (json.dumps(json_schema(), indent=2) + "\n").splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(path.read_text().splitlines(keepends=True), ours, "stored", "current"))
    assert not difference, (
        f"{difference}\nregenerate it: PYTHONPATH=. .venv/bin/python -m pipeline schema > {path.relative_to(ROOT)}"
    )


def test_lint(tmp_path: Path) -> None:
    """Catches a rule without log, environment or the like."""
    done = snakemake("--lint", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "good condition" in done.stdout + done.stderr


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_experiment_plans_its_stages(path: Path, tmp_path: Path) -> None:
    """Catches a configuration that does not validate or lacks a stage, and a dry run that writes something."""
    done = snakemake("--dry-run", folder=tmp_path, config=path)
    assert done.returncode == 0, done.stdout + done.stderr
    simulated = yaml.safe_load(path.read_text())["source"]["kind"] == "simulation"
    found = planned(done.stdout + done.stderr)
    assert sorted(found) == sorted([*STAGES, "simulate"] if simulated else STAGES)
    assert all(f"--config {path}" in line for line in found.values())
    assert [p.name for p in tmp_path.iterdir() if p.name != ".snakemake"] == []


def finish(config: Path, folder: Path, *overrides: str) -> None:
    """Pretend that all stages have run: write their receipts, oldest first, and the report."""
    settings = load(config, overrides)
    for i, stage in enumerate(["simulate", *STAGES]):
        path = folder / settings.paths.receipt(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
        os.utime(path, (1e9 + i, 1e9 + i))
    (folder / settings.paths.report).write_text("<html></html>")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "first"),
    [
        (None, None),
        ("training.steps=7", "train"),
        ("training.checkpoint_every=7", None),
        ("forecast.init_step_hours=48", "forecast"),
        ("evaluation.variables=[z500]", "score"),
        ("data.regrid.method=conservative", "regrid"),
    ],
)
def test_a_changed_setting_reruns_what_follows_it(override: str | None, first: str | None, tmp_path: Path) -> None:
    """Catches work that is redone for nothing, and old results shown for new settings."""
    config = ROOT / "workflows" / "config" / "demo.yaml"
    finish(config, tmp_path)
    done = snakemake(
        "--dry-run", *(["--config", f"set={override}"] if override else []), folder=tmp_path, config=config
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = planned(done.stdout + done.stderr)
    assert sorted(found) == sorted(STAGES[STAGES.index(first) :] if first else [])
    if first:
        assert f"--set '{override}'" in found[first] or f"--set {override}" in found[first]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "set=training.stepz=3 model.widht=4",
            "  model.widht: unknown key; did you mean 'width'?\n  training.stepz: unkn",
        ),
        ("training={steps: 3}", "--config must be set="),
        ("set=nonsense", "must look like section.key=value, got 'nonsense'"),
    ],
)
def test_bad_settings_stop_the_plan(setting: str, message: str, tmp_path: Path) -> None:
    """Catches an override that is ignored, and a fault shown as a traceback."""
    done = snakemake("--dry-run", "--config", setting, folder=tmp_path)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_rules_have_what_a_rule_needs() -> None:
    """Catches a rule that watches a store, runs more than one line, or lacks its caption's file."""
    text = {p.name: p.read_text() for p in (ROOT / "workflows" / "rules").glob("*.smk") if p.name != "common.smk"}
    rules = [r for content in text.values() for r in re.split(r"(?m)^rule ", content)[1:]]
    assert len(rules) == 7
    for rule in rules:
        name = rule.split(":")[0]
        for part in ("output:", "log:", "benchmark:", "threads:", "mem_mb", "runtime", "conda:", "message:", "shell:"):
            assert part in rule, (name, part)
        assert f'receipt("{name}")' in rule
        assert ".zarr" not in rule
        assert "paths.store" not in rule
        caption = re.search(r'caption="\.\./report/(\w+\.rst)"', rule)
        assert caption, name
        assert (ROOT / "workflows" / "report" / caption[1]).exists()
        assert rule.split("shell:")[1].strip().count("\n") == 0


def test_cluster_profile_is_understood(tmp_path: Path) -> None:
    """Catches an option in the SLURM profile that Snakemake or its plugin does not know."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="the extra `cluster` is not installed")
    profile = ROOT / "workflows" / "profiles" / "slurm"
    done = snakemake("--dry-run", "--workflow-profile", str(profile), folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train" in planned(done.stdout + done.stderr)
