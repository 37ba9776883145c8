"""Figures that are not maps: scores against lead time, spectra, the training run.

Contract: like a map, a panel stands alone: title, variable, unit, dates, sample size, the name of the data. Bands are
the confidence intervals of scores.csv; nothing is smoothed except the training loss, and that is said in its legend.
Every function returns its figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from evaluate import text
from evaluate.report import style
from evaluate.report.leads import logarithmic

SIZE = (4.5, 3.15)
AXES = (0.145, 0.16, 0.825, 0.655)
"""Left, bottom, width, height of the axes, as shares of the panel."""
LABEL = (-0.135, 0.5)
"""Centre of the vertical axis's label, in shares of the axes: left of the longest tick labels."""
LEAST_SKILL = -0.3
"""Lower end of an axis of skill beside undamped references; what lies beyond it is written at the edge."""
_MARKED: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.6}


def panel(labels: style.Labels, *, x: str, y: str) -> tuple[Any, Any]:
    """A figure of SIZE with its labels, and its axes with their titles."""
    figure = plt.figure(figsize=SIZE)
    axes = figure.add_axes(AXES)
    style.write_labels(figure, labels)
    axes.set_xlabel(x)
    axes.set_ylabel(f"{y} [{labels.unit}]")
    axes.yaxis.set_label_coords(*LABEL)
    return figure, axes


def lead_axis(axes: Any, leads: Sequence[int], shares: Mapping[int, str]) -> float:
    """Ticks at the leads, in days or hours, each with its share below; returns hours per unit of the axis."""
    unit, name = (24.0, "days") if max(leads) >= 96 else (1.0, "hours")
    ticks = [h / unit for h in leads]
    if logarithmic(leads):
        axes.set_xscale("log")
        axes.set_xlim(min(ticks) * 0.87, max(ticks) * 1.15)
    else:
        axes.set_xlim(0, max(ticks) * 1.04)
    axes.set_xticks(ticks, [f"{h / unit:g}" + (f"\n{shares[h]}" if shares else "") for h in leads])
    axes.minorticks_off()
    axes.set_xlabel(f"lead time [{name}]" + " · share of the gap to the ceiling closed" * bool(shares))
    return unit


def _legend(figure: Any, axes: Any, *, more: float = 0.0) -> None:
    """Inside the panel where it is short, else below, in a taller figure, so that it covers no line.

    Args:
        figure: of the panel.
        axes: in it.
        more: inches that the text under the axis needs.
    """
    handles, labels = axes.get_legend_handles_labels()
    rows = -(-len(labels) // 2) if len(labels) > 4 else 0
    height = SIZE[1] + more + (0.18 * rows - 0.12 if rows else 0.0)
    share = SIZE[1] / height
    left, bottom, width, tall = AXES
    figure.set_size_inches(SIZE[0], height)
    axes.set_position((left, 1.0 - (1.0 - bottom) * share, width, tall * share))
    if rows:
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0.02, 0.0)}
        figure.legend(handles, labels, ncols=2, fontsize=7.2, handlelength=2.6, columnspacing=1.2, **place)
    elif labels:
        axes.legend(loc="best", handlelength=2.4, borderaxespad=0.3)


