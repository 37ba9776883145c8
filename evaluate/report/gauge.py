"""A strip under a panel: how much of the gap between climatology and ceiling a model closes.

Contract: one line from climatology (left) to ceiling (right) with the model on it and its interval, the three numbers,
and the share in words; where the ceiling is no better than the climatology, text without a line. It is drawn into a
subfigure, so that the panel above it is the same as one without a strip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib import pyplot as plt

from evaluate.report import style
from evaluate.report.ceiling import Comparison
from evaluate.scoring.score_table import NO_SCORE, Score

HEIGHT = 0.52
"""Inches."""
COLOUR = style.COLOURS[0]
CEILING = style.LOOKS["ceiling"].colour
_LEFT, _RIGHT = 0.03, 0.97


@dataclass(frozen=True)
class Strip:
    """What a strip says.

    Args:
        title: above the line.
        left, right: at its ends.
        sample: right of the title.
        share: where the model is, with its interval; NaN draws no line.
    """

    title: str
    left: str = ""
    right: str = ""
    sample: str = ""
    share: Score = NO_SCORE

    @classmethod
    def of(cls, score: Comparison) -> Strip:
        """The strip of a score beside climatology and ceiling."""
        ours = f"model {score.number(score.model)}"
        ends = f"climatology {score.number(score.climatology)}", f"ceiling {score.number(score.ceiling)}"
        if score.metric == "bias":
            return cls(f"Area mean: {ours}", *ends, score.sample)
        if not math.isfinite(score.share.value):
            return cls(score.verdict[0].upper() + score.verdict[1:], f"{ends[0]} · {ours}", ends[1], score.sample)
        return cls(f"{ours}: {score.verdict}", *ends, score.sample, score.share)


def figure_with(strip: Strip | None, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure, and the part of it that a panel of that size is drawn into; the strip is drawn below."""
    if strip is None:
        figure: Any = plt.figure(figsize=size)
        return figure, figure
    figure = plt.figure(figsize=(size[0], size[1] + HEIGHT))
    top, bottom = figure.subfigures(2, 1, height_ratios=[size[1], HEIGHT])
    _draw(bottom, strip)
    return figure, top


def _draw(figure: Any, strip: Strip) -> None:
    """Draw a strip over the whole of a (sub)figure."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    axes.plot([_LEFT, _RIGHT], [1.0, 1.0], color=style.GRID, linewidth=0.8)
    share, low, high = strip.share
    lower = 0.16 if math.isfinite(share) else 0.38
    axes.text(_LEFT, 0.8, strip.title, fontsize=8, fontweight="bold", va="center", color=style.INK)
    axes.text(_RIGHT, 0.8, strip.sample, fontsize=7.2, va="center", ha="right", color=style.MUTED)
    axes.text(_LEFT, lower, strip.left, fontsize=7.6, va="center", color=style.MUTED)
    axes.text(_RIGHT, lower, strip.right, fontsize=7.6, va="center", ha="right", color=CEILING)
    if not math.isfinite(share):
        return

    def line(*shares: float, **look: Any) -> None:
        x = [_LEFT + 0.01 + (_RIGHT - _LEFT - 0.02) * min(max(share, 0.0), 1.0) for share in shares]
        axes.plot(x, [0.47] * len(x), **look)

    line(0, 1, color="#cfd6de", linewidth=4.5, solid_capstyle="round")
    line(0, share, color=COLOUR, linewidth=4.5, solid_capstyle="round")
    if math.isfinite(low):
        line(low, high, color=style.INK, linewidth=1.1, zorder=3)
    line(1, color=CEILING, marker="|", markersize=9, markeredgewidth=2.2)
    marker = "<" if share < 0 else ">" if share > 1 else "o"
    line(share, color=COLOUR, marker=marker, markersize=6.5, markeredgecolor="white", markeredgewidth=0.9, zorder=4)
