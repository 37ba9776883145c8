"""Where the time of the demo went: seconds of each stage, and the share of the processors that it used.

Reads a finished demo: receipts (when a stage ended, processor time), Snakemake's benchmarks (how long it took), and
the dates of the virtual environment (the installation). Machines differ and are shared, so the time of a fixed matrix
product stands beside it: measured now, or, with `--fresh`, just before and just after the demo.

    python benchmarks/demo.py                                  # the demo, once `make demo` has finished
    python benchmarks/demo.py --fresh /tmp/demo                # a fresh clone, `make demo` in it, then the same
"""

from __future__ import annotations

import csv
import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, parser
from pipeline.config import load
from pipeline.weather.config import WeatherConfig

SIZE, PRODUCTS = 2048, 20


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--config", default="workflows/config/demo.yaml")
    given.add_argument("--set", action="append", default=[])
    given.add_argument("--fresh", type=Path, help="folder, not there yet, of a clone of this commit")
    options = given.parse_args()
    products = [product_seconds()] if options.fresh else []
    place = ROOT
    if options.fresh:
        place = options.fresh.resolve()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(place)], check=True)
        settings = [f"CONFIG={options.config}", f"SET={' '.join(options.set)}"]
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        subprocess.run(["make", "run", *settings], cwd=place, env=clean, check=True)
    config = load(place / options.config, options.set)
    root = place / config.root
    absent = [
        stage.name for stage in config.stages if not all(path.exists() for path in records(config, stage.name, root))
    ]
    if absent:
        print(f"not measured, since the workflow has not run all of it: {', '.join(absent)}")
        return
    stages = [stage_row(config, stage.name, root) for stage in config.stages]
    content = {"experiment": config.name, **whole(stages, place / ".venv"), "stages": stages}
    first = min(row["began"] for row in stages)
    for row in stages:
        row |= {"began": row["began"] - first, "ended": row["ended"] - first}
    content["matrix_product"] = {"size": SIZE, "seconds": [*products, product_seconds()]}
    for row in [*stages, {"stage": "whole", **content}]:
        print("  ".join(f"{key} {value}" for key, value in row.items() if not isinstance(value, (list, dict))))
    print(f"product of two matrices of {SIZE} x {SIZE}: {content['matrix_product']['seconds']} s")
    print(write("demo", content))


def records(config: WeatherConfig, stage: str, root: Path) -> tuple[Path, Path]:
    """The receipt of a stage and what Snakemake measured of it."""
    receipt = root / "receipts" / config.paths.receipt(stage).name
    return receipt, root / "benchmarks" / receipt.with_suffix(".tsv").name


def stage_row(config: WeatherConfig, stage: str, root: Path) -> dict[str, Any]:
    """Beginning and end of a stage [s since 1970], its seconds, and the mean number of processors that it used."""
    receipt, benchmark = records(config, stage, root)
    provenance = json.loads(receipt.read_text())["provenance"]
    if "processor_seconds" not in provenance:
        raise SystemExit(f"error: {receipt} must say what processor time the stage took, got one of an earlier version")
    with benchmark.open() as file:
        seconds = float(next(csv.DictReader(file, delimiter="\t"))["s"])
    processor, end = provenance["processor_seconds"], dt.datetime.fromisoformat(provenance["written"]).timestamp()
    return {
        "stage": stage,
        "began": round(end - seconds),
        "ended": round(end),
        "seconds": round(seconds, 1),
        "processor_seconds": processor,
        "processors": round(processor / seconds, 2),
    }


def whole(stages: list[dict[str, Any]], venv: Path) -> dict[str, Any]:
    """From the first stage's beginning to the last one's end, and what the installation before took."""
    first, last = min(row["began"] for row in stages), max(row["ended"] for row in stages)
    processor = round(sum(row["processor_seconds"] for row in stages), 1)
    cores = len(os.sched_getaffinity(0))
    found = {"seconds": last - first, "processor_seconds": processor, "cores": cores}
    found["share_of_cores"] = round(processor / (cores * (last - first)), 2)
    stamps = [path.stat().st_mtime for path in venv.glob(".demo-*")]
    if stamps and (venv / "pyvenv.cfg").exists():
        made = (venv / "pyvenv.cfg").stat().st_mtime
        found |= {"install_seconds": round(stamps[0] - made), "seconds_from_a_clone": round(last - made)}
    return found


def product_seconds() -> float:
    """Median time of a product of two matrices on all processors [s]."""
    a, b = torch.randn(2, SIZE, SIZE).unbind()
    a @ b
    seconds = []
    for _ in range(PRODUCTS):
        began = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - began)
    return round(sorted(seconds)[PRODUCTS // 2], 4)


if __name__ == "__main__":
    main()
