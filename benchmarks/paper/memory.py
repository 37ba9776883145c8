"""Figure b of the paper, modelled: memory of a GPU by part, 1.7B parameters, 1,024 channels.

With tensor parallelism over 8 dies, the same with everything sharded over 8 such groups (FSDP), and over 2 dies sharded
over 4 groups. Every method has the largest batch that tensor parallelism alone can have.

    python benchmarks/paper/memory.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.modelled import model_of
from benchmarks.support.paper import COLOURS, PUBLISHED, plain, point, run, show
from benchmarks.support.scale import ALONE, FUSED, TREES, Setting

LAYOUTS = {
    "TP over 8": (8, 1, "ddp"), "TP over 8, sharded over 8": (8, 8, "fsdp"), "TP over 2, sharded over 4": (2, 4, "fsdp")
}  # fmt: skip
PUBLISHED_SAVING = {"TP over 8": 0.70, "TP over 8, sharded over 8": 0.75, "TP over 2, sharded over 4": 0.75}
WHY = {
    "TP over 8": "a D-CHAG rank keeps the tokens of an eighth of the channels, but with full keys and values (-C) or "
    "none (-L), which brackets the published number",
    "TP over 8, sharded over 8": "sharding shrinks the states only, so the same saving in bytes is a larger share of "
    "what is left",
    "TP over 2, sharded over 4": "half of the channels with full keys and values take as many bytes as all channels "
    "with half of them: on two ranks cross-attention units save nothing, linear units and the fused stage do",
}
METHODS = (ALONE, TREES["C"][0], TREES["L"][0], FUSED["C"])


def rows_of(layout: str) -> list[dict[str, Any]]:
    """Every method, and what it saves of the memory of tensor parallelism alone."""
    channel, data, sharding = LAYOUTS[layout]
    models = [model_of(Setting(m, "1.7B", 1024, channel, data=data, sharding=sharding)) for m in METHODS]
    base = models[0].largest()
    assert base is not None
    found = []
    for model in models:
        step = model.at(base.batch)
        saved = 1 - step.peak / base.peak
        found.append({**step.row(), "layout": layout, "saved": round(saved, 3)})
        show(found[-1], f"saves {saved:.0%}")
    return found


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Stacked parts, one panel a layout; the published saving as a line."""
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained", sharey=True)
    for axes, layout in zip(panels, LAYOUTS, strict=True):
        of = [row for row in rows if row["layout"] == layout]
        names = [row["method"].replace(", ", ",\n") for row in of]
        bottom = [0.0] * len(of)
        for part, colour in COLOURS.items():
            heights = [row["parts_GB"].get(part, 0.0) for row in of]
            axes.bar(names, heights, bottom=bottom, color=colour, label=part, width=0.7)
            bottom = [a + b for a, b in zip(bottom, heights, strict=True)]
        saving = PUBLISHED_SAVING[layout]
        axes.axhline((1 - saving) * bottom[0], color=PUBLISHED, linewidth=3, label="published: 70 and 75% less")
        axes.set_title(f"{layout}: {of[0]['batch']} samples a group")
        axes.tick_params(axis="x", labelsize=8)
        plain(axes)
    panels[0].legend(frameon=False, fontsize=7, ncols=2)
    panels[0].set_ylabel("GB of a GPU, at the peak")
    figure.suptitle("1.7B parameters, 1,024 channels, modelled")
    return figure


def points(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Published claims beside ours."""
    found = []
    for layout, published in PUBLISHED_SAVING.items():
        of = {row["method"]: row for row in rows if row["layout"] == layout}
        ours = ", ".join(f"{m.name.removeprefix('D-CHAG ')} {of[m.name]['saved']:.0%}" for m in METHODS[1:])
        base = of[ALONE.name]
        tokens = sum(base["parts_GB"].get(part, 0.0) for part in ("tokenisation", "aggregation"))
        where = (
            f"In TP alone tokens, keys and values take {tokens:.0f} of {base['peak_GB']:.0f} GB, parameters and "
            f"states {base['held_GB']:.0f}; "
        )
        found.append(point(f"Memory saved, {layout}", f"up to {published:.0%}", ours, where + WHY[layout]))
    return found


def rows() -> list[dict[str, Any]]:
    return [row for layout in LAYOUTS for row in rows_of(layout)]


if __name__ == "__main__":
    run("memory", __doc__, rows=rows, points=points, draw=draw)
