"""Figure a of the paper, modelled: 1.7B parameters, throughput per GPU over tensor parallelism alone.

512 and 1,024 channels, 2 and 8 GPUs (dies of MI250X): D-CHAG with Tree0 to Tree8, -C and -L, distributed tokenisation
alone, hierarchical aggregation alone (on one GPU), and with the fused channel stage. Every method has as many samples
as fit into nine tenths of 64 GB (64 a group at most), and stands beside the same with the batch of tensor parallelism
alone.

    python benchmarks/paper/gains.py
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.modelled import best, model_of
from benchmarks.support.paper import PUBLISHED, plain, point, run, show
from benchmarks.support.scale import (
    ALONE,
    DISTRIBUTED,
    FLAT_FUSED,
    FUSED,
    HIERARCHICAL,
    TREES,
    Setting,
)

CASES = ((512, 2), (512, 8), (1024, 2), (1024, 8))
LAID_OUT = (DISTRIBUTED, *TREES["C"], *TREES["L"], *FUSED.values())
ON_ONE = (HIERARCHICAL, FLAT_FUSED)
PUBLISHED_C = {(512, 2): (-8, 0), (1024, 2): (52, 68), (512, 8): (52, 68)}
"""Of Tree0-C [%]: "slightly below", and twice "about 60"; for 8 GPUs the number of channels is not said."""
_SHOWN = 500
"""Longer bars are cut [%]."""


def rows_of(channels: int, ranks: int) -> list[dict[str, Any]]:
    """Every method, and its gain over tensor parallelism alone."""
    base = best(Setting(ALONE, "1.7B", channels, ranks))
    assert base is not None
    found = [{**base.row(), "gpus": ranks, "gain": 0.0, "gain_same_batch": 0.0}]
    show(found[0])
    settings = [Setting(method, "1.7B", channels, ranks) for method in LAID_OUT]
    settings += [Setting(method, "1.7B", channels, 1, groups=ranks) for method in ON_ONE]
    for setting in settings:
        step = best(setting)
        if step is None:
            print(f"{setting.method.name}: not one sample fits")
            continue
        row = {**step.row(), "gpus": ranks, "gain": round(step.per_device / base.per_device - 1, 3)}
        if setting.channel == ranks:
            same = model_of(step.setting).at(base.batch)
            row["gain_same_batch"] = round(same.per_device / base.per_device - 1, 3)
        found.append(row)
        show(row, f"gain {row['gain']:+.0%}, same batch {row.get('gain_same_batch', float('nan')):+.0%}")
    return found


def recomputed(channels: int, ranks: int) -> list[dict[str, Any]]:
    """With recomputation everywhere: how far gains depend on it."""
    found, base = [], None
    for method in (ALONE, TREES["C"][0], TREES["L"][0]):
        step = model_of(replace(Setting(method, "1.7B", channels, ranks), recompute=True)).largest()
        assert step is not None
        base = base or step
        found.append({**step.row(), "gpus": ranks, "gain": round(step.per_device / base.per_device - 1, 3)})
        show(found[-1], f"gain {found[-1]['gain']:+.0%}")
    return found


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Gains by method, one panel a case; published values in yellow."""
    figure, panels = plt.subplots(1, 4, figsize=(13, 4.6), sharey=True, layout="constrained")
    for axes, (channels, ranks) in zip(panels, CASES, strict=True):
        of = [r for r in rows if (r["channels"], r["gpus"]) == (channels, ranks) and not r["recompute"]][1:]
        names = [row["method"] for row in of]
        colours = ["#54a24b" if "fused" in n else "#72b7b2" if n.startswith("D-CHAG") else "#9d9da1" for n in names]
        axes.barh(names, [100 * row["gain"] for row in of], color=colours, height=0.7)
        for row in of:
            place = max(5, min(100 * row["gain"], _SHOWN) + 5)
            axes.text(place, row["method"], f"{row['gain']:+.0%}", va="center", fontsize=8)
        dots = [(100 * row["gain_same_batch"], row["method"]) for row in of if "gain_same_batch" in row]
        axes.plot(*zip(*dots, strict=True), "k.", markersize=5, label="batch of TP alone")
        if (channels, ranks) in PUBLISHED_C:
            low, high = PUBLISHED_C[channels, ranks]
            y = names.index(TREES["C"][0].name)
            axes.fill_betweenx([y - 0.45, y + 0.45], low, high, color=PUBLISHED, alpha=0.8, label="published")
        axes.axvline(0, color="0.3", linewidth=0.8)
        axes.set(title=f"{channels} channels, {ranks} GPUs", xlabel="gain per GPU over TP alone [%]")
        axes.set_xlim(-40, 1.3 * _SHOWN)
        plain(axes)
    panels[0].invert_yaxis()
    panels[2].legend(frameon=False, fontsize=8, loc="upper right")
    figure.suptitle("1.7B parameters on MI250X dies, modelled: throughput per GPU, batch as large as fits")
    return figure


