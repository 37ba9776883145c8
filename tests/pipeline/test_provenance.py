"""Receipts: what a stage leaves behind, and what another refuses to start without."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import provenance
from pipeline.config import Config, parse
from tests.pipeline.test_cli import RAW


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return parse({**RAW, "directory": str(tmp_path)})


def test_receipt_explains_the_output(config: Config) -> None:
    """Catches a receipt that lacks the settings, commit or versions that are needed to make the output again."""
    out = config.paths.store
    path = provenance.write_receipt(config, stage="regrid", outputs=[out], facts={"missing_times": ["2001-03-01T06"]})
    assert path == config.paths.receipt("regrid")
    found = provenance.read_receipt(config, stage="regrid")
    assert found["outputs"] == [str(out)]
    assert found["facts"] == {"missing_times": ["2001-03-01T06"]}
    told = found["provenance"]
    assert parse(told["config"]) == config
    assert told["stage"] == "regrid"
    assert {"python", "numpy", "zarr", "torch"} <= set(told["versions"])
    assert told["written"].endswith("+00:00")
    assert json.loads(path.read_text()) == found


@pytest.mark.slow
def test_processor_time_of_children_counts() -> None:
    """Catches a stage with processes of its own whose work does not appear in its receipt."""
    before = provenance.processor_seconds()
    subprocess.run([sys.executable, "-c", "import os\nwhile os.times().user < 0.3: pass"], check=True)
    assert provenance.processor_seconds() - before > 0.29


def test_commit_is_the_checkouts(root: Path) -> None:
    """Catches provenance that names no commit, or that of the folder one happens to stand in."""
    if not (root / ".git").exists():
        assert provenance.commit() == "unknown"
        return
    head, _, rest = provenance.commit().partition("+")
    assert len(head) == 12
    assert set(head) <= set("0123456789abcdef")
    assert rest in ("", "changes")


def test_missing_stage_is_named_with_the_command(config: Config) -> None:
    """Catches a stage that starts on an unfinished one, or an error that does not say what to run."""
    with pytest.raises(ValueError, match="stage normals must be finished first") as error:
        provenance.read_receipt(config, stage="normals")
    assert "python -m pipeline normals" in str(error.value)


def test_another_settings_receipt_is_not_ours(config: Config) -> None:
    """Catches a receipt found although a setting upstream has changed."""
    provenance.write_receipt(config, stage="regrid", outputs=[], facts={})
    raw = config.model_dump(mode="json")
    raw["data"]["regrid"]["method"] = "conservative"
    with pytest.raises(ValueError, match="must be finished first"):
        provenance.read_receipt(parse(raw), stage="regrid")
