"""The report stage: every figure, and one self-contained page that explains them.

Contract: reads what the score stage wrote, the stores for single forecasts, and every stage's receipt;
writes figures (PNG and PDF) and `report.html`, which loads nothing from anywhere, needs no JavaScript,
stays under 10 MB and says above everything else when its data are simulated. The receipt is written last.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.console import Console

from evaluate.reading.align import lead_title
from evaluate.report import headline, sentences, style
from evaluate.report.animation import run_animate
from evaluate.report.cases import triptychs
from evaluate.report.ceiling import Ceiling, read_common
from evaluate.report.gallery import Gallery, Panel, dates
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.regions import TITLES
from pipeline import config as configuration
from pipeline import files, provenance
from pipeline.console import data_name, terminal_progress
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import parse_channel

TEMPLATES = Path(__file__).resolve().parent / "templates"
LIMIT = 10_000_000
"""Bytes of the page."""
STAGES = ("simulate", "regrid", "normals", "train", "forecast", "twins", "baselines", "score")
_NUM_CASE_CHANNELS = 2


def run_report(config: WeatherConfig) -> None:
    """Draw the figures of a configuration and write its report.

    Raises:
        ValueError: the scores are missing, or the page would be larger than 10 MB.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    facts = provenance.read_receipt(config, stage="score")["facts"]
    frame, scores = read_scores(paths.scores)
    drawn = {"scores": hashlib.sha256((paths.scores / "scores.csv").read_bytes()).hexdigest()[:16]}
    known = provenance.read_receipt(config, stage="report")["facts"] if paths.receipt("report").exists() else {}
    if drawn.items() <= known.items() and paths.report.exists():
        console.print(f"report: complete, {paths.report}", markup=False)
        return
    leads = [h for h in facts["lead_hours"] if h in (config.evaluation.map_lead_hours or facts["lead_hours"])]
    ceiling = Ceiling.read(paths.scores, frame, scores, facts)
    gallery = Gallery(frame, scores, facts, paths.figures, leads, ceiling)
    shown = gallery.channels[:_NUM_CASE_CHANNELS]
    ends = sorted({leads[0], leads[-1]})
    forecast = open_store(paths.forecast, stage="python -m pipeline forecast")
    forecasts = {gallery.model: forecast}
    if ceiling is not None and CEILING in paths.twins:
        forecasts[CEILING] = open_store(paths.twins[CEILING], stage="python -m pipeline twins")
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    chosen = chosen_inits(config, forecast, truth, leads=ends)
    film = run_animate(config, channel=shown[-1], lead=ends[0]) if config.evaluation.animation_frames else None
    progress = terminal_progress("figures", on=console)
    with files.lock(paths.scores / "report.lock"), progress:
        task = progress.add_task("report", total=gallery.count + 3 * len(shown) * len(ends) * (1 + len(chosen)))
        gallery.tick = lambda: progress.advance(task)
        among = forecasts[CEILING]["init_time"].values if CEILING in forecasts else None
        init = typical_init(paths.scores / "sums.nc", model=gallery.model, channel=shown[0], lead=ends[0], among=among)
        figures = {
            "overview": [gallery.overview()],
            "curves": gallery.curves(),
            "maps": gallery.maps(),
            "cases": [
                group
                for time in (init, *chosen)
                for group in triptychs(
                    gallery, forecasts, truth, Normals.open(paths.normals), init=time, channels=shown, leads=ends
                )
            ],
            "spectra": gallery.spectra(),
            "training": gallery.training(paths.metrics),
        }  # fmt: skip
        page = render(config, frame, facts, figures=figures, leads=gallery.leads, case=init, film=film, ceiling=ceiling)
        size = len(page.encode())
        if size > LIMIT:
            raise ValueError(
                f"report must stay under {LIMIT / 1e6:.0f} MB, got {size / 1e6:.1f} MB; "
                "list fewer evaluation.variables or evaluation.map_lead_hours"
            )
        files.write_text(paths.report, page)
    provenance.write_receipt(
        config, stage="report", outputs=[paths.report, paths.figures],
        facts={"bytes": size, "label": facts["label"], **drawn},
    )  # fmt: skip
    console.print(f"report: {paths.report} ({size / 1e6:.1f} MB)", markup=False)


def read_scores(folder: Path) -> tuple[pd.DataFrame, xr.Dataset]:
    """The table (level as text, "" for none) and the maps that the score stage wrote.

    Raises:
        ValueError: they are not there.
    """
    table, maps = folder / "scores.csv", folder / "scores.nc"
    for path in (table, maps):
        if not path.exists():
            raise ValueError(f"scores must exist, got no {path}; run python -m pipeline score")
    frame = pd.read_csv(table, dtype={"level": str, "unit": str}, keep_default_na=True)
    with xr.open_dataset(maps, engine="netcdf4") as ds:
        scores = ds.load()
    return frame.assign(level=frame["level"].fillna("")), scores


