"""What the report says of a free run: a figure of every channel, one for each that is shown, and a few sentences.

Contract: drawn from the store of the free_run stage alone; each figure is written as PNG and PDF with its numbers, and
the table of means and variances as free_run.csv beside the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import dates
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from evaluate import text
from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture
from evaluate.report import style
from evaluate.scoring import free_run
from evaluate.scoring.free_run import FACTOR, Verdict
from pipeline import files
from pipeline.console import data_name
from pipeline.weather.config import WeatherConfig
from pipeline.weather.free_run_store import read_free_run
from pipeline.weather.variables import parse_channel
from pipeline.words import counted

TABLE = "free_run.csv"
LEGEND = "RMS over the preceding 30 days; dashed: half and twice the truth's"
_LISTED = 6
"""Channels that a sentence names; of more it gives the number of the others."""


@dataclass(frozen=True)
class FreeRunSection:
    """A section of the page: a title, sentences, and figures."""

    title: str
    sentences: list[str]
    pictures: list[Picture] = field(default_factory=list)


def free_run_section(config: WeatherConfig) -> FreeRunSection | None:
    """The section of an experiment that asked for a free run, its files written; None for the others.

    Raises:
        ValueError: the free run has not been made.
    """
    if config.forecast.free_run_days is None:
        return None
    run = read_free_run(config.paths.free_run)
    table, judged = free_run.free_run_table(run), free_run.verdicts(run)
    files.write_text(config.paths.scores / TABLE, table.to_csv(index=False, float_format="%.7g"))
    drawn = _Drawn(run, config.paths.figures / "free_run")
    shown = [str(name) for name in run["shown"].values]
    pictures = [drawn.overview(judged, shown), *(drawn.channel(name) for name in shown)]
    return FreeRunSection(drawn.title, sentences(table, judged), pictures)


def sentences(table: pd.DataFrame, judged: Sequence[Verdict]) -> list[str]:
    """What became of the channels, and how near means and variances are to the truth's.

    Args:
        table: from `free_run_table`.
        judged: from `verdicts`.
    """
    in_order = sorted(judged, key=lambda verdict: verdict.day)
    lost = [v for v in in_order if v.kind in ("leaves its range", "grows")]
    faded = [v for v in in_order if v.kind == "fades"]
    parts = [f"{_all_or(len(judged) - len(lost), len(judged))} bounded."]
    if lost:
        parts.append(f"Not bounded: {_listed([f'{v.channel} {v.kind} after {v.day:g} days' for v in lost])}.")
    if faded:
        what = "monthly RMS anomaly below half the truth's"
        parts.append(f"Fading to climatology, {what}: {_listed([f'{v.channel} after {v.day:g} days' for v in faded])}.")
    whole = table[table["season"] == free_run.ALL]
    deviation = np.sqrt(whole["truth_departure"].to_numpy())
    ratio = np.sqrt(whole["departure"].to_numpy()) / deviation
    drift = np.abs(whole["mean"].to_numpy() - whole["truth_mean"].to_numpy()) / deviation
    parts.append(
        f"Over the {counted(float(whole['days'].iloc[0]), 'day')} with a truth, the RMS anomaly is "
        f"{np.median(ratio):.2f} times the truth's (median; {ratio.min():.2f} to {ratio.max():.2f} by channel), and "
        f"the global mean is off by {np.median(drift):.2f} of the truth's RMS anomaly "
        f"(median; {drift.max():.2f} at most)."
    )
    return parts


def _all_or(number: int, total: int) -> str:
    if number in (0, total):
        return f"{'All' if number else 'None of'} {counted(total, 'channel')} stay{'s' * (not number or total == 1)}"
    return f"{number} of {total} channels stay"


def _listed(parts: Sequence[str]) -> str:
    more = [f"{len(parts) - _LISTED} more"] if len(parts) > _LISTED else []
    return text.join([*parts[:_LISTED], *more])


class _Drawn:
    """Figures of one run.

    Args:
        run: from `read_free_run`.
        folder: where they are written.
    """

    def __init__(self, run: xr.Dataset, folder: Path) -> None:
        about = run.attrs["contract"]
        self.run, self.note = run, data_name(about["source"]["label"])
        days = counted(about["days"], "day")
        self.title = f"A free run of {days} from {text.issued(about['init_time'])}"
        self.sample = f"one run in steps of {about['step_hours']} h, {days}"
        self.keeper = Keeper(folder, self.note, sample=self.sample)

    def overview(self, judged: Sequence[Verdict], shown: Sequence[str]) -> Picture:
        """Standard deviation of the departures over a month, over the truth's, for every channel."""
        ratio = np.sqrt(free_run.departure_ratio(self.run))
        labels = style.Labels("Free run: variability", f"All channels · {self.sample}", self.note, "1", LEGEND)
        figure = _overview(self.run, ratio, labels, shown)
        values = xr.Dataset({"ratio": (("time", "channel"), ratio)}, {k: self.run[k] for k in ("time", "channel")})
        numbers = Numbers(values, "RMS anomaly over a month relative to the truth's", {"ratio": "1"})
        bounded = sum(v.kind in ("bounded", "fades") for v in judged)
        alt = (
            f"RMS anomaly over a month relative to the truth's, for {counted(len(judged), 'channel')} against time; "
            f"{bounded} stay bounded, {self.note}."
        )
        return self.keeper.keep(figure, "all_channels", numbers, alt=alt)

    def channel(self, name: str) -> Picture:
        """Global mean and standard deviation of the departures of a channel beside the truth's."""
        channel = parse_channel(name)
        part = self.run["numbers"].sel(channel=name)
        values = xr.Dataset({"mean": part.sel(moment="mean", drop=True)})
        values["deviation"] = np.sqrt(part.sel(moment="departure", drop=True))
        values = values.drop_vars(["unit", "channel"], errors="ignore")
        unit = channel.spec.unit
        labels = style.Labels("Free run", f"{channel.title} · {self.sample}", self.note, text.pretty_unit(unit))
        figure = _mean_and_deviation(values, labels)
        first, last = (text.number(float(values["deviation"].sel(source="model")[k])) for k in (0, -1))
        alt = (
            f"Global mean and RMS anomaly of {channel.title} in a free run beside the truth's, {self.note}. The RMS "
            f"anomaly goes from {first} to {last} {text.pretty_unit(unit)}."
        )
        title = f"Global mean and RMS anomaly of {channel.title}"
        numbers = Numbers(values, title, {"mean": unit, "deviation": unit})
        return self.keeper.keep(figure, name, numbers, alt=alt)


