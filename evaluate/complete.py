"""Whether a stage of this package has nothing left to do, found out without loading xarray or figures.

Contract: as in `preprocess.complete`. Forecasts from elsewhere that were replaced under the same path make the score
stage run again, and other scores the report.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from evaluate.finished import report_finished, score_facts
from pipeline import files
from pipeline.manifest import manifest_path
from pipeline.weather.config import WeatherConfig


def complete_score(config: WeatherConfig) -> str | None:
    """Whether the scores are there, of these very forecasts from elsewhere; one that is gone has not changed."""
    facts = score_facts(config, files=("scores.csv", "scores.nc"))
    if facts is None:
        return None
    known, compared = facts.get("compared", {}), compared_fingerprints(config)
    if any(known.get(name) != found for name, found in compared.items() if found):
        return None
    return f"score: complete in {config.paths.scores}"


def complete_report(config: WeatherConfig) -> str | None:
    """Whether the page is there and shows these very scores."""
    return report_finished(config, fact="scores", digest=lambda config: scores_digest(config.paths.scores))


def scores_digest(folder: Path) -> str:
    """What tells a table of scores from another one."""
    return hashlib.sha256((folder / "scores.csv").read_bytes()).hexdigest()[:16]


def compared_fingerprints(config: WeatherConfig) -> dict[str, str]:
    """The fingerprint of each forecast of evaluation.compare, by its name."""
    return {entry.name: fingerprint(Path(entry.path)) for entry in config.evaluation.compare}


def fingerprint(path: Path) -> str:
    """What tells a forecast from another one that was put in its place.

    A store of this project: its manifest, which holds the SHA-256 of every slab. A file, or a Zarr store from
    elsewhere: names, sizes and modification times of all files, so that nothing need be read; a copy of the same
    content counts as another one. Nothing there: an empty text.
    """
    manifest = manifest_path(path)
    if manifest.exists():
        content = files.read_json(manifest)
        identity: Any = {k: v for k, v in content.items() if k not in ("facts", "checksum")}
    elif path.exists():
        parts = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        identity = [(str(p.relative_to(path)), p.stat().st_size, p.stat().st_mtime_ns) for p in parts]
    else:
        return ""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
