"""Charts of the scores: error by wavelength for every model, and the losses of trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator

from evaluate import text
from evaluate.imaging.report import drawing
from evaluate.imaging.report.drawing import LOOKS
from evaluate.imaging.scores import REGIONS, Region
from evaluate.imaging.sums import MODELS, NETWORK
from evaluate.imaging.tables import ALL
from evaluate.page import style
from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture
from evaluate.page.training_log import read_training
from pipeline.words import counted

TITLES: dict[Region, str] = {
    "hidden": "Error, hidden patches",
    "window": "Error, hidden bands",
    "both": "Error, both hidden",
}


def error_charts(keeper: Keeper, table: pd.DataFrame) -> list[Picture]:
    """RMSE of every model by wavelength, one chart for each region that was scored."""
    return [_error_chart(keeper, table, region) for region in REGIONS if (table["region"] == region).any()]


@style.look()
def _error_chart(keeper: Keeper, table: pd.DataFrame, region: Region) -> Picture:
    rows = table[(table["region"] == region) & (table["metric"] == "rmse") & (table["band"] != ALL)]
    images = int(rows["n_images"].max())
    labels = keeper.labels(TITLES[region], f"RMSE by band · {REGIONS[region]}, {counted(images, 'image')}")
    figure, axes = drawing.chart(labels, x="wavelength [nm]", y="RMSE [reflectance]")
    ends = []
    for model in reversed(MODELS):
        of_model = rows[rows["model"] == model].sort_values("wavelength")
        x, y = of_model["wavelength"].to_numpy(float), of_model["value"].to_numpy(float)
        network = model == NETWORK
        drawing.line(axes, x, y, LOOKS[model], width=2.0 if network else 1.3, zorder=4 if network else 3)
        low, high = of_model["ci_low"].to_numpy(float), of_model["ci_high"].to_numpy(float)
        if network and np.isfinite(low).any():
            axes.fill_between(x, low, high, color=LOOKS[model].colour, alpha=0.18, linewidth=0, zorder=2)
        ends.append(f"{LOOKS[model].title} {text.number(float(np.sqrt(np.mean(y**2))))}")
    axes.set_ylim(0, 1.05 * float(rows["value"].max()))
    drawing.legend_below(figure, axes)
    alt = f"{TITLES[region]} by wavelength, {keeper.note}; root mean square over bands: {'; '.join(reversed(ends))}."
    numbers = Numbers(
        rows[["model", "band", "wavelength", "value", "ci_low", "ci_high"]], f"{TITLES[region]}, by wavelength"
    )
    return keeper.keep(figure, f"error_by_wavelength_{region}", numbers, alt=alt)


def training_chart(keeper: Keeper, own: Path, others: Mapping[str, Path]) -> list[Picture]:
    """Losses of this training and of others on top of each other; nothing where there is no log.

    Args:
        keeper: writes the figure.
        own: metrics.jsonl of this experiment.
        others: of other trainings, by what the legend calls them.

    Raises:
        ValueError: the log of another training is not there.
    """
    absent = [path for path in others.values() if not path.exists()]
    if absent:
        raise ValueError(
            f"evaluation.training_curves must name logs of training (metrics.jsonl), got none at {absent[0]}; train "
            "there first, or leave the entry out"
        )
    logs = {"this training": own, **others} if own.exists() else dict(others)
    read = {name: read_training(path) for name, path in logs.items()}
    drawn = {name: logs for name, logs in read.items() if not logs[0].empty}
    return [_losses(keeper, drawn)] if drawn else []


@style.look()
def _losses(keeper: Keeper, logs: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> Picture:
    several = len(logs) > 1
    subtitle = f"loss on hidden patches · {text.join(list(logs))}" if several else "loss on hidden patches and bands"
    figure, axes = drawing.chart(keeper.labels("Training", subtitle), x="step", y="loss [1]")
    rows, lowest, highest = [], np.inf, -np.inf
    for i, (name, (train, validation)) in enumerate(logs.items()):
        colour = style.COLOURS[i % len(style.COLOURS)]
        steps, loss = train["step"].to_numpy(float), train["loss"].to_numpy(float)
        window = max(1, len(loss) // 60)
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        mean = f", mean of {window} steps" if window > 1 else ""
        look: dict[str, Any] = {"dashes": (2.5, 1.5), "zorder": 4} if i else {"zorder": 3}
        axes.plot(steps[window - 1 :], smooth, color=colour, linewidth=1.6 if i else 2.2, label=f"{name}{mean}", **look)
        if len(validation):
            points = (validation["step"], validation["loss"])
            axes.plot(*points, color=colour, marker="o", markersize=3.5, linestyle="none", label=f"{name}, validation")
        shown = np.concatenate([smooth[len(smooth) // 50 :], validation["loss"] if len(validation) else []])
        lowest, highest = min(lowest, float(shown.min())), max(highest, float(shown.max()))
        rows += [part.assign(training=name, kind=kind) for kind, part in (("train", train), ("validation", validation))]
    if highest > 5 * lowest > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.minorticks_off()
    axes.set_ylim(0.93 * lowest, 1.05 * highest)
    drawing.legend_below(figure, axes)
    table = pd.concat(rows)[["training", "kind", "step", "loss"]]
    alt = f"Training loss by step: {_ends(logs)}."
    return keeper.keep(figure, "training_loss", Numbers(table, "Training and validation loss"), alt=alt)


def _ends(logs: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]]) -> str:
    parts: Sequence[str] = [
        f"{name} from {text.number(train['loss'].iloc[0])} to {text.number(train['loss'].iloc[-1])}"
        for name, (train, _) in logs.items()
    ]
    return "; ".join(parts)
