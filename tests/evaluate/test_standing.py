"""The table between climatology and ceiling: its columns, its sample, its share of what could be known."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evaluate import standing

SKILL = {"mine": 0.06, "climatology": 0.0, "persistence": -0.6, "linear": 0.07, "coarse": 0.3, "ceiling": 0.6}


def frame(n_init: int, metric: str = "acc", **skill: float) -> pd.DataFrame:
    """Rows of one channel at one lead."""
    rows = [
        {"model": m, "variable": "z", "level": "500", "lead": 168, "region": "globe", "metric": metric, "value": v,
         "ci_low": v - 0.01, "ci_high": v + 0.01, "n_init": n_init, "unit": "1"}
        for m, v in {**SKILL, **skill}.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_share_of_the_ceiling() -> None:
    """Ours first, references last, and 0.06 of 0.6 is a tenth; catches a share of another column."""
    found = standing.standing(frame(22), channels=["z500"], leads=[168], model="mine", metric="acc")
    assert found["columns"][0] == "model"
    assert found["columns"][-2:] == ["ceiling (perfect model)", "model, share of ceiling"]
    assert "climatology" not in found["columns"]
    cells = found["groups"][0]["rows"][0]["cells"]
    assert len(cells) == len(found["columns"])
    assert cells[-1]["value"] == "10%"
    assert cells[0]["tone"] == ""
    assert found["n_init"] == 22
    worse = standing.standing(frame(22, ceiling=-0.1), channels=["z500"], leads=[168], model="mine", metric="acc")
    assert worse["groups"][0]["rows"][0]["cells"][-1]["value"] == "–"
    skill = standing.standing(frame(22, "skill"), channels=["z500"], leads=[168], model="mine", metric="skill")
    assert skill["columns"] == found["columns"][:-1]
    assert skill["groups"][0]["rows"][0]["cells"][0]["tone"] == "good"


def test_common_init_times_are_preferred(tmp_path: Path) -> None:
    """The table of all models on the same init times is read where it is there, else scores.csv is."""
    whole = frame(214)
    assert standing.read_common(tmp_path, whole) is whole
    frame(22).to_csv(tmp_path / "scores_common.csv", index=False)
    common = standing.read_common(tmp_path, whole)
    assert common["n_init"].unique().tolist() == [22]
    assert standing.standing(common, channels=["z500"], leads=[168], model="mine", metric="acc")["n_init"] == 22


def test_note_says_on_how_many_init_times() -> None:
    """A reader must not take the ceiling's sample for the whole."""
    text = standing.note({"twins": {"n_init": 22, "of": 214, "init_spacing_hours": 240.0}})
    assert "22 of 214 init times" in text
    assert "Ceiling" not in standing.note({})
