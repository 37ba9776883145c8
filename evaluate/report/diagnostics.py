"""What a network adds of its own: power by wavenumber, calibration, edges of patches, harm in the tropics.

Contract: like every panel of the report, each figure stands alone and is written with its numbers; tables have a number
in every coloured cell. What was not scored, or does not apply, is left out: forecasts without calibration have no
factors, and networks without patches no edges.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import pyplot as plt
from matplotlib.colors import Normalize

from evaluate import text
from evaluate.page.figure_data import Numbers
from evaluate.page.pictures import Picture
from evaluate.report import line_charts, style
from evaluate.report.gallery import Gallery
from evaluate.report.heat_tables import HeatCell, HeatTable, painted
from evaluate.report.maps import colour_bar
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import uncalibrated_name
from evaluate.scoring.harm import BELOW, BELOW_TITLE, TROPICS, negative_area
from evaluate.scoring.kernel import SPECTRUM_BAND
from evaluate.scoring.power import power_ratios
from pipeline import files
from pipeline.weather.variables import Channel, parse_channel

POWER_END = 3.0
"""Ends of the colour scale of power: a factor of two to this power."""
REST = 0.01
"""Share of the truth's power that lies in wavenumbers above the dotted line."""
BANDS = ("outside the tropics", "in the tropics")
EDGE_END = 1.0
"""End of the colour scale of edges: twice the truth's ratio, its logarithm to base 2."""
AXIS_TITLES = {"latitude": "between rows", "longitude": "between columns"}
"""What the edges along an axis lie between."""


def power_pictures(gallery: Gallery) -> list[Picture]:
    """Power by wavenumber and lead over the truth's, one figure for each variable."""
    maps, sample = gallery.maps, gallery.sample
    if gallery.ceiling is not None:
        maps, sample = gallery.ceiling.maps, gallery.ceiling.sample
    models = [gallery.model, uncalibrated_name(gallery.model), "coarse", CEILING]
    known = [m for m in models if m in maps["spectrum_model"].values]
    return [_power_picture(gallery, parse_channel(c), maps, known, sample) for c in gallery.channels]


def _power_picture(gallery: Gallery, channel: Channel, maps: xr.Dataset, models: list[str], sample: str) -> Picture:
    spectrum = maps["spectrum"].sel(channel=channel.name, spectrum_model=[*models, "truth"])
    ratios = power_ratios(spectrum).transpose("spectrum_model", "zonal_wavenumber", "lead")
    waves = spectrum.isel(zonal_wavenumber=slice(1, None))
    power, truth = waves.drop_sel(spectrum_model="truth"), waves.sel(spectrum_model="truth")
    looks = style.looks(models)
    titles = {m: "model" if m == gallery.model else looks[m].title.split(" (")[0] for m in models}
    low, high = map(int, SPECTRUM_BAND)
    about = f"{channel.title} · {sample}"
    labels = gallery.labels(f"Power ratio, {low}–{high}°", about, "power relative to the truth's")
    small = float((truth.mean("lead").cumsum("zonal_wavenumber") < (1 - REST) * truth.mean("lead").sum()).sum()) + 1.5
    figure = draw_power(ratios.rename(spectrum_model="model"), labels, titles=titles, small=small)
    first, last = (int(h) for h in ratios["lead"].values[[0, -1]])
    total = power.sum("zonal_wavenumber") / truth.sum("zonal_wavenumber")
    said = []
    for model, title in titles.items():
        ends = [text.percent(float(total.sel(spectrum_model=model, lead=h))) for h in dict.fromkeys((first, last))]
        said.append(f"{title} {' and '.join(ends)}")
    at = text.lead_titles(list(dict.fromkeys((first, last))))
    caption = f"Total wave power relative to the truth's at {at}, {sample}: {', '.join(said)}."
    alt = f"Power of {channel.title} relative to the truth's by zonal wavenumber and lead, {gallery.note}. {caption}"
    title = f"Power of {channel.title} relative to the truth's"
    numbers = Numbers(ratios.rename("ratio").to_dataset(), title, {"ratio": "1"})
    return gallery.keeper.keep(figure, f"power/{channel.name}", numbers, alt=alt, caption=caption, colours=style.BIAS)


