"""Figures of traits: scores against the number of labels, predictions against the truth, maps of both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt

from evaluate import text
from evaluate.imaging.report import drawing
from evaluate.imaging.report.drawing import METHODS
from evaluate.imaging.traits.stage import PROBE
from evaluate.page import style
from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture

LOWEST_R2 = -0.25
"""Lower end of an axis of R2; what lies below it is as bad as the mean."""
PAIR = (4.5, 3.2)
"""Width and height of two maps side by side in inches."""


def unit_text(unit: str) -> str:
    """A unit of a trait.

    >>> unit_text("ug cm-2"), unit_text("1")
    ('µg cm⁻²', '1')
    """
    return text.pretty_unit(unit).replace("ug", "µg") or "1"


@style.look()
def label_chart(keeper: Keeper, rows: pd.DataFrame, *, trait: str) -> Picture:
    """R2 of every method for one trait against the number of labelled images.

    Args:
        keeper: writes the figure.
        rows: of traits.csv.
        trait: name.
    """
    of_trait = rows[rows["trait"] == trait]
    numbers = sorted(of_trait["labelled_images"].unique())
    about = f"R² on patches of {int(of_trait['n_images'].iloc[0])} held-out images"
    figure, axes = drawing.chart(
        keeper.labels(trait.replace("_", " ").capitalize(), about), x="labelled images", y="R² [1]"
    )
    parts = []
    for method, line in of_trait.groupby("method", sort=False):
        look, ordered = METHODS[str(method)], line.sort_values("labelled_images")
        shown = np.maximum(ordered["r2"].to_numpy(float), LOWEST_R2)
        drawing.line(axes, range(len(ordered)), shown, look, marker="o", markersize=4)
        if method == PROBE:
            ends = (np.maximum(ordered[key].to_numpy(float), LOWEST_R2) for key in ("r2_ci_low", "r2_ci_high"))
            axes.fill_between(range(len(ordered)), *ends, color=look.colour, alpha=0.15, linewidth=0)
        parts.append(f"{look.title} {', '.join(text.score(v) for v in ordered['r2'])}")
    axes.set_xticks(range(len(numbers)), [f"{n}" for n in numbers])
    axes.set_ylim(min(0.0, float(np.maximum(of_trait["r2"], LOWEST_R2).min())) - 0.02, 1.0)
    axes.axhline(0.0, color=style.MUTED, linewidth=0.8)
    drawing.legend_below(figure, axes)
    alt = (
        f"R2 of {trait} with {text.join([str(n) for n in numbers])} labelled images, {keeper.note}: {'; '.join(parts)}."
    )
    return keeper.keep(
        figure, f"traits/{trait}_labels", Numbers(of_trait, f"R2 of {trait} by labelled images"), alt=alt
    )


@style.look()
def scatter(keeper: Keeper, patches: pd.DataFrame, *, trait: str, unit: str) -> Picture:
    """Prediction of the probe against the truth, one point for each held-out patch."""
    truth, guess = patches[trait].to_numpy(float), patches[f"{trait}_{PROBE}"].to_numpy(float)
    labels = keeper.labels(f"{trait.replace('_', ' ').capitalize()}, probe", f"{len(truth)} held-out patches", unit)
    figure, axes = drawing.chart(labels, x=f"truth [{unit}]", y=f"probe [{unit}]")
    axes.set_position((0.17, 0.14, 0.8, 0.71))
    every = -(-len(truth) // 5000)
    axes.scatter(truth[::every], guess[::every], s=5, color=METHODS[PROBE].colour, alpha=0.35, linewidths=0)
    ends = [float(np.nanmin(truth)), float(np.nanmax(truth))]
    axes.plot(ends, ends, color=style.INK, linewidth=0.9)
    axes.set_ylim(*(np.nanpercentile(np.concatenate([guess, truth]), q) for q in (0.1, 99.9)))
    alt = f"{trait} predicted by the probe against the truth, {len(truth)} patches; the line marks equality."
    numbers = Numbers(patches[["image", "row", "column", trait, f"{trait}_{PROBE}"]], f"{trait}, truth and probe")
    return keeper.keep(figure, f"traits/{trait}_scatter", numbers, alt=alt)


@style.look()
def trait_maps(
    keeper: Keeper, maps: xr.Dataset, *, trait: str, unit: str, image: str, ends: tuple[float, float]
) -> Picture:
    """Maps of one trait over the patches of one image, truth and probe on one scale.

    Args:
        keeper: writes the figure.
        maps: `truth` and `probe` by (row, column), NaN where a patch is not mostly leaf.
        trait: name.
        unit: for people.
        image: name.
        ends: of the scale.
    """
    figure = plt.figure(figsize=PAIR)
    style.write_labels(figure, keeper.labels(trait.replace("_", " ").capitalize(), image, unit), height=PAIR[1])
    colours = plt.get_cmap("viridis").with_extremes(bad=drawing.BLANK)
    shown: Any = None
    for i, (name, title) in enumerate((("truth", "truth"), ("probe", "probe on the features"))):
        axes = figure.add_axes((0.03 + 0.485 * i, 0.17, 0.455, 0.63))
        shown = axes.imshow(maps[name].values, cmap=colours, vmin=ends[0], vmax=ends[1], interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(title, fontsize=8.5, fontweight="normal", pad=3)
    bar = figure.colorbar(shown, cax=figure.add_axes((0.15, 0.115, 0.7, 0.025)), orientation="horizontal")
    bar.set_label(f"{trait.replace('_', ' ')} [{unit}]; grey: less than half leaf", fontsize=7.6, labelpad=1)
    bar.ax.tick_params(labelsize=7.4, pad=1)
    bar.outline.set_visible(False)
    error = float(np.sqrt(np.nanmean((maps["probe"] - maps["truth"]).values ** 2)))
    alt = f"Maps of {trait} over the patches of {image}, truth and probe; RMSE {text.number(error)} {unit}."
    numbers = Numbers(maps, f"{trait} of {image}, truth and probe", {"truth": unit, "probe": unit})
    return keeper.keep(figure, f"traits/{trait}_{image}", numbers, alt=alt)


def map_of(
    patches: pd.DataFrame, columns: dict[str, str], *, shape: tuple[int, int], offsets: dict[int, tuple[int, int]]
) -> xr.Dataset:
    """Values of the patches of one image at their places, NaN elsewhere.

    Args:
        patches: rows of trait_patches.csv of that image.
        columns: what is drawn, by its new name.
        shape: rows and columns of patches in the image.
        offsets: where each tile begins, in patches.
    """
    found = {name: np.full(shape, np.nan) for name in columns}
    rows = patches["row"] + patches["tile"].map(lambda tile: offsets[tile][0])
    across = patches["column"] + patches["tile"].map(lambda tile: offsets[tile][1])
    for name, column in columns.items():
        found[name][rows, across] = patches[column]
    return xr.Dataset({name: (("row", "column"), values) for name, values in found.items()})
