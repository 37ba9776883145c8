"""Outputs keep the names they had when users made theirs, so that finished work is found again.

The file of names was written by the version before stages had a table. One difference is intended: the folder of the
fitted baselines was data/baselines-<hash>, which read as an output of the stage `baselines`, and is data/fits-<hash>.
From the normals on, era5 and era5_wb2 are recorded as they are since their recipes changed; what was demo is
demo_direct since then.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "recorded_names.json").read_text())


def relative(value: Path | dict[str, Path], *, root: Path) -> str | dict[str, str]:
    if isinstance(value, dict):
        return {name: str(path.relative_to(root)) for name, path in value.items()}
    return str(value.relative_to(root))


@pytest.mark.parametrize("case", RECORDED)
def test_names_are_those_recorded(case: str, root: Path) -> None:
    """Catches a setting that enters or leaves the identity of a stage, and an output that is called otherwise."""
    recorded = RECORDED[case]
    config = load(root / "workflows" / "config" / f"{recorded['config']}.yaml", recorded["set"])
    paths = config.paths
    assert str(paths.root) == recorded["root"]
    named = {name: relative(getattr(paths, name), root=paths.root) for name in recorded["outputs"]}
    assert named == recorded["outputs"]
    receipts = [paths.receipt(name.rsplit("-", 1)[0]).name for name in recorded["receipts"]]
    assert receipts == recorded["receipts"]
