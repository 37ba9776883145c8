"""Tables and tiles beside climatology and ceiling: their columns, their sample, their share of what could be known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evaluate.report import ceiling, headline, line_charts, sentences, style

SKILL = {"mine": 0.06, "climatology": 0.0, "persistence": -0.6, "linear": 0.07, "coarse": 0.3, "ceiling": 0.6}
FACTS = {
    "model": "mine", "n_init": 214, "init_spacing_hours": 24.0, "models": {"mine": {}},
    "twins": {"models": ["ceiling", "coarse"], "n_init": 22, "of": 214, "init_spacing_hours": 240.0},
}  # fmt: skip
CHOSEN = {"channels": ["z500"], "leads": [168], "model": "mine"}


def frame(n_init: int, metric: str = "acc", **skill: float) -> pd.DataFrame:
    """Rows of one channel at one lead."""
    rows = [
        {"model": m, "variable": "z", "level": "500", "lead": 168, "region": "globe", "metric": metric, "value": v,
         "ci_low": v - 0.01, "ci_high": v + 0.01, "n_init": n_init, "unit": "1"}
        for m, v in {**SKILL, **skill}.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def found(folder: Path, *, share: float = 0.1, low: float = 0.08) -> ceiling.Ceiling:
    """A ceiling on 22 of 214 init times, read from a folder."""
    common = pd.concat([frame(22, m) for m in ("acc", "skill", "rmse", "bias", "activity")])
    common.to_csv(folder / "scores_common.csv", index=False)
    rows = frame(22).assign(value=share, ci_low=low, ci_high=share + 0.02, climatology=0.0, ceiling=0.6)
    rows.query("model in ['mine', 'coarse']").to_csv(folder / "shares.csv", index=False)
    read = ceiling.Ceiling.read(folder, frame(214), xr.Dataset(), FACTS)
    assert read is not None
    return read


def test_share_of_the_ceiling(tmp_path: Path) -> None:
    """Ours first, references last, the share that shares.csv has with its interval; catches a share of another model
    or one under the skill, where it means nothing."""
    beside = found(tmp_path)
    acc = headline.standing(beside.frame, metric="acc", ceiling=beside, **CHOSEN)
    assert acc["columns"][0] == "model"
    assert acc["columns"][-2:] == ["ceiling (perfect model)", "model, share of ceiling"]
    assert "climatology" not in acc["columns"]
    cells = acc["groups"][0]["rows"][0]["cells"]
    assert len(cells) == len(acc["columns"])
    assert (cells[-1]["value"], cells[-1]["interval"], cells[-1]["bar"]) == ("10%", "8% … 12%", 10.0)
    assert cells[0]["tone"] == ""
    assert acc["n_init"] == 22
    skill = headline.standing(beside.frame, metric="skill", ceiling=beside, **CHOSEN)
    assert skill["columns"] == acc["columns"][:-1]
    assert skill["groups"][0]["rows"][0]["cells"][0]["tone"] == "good"
    empty = found(tmp_path, share=np.nan, low=np.nan)
    cell = headline.standing(empty.frame, metric="acc", ceiling=empty, **CHOSEN)["groups"][0]["rows"][0]["cells"][-1]
    assert cell["value"] == "–"
    assert "bar" not in cell


def test_no_ceiling_no_word_of_it(tmp_path: Path) -> None:
    """Real data: no column, no row, no tile that speaks of a ceiling."""
    assert ceiling.Ceiling.read(tmp_path, frame(214), xr.Dataset(), {"model": "mine", "models": {"mine": {}}}) is None
    real = pd.concat([frame(214, m) for m in ("acc", "skill", "rmse", "bias", "activity")])
    real = real[~real["model"].isin(["ceiling", "coarse"])]
    plain = headline.standing(real, metric="acc", **CHOSEN)
    assert not any("ceiling" in c for c in plain["columns"])
    baselines = ["persistence", "climatology"]
    rows = headline.headline(real, baselines=baselines, **CHOSEN)
    assert rows == sentences.headline(real, baselines=baselines, **CHOSEN)
    tile = headline.tiles(real, **CHOSEN)[0]
    assert tile["bar"] is None
    assert "ceiling" not in str(tile)
    assert tile["text"] == "Better than climatology in 1 of 1 variables"
    card = sentences.scorecard(real, leads=[168], model="mine", size=0.1)[0]
    assert (card["columns"], card["groups"], len(card["rows"][0]["cells"])) == (["7 d"], [], 1)


def test_headline_has_rows_for_the_references(tmp_path: Path) -> None:
    """Coarse core and ceiling below each lead with their own scores, cells under the right columns."""
    beside = found(tmp_path)
    whole = pd.concat([frame(214, m) for m in ("acc", "skill", "rmse", "bias", "activity")])
    baselines = ["persistence", "climatology"]
    rows = headline.headline(whole, baselines=baselines, ceiling=beside, **CHOSEN)[0]["rows"]
    assert [r["lead"] for r in rows] == ["7 days", "coarse core", "ceiling"]
    assert len({len(r["cells"]) for r in rows}) == 1
    coarse = [c["value"] for c in rows[1]["cells"]]
    assert coarse == ["0.300", "", "", "0.30", "0.30", "", "0.300", "0.30", "10%"]
    assert rows[2]["cells"][-1]["value"] == "100%"
    assert rows[0]["cells"][-1]["interval"] == "8% … 12%"


def test_tiles_claim_only_what_is_sure(tmp_path: Path) -> None:
    """The first screen: a share whose interval holds zero is not a share of anything."""
    whole = frame(214, "skill")
    tile = headline.tiles(whole, ceiling=found(tmp_path), **CHOSEN)[0]
    assert tile["known"] == "Knows 10% of what could be known"
    assert tile["bar"] == {"left": 10.0, "width": 0.0, "empty": False}
    assert "ACC 0.060 of the ceiling's 0.60 on 22 common init times" in tile["more"]
    unsure = headline.tiles(whole, ceiling=found(tmp_path, low=-0.3), **CHOSEN)[0]
    assert unsure["known"].startswith("Knows nothing for sure")
    assert unsure["bar"]["empty"]
    leads = list(range(24, 24 * 12, 24))
    many = pd.concat([whole.assign(lead=h) for h in leads])
    shown = [t["lead"] for t in headline.tiles(many, channels=["z500"], leads=leads, model="mine")]
    assert (shown[0], shown[-1], len(shown)) == ("1 day", "11 days", 4)


@pytest.mark.parametrize(("sure", "text", "shares"), [
    (1, "Knows nothing for sure in 3 of 4 variables", []),
    (2, "Knows 20% of what could be known in 2 of 4 variables", [0.2] * 2),
])  # fmt: skip
def test_one_share_of_many_beyond_doubt_is_no_finding(sure: int, text: str, shares: list[float]) -> None:
    """Catches a first screen that shows the lucky one of several variables."""
    stands = [
        ceiling.Stand("acc", "", 0.1, 0.0, 0.5, share=0.2, low=0.1 if i < sure else -0.1, high=0.3) for i in range(4)
    ]
    assert headline._known(stands) == (text, shares)


def test_scorecard_has_the_share_beside_the_skill(tmp_path: Path) -> None:
    """Twice the columns, under two titles; a dash where the ceiling knows nothing."""
    whole = frame(214, "skill")
    for share, text in ((0.1, "10%"), (np.nan, "–")):
        shares = found(tmp_path, share=share, low=share).shares
        card = sentences.scorecard(whole, leads=[168], model="mine", size=0.1, shares=shares)[0]
        assert card["groups"] == [("skill", 1), ("of the ceiling", 1)]
        assert [c["text"] for c in card["rows"][0]["cells"]] == ["0.060", text]


def test_common_init_times_are_preferred(tmp_path: Path) -> None:
    """The table of all models on the same init times is read where it is there, else scores.csv is."""
    whole = frame(214)
    assert ceiling.read_common(tmp_path, whole) is whole
    assert found(tmp_path).frame["n_init"].unique().tolist() == [22]


def test_skill_panel_is_scaled_to_what_is_near() -> None:
    """Ceiling at 0.96 and coarse core at -1 do not set the scale, nor does anything below -0.3; catches a panel in
    which network and baselines are one line."""
    near = frame(214, "skill")[lambda f: f["model"].isin(["mine", "linear"])]
    low, high = line_charts.skill_ends(near, floor=line_charts.LEAST_SKILL)
    assert -0.03 < low < 0
    assert 0.08 < high < 0.12
    assert (
        line_charts.skill_ends(frame(214, "skill", mine=-0.9), floor=line_charts.LEAST_SKILL)[0]
        == line_charts.LEAST_SKILL
    )
    assert set(style.FAR) == {"coarse", "ceiling"}


def test_note_says_on_how_many_init_times() -> None:
    """A reader must not take the ceiling's sample for the whole."""
    text = headline.note({"twins": {"n_init": 22, "of": 214, "init_spacing_hours": 240.0}})
    assert "22 of 214 init times" in text
    assert "Ceiling" not in headline.note({})
