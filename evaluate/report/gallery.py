"""All figures of one set of scores: which panels there are and what they say.

Contract: everything is drawn from scores.csv, scores.nc and, for single forecasts, from the stores that
were scored; every panel names variable, unit, lead, dates, sample size and data. Each is written as PNG
and PDF and returned with an alternative text made from its numbers.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from evaluate.metrics import METRICS, unit_of
from evaluate.reading.align import lead_title
from evaluate.report import figure_data, gauge, line_charts, sentences, style
from evaluate.report.ceiling import Ceiling, Stand
from evaluate.report.maps import Globe, scale_for
from evaluate.scoring.ceiling_share import CEILING
from pipeline.console import data_name
from pipeline.grid import Grid
from pipeline.weather.variables import parse_channel

MAP_TITLES = {
    "rmse": "Root mean square error",
    "acc": "Anomaly correlation",
    "bias": "Bias (forecast minus truth)",
    "skill": "Skill against climatology",
}


@dataclass(frozen=True)
class Panel:
    """A drawn figure, ready to be inlined."""

    png: bytes
    alt: str
    caption: str = ""

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()

    @property
    def width(self) -> int:
        """Pixels, from the PNG's header."""
        return int(struct.unpack(">II", self.png[16:24])[0])

    @property
    def height(self) -> int:
        """Pixels."""
        return int(struct.unpack(">II", self.png[16:24])[1])


