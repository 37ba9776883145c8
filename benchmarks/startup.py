"""How long a command takes that has nothing to do: help, and every stage of an experiment that is complete.

Claim: under 1.5 s each, on a machine where Python loads numpy, yaml and pydantic in 0.4 s; `floor` measures that in the
same run. `make run` is that and Snakemake, which loads its own modules and plans the workflow.

    python benchmarks/startup.py                               # the demo, once `make demo` has finished
    python benchmarks/startup.py --config my.yaml --set directory=/data/mine

Each command runs `--repeats` times in turn with the others; the minimum counts, of wall time and of processor time,
which a busy machine changes less.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, parser
from pipeline.config import load

FLOOR = ["-c", "import numpy, yaml, pydantic"]


def main() -> None:
    given = parser(__doc__)
    given.add_argument("--config", default="workflows/config/demo.yaml")
    given.add_argument("--set", action="append", default=[])
    given.add_argument("--repeats", type=int, default=5)
    options = given.parse_args()
    config = load(options.config, options.set)
    settings = ["--config", options.config, *(word for item in options.set for word in ("--set", item))]
    python = {"floor": FLOOR, "score --help": ["-m", "pipeline", "score", "--help"]}
    python |= {stage.name: ["-m", "pipeline", stage.name, *settings] for stage in config.stages}
    commands = {name: [sys.executable, *arguments] for name, arguments in python.items()}
    unfinished = [stage.name for stage in config.stages if not config.paths.receipt(stage.name).exists()]
    if unfinished:
        print(f"not measured, since they are not complete: {', '.join(unfinished)}")
        commands = {name: command for name, command in commands.items() if name not in unfinished}
    elif (ROOT / ".venv").exists():
        commands["make run"] = ["make", "run", f"CONFIG={options.config}", f"SET={' '.join(options.set)}"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(options.repeats):
        for name, command in commands.items():
            found[name].append(seconds(command))
    least = {name: tuple(map(min, zip(*values, strict=True))) for name, values in found.items()}
    rows = [row(name, values, floor=least["floor"]) for name, values in least.items()]
    for item in rows:
        wall, processor, times = item["wall_s"], item["processor_s"], item["processor_times_floor"]
        print(f"{item['command']:14} {wall:6.2f} s, processor {processor:6.2f} s, {times:5.1f} times the floor's")
    print(write("startup", {"repeats": options.repeats, "experiment": config.name, "cases": rows}))


def seconds(command: list[str]) -> tuple[float, float]:
    """Wall and processor time of a command, which must succeed."""
    began, before = time.perf_counter(), processor_seconds()
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr.strip()}")
    return time.perf_counter() - began, processor_seconds() - before


def processor_seconds() -> float:
    """Of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def row(name: str, values: tuple[float, ...], *, floor: tuple[float, ...]) -> dict[str, Any]:
    measured = {"wall_s": round(values[0], 3), "processor_s": round(values[1], 3)}
    return {"command": name, **measured, "processor_times_floor": round(values[1] / floor[1], 2)}


if __name__ == "__main__":
    main()