@style.look()
def draw_power(ratios: xr.DataArray, labels: style.Labels, *, titles: Mapping[str, str], small: float) -> Any:
    """One small map of wavenumber against lead for each model.

    Args:
        ratios: power over the truth's, by (model, zonal_wavenumber, lead).
        labels: what is written on it.
        titles: model -> what stands above its map.
        small: above this wavenumber the truth has next to no power; a dotted line.
    """
    figure: Any = plt.figure(figsize=line_charts.SIZE)
    style.write_labels(figure, labels)
    leads, waves = ratios["lead"].values.tolist(), ratios["zonal_wavenumber"].values
    unit, name = (24.0, "days") if max(leads) >= 96 else (1.0, "hours")
    left, right, gap = 0.1, 0.985, 0.015
    wide = (right - left + gap) / len(titles)
    edges, mesh = np.concatenate([[waves[0] - 0.5], waves + 0.5]), None
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500) if k <= waves[-1]]
    for i, (model, title) in enumerate(titles.items()):
        axes = figure.add_axes((left + i * wide, 0.335, wide - gap, 0.45))
        axes.grid(False)
        values = np.log2(np.maximum(ratios.sel(model=model).values, 1e-6))
        colours: Any = {"cmap": style.BIAS, "norm": Normalize(-POWER_END, POWER_END)}
        mesh = axes.pcolormesh(np.arange(len(leads) + 1), edges, values, rasterized=True, **colours)
        axes.axhline(small, color=style.INK, linewidth=0.9, dashes=(1, 1.5))
        axes.set_yscale("log")
        axes.set_ylim(edges[0], edges[-1])
        axes.set_yticks(ticks, list(map(str, ticks)) if i == 0 else [""] * len(ticks))
        axes.minorticks_off()
        axes.set_xticks(np.arange(len(leads)) + 0.5, [f"{h / unit:g}" for h in leads])
        axes.tick_params(axis="y", labelsize=7, length=2)
        axes.tick_params(axis="x", labelsize=min(7.0, 160 / (len(leads) * len(titles))), length=2)
        axes.set_title(title, fontsize=8.2, pad=3)
    figure.text(0.5, 0.235, f"lead time [{name}]", fontsize=8.2, ha="center", va="center")
    figure.text(0.025, 0.56, "zonal wavenumber", fontsize=8.2, rotation=90, ha="center", va="center")
    bar = colour_bar(figure, mesh, (0.2, 0.145, 0.6, 0.035), extend="both", label=labels.unit)
    steps = range(-int(POWER_END), int(POWER_END) + 1)
    bar.set_ticks(list(steps), labels=[f"{2**s}" if s >= 0 else f"1/{2**-s}" for s in steps])
    return figure


def calibration_picture(gallery: Gallery, forecast: xr.Dataset) -> Picture | None:
    """The factors that anomalies were multiplied by, against lead; None where forecasts were not calibrated.

    Means over the tropics and over the rest of the globe, by area.
    """
    if "calibration" not in forecast.coords:
        return None
    factors = forecast["calibration"].sel(channel=list(gallery.channels)).drop_vars(["variable", "level", "unit"])
    hours = [int(h) for h in forecast["lead_time"].values / np.timedelta64(1, "h")]
    factors = factors.assign_coords(lead_time=hours).rename(lead_time="lead").load()
    inside = (factors["latitude"] >= TROPICS.south) & (factors["latitude"] <= TROPICS.north)
    area = xr.DataArray(np.cos(np.deg2rad(factors["latitude"].values)), dims="latitude")
    bands = [factors.where(where).weighted(area).mean("latitude") for where in (~inside, inside)]
    values = xr.concat(bands, pd.Index(BANDS, name="band")).transpose("channel", "band", "lead")
    figure = draw_calibration(values, gallery.labels("Calibration", "factor applied to forecast anomalies", "1"))
    said = [
        f"{c}, {band}: {', '.join(f'{v:.2f}' for v in values.sel(channel=c, band=band).values)}"
        for c in gallery.channels
        for band in BANDS
    ]
    alt = f"Calibration factors at {text.lead_titles(hours)}. {'; '.join(said)}."
    numbers = Numbers(values.rename("factor").to_dataset().reset_coords(drop=True), "Calibration", {"factor": "1"})
    return gallery.keeper.keep(figure, "calibration", numbers, alt=alt)


