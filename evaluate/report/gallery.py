"""All figures of one set of scores: which panels there are and what they say.

Contract: everything is drawn from scores.csv and scores.nc; every panel names variable, unit, lead, dates, sample size
and data. Each is written as PNG and PDF with its numbers, and returned with an alternative text made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evaluate import text
from evaluate.metrics import METRICS
from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper
from evaluate.page.pictures import Picture, PictureGroup
from evaluate.page.training_log import read_training
from evaluate.report import horizon, line_charts, style
from evaluate.report.ceiling import Comparison
from evaluate.report.gauge import Strip
from evaluate.report.maps import Globe, MapPanel, Scale, SmallMap, scale_for
from evaluate.report.results import Results
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import SampleFacts, uncalibrated_name
from evaluate.scoring.tables import has_map
from pipeline.console import data_name
from pipeline.grid import Grid
from pipeline.weather.variables import Channel, parse_channel
from pipeline.words import counted

MAP_TITLES = {
    "rmse": "Root mean square error",
    "acc": "Anomaly correlation",
    "bias": "Bias (forecast minus truth)",
    "skill": "Skill against climatology",
}
OVERVIEW_CAPTION = (
    "Below each map: global skill on {}, and the model's share of the ceiling's ACC where significant. The ceiling is "
    "a single, undamped run: beyond the limit of predictability its skill is negative even where its ACC exceeds the "
    "model's."
)
CURVE_TITLES = {"rmse": "RMSE", "acc": "ACC", "skill": "Skill against climatology"}

MOST_LONG_NOTES = 3
"""Small maps side by side that have room for a long note below."""
HEADLINE = ("acc", "skill")
"""Scores of the first screen."""


@dataclass
class Gallery:
    """Draws the figures of one experiment.

    Args:
        results: the scores; with a ceiling every panel says how the model compares with it.
        maps: scores.nc.
        facts: of the score stage.
        folder: where figures are written.
        leads: hours that get maps.
        tick: called after every panel, for a progress bar.
        shown: cells that maps show, shape (latitude, longitude); all of them when absent.
        detail: one more line above maps.
    """

    results: Results
    maps: xr.Dataset
    facts: SampleFacts
    folder: Path
    leads: Sequence[int]
    tick: Callable[[], None] = lambda: None
    shown: NDArray[np.bool_] | None = None
    detail: str = ""

    def __post_init__(self) -> None:
        mask = self.maps["land_sea_mask"].values if "land_sea_mask" in self.maps else None
        self.globe = Globe(Grid.from_dataset(self.maps), mask, self.shown)
        self.model, self.ceiling = self.results.model, self.results.ceiling
        self.channels = [str(c) for c in self.maps["channel"].values]
        self.note = data_name(self.facts.label)
        self.mapped = {m: title for m, title in MAP_TITLES.items() if has_map(m, num_init=self.facts.n_init)}
        self.tested = "significant" in self.maps and self.facts.bootstrap.given
        span = text.period(self.facts.first_init, self.facts.last_init)
        self.sample = f"{counted(self.facts.n_init, 'init time')}, {span}"

    @property
    def count(self) -> int:
        """How many panels there are without single forecasts."""
        return 3 + len(self.channels) * (len(self.mapped) * len(self.leads) + len(CURVE_TITLES) + 2) + 3

    def labels(self, title: str, subtitle: str, unit: str) -> style.Labels:
        """What is written on a panel, with the name of the data."""
        return style.Labels(title, subtitle, self.note, unit, self.detail)

    @property
    def keeper(self) -> Keeper:
        """What writes the figures."""
        return Keeper(self.folder, self.note, self.tick, self.sample)

    def overview(self) -> Picture:
        """Skill of every variable at every lead in one picture."""
        drawn = self.maps["skill"].sel(model=self.model, lead=list(self.leads)).rename("skill").to_dataset()
        rows = {
            channel: {
                text.lead_title(h): SmallMap(
                    drawn["skill"].sel(channel=channel, lead=h).values,
                    self.doubtful(channel, h),
                    self._overview_note(channel, h),
                )
                for h in self.leads
            }
            for channel in self.channels
        }
        about = self.sample + "; hatched: not significant" * self.tested
        if self.ceiling is not None:
            about += f"; numbers below: {self.ceiling.sample}"
        title = f"Skill against climatology, {self.note}"
        labels = self.labels(title, about, "skill [1], positive: better than climatology")
        scale = scale_for("skill", drawn["skill"].values)
        figure = self.globe.draw_table(rows, scale, labels)
        if self.tested:
            drawn["significant"] = self.maps["significant"].sel(model=self.model, lead=list(self.leads))
        leads = ", ".join(map(text.lead_title, self.leads))
        alt = f"Maps of skill against climatology for {', '.join(self.channels)} at {leads}, {self.note}."
        numbers = Numbers(drawn, "Skill against climatology", {"skill": "1"})
        caption = "" if self.ceiling is None else OVERVIEW_CAPTION.format(self.ceiling.sample)
        return self.keeper.keep(figure, "skill_maps", numbers, alt=alt, caption=caption, colours=scale.colours)

    def _overview_note(self, channel: str, lead: int) -> str:
        """Under each small map: mean skill of model and ceiling, and the share of the ceiling's ACC."""
        if self.ceiling is None:
            return ""
        skill, acc = (self.ceiling.compare(channel, lead, metric) for metric in ("skill", "acc"))
        insignificant = not np.isfinite(acc.share.value) or acc.share.low < 0 < acc.share.high
        share = "not significant" if insignificant else f"{text.percent(acc.share.value)} of ceiling"
        if len(self.leads) > MOST_LONG_NOTES:
            return f"skill {skill.number(skill.model)} · {share}"
        owned = share if insignificant else f"{share}'s"
        return f"skill {skill.number(skill.model)}, ceiling {skill.number(skill.ceiling)} · ACC {owned}"

    def score_maps(self) -> list[PictureGroup]:
        """Maps of RMSE, ACC, bias and skill by variable, score and lead."""
        groups = []
        for channel in map(parse_channel, self.channels):
            of_channel = PictureGroup(channel.title, name=channel.name)
            for metric, title in self.mapped.items():
                scale = self.score_scale(channel, metric)
                pictures = [self._score_map(channel, metric, lead, scale) for lead in self.leads]
                of_channel.groups.append(PictureGroup(title, pictures))
            groups.append(of_channel)
        return groups

    def score_scale(self, channel: Channel, metric: str) -> Scale:
        """The scale that the maps of a score share at all leads, from the cells that are shown."""
        fields = self.maps[metric].sel(model=self.model, channel=channel.name, lead=list(self.leads)).values
        return scale_for(metric, fields if self.shown is None else fields[:, self.shown])

    def score_panel(self, channel: Channel, metric: str, lead: int, scale: Scale) -> MapPanel:
        """One map of a score, ready to be drawn."""
        comparison = self._comparison(channel, metric, lead)
        labels = self.labels(
            f"{METRICS[metric].title.split(' against')[0]}, {text.lead_title(lead)}",
            f"{channel.title} · {self.sample}",
            f"{MAP_TITLES[metric].split(' (')[0].lower()} [{self._map_unit(channel, metric)}]",
        )
        values = self.maps[metric].sel(model=self.model, channel=channel.name, lead=lead).values
        doubtful = self.doubtful(channel.name, lead) if metric == "skill" else None
        return MapPanel(values, scale, labels, doubtful, strip=Strip.of(comparison) if comparison else None)

    def _comparison(self, channel: Channel, metric: str, lead: int) -> Comparison | None:
        return self.ceiling.compare(channel.name, lead, metric) if self.ceiling else None

    def _map_unit(self, channel: Channel, metric: str) -> str:
        return text.pretty_unit(channel.spec.unit) if METRICS[metric].power else "1"

    def _score_map(self, channel: Channel, metric: str, lead: int, scale: Scale) -> Picture:
        title, unit = MAP_TITLES[metric], self._map_unit(channel, metric)
        field_ = self.maps[metric].sel(model=self.model, channel=channel.name, lead=lead)
        panel, comparison = self.score_panel(channel, metric, lead, scale), self._comparison(channel, metric, lead)
        figure = self.globe.draw(panel)
        drawn = field_.rename(metric).to_dataset()
        if panel.doubtful is not None and self.tested:
            drawn["significant"] = (drawn[metric].dims, ~panel.doubtful)
        units = {metric: METRICS[metric].unit(channel.spec.unit)}
        numbers = Numbers(drawn, f"{title} of {channel.title}, {text.lead_title(lead)}", units)
        alt = self.map_alt(title, channel, lead, field_.values, "" if unit == "1" else f" {unit}")
        caption = f"Globe, {comparison.sentence}" if comparison else ""
        name = f"maps/{channel.name}_{metric}_{lead}h"
        return self.keeper.keep(figure, name, numbers, alt=alt, caption=caption, colours=scale.colours)

    def headline(self) -> list[Picture]:
        """ACC and skill of the first variable against lead time, beside what a reader knows or may expect."""
        channel, pictures = parse_channel(self.channels[0]), []
        for metric in HEADLINE:
            hidden = {*horizon.LEFT_OUT, *(style.BASELINES if metric == "skill" else [uncalibrated_name(self.model)])}
            limit = horizon.LIMIT if metric == "acc" else None
            pictures.append(self._curve(channel, metric, name=f"headline_{metric}", hidden=hidden, limit=limit))
        return pictures

    def curves(self) -> list[PictureGroup]:
        """RMSE, ACC and skill against lead time by variable."""
        return [
            PictureGroup(
                channel.title,
                [
                    self._curve(
                        channel,
                        metric,
                        name=f"curves/{channel.name}_{metric}",
                        hidden=style.BASELINES if metric == "skill" else (),
                    )
                    for metric in CURVE_TITLES
                ],
            )
            for channel in map(parse_channel, self.channels)
        ]

    def _curve(
        self, channel: Channel, metric: str, *, name: str, hidden: Collection[str], limit: float | None = None
    ) -> Picture:
        title, unit = CURVE_TITLES[metric], text.pretty_unit(channel.spec.unit) if metric == "rmse" else "1"
        names = {m: n for m, n in self._names().items() if m not in hidden}
        rows = self.results.table.rows(channel.name)
        lines = rows[(rows["metric"] == metric) & rows["model"].isin(list(names))]
        comparisons = {h: self.ceiling.compare(channel.name, h, metric) for h in self.facts.lead_hours if self.ceiling}
        shares = {h: text.percent(c.share.value) for h, c in comparisons.items()}
        labels = self.labels(f"{title}{', globe' * (metric != 'skill')}", f"{channel.title} · {self.sample}", unit)
        figure = line_charts.lead_curve(lines, labels, names=names, shares=shares, limit=limit)
        values = []
        for model, called in names.items():
            line = lines[lines["model"] == model].sort_values("lead")
            at = [f"{text.number(v)} at {text.lead_title(h)}" for v, h in zip(line["value"], line["lead"], strict=True)]
            values += [f"{called}: {', '.join(at)}"] if line["value"].notna().any() else []
        what = f"{title} of {channel.title}"
        in_unit = "" if unit == "1" else f" in {unit}"
        alt = f"{what}{in_unit} against lead time, {self.note}. {'; '.join(values)}."
        numbers = Numbers(lines, f"{what} against lead time")
        caption = self._curve_caption(title, comparisons)
        return self.keeper.keep(figure, name, numbers, alt=alt, caption=caption)

    def _curve_caption(self, title: str, comparisons: Mapping[int, Comparison]) -> str:
        """The share at every lead in words; leads with the same reason for none together."""
        if self.ceiling is None:
            return ""
        shares = {h: c.share.value for h, c in comparisons.items() if np.isfinite(c.share.value)}
        closed = text.join([f"{text.percent(s)} at {text.lead_title(h)}" for h, s in shares.items()])
        parts = [f"the model closes the gap between climatology and ceiling by {closed}"] if shares else []
        for reason in dict.fromkeys(c.verdict for h, c in comparisons.items() if h not in shares):
            leads = [text.lead_title(h) for h, c in comparisons.items() if c.verdict == reason]
            parts.append(f"the {reason.removesuffix(' here')} at {text.join(leads)}")
        return f"{title}, on {self.ceiling.sample}: {'; '.join(parts)}."

    def spectra(self) -> list[Picture]:
        """Zonal power spectra by variable."""
        return [self._spectrum(parse_channel(channel)) for channel in self.channels]

    def _spectrum(self, channel: Channel) -> Picture:
        maps, sample = (self.ceiling.maps, self.ceiling.sample) if self.ceiling else (self.maps, self.sample)
        models = [self.model, "truth", *([CEILING, "climatology"] if self.ceiling else [])]
        known = [m for m in models if m in maps["spectrum_model"].values]
        power = maps["spectrum"].sel(channel=channel.name, spectrum_model=known)
        labels = self.labels("Zonal power, 30–60°", f"{channel.title} · {sample}", text.squared(channel.spec.unit))
        figure = line_charts.spectrum(power, labels, model=self.model)
        what, units = f"Zonal power of {channel.title}, 30-60 degrees", {"power": f"({channel.spec.unit})^2"}
        shares = _small_scale_shares(power, self.model)
        alt = (
            f"Zonal power spectrum of {channel.title}. Forecast power relative to the truth's in the upper half of the "
            f"wavenumbers: {shares[self.model]}."
        )
        others = "; ".join(f"{m} {shares[m]}" for m in (CEILING, "climatology") if m in shares)
        caption = (
            f"Power relative to the truth's in the upper half of the wavenumbers, {sample}: model "
            f"{shares[self.model]}; {others}."
        )
        numbers = Numbers(power.rename("power").to_dataset(), what, units)
        return self.keeper.keep(
            figure, f"spectra/{channel.name}", numbers, alt=alt, caption=caption if self.ceiling else ""
        )

    def training(self, log: Path) -> list[Picture]:
        """Loss and validation skill of the training run; nothing when there is no log."""
        train, validation = read_training(log) if log.exists() else (pd.DataFrame(), pd.DataFrame())
        if train.empty:
            return []
        figure = line_charts.training(train, validation, note=self.note)
        both = pd.concat([train.assign(kind="train"), validation.assign(kind="validation")])
        numbers = Numbers(both[["kind", "step", "loss"]], "Training and validation loss")
        ends = f"from {text.number(train['loss'].iloc[0])} to {text.number(train['loss'].iloc[-1])}"
        alt = f"Training loss over {counted(int(train['step'].iloc[-1]), 'step')}, {ends}."
        pictures = [self.keeper.keep(figure, "training_loss", numbers, alt=alt)]
        if "leads" in validation:
            figure = line_charts.training_skill(validation, note=self.note)
            by_lead = [{f"skill_{h}h": r.get("skill") for h, r in leads.items()} for leads in validation["leads"]]
            table = pd.DataFrame(by_lead).assign(step=validation["step"].to_numpy())
            numbers = Numbers(table, "Validation skill against climatology")
            alt = "Validation skill at each lead during training."
            pictures.append(self.keeper.keep(figure, "training_skill", numbers, alt=alt))
        return pictures

    def _names(self) -> dict[str, str]:
        """What legends call each model of scores.csv; those on fewer init times say so."""
        counts = self.results.table.frame.groupby("model", sort=False)["n_init"].first()
        names, looks = {}, style.looks(list(counts.index))
        for model, n in counts.items():
            fewer = f", {counted(int(n), 'init time')}" if n != self.facts.n_init else ""
            names[str(model)] = f"model ({model})" if model == self.model else f"{looks[str(model)].title}{fewer}"
        return names

    def doubtful(self, channel: str, lead: int) -> NDArray[np.bool_]:
        """Cells where the skill is not significant; none where that was not tested."""
        if not self.tested:
            return np.zeros(self.globe.grid.shape, bool)
        significant = self.maps["significant"].sel(model=self.model, channel=channel, lead=lead).values
        return np.asarray(~significant.astype(bool))

    def map_alt(self, what: str, channel: Channel, lead: int, values: NDArray[Any], unit: str) -> str:
        """The alternative text of a map; the unit with a blank before it, or ""."""
        if not np.isfinite(values).any():
            return f"Map: {what} of {channel.title} at {text.lead_title(lead)}, {self.note}. Undefined at every cell."
        weights = self.globe.grid.area_weights
        mean = float((weights * values).sum() / weights.sum()) if np.isfinite(values).all() else float("nan")
        low, high = text.number(float(np.nanmin(values))), text.number(float(np.nanmax(values)))
        average = f"Global mean {text.number(mean)}{unit}, from {low} to {high}{unit}."
        return f"Map: {what} of {channel.title} at {text.lead_title(lead)}, {self.note}. {average}"


def _small_scale_shares(power: xr.DataArray, model: str) -> dict[str, str]:
    """By model, its power in the smaller half of the scales over the truth's, at each lead."""
    small = power["zonal_wavenumber"].values >= power["zonal_wavenumber"].values[-1] // 2
    truth = power.sel(spectrum_model="truth").values[:, small].sum(-1)
    shares = {}
    for name in map(str, power["spectrum_model"].values):
        share = power.sel(spectrum_model=name).values[:, small].sum(-1) / truth
        leads = [
            f"{100 * s:.0f}% at {text.lead_title(int(h))}" for s, h in zip(share, power["lead"].values, strict=True)
        ]
        shares[name] = ", ".join(leads) if name == model else f"{100 * float(share.mean()):.0f}%"
    return shares
