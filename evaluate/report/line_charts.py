"""Figures that are not maps: scores against lead time, spectra, the training run.

Contract: like a map, a panel stands alone: title, variable, unit, dates, sample size, the data's name.
Bands are the confidence intervals of scores.csv; nothing is smoothed except the training loss, and that
is said in its legend.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from evaluate.reading.align import lead_title
from evaluate.report import style

SIZE = (4.5, 3.15)
AXES = (0.145, 0.16, 0.825, 0.655)
"""Left, bottom, width, height of the axes, as shares of the panel."""
LABEL = (-0.135, 0.5)
"""Centre of the vertical axis's label, in shares of the axes: left of the longest tick labels."""
LEAST_SKILL = -0.3
"""Lower end of an axis of skill beside undamped references; what lies beyond it is written at the edge."""
DASHES = {
    "climatology": (4, 2), "persistence": (1.2, 1.4), "damped_persistence": (3, 1, 1, 1), "linear": (6, 1.5),
    "ceiling": (2, 1), "coarse": (5, 1, 1, 1, 1, 1),
}  # fmt: skip


def _panel(text: style.Text) -> tuple[Any, Any]:
    figure = plt.figure(figsize=SIZE)
    axes = figure.add_axes(AXES)
    style.write_words(figure, text)
    return figure, axes


def lead_axis(axes: Any, leads: Sequence[int], *, ways: Mapping[int, str] | None = None) -> float:
    """Ticks at the leads, in days or hours, with what `ways` says of each below; returns hours per unit of the axis."""
    unit, word = (24.0, "days") if max(leads) >= 96 else (1.0, "hours")
    ticks = [h / unit for h in leads]
    axes.set_xticks(ticks, [f"{h / unit:g}" + (f"\n{ways[h]}" if ways else "") for h in leads])
    axes.set_xlim(0, max(ticks) * 1.04)
    axes.set_xlabel(f"lead time [{word}]" + (" · model, share of the way to the ceiling" if ways else ""))
    return unit