@style.look()
def draw_calibration(factors: xr.DataArray, labels: style.Labels) -> Any:
    """Two lines for each channel, from factors by (channel, band, lead); the tropics are dashed."""
    figure, axes = line_charts.panel(labels, x="", y="factor")
    unit = line_charts.lead_axis(axes, factors["lead"].values.tolist(), {})
    for i, channel in enumerate(factors["channel"].values):
        colour = style.COLOURS[i % len(style.COLOURS)]
        for band, dashes, label in zip(BANDS, ("-", (0, (2, 1.5))), (str(channel), "_"), strict=True):
            x, y = factors["lead"].values / unit, factors.sel(channel=channel, band=band).values
            axes.plot(x, y, color=colour, label=label, marker="o", markersize=4, linewidth=1.6, linestyle=dashes)
    axes.set_ylim(0, 1.05)
    axes.legend(loc="lower left")
    return figure


def edge_tables(path: Path) -> list[HeatTable]:
    """Jumps at edges of patches over jumps inside, beside the truth's; nothing where they were not scored.

    Args:
        path: edges.csv.
    """
    if not path.exists():
        return []
    frame = pd.read_csv(io.StringIO(files.read_text(path)), dtype={"level": str}).fillna({"level": ""})
    tables = []
    for variable, level in frame[["variable", "level"]].drop_duplicates().itertuples(index=False):
        channel = Channel(str(variable), int(level) if level else None)
        rows = frame[(frame["variable"] == variable) & (frame["level"] == level)]
        table = HeatTable(channel.title, text.lead_columns(sorted(map(int, rows["lead"].unique()))), [])
        for axis, title in AXIS_TITLES.items():
            along = rows[rows["axis"] == axis].sort_values("lead")
            pairs = list(zip(along["forecast"], along["truth"], strict=True))
            table.rows[title] = [_edge_cell(*pair) for pair in pairs]
            table.rows[f"{title}, truth"] = [HeatCell(text.score(true), f"{true:.3f}") for _, true in pairs]
        tables.append(table)
    return tables


def _edge_cell(ratio: float, truth: float) -> HeatCell:
    if not (math.isfinite(ratio) and truth > 0):
        return HeatCell("–", "no differences inside patches")
    place = 0.5 - 0.5 * float(np.clip(math.log2(max(ratio / truth, 1e-3)) / EDGE_END, 0.0, 1.0))
    return HeatCell(text.score(ratio), f"{ratio:.3f}, truth {truth:.3f}", False, *painted(style.SKILL(place)))


def tropics_table(gallery: Gallery) -> HeatTable:
    """The share of the tropics with negative skill, of every variable at every lead."""
    shares = negative_area(gallery.maps["skill"].sel(model=gallery.model)).transpose("channel", "lead")
    table = HeatTable("Share of the tropics", text.lead_columns(list(map(int, shares["lead"].values))), [])
    for channel in gallery.channels:
        cells = []
        for share in shares.sel(channel=channel).values:
            colours = painted(style.SKILL(0.5 - 0.5 * float(share))) if math.isfinite(share) else ("", "")
            cells.append(HeatCell(text.percent(float(share)), f"{100 * share:.1f}%", False, *colours))
        table.rows[parse_channel(channel).title] = cells
    return table


def tropics_sentence(gallery: Gallery) -> str:
    """Where all channels have skill in the tropics as a whole, and how many do not."""
    frame = gallery.results.table.frame
    own = (frame["model"] == gallery.model) & (frame["metric"] == "skill") & (frame["region"] == "tropics")
    rows = frame[own & frame["value"].notna()]
    if rows.empty:
        return ""
    worst = rows.sort_values("value").iloc[0]
    bad, total = int((rows["value"] < BELOW).sum()), len(rows)
    level = "" if worst["level"] == "" else int(worst["level"])
    where = f"{worst['variable']}{level} at {text.lead_title(int(worst['lead']))}"
    return (
        f"Averaged over the tropics, {bad} of {total} pairs of channel and lead have a skill below {BELOW_TITLE}; the "
        f"lowest is {text.score(float(worst['value']))} ({where})."
    )