def typical_init(sums: Path, *, model: str, channel: str, lead: int, among: Any = None) -> np.datetime64:
    """The init time whose global squared error is the median of all: an ordinary day, not a chosen one.

    Args:
        sums: sums.nc.
        model: ours.
        channel: short name.
        lead: hours.
        among: init times to choose from; all of them when absent.
    """
    with xr.open_dataset(sums, group="regional", engine="netcdf4") as ds:
        errors = ds["squared_error"].sel(model=model, channel=channel, lead=lead, region="globe").load()
    if among is not None:
        errors = errors.isel(init_time=np.isin(errors["init_time"].values, among.astype("datetime64[ns]")))
    order = np.argsort(errors.values, kind="stable")
    return np.datetime64(errors["init_time"].values[order[len(order) // 2]], "ns")


def chosen_inits(
    config: WeatherConfig, forecast: xr.Dataset, truth: xr.Dataset, *, leads: Sequence[int]
) -> list[np.datetime64]:
    """The init times of evaluation.cases.

    Raises:
        ValueError: one is not among the forecasts, or the store lacks its truth.
    """
    known = forecast["init_time"].values.astype("datetime64[ns]")
    found: list[np.datetime64] = []
    for time in config.evaluation.cases:
        init: np.datetime64 = np.datetime64(time, "ns")
        if init not in known:
            near = known[np.argmin(np.abs(known - init))]
            raise ValueError(
                f"evaluation.cases must be init times of the forecasts, got {time:%Y-%m-%dT%H}; the nearest is "
                f"{np.datetime_as_string(near, 'h')}"
            )
        absent = [lead for lead in leads if init + np.timedelta64(lead, "h") not in truth["time"].values]
        if absent:
            raise ValueError(
                f"evaluation.cases must have a truth, got {time:%Y-%m-%dT%H} with none at {absent} h; choose another"
            )
        found.append(init)
    return found


def render(
    config: WeatherConfig, frame: pd.DataFrame, facts: dict[str, Any], *, figures: dict[str, Any], leads: Sequence[int],
    case: np.datetime64, film: Path | None = None, ceiling: Ceiling | None = None,
) -> str:  # fmt: skip
    """The page.

    Args:
        config: the experiment.
        frame: scores.csv.
        facts: of the score stage.
        figures: by section.
        leads: hours with maps.
        case: init time of the single forecast shown.
        film: the animation that lies beside the page, or None.
        ceiling: scores beside the ceiling's, or None.
    """
    model = str(facts["model"])
    present = [str(m) for m in frame["model"].unique()]
    baselines = [m for m in present if m in style.BASELINES]
    channels, every_lead = list(config.evaluation.variables), list(facts["lead_hours"])
    chosen: dict[str, Any] = {"channels": channels, "leads": every_lead, "model": model}
    size = sentences.heat_scale(frame, model=model)
    bootstrap = facts["bootstrap"]
    intervals = bootstrap["intervals"] == "given"
    simulated = facts["label"] == "simulated"
    label = data_name(facts["label"])
    note = (
        f"Intervals are 95%, from a moving-block bootstrap over init times with blocks of "
        f"{bootstrap['block_days']:g} days ({bootstrap['resamples']} draws, the same for all models)."
        if intervals
        else f"No confidence intervals are given ({bootstrap['intervals']}); read differences as hints."
    )
    common = read_common(config.paths.scores, frame)
    shares = None if ceiling is None else ceiling.shares
    chosen_too = "; after it, the dates that the configuration names" if config.evaluation.cases else ""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("report.html.j2").render(
        title=config.name,
        simulated=simulated,
        banner="SIMULATED ATMOSPHERE – not ERA5, not observations: scores say nothing about real weather"
        if simulated
        else f"Data: {label}",
        lead_in=f"Global forecasts at {sentences.join([lead_title(h) for h in every_lead])}, scored against "
        f"{style.data_phrase(facts['label'])}.",
        facts=header_facts(config, facts),
        findings=sentences.findings(frame, baselines=baselines, **chosen),
        interval_note=note,
        intervals=intervals,
        n_init=facts["n_init"],
        baselines=baselines,
        channels=sentences.join([parse_channel(c).title for c in channels]),
        tiles=headline.tiles(frame, ceiling=ceiling, **chosen),
        headline=headline.headline(frame, baselines=baselines, ceiling=ceiling, **chosen),
        columns=6 + len(baselines) + ("persistence" in baselines) + (ceiling is not None),
        ceiling=ceiling,
        ceiling_note="" if ceiling is None else ceiling.note(),
        hatch_note="Hatched where the difference from climatology is not significant (t-test over blocks of init "
        "times, false discovery rate 10%)."
        if intervals
        else "Too few init times to test where skill is significant.",
        standing=[
            (title, headline.standing(common, metric=metric, ceiling=ceiling, **chosen))
            for metric, title in (("acc", "Anomaly correlation"), ("skill", "Skill against climatology"))
        ],
        standing_note=headline.note(facts),
        overview=figures["overview"],
        curves=figures["curves"],
        maps=figures["maps"],
        scorecard=sentences.scorecard(frame, leads=every_lead, model=model, size=size, shares=shares),
        regions=sentences.region_tables(frame, size=size, shares=shares, **chosen),
        regions_left_out="; ".join(f"{TITLES[k]} ({v})" for k, v in facts["regions_left_out"].items()),
        gradient=sentences.gradient(),
        share_gradient=sentences.gradient(style.CORRELATION),
        heat_low=style.score(-size),
        heat_high=f"+{style.score(size)}",
        cases=figures["cases"],
        cases_note=f"Issued {dates(str(case), str(case), joint=' = ').split(' = ')[1]}, the init time whose error in "
        f"{channels[0]} at {lead_title(leads[0])} is the median of all{' that the ceiling has' if ceiling else ''}"
        f"{chosen_too}. Colours are "
        "anomalies from the climatology, contours the field itself.",
        film=None if film is None else os.path.relpath(film, config.paths.report.parent),
        spectra=figures["spectra"],
        training=figures["training"],
        formulas=[{"name": n, "text": t} for n, t in formulas(facts)],
        stages=stages(config),
        configuration=configuration.dump(config),
        written=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=provenance.commit(),
        folder=_relative(config, config.paths.scores),
    )


def header_facts(config: WeatherConfig, facts: dict[str, Any]) -> list[dict[str, str]]:
    """What stands at the top: sample, grid, climatology, training."""
    climate, grid = facts["climatology"], facts["grid"]
    years = climate["years"]
    span = f"{years[0]}–{years[-1]}" if len(years) > 1 else f"{years[0]}" if years else "training years"
    missing = len(facts.get("missing_times", []))
    left_out = sum(len(v) for v in facts["left_out_init_times"].values())
    gaps = f"{missing} missing times in the store" if missing else ""
    gaps += f"{'; ' if gaps and left_out else ''}{left_out} init times left out" if left_out else ""
    regrid = config.data.regrid
    train = ", ".join(f"{p.start:%Y-%m-%d} to {p.end:%Y-%m-%d}" for p in config.data.splits.train)
    rows = (
        ("Init times", f"{facts['n_init']}, every {facts['init_spacing_hours']:g} h", gaps),
        ("Period", dates(facts["first_init"], facts["last_init"]), "test period, never trained on"),
        ("Grid", f"{grid['shape'][0]} × {grid['shape'][1]}", f"{regrid.resolution:g}°, {regrid.method} regridding"),
        ("Channels", f"{len(config.data.channels.dynamic)}", f"{len(config.data.channels.static)} static"),
        ("Climatology", span, f"{climate['kind']}, {climate['window_days']} day window"),
        ("Trained on", train, f"{config.training.steps} steps"),
    )  # fmt: skip
    return [{"name": a, "value": b, "more": c} for a, b, c in rows]


def formulas(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Definitions, the climatology and the intervals, in short."""
    bootstrap, climate = facts["bootstrap"], facts["climatology"]
    periods = "; ".join(climate["periods"])
    doubt = "" if bootstrap["intervals"] == "given" else f"; {bootstrap['intervals']}"
    intervals = (
        f"moving-block bootstrap over init times, blocks of {bootstrap['block_init_times']} init times "
        f"({bootstrap['block_days']:g} days), {bootstrap['resamples']} draws shared by all models, percentile "
        f"interval stretched for the number of blocks{doubt}."
    )
    sample = f"{facts['n_init']} init times, {facts['first_init']} to {facts['last_init']}, for every model and lead."
    return [
        *sentences.FORMULAS,
        ("Climatology", f"c: {climate['kind']} of the training periods only ({periods}), at the valid time."),
        ("Persistence", "the state at the init time, at every lead."),
        ("Intervals", intervals),
        ("Sample", sample),
    ]


def stages(config: WeatherConfig) -> list[dict[str, str]]:
    """Every stage's receipt, as text."""
    found = []
    for stage in STAGES:
        if not config.paths.receipt(stage).exists():
            continue
        receipt = provenance.read_receipt(config, stage=stage)
        origin = receipt["provenance"]
        kept = {k: v for k, v in origin.items() if k not in ("config", "stage", "experiment")}
        content = {
            "outputs": [_relative(config, Path(p)) for p in receipt["outputs"]],
            "facts": receipt["facts"],
            **kept,
        }
        line = f"{origin['written']}, commit {origin['commit']}"
        found.append({"name": stage, "line": line, "text": json.dumps(content, indent=1, ensure_ascii=False)})
    return found


def _relative(config: WeatherConfig, path: Path) -> str:
    try:
        return str(Path(config.root.name) / path.resolve().relative_to(config.root.resolve()))
    except ValueError:
        return path.name


__all__ = ["Panel", "read_scores", "render", "run_report", "typical_init"]
