"""One map in one file: a score of a variable at a lead, or a forecast beside what came and its error.

Contract: panels are those of the report, drawn by the same code on the same scales; a region shows its own cells and
takes the scale from them. Scores that the score stage has written are read; those it has not are computed now for this
one variable and lead, and nothing but the picture is written.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.reading import weatherbench
from evaluate.reading.align import lead_hours
from evaluate.report import style
from evaluate.report.cases import CASE_PANELS, Case, Stores, case_panel, case_scale
from evaluate.report.ceiling import Ceiling
from evaluate.report.gallery import MAP_TITLES, Gallery
from evaluate.report.leads import mapped
from evaluate.report.maps import Globe
from evaluate.report.results import Results
from evaluate.scoring import wanted
from evaluate.scoring.facts import SampleFacts, ScoreFacts
from evaluate.scoring.regions import TITLES, region_weights
from evaluate.scoring.score_table import ScoreTable, read_scores
from evaluate.scoring.stage import COMMON, score_now
from evaluate.scoring.stores import land_sea_mask
from evaluate.scoring.tables import has_map, map_scores
from evaluate.text import iso_hour
from pipeline import provenance
from pipeline.console import data_name, say
from pipeline.grid import Grid
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel, require_channel_names

GLOBE = "globe"


def run_map(
    config: WeatherConfig,
    *,
    variable: str | None = None,
    lead: str | None = None,
    metric: str | None = None,
    region: str = GLOBE,
    model: str | None = None,
    init: str | None = None,
    out: Path | None = None,
) -> Path:
    """Draw one map.

    Args:
        config: the experiment; its forecast stage must be complete.
        variable: short name of a channel; the first of evaluation.variables when absent.
        lead: "7d" or "168h"; the first of forecast.lead_hours when absent.
        metric: one of `evaluate.report.gallery.MAP_TITLES`; skill when absent.
        region: one of `evaluate.scoring.regions.TITLES`.
        model: whose forecasts; the experiment's own when absent.
        init: init time of a single forecast, drawn beside truth and error instead of a score.
        out: the file, .png or .pdf; below the figures of the report when absent.

    Returns:
        The file.

    Raises:
        ValueError: no such variable, lead, metric, region, model or init time, with what there is; or an earlier
            stage is missing.
    """
    channels = [c.name for c in config.data.channels.dynamic]
    channel = wanted.one_of("variable", variable or config.evaluation.variables[0], channels)
    leads = config.forecast.lead_hours
    hours = leads[0] if lead is None else wanted.lead(lead, leads, of="forecast.lead_hours")
    wanted.one_of("metric", metric or "skill", list(MAP_TITLES))
    wanted.one_of("region", region, list(TITLES))
    if metric and init:
        raise ValueError(f"--metric must be left out with --init, which draws forecast, truth and error; got {metric}")
    what = iso_hour(wanted.time(init)) if init else metric or "skill"
    name = "_".join(["map", channel, what, f"{hours}h", *([] if region == GLOBE else [region]), *filter(None, [model])])
    out = out or config.paths.figures / f"{name}.png"
    if out.suffix.lower() not in style.FORMATS:
        raise ValueError(f"--out must end in {' or '.join(style.FORMATS)}, got {out}")
    if init:
        drawing = _draw_forecast(config, channel, hours, region=region, model=model, init=init)
    else:
        drawing = _draw_score(config, channel, hours, metric or "skill", region=region, model=model)
    style.save_one(drawing.figure, out, colours=drawing.colours)
    say(f"map: {drawing.title}, {out}")
    return out


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure, the colour map that fills it, and what it is."""

    figure: Any
    colours: Any
    title: str


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores to draw a map of: the table, the maps of every model, and the facts of their sample."""

    table: ScoreTable
    maps: xr.Dataset
    facts: SampleFacts
    own: str
    ceiling: Ceiling | None = None

    @property
    def models(self) -> list[str]:
        """Those with maps."""
        return list(map(str, self.maps["model"].values))


def _draw_score(
    config: WeatherConfig, channel: str, lead: int, metric: str, *, region: str, model: str | None
) -> Drawing:
    scores = _written(config, channel, model, compared=region == GLOBE) or _computed(config, channel, lead)
    model = wanted.one_of("model", model or scores.own, scores.models)
    if metric not in scores.maps or not has_map(metric, num_init=scores.facts.n_init):
        raise ValueError(f"a map of {metric} must be made from more init times, got {scores.facts.n_init}")
    mask = scores.maps["land_sea_mask"].values if "land_sea_mask" in scores.maps else None
    own = model == scores.own
    ceiling = scores.ceiling if own else None
    every = scores.facts.lead_hours
    shown = mapped(every, chosen=config.evaluation.map_lead_hours)
    leads = [h for h in every if h in shown or h == lead]
    gallery = Gallery(
        Results(scores.table, model, [channel], every, ceiling=ceiling),
        scores.maps,
        scores.facts,
        config.paths.figures,
        leads,
        shown=_shown(Grid.from_dataset(scores.maps), mask, region),
        detail=_detail(region, None if own else model),
    )
    parsed = parse_channel(channel)
    panel = gallery.score_panel(parsed, metric, lead, gallery.score_scale(parsed, metric))
    title = f"{panel.labels.title}, {parsed.title}"
    return Drawing(gallery.globe.draw(panel), panel.scale.colours, title)


def _written(config: WeatherConfig, channel: str, model: str | None, *, compared: bool) -> Scores | None:
    """What the score stage wrote, with the ceiling where it is compared; None where it has no maps of the channel."""
    paths = config.paths
    if not paths.receipt("score").exists() or not (paths.scores / "scores.nc").exists():
        return None
    facts = ScoreFacts.from_json(provenance.read_receipt(config, stage="score")["facts"])
    table, maps = read_scores(paths.scores)
    if channel not in maps["channel"].values:
        return None
    twins = facts.twins
    if twins is not None and model in twins.models:
        common = xr.load_dataset(paths.scores / COMMON[1], engine="netcdf4")
        first, last = twins.first_init, twins.last_init
        sample = dataclasses.replace(
            facts, n_init=twins.n_init, first_init=first, last_init=last, bootstrap=twins.bootstrap
        )
        return Scores(table, common, sample, facts.model)
    ceiling = Ceiling.read(paths.scores, table, maps, facts) if compared else None
    return Scores(table, maps, facts, facts.model, ceiling)


def _computed(config: WeatherConfig, channel: str, lead: int) -> Scores:
    """Scores of one channel at one lead, computed now."""
    result = score_now(config, leads=[lead], channels=[channel])
    maps, mask = map_scores(result.scored.sums), land_sea_mask(result.truth)
    if mask is not None:
        maps["land_sea_mask"] = (("latitude", "longitude"), mask)
    return Scores(ScoreTable(result.table()), maps, result.facts, result.scored.sums.models[0])


def _draw_forecast(
    config: WeatherConfig, channel: str, lead: int, *, region: str, model: str | None, init: str
) -> Drawing:
    forecast = _forecasts(config, model)
    if channel not in forecast["channel"].values:
        wanted.one_of("variable", channel, list(map(str, forecast["channel"].values)))
    wanted.lead(f"{lead}h", lead_hours(forecast["lead_time"].values).tolist(), of="the forecasts' leads")
    truth = open_store(config.paths.store, stage="python -m pipeline regrid")
    require_channel_names(truth, store=config.paths.store)
    issued = wanted.init_time(init, forecast["init_time"].values)
    valid = issued + np.timedelta64(lead, "h")
    if valid not in truth["time"].values:
        raise ValueError(f"the store must hold the valid time of what is drawn, got none at {valid}; choose another")
    fields = Stores(forecast, truth, Normals.open(config.paths.normals)).fields(issued, lead, channel)
    mask, grid = land_sea_mask(truth), Grid.from_dataset(truth)
    shown = _shown(grid, mask, region)
    case = Case(parse_channel(channel), issued, lead, fields, case_scale([fields], shown=shown))
    note, detail = data_name(truth.attrs["contract"]["source"]["label"]), _detail(region, model)

    def labels(title: str, subtitle: str, unit: str) -> style.Labels:
        return style.Labels(title, subtitle, note, unit, detail)

    panels = [case_panel(case, name, labels=labels) for name in CASE_PANELS]
    title = f"{case.channel.title}, issued {case.when}"
    return Drawing(Globe(grid, mask, shown).draw_beside(panels), case.scale.colours, title)


def _forecasts(config: WeatherConfig, model: str | None) -> xr.Dataset:
    """The forecasts of a model: the experiment's own, a trained baseline's, a twin's, or one from elsewhere."""
    paths = config.paths
    if model is None or model == config.name:
        return open_store(paths.forecast, stage="python -m pipeline forecast")
    for stores, stage in ((paths.network_forecasts, "baselines"), (paths.twins, "twins")):
        if model in stores:
            return open_store(stores[model], stage=f"python -m pipeline {stage}")
    elsewhere = {entry.name: entry.path for entry in config.evaluation.compare}
    known = [config.name, *paths.network_forecasts, *paths.twins, *elsewhere]
    wanted.one_of("model", model, known)
    return weatherbench.open_forecast(elsewhere[model], name=model)


def _shown(grid: Grid, mask: NDArray[np.floating] | None, region: str) -> NDArray[np.bool_] | None:
    """The cells of a region; None for the whole globe.

    Raises:
        ValueError: the region has no cells, with the reason and those that have.
    """
    if region == GLOBE:
        return None
    weights = region_weights(grid, land_sea_mask=mask)
    known = list(map(str, weights["region"].values))
    if region not in known:
        reason = weights.attrs["left_out"][region]
        raise ValueError(f"region must be one of {', '.join(known)}, got {region!r}: {reason}")
    return np.asarray(weights.sel(region=region).values > 0)


def _detail(region: str, model: str | None) -> str:
    return " · ".join(filter(None, ["" if region == GLOBE else TITLES[region], model]))
