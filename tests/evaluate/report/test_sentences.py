"""Sentences and tables say what the numbers say, no more."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pandas as pd
import pytest

from evaluate.report import gallery, sentences, style


def table(
    rows: dict[tuple[int, str], tuple[float, float, float]], *, variable: str = "z", level: str = "500"
) -> pd.DataFrame:
    """Rows of scores.csv of the model "ours" over the globe: (lead, metric) -> (value, low, high)."""
    return pd.DataFrame(
        [
            {"model": "ours", "variable": variable, "level": level, "lead": lead, "region": "globe", "metric": metric,
             "value": v[0], "ci_low": v[1], "ci_high": v[2], "n_init": 100, "unit": "1"}
            for (lead, metric), v in rows.items()
        ]
    )  # fmt: skip


def sentence(skill: dict[int, tuple[float, float, float]], against: float = 0.5) -> dict[str, str]:
    """The finding made from skill at each lead."""
    rows = {(lead, "skill"): v for lead, v in skill.items()}
    rows |= {(lead, "skill_persistence"): (against, against - 0.1, against + 0.1) for lead in skill}
    found = sentences.findings(
        table(rows), channels=["z500"], leads=list(skill), model="ours", baselines=["persistence"]
    )
    return found[0]


def test_claims_need_an_interval_off_zero() -> None:
    """ "Beats" only where the whole interval is above zero; catches a claim from the value alone."""
    found = sentence({168: (0.12, 0.05, 0.2), 336: (0.03, -0.01, 0.07), 720: (-0.04, -0.06, -0.02)})
    assert found["text"] == (
        "Geopotential at 500 hPa: beats climatology at 7 days (skill 0.12 [0.050, 0.20]); cannot be told from "
        "climatology at 14 days (skill 0.030 [−0.010, 0.070]); is worse than climatology at 30 days "
        "(skill −0.040 [−0.060, −0.020]). Its RMSE is below persistence's at every lead."
    )
    assert found["tone"] == "good"


def test_certain_but_tiny_is_level() -> None:
    """A skill of 0.001 with a narrow interval is no victory."""
    assert "is level with climatology at 30 days" in sentence({720: (0.001, 0.0005, 0.0015)})["text"]
    assert sentence({720: (0.001, 0.0005, 0.0015)})["tone"] == ""


def test_no_interval_no_claim() -> None:
    """With too few init times the number stands alone, with a word why."""
    text = sentence({6: (0.4, np.nan, np.nan)})["text"]
    assert "beats" not in text
    assert "0.40 at 6 h (too few init times for an interval)" in text


@pytest.mark.parametrize(
    ("against", "text"),
    [(0.05, "below persistence's at 7 days (not all beyond doubt)"), (-0.3, "not below persistence's at any lead")],
)
def test_persistence_is_not_flattered(against: float, text: str) -> None:
    """The comparison with persistence has its own doubt."""
    assert text in sentence({168: (0.1, 0.05, 0.2)}, against)["text"]


def test_over_all_channels_counts() -> None:
    """Better, alike and worse add up to the number of channels."""
    turns = itertools.cycle([(0.1, 0.05, 0.2), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)])
    frames = [table({(168, "skill"): next(turns)}, level=str(level)) for level in (50, 100, 250, 500, 850)]
    found = sentences.findings(pd.concat(frames), channels=["z500"], leads=[168], model="ours", baselines=[])
    assert found[-1]["text"] == "Of all 5 channels against climatology: 2 better, 2 alike, 1 worse at 7 days."


def test_scorecard_rows_and_bold() -> None:
    """One table a variable, levels in order, bold only beyond doubt, dark cells with light ink."""
    frame = pd.concat(
        [table({(168, "skill"): (0.9, 0.8, 1.0)}, level="500"), table({(168, "skill"): (-0.1, -0.3, 0.1)}, level="850"),
         table({(168, "skill"): (0.2, 0.1, 0.3)}, variable="t2m", level="")]
    )  # fmt: skip
    cards = sentences.scorecard(frame, leads=[168], model="ours", size=1.0)
    assert [(c["title"], [r["name"] for r in c["rows"]]) for c in cards] == [
        ("Geopotential", ["500", "850"]), ("Near the surface", ["t2m"]),
    ]  # fmt: skip
    first, second = (row["cells"][0] for row in cards[0]["rows"])
    assert (first["sure"], second["sure"]) == (True, False)
    assert first["ink"] == "#ffffff"
    assert second["ink"] == "#10151c"
    assert sentences.heat_scale(frame, model="ours") == pytest.approx(1.0)


@pytest.mark.parametrize("module", [style, gallery])
def test_examples_in_docstrings(module) -> None:
    """Units, numbers and dates are written as their docstrings show."""
    assert doctest.testmod(module).failed == 0
