"""What the scripts of benchmarks/paper share: results with claims beside them, colours, the look of figures."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.support.measure import RESULTS, write
from benchmarks.support.process import ROOT, parser
from benchmarks.support.scale import MACHINE, USABLE

Rows = list[dict[str, Any]]
PICTURES = ROOT / "docs" / "images" / "paper"
PUBLISHED = "#f0c46b"
COLOURS = {
    "tokenisation": "#4c78a8", "aggregation": "#72b7b2", "merge": "#54a24b", "trunk": "#9d9da1", "head": "#b79a20",
    "optimiser": "#d4d4d8", "communication": "#e45756", "elsewhere": "#b279a2", "batches": "#222222",
}  # fmt: skip
"""Of parts of a network."""
HOW = {
    "origin": "modelled, not measured",
    "machine": MACHINE.title,
    "source": MACHINE.source,
    "usable_GB": USABLE / 1e9,
    "precision": "bfloat16 autocast, parameters and AdamW in float32",
}


def point(claim: str, published: str, ours: str, why: str) -> dict[str, str]:
    """A published claim, what ours gives, and why they differ or agree."""
    return {"claim": claim, "published": published, "ours": ours, "why": why}


def run(
    name: str,
    description: str | None,
    *,
    rows: Callable[[], Rows],
    points: Callable[[Rows], list[dict[str, str]]],
    draw: Callable[[Rows], Figure],
) -> None:
    """The command line of a script: model rows, write results/paper_<name>.json and the figure, print the points."""
    command = parser(description)
    command.add_argument("--draw", action="store_true", help="only draw and word the results that are there")
    start = time.perf_counter()
    made: dict[str, Any] = {}
    if command.parse_args().draw:
        before = results(name)
        found, seconds, made = before["rows"], before["seconds"], made_as(before)
    else:
        found = rows()
        seconds = round(time.perf_counter() - start, 1)
    worded, figure = points(found), draw(found)
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / f"{name}.png", dpi=110)
    plt.close(figure)
    print(write(f"paper_{name}", {**made, **HOW, "seconds": seconds, "points": worded, "rows": found}), f"{seconds} s")
    for each in worded:
        print(f"- {each['claim']}: published {each['published']}; ours, modelled: {each['ours']}. {each['why']}")


def made_as(before: dict[str, Any]) -> dict[str, Any]:
    """When and where results that are only drawn again were made."""
    return {key: before[key] for key in ("date", "hardware")}


def results(name: str) -> dict[str, Any]:
    """Of a script that has run."""
    content: dict[str, Any] = json.loads(Path(RESULTS, f"paper_{name}.json").read_text())
    return content


def show(row: dict[str, Any], *more: str) -> None:
    """A line of a table on standard output."""
    print(
        f"{row['method']:34} {row['size']:>4} {row['channels']:5} ch {row['channel_ranks']:3} x {row['data_ranks']:4} "
        f"B {row['batch']:3} {row['peak_GB']:7.1f} GB {row['step_s']:7.3f} s "
        f"{row['samples_per_s_and_device']:8.3f} /s/GPU {row['TFLOP_per_s_and_device']:6.1f} TF",
        *more,
        flush=True,
    )


def plain(axes: Axes) -> None:
    """No frame on top and right."""
    axes.spines[["top", "right"]].set_visible(False)