@dataclass
class Gallery:
    """Draws the figures of one experiment.

    Args:
        frame: scores.csv, `level` as text.
        scores: scores.nc.
        facts: of the score stage.
        folder: where figures are written.
        leads: hours that get maps.
        ceiling: scores beside the ceiling's, of simulated data; every panel then says where the model stands.
        pdf: also write PDFs.
        tick: called after every panel, for a progress bar.
    """

    frame: pd.DataFrame
    scores: xr.Dataset
    facts: dict[str, Any]
    folder: Path
    leads: Sequence[int]
    ceiling: Ceiling | None = None
    pdf: bool = True
    tick: Callable[[], None] = lambda: None
    globe: Globe = field(init=False)

    def __post_init__(self) -> None:
        mask = self.scores["land_sea_mask"].values if "land_sea_mask" in self.scores else None
        self.globe = Globe(Grid.from_dataset(self.scores), mask)
        self.model = str(self.facts["model"])
        self.channels = [str(c) for c in self.scores["channel"].values]
        self.models = [str(m) for m in self.scores["model"].values]
        self.note = data_name(self.facts["label"])
        self.tested = "significant" in self.scores and self.facts["bootstrap"]["intervals"] == "given"
        self.sample = f"{self.facts['n_init']} init times, {dates(self.facts['first_init'], self.facts['last_init'])}"

    @property
    def count(self) -> int:
        """How many panels `overview`, `maps`, `curves` and `spectra` make together."""
        return 1 + len(self.channels) * (len(MAP_TITLES) * len(self.leads) + 4)

    def overview(self) -> Panel:
        """Skill of every variable at every lead in one picture."""
        skill = self.scores["skill"].sel(model=self.model)
        rows: dict[str, dict[str, NDArray[Any]]] = {}
        doubt: dict[str, dict[str, NDArray[np.bool_]]] = {}
        for channel in self.channels:
            rows[channel] = {lead_title(h): skill.sel(channel=channel, lead=h).values for h in self.leads}
            doubt[channel] = {lead_title(h): self._doubtful(channel, h) for h in self.leads}
        scale = scale_for("skill", skill.sel(lead=list(self.leads)).values)
        about = self.sample + "; hatched: not significant" * self.tested
        if self.ceiling is not None:
            about += f"; numbers below: {self.ceiling.sample}"
        png = self.globe.draw_table(
            rows, self.folder / "skill_maps", scale=scale, doubtful=doubt, pdf=self.pdf, notes=self._map_notes(),
            text=self.text(
                f"Skill against climatology, {self.note}", about, "skill [1]: above zero better than climatology"
            ),
        )  # fmt: skip
        drawn = skill.sel(lead=list(self.leads)).rename("skill").to_dataset()
        if self.tested:
            drawn["significant"] = self.scores["significant"].sel(model=self.model, lead=list(self.leads))
        self.numbers("skill_maps", drawn, "Skill against climatology", skill="1")
        self.tick()
        listed = ", ".join(self.channels)
        leads = ", ".join(lead_title(h) for h in self.leads)
        alt = f"Maps of skill against climatology for {listed} at {leads}, {self.note}."
        return Panel(png, alt, self._overview_caption())

    def _map_notes(self) -> dict[str, dict[str, str]] | None:
        """Under each small map: mean skill of model and ceiling, and what the model knows of what could be known."""
        if self.ceiling is None:
            return None
        notes: dict[str, dict[str, str]] = {}
        for channel in self.channels:
            notes[channel] = {}
            for lead in self.leads:
                skill, acc = (self.ceiling.stand(channel, lead, metric) for metric in ("skill", "acc"))
                unsure = not np.isfinite(acc.share) or acc.low < 0 < acc.high
                known = "nothing sure" if unsure else style.percent(acc.share)
                told = f"skill {skill.number(skill.model)}, ceiling {skill.number(skill.ceiling)} · knows {known}"
                notes[channel][lead_title(lead)] = told
        return notes

    def _overview_caption(self) -> str:
        if self.ceiling is None:
            return ""
        return (
            f"Under each map: skill of model and ceiling over the globe on {self.ceiling.sample}, and what the model "
            "knows of what could be known: its share of the ceiling's ACC, where the interval leaves zero. The "
            "ceiling is a single run that is not damped; beyond the limit of predictability its skill is below "
            "climatology though it still knows more."
        )

    def maps(self) -> list[dict[str, Any]]:
        """Maps of RMSE, ACC, bias and skill by variable, score and lead."""
        variables = []
        for channel in self.channels:
            spec = parse_channel(channel)
            metrics = []
            for metric, title in MAP_TITLES.items():
                fields = self.scores[metric].sel(model=self.model, channel=channel, lead=list(self.leads))
                scale = scale_for(metric, fields.values)
                unit = style.pretty_unit(spec.spec.unit) if METRICS[metric].power else "1"
                panels = []
                for lead in self.leads:
                    values = fields.sel(lead=lead).values
                    stand = self.ceiling.stand(channel, lead, metric) if self.ceiling else None
                    png = self.globe.draw(
                        values, self.folder / "maps" / f"{channel}_{metric}_{lead}h", scale=scale, pdf=self.pdf,
                        doubtful=self._doubtful(channel, lead) if metric == "skill" else None,
                        strip=gauge.strip(stand) if stand else None,
                        text=self.text(
                            f"{METRICS[metric].title.split(' against')[0]}, {lead_title(lead)}",
                            f"{spec.title} · {self.sample}", f"{title.split(' (')[0].lower()} [{unit}]",
                        ),
                    )  # fmt: skip
                    drawn = fields.sel(lead=lead).rename(metric).to_dataset()
                    if metric == "skill" and self.tested:
                        drawn["significant"] = (drawn[metric].dims, ~self._doubtful(channel, lead))
                    self.numbers(
                        f"maps/{channel}_{metric}_{lead}h", drawn, f"{title} of {spec.title}, {lead_title(lead)}",
                        **{metric: unit_of(METRICS[metric], spec.spec.unit)},
                    )  # fmt: skip
                    self.tick()
                    alt = self.map_alt(title, spec.title, lead, values, unit)
                    panels.append(Panel(png, alt, f"Globe, {stand.sentence}" if stand else ""))
                metrics.append({"title": title, "figures": panels})
            variables.append({"name": channel, "title": spec.title, "metrics": metrics})
        return variables

    def curves(self) -> list[dict[str, Any]]:
        """RMSE, ACC and skill against lead time by variable."""
        names = self._names()
        groups = []
        for channel in self.channels:
            spec = parse_channel(channel)
            rows = sentences.select(self.frame, channel=channel)
            panels = []
            for metric, title in (("rmse", "RMSE"), ("acc", "ACC"), ("skill", "Skill against climatology")):
                unit = style.pretty_unit(spec.spec.unit) if metric == "rmse" else "1"
                shown = {m: n for m, n in names.items() if metric != "skill" or m not in style.BASELINES}
                ways = self._ways(channel, metric)
                png = line_charts.lead_curve(
                    rows, self.folder / "curves" / f"{channel}_{metric}", metric=metric, names=shown, pdf=self.pdf,
                    ways={h: style.percent(s.share) for h, s in ways.items()},
                    text=self.text(f"{title}{', globe' * (metric != 'skill')}", f"{spec.title} · {self.sample}", unit),
                )  # fmt: skip
                lines = rows[(rows["metric"] == metric) & rows["model"].isin(list(shown))]
                self.numbers(f"curves/{channel}_{metric}", lines, f"{title} of {spec.title} against lead time")
                self.tick()
                alt = self._curve_alt(title, spec.title, rows, metric, unit, shown)
                panels.append(Panel(png, alt, self._curve_caption(ways)))
            groups.append({"title": spec.title, "figures": panels})
        return groups

    def _ways(self, channel: str, metric: str) -> dict[int, Stand]:
        if self.ceiling is None:
            return {}
        return {int(h): self.ceiling.stand(channel, int(h), metric) for h in self.facts["lead_hours"]}

    def _curve_caption(self, ways: dict[int, Stand]) -> str:
        """The share at every lead in words; leads with the same reason for none together."""
        if self.ceiling is None:
            return ""
        gone = [f"{style.percent(s.share)} at {lead_title(h)}" for h, s in ways.items() if np.isfinite(s.share)]
        told = [f"the model has gone {sentences.join(gone)} of the way from climatology to ceiling"] if gone else []
        for reason in dict.fromkeys(s.way for s in ways.values() if not np.isfinite(s.share)):
            leads = [lead_title(h) for h, s in ways.items() if s.way == reason]
            told.append(f"{reason.removesuffix(' here')} at {sentences.join(leads)}")
        return f"On {self.ceiling.sample}: {'; '.join(told)}."

    def spectra(self) -> list[Panel]:
        """Zonal power spectra by variable."""
        panels = []
        whole = self.ceiling.maps if self.ceiling else self.scores
        shown = [self.model, "truth", *([CEILING, "climatology"] if self.ceiling else [])]
        shown = [m for m in shown if m in whole["spectrum_model"].values]
        sample = self.ceiling.sample if self.ceiling else self.sample
        for channel in self.channels:
            spec = parse_channel(channel)
            power = whole["spectrum"].sel(channel=channel, spectrum_model=shown)
            png = line_charts.spectrum(
                power, self.folder / "spectra" / channel, model=self.model, pdf=self.pdf,
                text=self.text("Zonal power, 30–60°", f"{spec.title} · {sample}", style.squared(spec.spec.unit)),
            )  # fmt: skip
            self.numbers(
                f"spectra/{channel}", power.rename("power").to_dataset(), f"Zonal power of {spec.title}, 30-60 degrees",
                power=f"({spec.spec.unit})^2",
            )  # fmt: skip
            self.tick()
            told = _fine_shares(power, self.model)
            alt = (
                f"Zonal power spectrum of {spec.title}. In the smaller half of the scales the forecast has "
                f"this share of the truth's power: {told[self.model]}."
            )
            caption = ""
            if self.ceiling:
                others = "; ".join(f"{m} {told[m]}" for m in (CEILING, "climatology") if m in told)
                caption = (
                    f"Share of the truth's power in the smaller half of the scales, {sample}: "
                    f"model {told[self.model]}; {others}."
                )
            panels.append(Panel(png, alt, caption))
        return panels

    def training(self, log: Path) -> list[Panel]:
        """Loss and validation skill of the training run; nothing when there is no log."""
        if not log.exists():
            return []
        train, validation = line_charts.read_training(log)
        if train.empty:
            return []
        png = line_charts.training(self.folder / "training_loss", train, validation, note=self.note, pdf=self.pdf)
        both = pd.concat([train.assign(kind="train"), validation.assign(kind="validation")])
        self.numbers("training_loss", both[["kind", "step", "loss"]], "Training and validation loss")
        last = f"from {style.number(train['loss'].iloc[0])} to {style.number(train['loss'].iloc[-1])}"
        panels = [Panel(png, f"Training loss over {int(train['step'].iloc[-1])} steps, {last}.")]
        skill = line_charts.training_skill(self.folder / "training_skill", validation, note=self.note, pdf=self.pdf)
        if skill is not None:
            by_lead = [{f"skill_{h}h": r.get("skill") for h, r in leads.items()} for leads in validation["leads"]]
            table = pd.DataFrame(by_lead).assign(step=validation["step"].to_numpy())
            self.numbers("training_skill", table, "Skill of the validation pairs against climatology")
            panels.append(Panel(skill, "Skill of the validation pairs at each lead during training."))
        return panels

    def _names(self) -> dict[str, str]:
        """What legends call each model of scores.csv; those on fewer init times say so."""
        counts = self.frame.groupby("model", sort=False)["n_init"].first()
        names = {}
        for m, n in counts.items():
            fewer = f", {n} init times" if n != self.facts["n_init"] else ""
            names[str(m)] = f"model ({m})" if m == self.model else f"{style.model_title(str(m))}{fewer}"
        return names

    def numbers(self, name: str, values: xr.Dataset | pd.DataFrame, title: str, **units: str) -> None:
        """Write what a figure shows as CSV and NetCDF."""
        figure_data.write(self.folder / name, values, title=title, note=f"{self.note}; {self.sample}", units=units)

    def text(self, title: str, subtitle: str, unit: str) -> style.Text:
        """The words of a panel, with the name of the data."""
        return style.Text(title, subtitle, self.note, unit)

    def _doubtful(self, channel: str, lead: int) -> NDArray[np.bool_]:
        if not self.tested:
            return np.zeros(self.globe.grid.shape, bool)
        sure = self.scores["significant"].sel(model=self.model, channel=channel, lead=lead).values.astype(bool)
        return np.asarray(~sure)

    def map_alt(self, what: str, variable: str, lead: int, values: NDArray[Any], unit: str) -> str:
        """The alternative text of a map."""
        weights = self.globe.grid.area_weights
        mean = float((weights * values).sum() / weights.sum()) if np.isfinite(values).all() else float("nan")
        end = "" if unit == "1" else f" {unit}"
        return (
            f"Map: {what} of {variable} at {lead_title(lead)}, {self.note}. Global mean {style.number(mean)}{end}, "
            f"from {style.number(float(np.nanmin(values)))} to {style.number(float(np.nanmax(values)))}{end}."
        )

    def _curve_alt(
        self, title: str, variable: str, rows: pd.DataFrame, metric: str, unit: str, names: dict[str, str]
    ) -> str:
        parts = []
        end = "" if unit == "1" else f" {unit}"
        for model, name in names.items():
            line = rows[(rows["model"] == model) & (rows["metric"] == metric)].sort_values("lead")
            if line["value"].notna().any():
                told = ", ".join(f"{style.number(v)} at {lead_title(h)}" for v, h in zip(line["value"], line["lead"]))
                parts.append(f"{name}: {told}")
        return f"{title} of {variable}{f' in{end}' if end else ''} against lead time, {self.note}. {'; '.join(parts)}."


