"""What the ranks of a training read from disk, by layout: counted by the kernel, each rank in a process of its own.

Claim: a channel rank reads its own channels only, rounded up to whole chunks of the store; the ratios printed are those
to one rank alone. Data ranks that hold the store in memory each read all of it; where it is
read sample by sample (`held` false) they read a share of the samples each.
Needs a trained experiment's store: `make demo` first.

    python benchmarks/reading.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, options, parser, part
from model.parallel.wrap import plan_for
from model.weather.task import Forecasting
from model.weather.training_data import TrainingData
from pipeline.config import load
from pipeline.weather.climatology import Normals

DEMO = ROOT / "workflows" / "config" / "demo.yaml"
LAYOUTS = [(1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (4, 1), (2, 2)]
"""Data ranks and channel ranks."""
GROUPS = "model.groups={by: contiguous, count: 8}"
"""Of channels: as many as the most channel ranks."""
STEPS = 8
"""Batches read where the store is not held in memory."""


def counted() -> tuple[int, int]:
    """Bytes that this process has asked files for, and calls."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["rchar"]), int(lines["syscr"])


def one(case: dict[str, Any]) -> dict[str, Any]:
    """What a rank reads until its first steps can be computed."""
    config: Any = load(DEMO, [*case["set"], GROUPS])
    data, channel, rank = case["data"], case["channel"], case["rank"]
    channels = plan_for(Forecasting.planned(config).network, ranks=channel).channels[rank % channel]
    before = counted()
    normals = Normals.open(config.paths.normals)
    read = TrainingData(config, normals=normals, channels=channels, rank=rank // channel, ranks=data, pin=False)
    if case["held"]:
        read.hold(processes=1, progress=False)
    for step in range(STEPS):
        read.batch(step)
    after = counted()
    return {"bytes": after[0] - before[0], "calls": after[1] - before[1], "read_channels": len(channels)}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--set", action="append", default=[], help="settings of the demo whose store is read")
    given = options(command, one)
    rows: list[dict[str, Any]] = []
    for held in (True, False):
        alone = 0
        for data, channel in LAYOUTS:
            ranks = [
                part(__file__, data=data, channel=channel, rank=rank, held=held, set=given.set)
                for rank in range(data * channel)
            ]
            total, most = sum(r["bytes"] for r in ranks), max(r["bytes"] for r in ranks)
            alone = alone or total
            rows.append(
                {"data": data, "channel": channel, "held": held, "bytes": total, "bytes_of_a_rank": most,
                 "all_over_one_rank": round(total / alone, 3), "a_rank_over_one_rank": round(most / alone, 3),
                 "most_channels_of_a_rank": max(r["read_channels"] for r in ranks)}
            )  # fmt: skip
            print(rows[-1], flush=True)
    print(write("reading", {"steps": STEPS, "rows": rows}))


if __name__ == "__main__":
    main()
