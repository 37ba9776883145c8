"""Whether outputs of a score or a report stage are there: the rules that every workload's `complete.py` shares.

Contract: as in `preprocess.complete`; light to load.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pipeline import provenance
from pipeline.config import Config

AnyConfig = TypeVar("AnyConfig", bound=Config)


def score_facts(config: Config, *, files: tuple[str, ...]) -> dict[str, Any] | None:
    """What the receipt of the scores says; None where it or one of these files is not there."""
    paths = config.paths
    written = (paths.receipt("score"), *(paths.scores / name for name in files))
    if not all(path.exists() for path in written):
        return None
    facts: dict[str, Any] = provenance.read_receipt(config, stage="score")["facts"]
    return facts


def report_finished(config: AnyConfig, *, fact: str, digest: Callable[[AnyConfig], str]) -> str | None:
    """What to tell the user where the page is there and shows what would be drawn now; else None.

    Args:
        config: the experiment.
        fact: of the report's receipt: the digest of what the page shows.
        digest: that of what it would show now.
    """
    paths = config.paths
    written = (paths.receipt("report"), paths.report)
    if score_facts(config, files=("scores.csv",)) is None or not all(path.exists() for path in written):
        return None
    known = provenance.read_receipt(config, stage="report")["facts"]
    return f"report: complete, {paths.report}" if known.get(fact) == digest(config) else None
