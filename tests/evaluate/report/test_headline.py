"""Tables and tiles beside climatology and ceiling: their columns, their sample, their share of the ceiling's ACC."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from evaluate.report import ceiling, headline, heat_tables, line_charts, style
from evaluate.report.gallery import Gallery
from evaluate.report.results import Results
from evaluate.scoring.facts import Climatology, Intervals, ScoreFacts, TwinFacts
from evaluate.scoring.score_table import Score, ScoreTable
from pipeline.weather.variables import parse_channel

SKILL = {"mine": 0.06, "climatology": 0.0, "persistence": -0.6, "linear": 0.07, "coarse": 0.3, "ceiling": 0.6}
INTERVALS = Intervals("moving block", 0.95, 5, 5.0, 1000, "given")
TWINS = TwinFacts(
    ["ceiling", "coarse"], "scores_common.csv", 22, 214, "2002-01-01T00", "2002-07-30T00", 240.0, INTERVALS
)
FACTS = ScoreFacts(
    label="made-up data",
    n_init=214,
    first_init="2002-01-01T00",
    last_init="2002-08-02T00",
    init_spacing_hours=24.0,
    lead_hours=[168],
    left_out_init_times={},
    grid={},
    climatology=Climatology("day of year x hour", [2001], [], 61),
    fitted_baselines={},
    regions=["globe"],
    regions_left_out={},
    bootstrap=INTERVALS,
    model="mine",
    models={"mine": {}},
    twins=TWINS,
)
REAL = dataclasses.replace(FACTS, twins=None)
ALL = ("acc", "skill", "rmse", "bias", "activity")


def frame(n_init: int, metric: str = "acc", **skill: float) -> pd.DataFrame:
    """Rows of one channel at one lead."""
    at = {"variable": "z", "level": "500", "lead": 168, "region": "globe", "metric": metric}
    rows = [
        {"model": m, **at, "value": v, "ci_low": v - 0.01, "ci_high": v + 0.01, "n_init": n_init, "unit": "1"}
        for m, v in {**SKILL, **skill}.items()
    ]
    return pd.DataFrame(rows)


def whole(n_init: int) -> pd.DataFrame:
    """Rows of every score."""
    return pd.concat([frame(n_init, metric) for metric in ALL])


def results(rows: pd.DataFrame, beside: ceiling.Ceiling | None = None, **changes: Any) -> Results:
    """What tables and tiles are made from."""
    plain = Results(ScoreTable(rows), "mine", ["z500"], [168], ["persistence", "climatology"], beside)
    return dataclasses.replace(plain, **changes)


def with_ceiling(folder: Path, *, share: float = 0.1, low: float = 0.08) -> ceiling.Ceiling:
    """A ceiling on 22 of 214 init times, read from a folder."""
    whole(22).to_csv(folder / "scores_common.csv", index=False)
    rows = frame(22).assign(value=share, ci_low=low, ci_high=share + 0.02, climatology=0.0, ceiling=0.6)
    rows.query("model in ['mine', 'coarse']").to_csv(folder / "shares.csv", index=False)
    read = ceiling.Ceiling.read(folder, ScoreTable(frame(214)), xr.Dataset(), FACTS)
    assert read is not None
    return read


def test_share_of_the_ceiling(tmp_path: Path) -> None:
    """Ours first, references last, the share that shares.csv has with its interval; catches a share of another model
    or one under the skill, where it means nothing."""
    beside = with_ceiling(tmp_path)
    acc = headline.model_table(results(frame(214), beside), beside.table, "acc")
    assert acc.columns[0] == "model"
    assert acc.columns[-2:] == ["ceiling (perfect model)", "model, share of ceiling"]
    assert "climatology" not in acc.columns
    cells = acc.groups[0].rows[0].cells
    assert len(cells) == len(acc.columns)
    assert (cells[-1].value, cells[-1].interval, cells[-1].bar) == ("10%", "8% … 12%", 10.0)
    assert cells[0].tone == ""
    assert acc.n_init == 22
    skill = headline.model_table(results(frame(214), beside), beside.table, "skill")
    assert skill.columns == acc.columns[:-1]
    assert skill.groups[0].rows[0].cells[0].tone == "good"
    empty = with_ceiling(tmp_path, share=np.nan, low=np.nan)
    cell = headline.model_table(results(frame(214), empty), empty.table, "acc").groups[0].rows[0].cells[-1]
    assert cell.value == "–"
    assert cell.bar is None


def test_no_ceiling_no_word_of_it(tmp_path: Path) -> None:
    """Real data: no column, no row, no tile that mentions a ceiling."""
    assert ceiling.Ceiling.read(tmp_path, ScoreTable(frame(214)), xr.Dataset(), REAL) is None
    real = results(whole(214)[lambda f: ~f["model"].isin(["ceiling", "coarse"])])
    assert not any("ceiling" in c for c in headline.model_table(real, real.table, "acc").columns)
    rows = headline.headline(real)[0].rows
    assert ([r.lead for r in rows], len(rows[0].cells)) == (["7 days"], 8)
    tile = headline.tiles(real)[0]
    assert tile.bar is None
    assert "ceiling" not in str(tile)
    assert tile.text == "Better than climatology"
    card = heat_tables.scorecard(real)[0]
    assert (card.columns, card.groups, len(card.rows["500"])) == (["7 d"], [], 1)


def test_headline_has_rows_for_the_references(tmp_path: Path) -> None:
    """Coarse core and ceiling below each lead with their own scores, cells under the right columns."""
    rows = headline.headline(results(whole(214), with_ceiling(tmp_path)))[0].rows
    assert [r.lead for r in rows] == ["7 days", "coarse core", "ceiling"]
    assert len({len(r.cells) for r in rows}) == 1
    coarse = [c.value for c in rows[1].cells]
    assert coarse == ["0.300", "", "", "0.30", "0.30", "", "0.300", "0.30", "10%"]
    assert rows[2].cells[-1].value == "100%"
    assert rows[0].cells[-1].interval == "8% … 12%"


def test_tiles_claim_only_what_is_significant(tmp_path: Path) -> None:
    """The first screen: a share whose interval includes zero is not a share of anything."""
    skill = frame(214, "skill")
    tile = headline.tiles(results(skill, with_ceiling(tmp_path)))[0]
    assert tile.share == "Reaches 10% of the ceiling's ACC"
    assert tile.bar == (10.0, 10.0)
    assert "ACC 0.060 (ceiling 0.60) on 22 common init times" in tile.detail
    unsure = headline.tiles(results(skill, with_ceiling(tmp_path, low=-0.3)))[0]
    assert unsure.share.startswith("No significant share")
    assert unsure.bar is None
    leads = list(range(24, 24 * 12, 24))
    many = pd.concat([skill.assign(lead=h) for h in leads])
    shown = [t.lead for t in headline.tiles(results(many, leads=leads))]
    assert (shown[0], shown[-1], len(shown)) == ("1 day", "11 days", 5)


@pytest.mark.parametrize(
    ("significant", "text", "shares"),
    [
        (1, "No significant share of the ceiling's ACC in 3 of 4 variables", []),
        (2, "Reaches 20% of the ceiling's ACC in 2 of 4 variables", [0.2] * 2),
    ],
)
def test_one_significant_share_of_many_is_no_finding(significant: int, text: str, shares: list[float]) -> None:
    """Catches a first screen that shows the lucky one of several variables."""
    found = headline.reached([Score(0.2, 0.1 if i < significant else -0.1, 0.3) for i in range(4)])
    assert found == (text, shares)


def test_scorecard_has_the_share_beside_the_skill(tmp_path: Path) -> None:
    """Twice the columns, under two titles; a dash where the ceiling has no significant ACC."""
    for share, text in ((0.1, "10%"), (np.nan, "–")):
        beside = with_ceiling(tmp_path, share=share, low=share)
        card = heat_tables.scorecard(results(frame(214, "skill"), beside))[0]
        assert card.groups == [("skill", 1), ("share of ceiling", 1)]
        assert [c.text for c in card.rows["500"]] == ["0.060", text]


def test_common_init_times_are_preferred(tmp_path: Path) -> None:
    """The table of all models on the same init times is read where it is there, else scores.csv is."""
    table = ScoreTable(frame(214))
    assert ceiling.read_common(tmp_path, table) is table
    assert with_ceiling(tmp_path).table.frame["n_init"].unique().tolist() == [22]


def test_skill_panel_is_scaled_to_what_is_near() -> None:
    """Ceiling at 0.96 and coarse core at -1 do not set the scale, nor does anything below -0.3; catches a panel in
    which network and baselines are one line."""
    near = frame(214, "skill")[lambda f: f["model"].isin(["mine", "linear"])]
    low, high = line_charts.skill_ends(near, floor=line_charts.LEAST_SKILL)
    assert -0.03 < low < 0
    assert 0.08 < high < 0.12
    far = frame(214, "skill", mine=-0.9)
    assert line_charts.skill_ends(far, floor=line_charts.LEAST_SKILL)[0] == line_charts.LEAST_SKILL
    assert set(style.FAR) == {"coarse", "ceiling"}


@pytest.mark.filterwarnings("error")
def test_a_forecast_that_is_the_climatology_has_no_acc() -> None:
    """Nothing to draw, and no warning either: catches the smallest of no values, in a curve and in a map's text."""
    rows = frame(214).assign(value=np.nan, ci_low=np.nan, ci_high=np.nan)
    labels = style.Labels("ACC, globe", "Geopotential at 500 hPa", "made-up data", "1")
    figure = line_charts.lead_curve(rows, labels, names={"mine": "model", "climatology": "climatology"}, shares={})
    assert figure.axes[0].get_ylim() == (-0.1, 1.0)
    plt.close(figure)
    drawn = SimpleNamespace(note="made-up data")
    said = Gallery.map_alt(
        cast(Any, drawn), "Anomaly correlation", parse_channel("z500"), 168, np.full((2, 3), np.nan), ""
    )
    assert said.endswith("at 7 days, made-up data. Undefined at every cell.")


def test_note_says_on_how_many_init_times() -> None:
    """A reader must not take the ceiling's sample for the whole."""
    assert "22 of 214 init times" in headline.note(FACTS)
    assert "Ceiling" not in headline.note(REAL)


def test_facts_come_back_from_json() -> None:
    """Receipts and scores.nc of any version are read; catches a fact that is lost or renamed on the way."""
    content = FACTS.to_json()
    assert ScoreFacts.from_json(content) == FACTS
    assert ScoreFacts.from_json(REAL.to_json()) == REAL
    assert "twins" not in REAL.to_json()
    assert ScoreFacts.from_json({k: v for k, v in content.items() if k != "missing_times"}).missing_times == []