@style.look()
def _overview(run: xr.Dataset, ratio: Any, labels: style.Labels, shown: Sequence[str]) -> Any:
    figure, axes = plt.subplots(figsize=style.PANEL)
    figure.subplots_adjust(left=0.145, right=0.97, bottom=0.12, top=0.8)
    style.write_labels(figure, labels)
    channels, colours = [str(c) for c in run["channel"].values], dict(zip(shown, style.COLOURS, strict=False))
    for v, name in enumerate(channels):
        if name not in colours:
            axes.plot(run["time"], ratio[:, v], color=style.MUTED, alpha=0.35, linewidth=0.9)
    for name, colour in colours.items():
        axes.plot(run["time"], ratio[:, channels.index(name)], color=colour, label=name, linewidth=1.9)
    limits = np.sqrt(1 / FACTOR), np.sqrt(FACTOR)
    for limit in limits:
        axes.axhline(limit, color=style.LOOKS["persistence"].colour, linewidth=1, dashes=(4, 2))
    axes.axhline(1.0, color=style.INK, linewidth=1)
    finite = ratio[np.isfinite(ratio)]
    axes.set_yscale("log")
    axes.set_ylim(min([0.4, 0.9 * finite.min()]), max([2.5, 1.1 * finite.max()]))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("RMS anomaly, model / truth [1]")
    axes.legend(loc="best", ncols=2, handlelength=1.6)
    _date_axis(axes)
    return figure


@style.look()
def _mean_and_deviation(values: xr.Dataset, labels: style.Labels) -> Any:
    figure, rows = plt.subplots(2, 1, figsize=style.PANEL, sharex=True)
    figure.subplots_adjust(left=0.225, right=0.97, bottom=0.12, top=0.84, hspace=0.14)
    style.write_labels(figure, labels)
    drawn = (("truth", style.LOOKS["truth"].colour, 1.3), ("model", style.COLOURS[0], 1.8))
    for axes, (name, title) in zip(rows, {"mean": "global mean", "deviation": "RMS anomaly"}.items(), strict=True):
        for source, colour, width in drawn:
            line = values[name].sel(source=source)
            axes.plot(values["time"], line, color=colour, linewidth=width, label=source)
        axes.set_ylabel(f"{title}\n[{labels.unit}]")
        axes.yaxis.set_label_coords(-0.19, 0.5)
    rows[1].set_ylim(bottom=0)
    rows[0].legend(loc="best", ncols=2, handlelength=1.6)
    _date_axis(rows[1])
    return figure


def _date_axis(axes: Any) -> None:
    untyped: Any = dates
    locator = untyped.AutoDateLocator(maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(untyped.ConciseDateFormatter(locator))
