"""Figure e of the paper, modelled: sustained throughput of 1 to 1,024 GPUs, 1.7B parameters, 512 channels.

Layouts are channel ranks (with the trunk cut over them) times data ranks. Weak scaling: as many samples for each group
of channel ranks as fit. Strong scaling: 1,024 samples a step in all. Gradients are summed over data ranks behind the
backward pass, and waited for where they take longer; their group crosses nodes from 8 dies on.

    python benchmarks/paper/cluster.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.modelled import model_of
from benchmarks.support.paper import plain, point, run, show
from benchmarks.support.scale import ALONE, FLAT_FUSED, FUSED, TREES, USABLE, Method, Setting
from pipeline.words import counted

LAYOUTS: tuple[tuple[Method, int], ...] = (
    (ALONE, 2), (ALONE, 8), (TREES["C"][0], 8), (TREES["L"][0], 8), (FUSED["C"], 8), (FUSED["C"], 2), (FLAT_FUSED, 1)
)  # fmt: skip
GPUS = (2, 8, 64, 256, 1024)
GLOBAL_BATCH = 1024
_ALIKE = 1.01


def rows_of(method: Method, channel: int) -> list[dict[str, Any]]:
    """A method with some channel ranks on every number of GPUs, weak and strong."""
    found = []
    model = model_of(Setting(method, "1.7B", 512, channel, data=2))
    for gpus in (n for n in GPUS if n >= channel):
        data = gpus // channel
        weak = model.largest(data=data)
        assert weak is not None
        found.append({**weak.row(), "gpus": gpus, "scaling": "weak"})
        show(found[-1])
        share = GLOBAL_BATCH // data
        batch = next(b for b in range(min(share, weak.batch), 0, -1) if share % b == 0)
        once = model.at(batch, data=data)
        seconds = once.seconds * (share // batch)  # an upper bound: gradients of micro-batches are averaged each time
        found.append({**once.row(), "gpus": gpus, "scaling": "strong", "micro_batches": share // batch,
                      "step_s": round(seconds, 4),
                      "samples_per_s_and_device": round(GLOBAL_BATCH / seconds / gpus, 4)})  # fmt: skip
    return found


def name(row: dict[str, Any]) -> str:
    return f"{row['method']}, {counted(row['channel_ranks'], 'channel rank')}"


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Samples a second over GPUs."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained", sharey=True)
    colours = ("#9d9da1", "#5f5f63", "#72b7b2", "#4c78a8", "#54a24b", "#8fd18a", "#b79a20")
    for axes, scaling in zip(panels, ("weak", "strong"), strict=True):
        of = [row for row in rows if row["scaling"] == scaling]
        for label, colour in zip(dict.fromkeys(map(name, of)), colours, strict=True):
            own = [row for row in of if name(row) == label]
            rate = [row["gpus"] * row["samples_per_s_and_device"] for row in own]
            axes.plot([row["gpus"] for row in own], rate, "o-", markersize=4, color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel="GPUs (MI250X dies)")
        axes.set_xticks(GPUS, list(map(str, GPUS)))
        axes.set_title("as many samples a group as fit" if scaling == "weak" else f"{GLOBAL_BATCH} samples a step")
        plain(axes)
    panels[0].set_ylabel("samples/s, all GPUs")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle("1.7B parameters, 512 channels, modelled")
    return figure


def points(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Published claims beside ours, and the fastest layout at each size."""
    weak = {(name(row), row["gpus"]): row for row in rows if row["scaling"] == "weak"}

    def ratio(method: Method, gpus: int) -> str:
        base = weak[f"{ALONE.name}, 8 channel ranks", gpus]["samples_per_s_and_device"]
        return f"{weak[f'{method.name}, 8 channel ranks', gpus]['samples_per_s_and_device'] / base:.1f} x"

    def fastest(scaling: str) -> str:
        chosen = {}
        for gpus in GPUS:
            of = [r for r in rows if (r["gpus"], r["scaling"]) == (gpus, scaling) and r["peak_GB"] <= USABLE / 1e9]
            most = max(row["samples_per_s_and_device"] for row in of)
            alike = [row for row in of if row["samples_per_s_and_device"] * _ALIKE >= most]
            chosen[gpus] = name(min(alike, key=lambda row: row["peak_GB"]))
        return "; ".join(f"{gpus} GPUs: {text}" for gpus, text in chosen.items())

    return [
        point("Sustained throughput on 1,024 GPUs, D-CHAG against TP alone, both on 8 channel ranks", "more than 2 x",
              f"C {ratio(TREES['C'][0], 1024)}, L {ratio(TREES['L'][0], 1024)}, C fused {ratio(FUSED['C'], 1024)}",
              "L agrees, C stays below, as in a single group: in all, gradient sums hide behind the backward pass"),
        point("Fastest layout (within 1%, the one with the least memory), as many samples as fit", "-",
              fastest("weak"),
              "Of the figure's layouts, single dies with the flat fused stage win at any number of GPUs: with as many "
              "samples as fit, gradient sums hide behind the backward pass"),
        point(f"The same with {GLOBAL_BATCH:,} samples per step", "-", fastest("strong"),
              "With few samples per die gradient sums outlast the backward pass; more channel ranks send less"),
    ]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    return [row for layout in LAYOUTS for row in rows_of(*layout)]


if __name__ == "__main__":
    run("cluster", __doc__, rows=rows, points=points, draw=draw)
