"""The report stage: every figure, and one self-contained page that explains them.

Contract: reads what the score stage wrote, the stores for single forecasts, and every stage's receipt; writes figures
(PNG and PDF) and `report.html`, which loads nothing from anywhere, needs no JavaScript, stays under 10 MB and says
above everything else when its data are simulated. The receipt is written last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

from evaluate.complete import complete_report, scores_digest
from evaluate.page.rendering import write_page
from evaluate.report import diagnostics, style
from evaluate.report.animation import run_animate
from evaluate.report.cases import Stores, triptychs
from evaluate.report.ceiling import Ceiling
from evaluate.report.free_run import free_run_section
from evaluate.report.gallery import Gallery
from evaluate.report.leads import mapped, of_cases
from evaluate.report.page import Figures, render
from evaluate.report.results import Results
from evaluate.report.side_by_side import Section, SideBySide
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import ScoreFacts
from evaluate.scoring.score_table import read_scores
from evaluate.text import iso_hour, lead_title
from pipeline import files, provenance
from pipeline.console import terminal_progress
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig

_NUM_CASE_CHANNELS = 2


def run_report(config: WeatherConfig) -> None:
    """Draw the figures of a configuration and write its report.

    Raises:
        ValueError: the scores are missing, or the page would be larger than 10 MB.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    if done := complete_report(config):
        console.print(done, markup=False)
        return
    gallery, facts = open_gallery(config)
    drawn = scores_digest(paths.scores)
    size = _draw_and_write(config, gallery, facts, console)
    written = {"bytes": size, "label": facts.label, "scores": drawn}
    provenance.write_receipt(config, stage="report", outputs=[paths.report, paths.figures], facts=written)
    console.print(f"report: {paths.report} ({size / 1e6:.1f} MB)", markup=False)


def open_gallery(config: WeatherConfig) -> tuple[Gallery, ScoreFacts]:
    """What draws the figures of an experiment, and the facts of its scores.

    Raises:
        ValueError: the scores are missing.
    """
    paths = config.paths
    facts = ScoreFacts.from_json(provenance.read_receipt(config, stage="score")["facts"])
    table, maps = read_scores(paths.scores)
    ceiling = Ceiling.read(paths.scores, table, maps, facts)
    baselines = [m for m in table.models if m in style.BASELINES]
    results = Results(table, facts.model, config.evaluation.variables, facts.lead_hours, baselines, ceiling)
    map_leads = mapped(facts.lead_hours, chosen=config.evaluation.map_lead_hours)
    return Gallery(results, maps, facts, paths.figures, map_leads), facts


def _draw_and_write(config: WeatherConfig, gallery: Gallery, facts: ScoreFacts, console: Console) -> int:
    """Draw every figure and write the page; returns its bytes."""
    paths, channels = config.paths, gallery.channels[:_NUM_CASE_CHANNELS]
    leads = of_cases(gallery.leads)
    twin = paths.twins.get(CEILING) if gallery.ceiling else None
    stores = Stores(
        open_store(paths.forecast, stage="python -m pipeline forecast"),
        open_store(paths.store, stage="python -m pipeline regrid"),
        Normals.open(paths.normals),
        open_store(twin, stage="python -m pipeline twins") if twin else None,
    )
    chosen = chosen_inits(config, stores.forecast, stores.truth, leads=leads)
    moves = config.evaluation.animation_frames and facts.n_init > 1
    among = stores.ceiling["init_time"].values if stores.ceiling is not None else None
    sums = paths.scores / "sums.nc"
    with ExitStack() as stack:
        stack.enter_context(files.lock(paths.scores / "report.lock"))
        side_by_side = SideBySide(gallery, workers=config.evaluation.workers, stack=stack)
        sections: tuple[Section, ...] = ("score_maps", "headline", "overview", "curves", "spectra")
        drawn = {section: side_by_side.start(section) for section in sections}
        film = run_animate(config, channel=channels[-1], lead=leads[0]) if moves else None
        progress = stack.enter_context(terminal_progress("figures", on=console))
        task = progress.add_task("report", total=gallery.count + 3 * len(channels) * len(leads) * (1 + len(chosen)))
        gallery.tick = lambda: progress.advance(task)
        typical = typical_init(sums, model=gallery.model, channel=channels[0], lead=leads[0], among=among)
        figures = Figures(
            cases=[
                g for t in (typical, *chosen) for g in triptychs(gallery, stores, t, channels=channels, leads=leads)
            ],
            headline=drawn["headline"](),
            overview=drawn["overview"](),
            curves=drawn["curves"](),
            maps=drawn["score_maps"](),
            spectra=drawn["spectra"](),
            power=diagnostics.power_pictures(gallery),
            calibration=diagnostics.calibration_picture(gallery, stores.forecast),
            edges=diagnostics.edge_tables(paths.scores / "edges.csv"),
            tropics=diagnostics.tropics_table(gallery),
            tropics_sentence=diagnostics.tropics_sentence(gallery),
            training=gallery.training(paths.metrics),
            free_run=free_run_section(config),
            typical=typical,
            typical_error=f"{channels[0]} at {lead_title(leads[0])}",
            film=film,
        )
        page = render(config, gallery.results, facts, figures)
        size = write_page(config, page, remedy="list fewer evaluation.variables or evaluation.map_lead_hours")
    return size


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
    inits: list[np.datetime64] = [np.datetime64(time, "ns") for time in config.evaluation.cases]
    for init in inits:
        if init not in known:
            near = iso_hour(known[np.argmin(np.abs(known - init))])
            raise ValueError(
                f"evaluation.cases must be init times of the forecasts, got {iso_hour(init)}; the nearest is {near}"
            )
        absent = [lead for lead in leads if init + np.timedelta64(lead, "h") not in truth["time"].values]
        if absent:
            raise ValueError(
                f"evaluation.cases must have a truth, got {iso_hour(init)} with none at {absent} h; choose another"
            )
    return inits