@style.look()
def lead_curve(
    rows: pd.DataFrame,
    labels: style.Labels,
    *,
    names: Mapping[str, str],
    shares: Mapping[int, str],
    limit: float | None = None,
) -> Any:
    """A score against lead time, one line per model, with confidence bands.

    Args:
        rows: of scores.csv: one score of one variable in one region.
        labels: what is written on it; its unit is that of the score.
        names: model -> what the legend calls it; the order of the lines.
        shares: by lead, the model's share of the gap to the ceiling, written under the axis; empty for none.
        limit: a score that is marked.
    """
    metric = str(rows["metric"].iloc[0])
    figure, axes = panel(labels, x="", y=labels.title.split(",")[0].split(" ")[0])
    unit_hours = lead_axis(axes, sorted(rows["lead"].unique().tolist()), shares)
    far = [m for m in names if m in style.FAR]
    is_skill = metric.startswith("skill")
    ends = skill_ends(rows[rows["model"].isin([m for m in names if m not in far])], floor=LEAST_SKILL if far else -1.05)
    drawn = []
    for model, name in names.items():
        line = rows[rows["model"] == model].sort_values("lead")
        if line["value"].isna().all():
            continue
        if is_skill and model in far:  # points within reach alone, not the lines that join them to others
            near = line["value"].between(*ends)
            line = line.assign(**{c: line[c].where(near) for c in ("value", "ci_low", "ci_high")})
        _model_line(axes, line.assign(x=line["lead"] / unit_hours), name, style.looks(list(names))[model])
        drawn.append(line)
    values = np.array(
        [0.0, *(v for line in drawn for v in line[["value", "ci_low", "ci_high"]].to_numpy(float).ravel())]
    )
    if metric in ("acc", "pearson"):
        axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
        axes.set_ylim(min(-0.1, np.nanmin(values) - 0.05), 1.0)
    elif is_skill:
        axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
        axes.set_ylim(*ends)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        _mark_beyond(axes, rows[rows["model"].isin(list(names))], ends, unit_hours=unit_hours)
    else:
        axes.set_ylim(0, np.nanmax(values) * 1.25)
    if limit is not None:
        axes.axhline(limit, color=style.MUTED, linewidth=1.1, dashes=(5, 3), zorder=2)
    _legend(figure, axes, more=0.22 if shares else 0.0)
    return figure


def _model_line(axes: Any, line: pd.DataFrame, name: str, look: style.Look) -> None:
    """The scores of one model against `x`, with their band."""
    x, value, low, high = (line[c].to_numpy(float) for c in ("x", "value", "ci_low", "ci_high"))
    network = look not in style.LOOKS.values() and not look.dashes
    size: Any = {"markersize": 5, "linewidth": 2.2, "zorder": 4} if network else {**_MARKED, "zorder": 3}
    axes.plot(x, value, color=look.colour, label=name, dashes=look.dashes, **{**size, "marker": "o"})
    if np.isfinite(low).all():
        axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0, zorder=2)
        if len(x) == 1:
            axes.vlines(x, low, high, color=look.colour, linewidth=1.2)


def skill_ends(rows: pd.DataFrame, *, floor: float) -> tuple[float, float]:
    """Ends of an axis on which the skill of those rows, intervals included, can be read; never below `floor`."""
    values = rows[["value", "ci_low", "ci_high"]].to_numpy(float)
    lowest, highest = (float(f(values)) if np.isfinite(values).any() else 0.0 for f in (np.nanmin, np.nanmax))
    margin = 0.12 * (highest - lowest)
    return max(floor, min(-0.02, lowest - margin)), max(0.02, min(1.0, highest + margin))


def _mark_beyond(axes: Any, rows: pd.DataFrame, ends: tuple[float, float], *, unit_hours: float) -> None:
    """An arrow and the value at the edge where a line leaves the axes, of many leads at the first; several in rows."""
    looks = style.looks(rows["model"].unique().tolist())
    beyond = rows[(rows["value"] > ends[1]) | (rows["value"] < ends[0])]
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
    font: Any = {"fontsize": 7.4, "fontweight": "bold", "va": "center", "zorder": 6, "bbox": box}
    place: Any = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    if logarithmic(sorted(rows["lead"].unique().tolist())):  # where each line leaves; what follows would lie on it
        beyond = beyond.sort_values("lead").drop_duplicates("model")
    for (_, above), group in beyond.groupby([beyond["lead"], beyond["value"] > ends[1]]):
        lead = float(group["lead"].iloc[0])
        last = lead == rows["lead"].max()
        place |= {"ha": "right" if last else "left", "xy": (lead / unit_hours, 1.0 if above else 0.0)}
        for i, (model, value) in enumerate(zip(group["model"], group["value"], strict=True)):
            place["xytext"] = (2 if last else -2, (7 + 10 * i) * (-1 if above else 1))
            axes.annotate(f"{text.score(value)} {'▲' if above else '▼'}", color=looks[model].colour, **place, **font)


