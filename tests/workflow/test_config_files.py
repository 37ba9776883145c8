"""The workflow's files as text: YAML that parses, a schema in step, rules that have what a rule needs."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import json_schema
from tests.workflow.runner import ROOT, WORKFLOWS


def yaml_files() -> Iterator[Path]:
    for pattern in ("*.yml", "*.yaml", "*.cff"):
        for path in ROOT.rglob(pattern):
            parts = path.relative_to(ROOT).parts
            if not {".venv", "results", "node_modules", ".snakemake"} & set(parts):
                yield path


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
    path = WORKFLOWS / "schemas" / "config.schema.json"
    ours = (json.dumps(json_schema(), indent=2) + "\n").splitlines(keepends=True)
    difference = "".join(difflib.unified_diff(path.read_text().splitlines(keepends=True), ours, "stored", "current"))
    assert not difference, (
        f"{difference}\nregenerate it: PYTHONPATH=. .venv/bin/python -m pipeline schema > {path.relative_to(ROOT)}"
    )


def test_rules_have_what_a_rule_needs() -> None:
    """Catches a rule that watches a store, runs more than one line, or lacks its caption's file."""
    text = {p.name: p.read_text() for p in (WORKFLOWS / "rules").glob("*.smk") if p.stem not in ("common", "aside")}
    rules = [r for content in text.values() for r in re.split(r"(?m)^rule ", content)[1:]]
    assert len(rules) == 10
    for rule in rules:
        name = rule.split(":")[0]
        for part in ("output:", "log:", "benchmark:", "threads:", "mem_mb", "runtime", "conda:", "message:", "shell:"):
            assert part in rule, (name, part)
        assert f'receipt("{name}")' in rule
        assert ".zarr" not in rule
        assert "paths.store" not in rule
        caption = re.search(r'caption="\.\./report/(\w+\.rst)"', rule)
        assert caption, name
        assert (WORKFLOWS / "report" / caption[1]).exists()
        assert rule.split("shell:")[1].strip().count("\n") == 0
