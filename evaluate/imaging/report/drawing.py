"""How figures of images look: looks of the models, panels.

Contract: as for every figure of the project (`evaluate.page.style`): each panel names what it shows, the unit, the
sample and the data.
"""

from __future__ import annotations

from typing import Any

from matplotlib import pyplot as plt

from evaluate.page import style

LOOKS = {
    "network": style.Look(style.COLOURS[0], "network"),
    "band_mean": style.Look("#68717d", "band mean", (4, 2)),
    "visible_mean": style.Look("#d1571b", "mean of visible patches", (1.2, 1.4)),
    "interpolation": style.Look("#9a6a00", "interpolation", (6, 1.5)),
    "low_rank": style.Look("#a33ea1", "low-rank completion", (3, 1, 1, 1)),
}
"""Of reconstructions."""
METHODS = {
    "probe": style.Look(style.COLOURS[0], "linear probe on the features"),
    "probe_untrained": style.Look("#68717d", "probe, untrained network", (4, 2)),
    "pls": style.Look("#a33ea1", "PLS on the spectra", (3, 1, 1, 1)),
    "ci_re": style.Look("#008f6b", "CI red edge", (1.2, 1.4)),
    "ndvi": style.Look("#d1571b", "NDVI", (1.2, 1.4)),
    "pri": style.Look("#b8860b", "PRI", (1.2, 1.4)),
    "water_index": style.Look("#3f3f95", "water index", (1.2, 1.4)),
}
"""Of predictions of traits."""

CHART = (4.5, 3.7)
"""Width and height of a chart in inches."""
IMAGE = (4.5, 5.2)
"""Of a picture of an image."""
BLANK = "#d9dee5"
"""Where there is nothing to show."""


def chart(labels: style.Labels, *, x: str, y: str) -> tuple[Any, Any]:
    """An empty chart, its legend to go below."""
    figure = plt.figure(figsize=CHART)
    axes = figure.add_axes((0.15, 0.295, 0.82, 0.565))
    style.write_labels(figure, labels, height=CHART[1])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def legend_below(figure: Any, axes: Any) -> None:
    """A legend under the axes, where it covers no line, in as many columns as fit, three at most."""
    handles, titles = axes.get_legend_handles_labels()
    font: Any = {"fontsize": 7.4, "handlelength": 2.4, "columnspacing": 1.0}
    for columns in range(min(3, len(titles)), 0, -1):
        legend = figure.legend(handles, titles, loc="lower center", bbox_to_anchor=(0.5, -0.005), ncols=columns, **font)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()


def line(axes: Any, x: Any, y: Any, look: style.Look, *, title: str = "", width: float = 1.5, **more: Any) -> None:
    """A line in the look of a model; dashes where it has some."""
    dashes = {"dashes": look.dashes} if look.dashes else {}
    axes.plot(x, y, color=look.colour, linewidth=width, label=title or look.title, **dashes, **more)


def image_panel(labels: style.Labels, picture: Any, *, below: str = "", **show: Any) -> tuple[Any, Any, Any]:
    """A picture of an image with a line of text below; figure, axes, and what `imshow` returns."""
    figure = plt.figure(figsize=IMAGE)
    axes = figure.add_axes((0.03, 0.1, 0.94, 0.79))
    style.write_labels(figure, labels, height=IMAGE[1])
    shown = axes.imshow(picture, interpolation="nearest", **show)
    axes.set_axis_off()
    if below:
        figure.text(0.5, 0.05, below, fontsize=7.6, color=style.MUTED, ha="center", va="center")
    return figure, axes, shown


def colour_bar(figure: Any, shown: Any, *, label: str) -> None:
    """A colour scale below a picture."""
    bar = figure.colorbar(shown, cax=figure.add_axes((0.12, 0.072, 0.76, 0.018)), orientation="horizontal")
    bar.set_label(label, fontsize=7.6)
    bar.ax.tick_params(labelsize=7.6)
    bar.outline.set_visible(False)