def _fine_shares(power: xr.DataArray, model: str) -> dict[str, str]:
    """By model, its power in the smaller half of the scales over the truth's, at each lead."""
    small = power["zonal_wavenumber"].values >= power["zonal_wavenumber"].values[-1] // 2
    truth = power.sel(spectrum_model="truth").values[:, small].sum(-1)
    told = {}
    for name in map(str, power["spectrum_model"].values):
        share = power.sel(spectrum_model=name).values[:, small].sum(-1) / truth
        leads = [f"{100 * s:.0f}% at {lead_title(int(h))}" for s, h in zip(share, power["lead"].values)]
        told[name] = ", ".join(leads) if name == model else f"{100 * float(share.mean()):.0f}%"
    return told


def dates(first: str, last: str, *, joint: str = " – ") -> str:
    """Two dates for people, without repeating a common year.

    >>> dates("2004-01-01T00", "2004-08-01T12")
    '1 Jan – 1 Aug 2004'
    """
    a, b = pd.Timestamp(first), pd.Timestamp(last)
    hour = [f" {t:%H} UTC" if joint != " – " or (b - a).days < 3 else "" for t in (a, b)]
    year = f" {a.year}" if a.year != b.year else ""
    return f"{a.day} {a:%b}{year}{hour[0]}{joint}{b.day} {b:%b} {b.year}{hour[1]}"
