"""Where a page comes from: the receipts of the stages before it.

Contract: paths are those inside the results folder, so that a page names nobody's home.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline import provenance
from pipeline.config import Config


def receipts(config: Config) -> list[tuple[str, str, str]]:
    """Every earlier stage's receipt, (name, summary, text)."""
    found = []
    for stage in (stage.name for stage in config.stages if stage.name != "report"):
        if config.paths.receipt(stage).exists():
            receipt = provenance.read_receipt(config, stage=stage)
            origin: dict[str, Any] = receipt["provenance"]
            kept = {k: v for k, v in origin.items() if k not in ("config", "stage", "experiment")}
            outputs = [relative(config, Path(p)) for p in receipt["outputs"]]
            content = {"outputs": outputs, "facts": receipt["facts"], **kept}
            summary = f"{origin['written']}, commit {origin['commit']}"
            found.append((stage, summary, json.dumps(content, indent=1, ensure_ascii=False)))
    return found


def relative(config: Config, path: Path) -> str:
    """A path as seen from the folder that holds the results; its name alone where it lies elsewhere."""
    try:
        return str(Path(config.root.name) / path.resolve().relative_to(config.root.resolve()))
    except ValueError:
        return path.name
