"""The page: figures, tables and sentences put into the template `report.html.j2`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluate import text
from evaluate.page.pictures import Picture, PictureGroup
from evaluate.page.rendering import render_page
from evaluate.report import headline, heat_tables, style
from evaluate.report.ceiling import read_common
from evaluate.report.free_run import FreeRunSection
from evaluate.report.heat_tables import HeatTable
from evaluate.report.horizon import LIMIT, horizon
from evaluate.report.results import Results
from evaluate.report.sentences import findings
from evaluate.scoring.facts import ScoreFacts
from evaluate.scoring.harm import BELOW_TITLE
from evaluate.scoring.regions import TITLES
from pipeline.console import data_name
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel
from pipeline.words import counted

TEMPLATE = Path(__file__).resolve().parent / "templates" / "report.html.j2"
FORMULAS = {
    "Weights": "w: exact area of a grid cell, normalised to mean 1.",
    "RMSE": "square root of the mean of w (f − o)² over all init times and cells; the root is taken last.",
    "Bias": "mean of w (f − o), forecast minus truth.",
    "ACC": "mean over init times of Σ w f′o′ / √(Σ w f′² · Σ w o′²), f′ = f − c, o′ = o − c; maps: sums over time.",
    "Skill": "1 − MSE / MSE of climatology, on the same init times.",
}


@dataclass(frozen=True)
class Figures:
    """The figures of the page by section, and the tables that lie beside them.

    Args:
        typical: init time of the single forecast that the report chooses itself: the one with the median error.
        typical_error: of what variable and lead that is.
        film: the animation that lies beside the page, or None.
    """

    typical: np.datetime64
    typical_error: str
    headline: list[Picture] = field(default_factory=list)
    overview: Picture | None = None
    curves: list[PictureGroup] = field(default_factory=list)
    maps: list[PictureGroup] = field(default_factory=list)
    cases: list[PictureGroup] = field(default_factory=list)
    spectra: list[Picture] = field(default_factory=list)
    power: list[Picture] = field(default_factory=list)
    calibration: Picture | None = None
    edges: list[HeatTable] = field(default_factory=list)
    tropics: HeatTable | None = None
    tropics_sentence: str = ""
    training: list[Picture] = field(default_factory=list)
    free_run: FreeRunSection | None = None
    film: Path | None = None


def render(config: WeatherConfig, results: Results, facts: ScoreFacts, figures: Figures) -> str:
    """The page of an experiment, from its scores, the facts of its score stage, and its figures."""
    film = figures.film and os.path.relpath(figures.film, config.paths.report.parent)
    common = read_common(config.paths.scores, results.table)
    end = heat_tables.heat_scale(results)
    return render_page(
        config,
        TEMPLATE,
        label=data_name(facts.label),
        leads=text.lead_titles(results.leads),
        horizon=horizon(results),
        useful=f"{LIMIT:g}",
        below=BELOW_TITLE,
        facts=facts,
        results=results,
        figures=figures,
        film=film,
        header=header_facts(config, facts),
        findings=findings(results),
        channels=text.join([parse_channel(c).title for c in results.channels]),
        tiles=headline.tiles(results),
        headline=headline.headline(results),
        comparison={
            "Anomaly correlation": headline.model_table(results, common, "acc"),
            "Skill against climatology": headline.model_table(results, common, "skill"),
        },
        comparison_note=headline.note(facts),
        scorecard=heat_tables.scorecard(results),
        regions=heat_tables.region_tables(results),
        regions_left_out="; ".join(f"{TITLES[k]} ({v})" for k, v in facts.regions_left_out.items()),
        gradient=heat_tables.gradient(),
        share_gradient=heat_tables.gradient(style.CORRELATION),
        heat_low=text.score(-end),
        heat_high=f"+{text.score(end)}",
        case_issued=text.issued(figures.typical),
        formulas=formulas(facts),
    )


def header_facts(config: WeatherConfig, facts: ScoreFacts) -> list[tuple[str, str, str]]:
    """What stands at the top, (name, value, detail): sample, grid, climatology, training."""
    climate, regrid = facts.climatology, config.data.regrid
    years = sorted({climate.years[0], climate.years[-1]}) if climate.years else ["training years"]
    left_out = sum(map(len, facts.left_out_init_times.values()))
    gaps = [f"{counted(len(facts.missing_times), 'missing time')} in the store"] if facts.missing_times else []
    gaps += [f"{counted(left_out, 'init time')} left out"] if left_out else []
    train = ", ".join(f"{p.start:%Y-%m-%d} to {p.end:%Y-%m-%d}" for p in config.splits.train)
    every = f", every {facts.init_spacing_hours:g} h" if facts.n_init > 1 else ""
    shape = " × ".join(map(str, facts.grid["shape"]))
    return [
        ("Init times", f"{facts.n_init}{every}", "; ".join(gaps)),
        ("Period", text.period(facts.first_init, facts.last_init), "test period, never trained on"),
        ("Grid", shape, f"{regrid.resolution:g}°, {regrid.method} regridding"),
        ("Channels", f"{len(config.data.channels.dynamic)}", f"plus {len(config.data.channels.static)} static"),
        ("Climatology", "–".join(map(str, years)), f"{climate.kind}, {climate.window_days}-day window"),
        ("Trained on", train, counted(config.training.steps, "step")),
    ]


def formulas(facts: ScoreFacts) -> dict[str, str]:
    """Definitions, the climatology and the intervals, in short."""
    bootstrap, climate = facts.bootstrap, facts.climatology
    periods = "; ".join(climate.periods)
    span = " to ".join(dict.fromkeys([facts.first_init, facts.last_init]))
    given = (
        f"moving-block bootstrap over init times, blocks of {counted(bootstrap.block_init_times, 'init time')} "
        f"({counted(bootstrap.block_days, 'day')}), {bootstrap.resamples} resamples shared by all models; "
        "percentile intervals, widened to allow for the number of blocks."
    )
    return {
        **FORMULAS,
        "Climatology": f"c: {climate.kind}, from the training periods only ({periods}), at the valid time.",
        "Persistence": "the initial state, kept at every lead.",
        "Intervals": given if bootstrap.given else f"{bootstrap.intervals}.",
        "Sample": f"{counted(facts.n_init, 'init time')}, {span}, at every lead, all models unless noted otherwise.",
    }
