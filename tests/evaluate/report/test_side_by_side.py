"""Figures drawn by several processes are those of one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from evaluate.report.ceiling import Ceiling
from evaluate.report.gallery import Gallery
from evaluate.report.results import Results
from evaluate.report.side_by_side import SideBySide
from evaluate.scoring.facts import ScoreFacts
from evaluate.scoring.score_table import read_scores
from pipeline import provenance
from pipeline.config import Config

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]

SECTIONS = ("score_maps", "headline", "overview", "curves", "spectra")


def small_gallery(config: Config, folder: Path) -> Gallery:
    """Two channels, one lead, one score on maps."""
    facts = ScoreFacts.from_json(provenance.read_receipt(config, stage="score")["facts"])
    table, maps = read_scores(config.paths.scores)
    ceiling = Ceiling.read(config.paths.scores, table, maps, facts)
    results = Results(table, facts.model, config.evaluation.variables, facts.lead_hours, ceiling=ceiling)
    gallery = Gallery(results, maps, facts, folder, facts.lead_hours[:1])
    gallery.mapped = {"skill": gallery.mapped["skill"]}
    return gallery


def test_two_processes_draw_what_one_draws(reported: Config, tmp_path: Path) -> None:
    """Catches channels out of order, twice or left out, a figure that depends on the one before it, and a progress bar
    that stands still."""
    drawn, ticks, files = [], [], []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        gallery = small_gallery(reported, folder)
        ticks.append(0)

        def tick() -> None:
            ticks[-1] += 1

        gallery.tick = tick
        with ExitStack() as stack:
            side_by_side = SideBySide(gallery, workers=workers, stack=stack)
            finish = [side_by_side.start(section) for section in SECTIONS]
            drawn.append([f() for f in finish])
        files.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".png", ".csv")})
    assert drawn[0] == drawn[1]
    assert files[0] == files[1]
    assert ticks[0] == ticks[1] == 2 * (1 + 3 + 1) + 1 + 2