@style.look()
def spectrum(power: xr.DataArray, labels: style.Labels, *, model: str) -> Any:
    """Zonal power spectra of one variable: the truth, the model at every lead, and what else is given.

    Args:
        power: by (spectrum_model, lead, zonal_wavenumber), models "truth", ours, and perhaps "ceiling" and
            "climatology", which are drawn as means over the leads.
        labels: what is written on it; its unit is that of the power.
        model: ours.
    """
    figure, axes = panel(labels, x="zonal wavenumber", y="power")
    k = power["zonal_wavenumber"].values[1:]
    truth = power.sel(spectrum_model="truth").mean("lead").values[1:]
    others = [m for m in ("ceiling", "climatology") if m in power["spectrum_model"].values]
    # the ceiling's line lies on the truth's
    look: dict[str, Any] = {"linewidth": 4.5, "alpha": 0.35} if others else {"linewidth": 2}
    axes.loglog(k, truth, color=style.LOOKS["truth"].colour, label="truth", zorder=4, **look)

    def line(values: Any, label: str, **look: Any) -> None:
        axes.loglog(k, np.maximum(values[1:], truth.min() * 1e-6), linewidth=1.6, label=label, **look)

    for other in others:
        look = {"color": style.LOOKS[other].colour, "dashes": style.LOOKS[other].dashes, "zorder": 5}
        line(power.sel(spectrum_model=other).mean("lead").values, other, **look)
    leads = power["lead"].values.tolist()
    for shade, lead in zip(style.shades(len(leads)), leads, strict=True):
        line(power.sel(spectrum_model=model, lead=lead).values, f"model, {text.lead_title(lead)}", color=shade)
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if t <= k[-1]]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.set_ylim(truth.min() * 1e-2, truth.max() * 3)
    axes.legend(loc="lower left")
    return figure


@style.look()
def training(train: pd.DataFrame, validation: pd.DataFrame, *, note: str) -> Any:
    """Training and validation loss against the step; `note` is what the data are called."""
    labels = style.Labels("Training loss", "weighted mean squared error, normalised", note, "1")
    figure, axes = panel(labels, x="step", y="loss")
    steps, loss = train["step"].to_numpy(float), train["loss"].to_numpy(float)
    window = max(1, len(loss) // 40)
    axes.plot(steps, loss, color="#c5ccd6", linewidth=0.8, label="each batch")
    if window > 1:
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        axes.plot(steps[window - 1 :], smooth, color=style.COLOURS[0], linewidth=2, label=f"running mean of {window}")
    colour = style.LOOKS["persistence"].colour
    if len(validation):
        axes.plot(validation["step"], validation["loss"], color=colour, label="validation", **_MARKED)
    shown = np.concatenate([loss[len(loss) // 50 :], validation["loss"] if len(validation) else []])
    axes.set_ylim(0.98 * shown.min(), 1.02 * shown.max())
    axes.legend(loc="upper right")
    return figure


@style.look()
def training_skill(validation: pd.DataFrame, *, note: str) -> Any:
    """Skill on the validation pairs at each lead against the step; `note` is what the data are called."""
    labels = style.Labels("Validation skill", "all channels, against climatology", note, "1")
    figure, axes = panel(labels, x="step", y="skill")
    leads = list(validation["leads"].iloc[0])
    for shade, lead in zip(style.shades(len(leads)), leads, strict=True):
        skill = [record.get(lead, {}).get("skill", np.nan) for record in validation["leads"]]
        axes.plot(validation["step"], skill, color=shade, label=text.lead_title(int(float(lead))), **_MARKED)
    axes.axhline(0.0, color=style.MUTED, linewidth=0.9)
    axes.legend(loc="best", title="lead")
    return figure
