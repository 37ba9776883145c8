"""The log of a training, as a page reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from pipeline import files


def read_training(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(training records, validation records) of a metrics.jsonl; a last line cut short is left out."""
    records = []
    for line in files.read_text(path).splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    train, validation = ([r for r in records if r.get("kind") == kind] for kind in ("train", "validation"))
    return pd.DataFrame(train), pd.DataFrame(validation)
