"""Sentences and tables say what the numbers say, no more."""

from __future__ import annotations

import doctest
import itertools

import numpy as np
import pandas as pd
import pytest

from evaluate import text
from evaluate.report import heat_tables
from evaluate.report.results import Results
from evaluate.report.sentences import Finding, findings
from evaluate.scoring.score_table import ScoreTable


def table(
    rows: dict[tuple[int, str], tuple[float, float, float]], *, variable: str = "z", level: str = "500"
) -> pd.DataFrame:
    """Rows of scores.csv of the model "ours" over the globe: (lead, metric) -> (value, low, high)."""
    of = {"model": "ours", "variable": variable, "level": level, "region": "globe", "n_init": 100, "unit": "1"}
    return pd.DataFrame(
        [
            {**of, "lead": lead, "metric": metric, **dict(zip(("value", "ci_low", "ci_high"), v, strict=True))}
            for (lead, metric), v in rows.items()
        ]
    )


def results(frame: pd.DataFrame, leads: list[int], baselines: tuple[str, ...] = ()) -> Results:
    """What findings and tables are made from."""
    return Results(ScoreTable(frame), "ours", ["z500"], leads, baselines)


def sentence(skill: dict[int, tuple[float, float, float]], against: float = 0.5) -> Finding:
    """The finding made from skill at each lead."""
    rows = {(lead, "skill"): v for lead, v in skill.items()}
    rows |= {(lead, "skill_persistence"): (against, against - 0.1, against + 0.1) for lead in skill}
    return findings(results(table(rows), list(skill), ("persistence",)))[0]


def test_claims_need_an_interval_off_zero() -> None:
    """ "Beats" only where the whole interval is above zero; catches a claim from the value alone."""
    found = sentence({168: (0.12, 0.05, 0.2), 336: (0.03, -0.01, 0.07), 720: (-0.04, -0.06, -0.02)})
    assert found.text == (
        "Geopotential at 500 hPa: beats climatology at 7 days (skill 0.12 [0.050, 0.20]); does not differ "
        "significantly from climatology at 14 days (skill 0.030 [−0.010, 0.070]); is worse than climatology at 30 days "
        "(skill −0.040 [−0.060, −0.020]). RMSE is below persistence's at every lead."
    )
    assert found.tone == "good"


def test_many_leads_are_one_sentence() -> None:
    """Catches seven intervals in a row, and the skill of another lead than the one it is given for."""
    found = sentence(
        {24 * d: (0.9 - d / 20, 0.85 - d / 20, 0.95 - d / 20) for d in (1, 3, 5, 7, 10)} | {720: (0, -1, 1)}
    )
    assert found.text == (
        "Geopotential at 500 hPa: beats climatology at 1, 3, 5, 7 and 10 days (skill 0.85 [0.80, 0.90] at 1 day, skill "
        "0.40 [0.35, 0.45] at 10 days); does not differ significantly from climatology at 30 days (skill 0.00 [−1.00, "
        "1.00]). RMSE is below persistence's at every lead."
    )


def test_certain_but_tiny_is_level() -> None:
    """A skill of 0.001 with a narrow interval is no victory."""
    assert "is on a par with climatology at 30 days" in sentence({720: (0.001, 0.0005, 0.0015)}).text
    assert sentence({720: (0.001, 0.0005, 0.0015)}).tone == ""


def test_no_interval_no_claim() -> None:
    """With too few init times the number stands alone, with a word why."""
    text = sentence({6: (0.4, np.nan, np.nan)}).text
    assert "beats" not in text
    assert "0.40 at 6 h (too few init times for an interval)" in text


@pytest.mark.parametrize(
    ("against", "text"),
    [
        (0.05, "below persistence's at 7 days (not significantly at every one)"),
        (-0.3, "not below persistence's at any lead"),
    ],
)
def test_persistence_is_not_flattered(against: float, text: str) -> None:
    """The comparison with persistence has its own doubt."""
    assert text in sentence({168: (0.1, 0.05, 0.2)}, against).text


def test_over_all_channels_counts() -> None:
    """Better, alike and worse add up to the number of channels."""
    turns = itertools.cycle([(0.1, 0.05, 0.2), (0.0, -0.1, 0.1), (-0.2, -0.3, -0.1)])
    frames = [table({(168, "skill"): next(turns)}, level=str(level)) for level in (50, 100, 250, 500, 850)]
    found = findings(results(pd.concat(frames), [168]))
    assert found[-1].text == "All 5 channels against climatology: 2 better, 2 similar, 1 worse at 7 days."


def test_scorecard_rows_and_bold() -> None:
    """One table a variable, levels in order, bold only beyond doubt, dark cells with light ink."""
    shown = {("z", "500"): (0.9, 0.8, 1.0), ("z", "850"): (-0.1, -0.3, 0.1), ("t2m", ""): (0.2, 0.1, 0.3)}
    rows = [table({(168, "skill"): skill}, variable=v, level=level) for (v, level), skill in shown.items()]
    of = results(pd.concat(rows), [168])
    cards = heat_tables.scorecard(of)
    assert [(c.title, list(c.rows)) for c in cards] == [("Geopotential", ["500", "850"]), ("Near the surface", ["t2m"])]
    first, second = (cells[0] for cells in cards[0].rows.values())
    assert (first.bold, second.bold) == (True, False)
    assert first.ink == "#ffffff"
    assert second.ink == "#10151c"
    assert heat_tables.heat_scale(of) == pytest.approx(1.0)


def test_examples_in_docstrings() -> None:
    """Units, numbers and dates are written as their docstrings show."""
    assert doctest.testmod(text).failed == 0
