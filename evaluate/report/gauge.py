"""A strip under a panel: how far a model has come from the climatology towards the ceiling.

Contract: one line from climatology (left) to ceiling (right) with the model on it and its interval, the three numbers,
and the share in words; where the ceiling is no better than the climatology, no line but words. It is drawn into a
subfigure of its own, so that the panel above it stays as it is without one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib import pyplot as plt

from evaluate.report import style
from evaluate.report.ceiling import Stand

HEIGHT = 0.52
"""Inches."""
COLOUR = style.COLOURS[0]
CEILING = style.REFERENCES["ceiling"]
_LEFT, _RIGHT = 0.03, 0.97


@dataclass(frozen=True)
class Strip:
    """What a strip says.

    Args:
        title: above the line.
        left, right: at its ends.
        sample: right of the title.
        share: where the model is; NaN draws no line.
        low, high: its interval.
    """

    title: str
    left: str = ""
    right: str = ""
    sample: str = ""
    share: float = math.nan
    low: float = math.nan
    high: float = math.nan


def strip(stand: Stand) -> Strip:
    """The strip of a stand."""
    ours = f"model {stand.number(stand.model)}"
    base, best = f"climatology {stand.number(stand.climatology)}", f"ceiling {stand.number(stand.ceiling)}"
    if stand.metric == "bias":
        return Strip(f"Area mean: {ours}", base, best, stand.sample)
    if not math.isfinite(stand.share):
        return Strip(stand.way[0].upper() + stand.way[1:], f"{base} · {ours}", best, stand.sample)
    return Strip(f"{ours}: {stand.way}", base, best, stand.sample, stand.share, stand.low, stand.high)


def panel(size: tuple[float, float], strip_: Strip | None) -> tuple[Any, Any]:
    """A figure, and the part of it that a panel of that size is drawn into; the strip is drawn below."""
    if strip_ is None:
        figure: Any = plt.figure(figsize=size)
        return figure, figure
    figure = plt.figure(figsize=(size[0], size[1] + HEIGHT))
    top, bottom = figure.subfigures(2, 1, height_ratios=[size[1], HEIGHT])
    draw(bottom, strip_)
    return figure, top


def draw(figure: Any, what: Strip) -> None:
    """Draw a strip over the whole of a (sub)figure."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    axes.plot([_LEFT, _RIGHT], [1.0, 1.0], color=style.GRID, linewidth=0.8)
    axes.text(_LEFT, 0.8, what.title, fontsize=8, fontweight="bold", va="center", color=style.INK)
    axes.text(_RIGHT, 0.8, what.sample, fontsize=7.2, va="center", ha="right", color=style.MUTED)
    lower = 0.16 if math.isfinite(what.share) else 0.38
    axes.text(_LEFT, lower, what.left, fontsize=7.6, va="center", color=style.MUTED)
    axes.text(_RIGHT, lower, what.right, fontsize=7.6, va="center", ha="right", color=CEILING)
    if not math.isfinite(what.share):
        return

    def place(share: float) -> float:
        return _LEFT + 0.01 + (_RIGHT - _LEFT - 0.02) * min(max(share, 0.0), 1.0)

    height = 0.47
    axes.plot([place(0), place(1)], [height, height], color="#cfd6de", linewidth=4.5, solid_capstyle="round")
    axes.plot([place(0), place(what.share)], [height, height], color=COLOUR, linewidth=4.5, solid_capstyle="round")
    if math.isfinite(what.low):
        axes.plot([place(what.low), place(what.high)], [height, height], color=style.INK, linewidth=1.1, zorder=3)
    axes.plot([place(1)], [height], "|", color=CEILING, markersize=9, markeredgewidth=2.2)
    marker = "<" if what.share < 0 else ">" if what.share > 1 else "o"
    axes.plot([place(what.share)], [height], marker, color=COLOUR, markersize=6.5, markeredgecolor="white",
              markeredgewidth=0.9, zorder=4)  # fmt: skip
