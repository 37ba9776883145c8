"""Whether a stage of this package has nothing left to do, found out without loading xarray or figures."""

from __future__ import annotations

import hashlib

from pipeline import provenance
from pipeline.imaging.config import ImagingConfig


def complete_score(config: ImagingConfig) -> str | None:
    """Whether the scores are there."""
    paths = config.paths
    written = (paths.receipt("score"), paths.scores / "scores.csv", paths.scores / "differences.csv")
    return f"score: complete in {paths.scores}" if all(path.exists() for path in written) else None


def complete_report(config: ImagingConfig) -> str | None:
    """Whether the page is there and shows these very scores."""
    paths = config.paths
    written = (paths.receipt("score"), paths.receipt("report"), paths.report, paths.scores / "scores.csv")
    if not all(path.exists() for path in written):
        return None
    known = provenance.read_receipt(config, stage="report")["facts"]
    return f"report: complete, {paths.report}" if known.get("shown") == shown_digest(config) else None


def shown_digest(config: ImagingConfig) -> str:
    """What tells everything that the page shows from something else: scores, and logs of training."""
    listed = [config.paths.scores / name for name in ("scores.csv", "differences.csv", "traits.csv")]
    listed += [config.paths.metrics, *(curve.path for curve in config.evaluation.training_curves)]
    content = hashlib.sha256()
    for path in listed:
        content.update(path.read_bytes() if path.exists() else b"none")
        content.update(b"|")
    return content.hexdigest()[:16]