def points(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Published claims beside ours."""

    def gain(method: str, channels: int, gpus: int, key: str = "gain") -> float:
        return next(
            float(r[key]) for r in rows
            if (r["method"], r["channels"], r["gpus"], r["recompute"]) == (method, channels, gpus, False)
        )  # fmt: skip

    def pair(method: str, channels: int, gpus: int) -> str:
        same = gain(method, channels, gpus, "gain_same_batch")
        return f"{gain(method, channels, gpus):+.0%} ({same:+.0%} at the batch of TP alone)"

    def of_operations(channels: int, gpus: int) -> str:
        """Gain of Tree0-C where ranks never wait for one another."""
        speed = {
            r["method"]: r["batch"] / (r["step_s"] - r["waiting_s"]) for r in rows
            if (r["channels"], r["gpus"], r["recompute"]) == (channels, gpus, False)
        }  # fmt: skip
        return f"{speed[zero] / speed[ALONE.name] - 1:+.0%}"

    zero, linear = "D-CHAG Tree0-C", "D-CHAG Tree0-L"
    of_best = [max((r for r in rows if (r["channels"], r["gpus"]) == case and r["method"].startswith("D-CHAG")
                    and "fused" not in r["method"]), key=lambda r: r["gain"])["method"] for case in CASES]  # fmt: skip
    return [
        point("Tree0-C, 1.7B, 512 channels, 2 GPUs", "slightly below TP alone", pair(zero, 512, 2),
              f"Without waiting for other ranks the gain is {of_operations(512, 2)}, as published: half of the "
              "channels with all heads cost as much as all channels with half of the heads, and the merge comes on "
              "top. The rest is TP alone waiting for the sum of token gradients over ranks, on a link of 50 GB/s"),
        point("Tree0-C, 1.7B, 1,024 channels, 2 GPUs", "about +60%", pair(zero, 1024, 2),
              f"Without waiting for other ranks the gain is {of_operations(1024, 2)}; we do not know where the "
              "published +60% comes from. The model has no slowdown from small batches or nearly full memory"),
        point("Tree0-C, 1.7B, 8 GPUs (512 channels here, not stated there)", "about +60%", pair(zero, 512, 8),
              "Agrees: TP alone tokenises all channels on every rank and sums the gradient of all tokens over 8 ranks"),
        point("Best method", "Tree0-L", ", ".join(dict.fromkeys(of_best)),
              f"Agrees, but by far more: Tree0-L {pair(linear, 512, 2)} at 512 channels on 2 GPUs, "
              f"{pair(linear, 1024, 8)} at 1,024 on 8. Here cross-attention over channels (keys and values of all "
              "channels, for a rank's heads) is most of the step of TP alone; there it must have been less, we do not "
              "know why"),
        point("Gains grow with channels", "yes",
              f"Tree0-L on 8 GPUs {gain(linear, 512, 8):+.0%} at 512, {gain(linear, 1024, 8):+.0%} at 1,024",
              "Agrees: the channel stage grows with all channels in TP alone, with the rank's share in D-CHAG"),
        point("Distributed tokenisation alone, 512 channels, 8 GPUs", "no gain",
              pair("distributed tokenisation alone", 512, 8), "All tokens additionally cross the ranks"),
        point("Fused stage in D-CHAG, 1,024 channels, 8 GPUs", "-", pair("D-CHAG Tree0-C, fused", 1024, 8),
              "Not in the paper: tokens are never formed. A flat network with the fused stage on single GPUs, without "
              f"channel ranks, gains {gain('flat, fused', 1024, 8):+.0%}"),
        point("Recomputation, 512 channels, 2 GPUs", "not stated",
              ", ".join(f"{r['method']} {r['gain']:+.0%}" for r in rows if r["recompute"]),
              "Gains over TP alone with recomputation: gains depend little on it"),
    ]  # fmt: skip


def rows() -> list[dict[str, Any]]:
    return [row for case in CASES for row in rows_of(*case)] + recomputed(512, 2)


if __name__ == "__main__":
    run("gains", __doc__, rows=rows, points=points, draw=draw)