def _legend(figure: Any, axes: Any, *, more: float = 0.0) -> None:
    """Inside the panel where it is short, else below, in a taller figure, so that it covers no line.

    Args:
        figure: of the panel.
        axes: in it.
        more: inches that the words under the axis need.
    """
    handles, labels = axes.get_legend_handles_labels()
    rows = -(-len(labels) // 2) if len(labels) > 4 else 0
    height = SIZE[1] + more + (0.18 * rows - 0.12 if rows else 0.0)
    share = SIZE[1] / height
    left, bottom, width, tall = AXES
    figure.set_size_inches(SIZE[0], height)
    axes.set_position((left, 1.0 - (1.0 - bottom) * share, width, tall * share))
    if rows:
        figure.legend(handles, labels, loc="lower left", ncols=2, fontsize=7.2, handlelength=2.6, columnspacing=1.2,
                      bbox_to_anchor=(0.02, 0.0))  # fmt: skip
    else:
        axes.legend(loc="best", handlelength=2.4, borderaxespad=0.3)


def lead_curve(
    frame: pd.DataFrame, path: Path, *, metric: str, text: style.Text, names: dict[str, str], pdf: bool = True,
    ways: Mapping[int, str] | None = None,
) -> bytes:  # fmt: skip
    """A score against lead time, one line a model, with confidence bands.

    Args:
        frame: rows of scores.csv of one variable and one region.
        path: where to write, without suffix.
        metric: "rmse" or "acc", say.
        text: the words; its unit is that of the score.
        names: model -> what the legend calls it; the order of the lines.
        pdf: also write a PDF.
        ways: by lead, the model's share of the way to the ceiling, written under the axis.
    """
    with style.look():
        figure, axes = _panel(text)
        rows = frame[frame["metric"] == metric]
        colours = style.model_colours(list(names))
        unit_hours = lead_axis(axes, sorted(rows["lead"].unique().tolist()), ways=ways)
        lowest, highest = np.inf, -np.inf
        far = [m for m in names if m in style.FAR]
        near = rows[rows["model"].isin([m for m in names if m not in far])]
        ends = skill_ends(near, floor=LEAST_SKILL if far else -1.05)
        for model, name in names.items():
            line = rows[rows["model"] == model].sort_values("lead")
            value = line["value"].to_numpy(float)
            if not np.isfinite(value).any():
                continue
            if metric.startswith("skill") and model in far:  # points within reach alone, not what joins them outside
                line = line.assign(value=line["value"].where(line["value"].between(*ends)))
                value = line["value"].to_numpy(float)
                line.loc[line["value"].isna(), ["ci_low", "ci_high"]] = np.nan
            x = line["lead"].to_numpy(float) / unit_hours
            own = model not in style.BASELINES and model not in style.REFERENCES
            dashes: Any = DASHES.get(model, ())
            axes.plot(x, value, color=colours[model], label=name, marker="o", markersize=5 if own else 4,
                      linewidth=2.2 if own else 1.6, dashes=dashes, zorder=4 if own else 3)  # fmt: skip
            low, high = line["ci_low"].to_numpy(float), line["ci_high"].to_numpy(float)
            if np.isfinite(low).all():
                lowest, highest = min(lowest, low.min()), max(highest, high.max())
                axes.fill_between(x, low, high, color=colours[model], alpha=0.18, linewidth=0, zorder=2)
                if len(x) == 1:
                    axes.vlines(x, low, high, color=colours[model], linewidth=1.2)
            if np.isfinite(value).any():
                lowest, highest = min(lowest, np.nanmin(value)), max(highest, np.nanmax(value))
        if metric in ("acc", "pearson"):
            axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
            axes.set_ylim(min(-0.1, lowest - 0.05), 1.0)
        elif metric.startswith("skill"):
            axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
            axes.set_ylim(*ends)
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            mark_beyond(axes, rows[rows["model"].isin(list(names))], ends, unit_hours=unit_hours)
        else:
            axes.set_ylim(0, highest * 1.25)
        axes.set_ylabel(f"{text.title.split(',')[0].split(' ')[0]} [{text.unit}]")
        axes.yaxis.set_label_coords(*LABEL)
        _legend(figure, axes, more=0.16 if ways else 0.0)
    return style.save(figure, path, pdf=pdf)


def skill_ends(rows: pd.DataFrame, *, floor: float) -> tuple[float, float]:
    """Ends of an axis on which the skill of those rows, intervals included, can be read; never below `floor`."""
    values = rows[["value", "ci_low", "ci_high"]].to_numpy(float)
    lowest, highest = (float(f(values)) if np.isfinite(values).any() else 0.0 for f in (np.nanmin, np.nanmax))
    room = 0.12 * (highest - lowest)
    return max(floor, min(-0.02, lowest - room)), max(0.02, min(1.0, highest + room))


def mark_beyond(axes: Any, rows: pd.DataFrame, ends: tuple[float, float], *, unit_hours: float) -> None:
    """An arrow and the value at the edge where a line leaves the axes; several at one place stand side by side."""
    colours = style.model_colours(rows["model"].unique().tolist())
    left = rows[(rows["value"] > ends[1]) | (rows["value"] < ends[0])]
    for (lead, above), group in left.groupby([left["lead"], left["value"] > ends[1]]):
        place: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "center"}
        right = lead == rows["lead"].max()
        place |= {"ha": "right" if right else "left", "fontsize": 7.4, "fontweight": "bold", "zorder": 6}
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
        for i, (model, value) in enumerate(zip(group["model"], group["value"], strict=True)):
            height = (7 + 10 * i) * (-1 if above else 1)
            axes.annotate(
                f"{style.score(value)} {'▲' if above else '▼'}",
                (float(group["lead"].iloc[0]) / unit_hours, 1.0 if above else 0.0), xytext=(2 if right else -2, height),
                color=colours[model], bbox=box, **place,
            )  # fmt: skip


