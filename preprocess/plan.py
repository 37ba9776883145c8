"""The plan of the regrid stage: what a run will read, write, need and take.

Contract: everything is found from metadata. Nothing is written but the plan itself, as JSON beside the receipts.
"""

from __future__ import annotations

from typing import Any

from pipeline import files, store
from pipeline.config import Config
from preprocess.build import gaps, select_times
from preprocess.console import say, stamp
from preprocess.sources import open_source


def run_plan(config: Config) -> None:
    """Print the plan of the regrid stage and write it to <results>/plan-preprocess.json.

    Raises:
        ValueError: it does not fit on the disk; see also `open_source`.
    """
    archive = open_source(config)
    times, missing = select_times(archive.times, config.data)
    content: dict[str, Any] = {
        "first": stamp(times[0]),
        "last": stamp(times[-1]),
        "times": int(times.size),
        "missing_times": gaps(missing, step_hours=config.data.step_hours),
        "slabs": len(store.slabs(times.size, config.data.slab_times)),
        "bytes_written": int(times.size * len(config.data.channels.dynamic) * config.data.regrid.grid.size * 4),
    }
    files.write_json(config.root / "plan-preprocess.json", content)
    for key, value in content.items():
        say(f"plan: {key.replace('_', ' ')}: {value}")
    store.free_space_check(config.paths.store, content["bytes_written"])
