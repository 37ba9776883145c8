"""Whether a stage of this package has nothing left to do, found out without loading xarray or figures."""

from __future__ import annotations

import hashlib

from evaluate.finished import report_finished, score_facts
from pipeline.imaging.config import ImagingConfig


def complete_score(config: ImagingConfig) -> str | None:
    """Whether the scores are there."""
    facts = score_facts(config, files=("scores.csv", "differences.csv"))
    return None if facts is None else f"score: complete in {config.paths.scores}"


def complete_report(config: ImagingConfig) -> str | None:
    """Whether the page is there and shows these very scores."""
    return report_finished(config, fact="shown", digest=shown_digest)


def shown_digest(config: ImagingConfig) -> str:
    """What tells everything that the page shows from something else: scores, and logs of training."""
    listed = [config.paths.scores / name for name in ("scores.csv", "differences.csv", "traits.csv")]
    listed += [config.paths.metrics, *(curve.path for curve in config.evaluation.training_curves)]
    content = hashlib.sha256()
    for path in listed:
        content.update(path.read_bytes() if path.exists() else b"none")
        content.update(b"|")
    return content.hexdigest()[:16]