def spectrum(power: xr.DataArray, path: Path, *, text: style.Text, model: str, pdf: bool = True) -> bytes:
    """Zonal power spectra of one variable: the truth, the model at every lead, and what else is given.

    Args:
        power: by (spectrum_model, lead, zonal_wavenumber), models "truth", ours, and perhaps "ceiling" and
            "climatology", which are drawn as means over the leads.
        path: where to write, without suffix.
        text: the words; its unit is that of the power.
        model: ours.
        pdf: also write a PDF.
    """
    with style.look():
        figure, axes = _panel(text)
        k = power["zonal_wavenumber"].values[1:]
        truth = power.sel(spectrum_model="truth").mean("lead").values[1:]
        others = [m for m in ("ceiling", "climatology") if m in power["spectrum_model"].values]
        # the ceiling lies on the truth
        look: dict[str, Any] = {"linewidth": 4.5, "alpha": 0.35} if others else {"linewidth": 2}
        axes.loglog(k, truth, color=style.BASELINES["truth"], label="truth", zorder=4, **look)
        for other in others:
            line = power.sel(spectrum_model=other).mean("lead").values[1:]
            colour = style.model_colours([other])[other]
            axes.loglog(k, np.maximum(line, truth.min() * 1e-6), color=colour, linewidth=1.6,
                        dashes=DASHES[other], label=other, zorder=5)  # fmt: skip
        leads = power["lead"].values.tolist()
        shades = plt.get_cmap("viridis")(np.linspace(0.15, 0.8, len(leads)))
        for shade, lead in zip(shades, leads, strict=True):
            line = power.sel(spectrum_model=model, lead=lead).values[1:]
            axes.loglog(
                k, np.maximum(line, truth.min() * 1e-6), color=shade, linewidth=1.6, label=f"model, {lead_title(lead)}"
            )
        axes.set_xticks([t for t in (1, 2, 5, 10, 20, 50, 100) if t <= k[-1]])
        axes.set_xticklabels([str(t) for t in (1, 2, 5, 10, 20, 50, 100) if t <= k[-1]])
        axes.minorticks_off()
        axes.set_ylim(truth.min() * 1e-2, truth.max() * 3)
        axes.set_xlabel("zonal wavenumber")
        axes.set_ylabel(f"power [{text.unit}]")
        axes.yaxis.set_label_coords(*LABEL)
        axes.legend(loc="lower left")
    return style.save(figure, path, pdf=pdf)


def read_training(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(training records, validation records) of a metrics.jsonl; a last line cut short is left out."""
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    frames = [[r for r in records if r.get("kind") == kind] for kind in ("train", "validation")]
    return pd.DataFrame(frames[0]), pd.DataFrame(frames[1])


def training(path: Path, train: pd.DataFrame, validation: pd.DataFrame, *, note: str, pdf: bool = True) -> bytes:
    """Training and validation loss against the step.

    Args:
        path: where to write, without suffix.
        train: records with step and loss.
        validation: the same, perhaps empty.
        note: what the data are called.
        pdf: also write a PDF.
    """
    with style.look():
        figure, axes = _panel(
            style.Text("Training loss", "weighted mean squared error of normalised anomalies", note, "1")
        )
        steps, loss = train["step"].to_numpy(float), train["loss"].to_numpy(float)
        window = max(1, len(loss) // 40)
        axes.plot(steps, loss, color="#c5ccd6", linewidth=0.8, label="each batch")
        if window > 1:
            smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
            axes.plot(steps[window - 1 :], smooth, color=style.COLOURS[0], linewidth=2, label=f"mean of {window}")
        if len(validation):
            axes.plot(validation["step"], validation["loss"], "o-", color=style.BASELINES["persistence"],
                      markersize=4, linewidth=1.6, label="validation")  # fmt: skip
        shown = np.concatenate([loss[len(loss) // 50 :], validation["loss"] if len(validation) else []])
        axes.set_ylim(0.98 * shown.min(), 1.02 * shown.max())
        axes.set_xlabel("step")
        axes.set_ylabel("loss [1]")
        axes.legend(loc="upper right")
    return style.save(figure, path, pdf=pdf)


def training_skill(path: Path, validation: pd.DataFrame, *, note: str, pdf: bool = True) -> bytes | None:
    """Skill on the validation pairs at each lead against the step; None where it was not logged.

    Args:
        path: where to write, without suffix.
        validation: records with `leads`, a mapping lead hours -> {"skill": ...}.
        note: what the data are called.
        pdf: also write a PDF.
    """
    if "leads" not in validation:
        return None
    with style.look():
        figure, axes = _panel(style.Text("Validation skill", "all channels together, against climatology", note, "1"))
        leads = list(validation["leads"].iloc[0])
        for shade, lead in zip(plt.get_cmap("viridis")(np.linspace(0.15, 0.8, len(leads))), leads, strict=True):
            skill = [record.get(lead, {}).get("skill", np.nan) for record in validation["leads"]]
            axes.plot(validation["step"], skill, "o-", color=shade, markersize=4, linewidth=1.6,
                      label=lead_title(int(float(lead))))  # fmt: skip
        axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
        axes.set_xlabel("step")
        axes.set_ylabel("skill [1]")
        axes.legend(loc="best", title="lead")
    return style.save(figure, path, pdf=pdf)
