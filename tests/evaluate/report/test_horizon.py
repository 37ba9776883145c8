"""How far ahead forecasts are useful: the first screen."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

from evaluate.report.ceiling import Ceiling
from evaluate.report.horizon import horizon, reach
from evaluate.report.results import Results
from evaluate.scoring.facts import uncalibrated_name
from evaluate.scoring.score_table import ScoreTable
from tests.evaluate.report.test_headline import FACTS

LEADS = [24, 72, 168]
ACC = {"mine": [0.9, 0.7, 0.4], "linear": [0.8, 0.4, 0.1], "persistence": [0.5, 0.3, 0.0]}
RAW = uncalibrated_name("mine")


def table(n_init: int, acc: dict[str, list[float]]) -> pd.DataFrame:
    """ACC of each model, and a skill of half of it with an interval."""
    at = {"variable": "z", "level": "500", "region": "globe", "unit": "1", "n_init": n_init}
    rows = []
    for model, values in acc.items():
        for lead, value in zip(LEADS, values, strict=True):
            row = {**at, "model": model, "lead": lead}
            rows.append({**row, "metric": "acc", "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1})
            skill = value / 2
            rows.append({**row, "metric": "skill", "value": skill, "ci_low": skill - 0.3, "ci_high": skill + 0.3})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("acc", "hours", "words"),
    [
        ([0.9, 0.7, 0.4], 72 + 96 / 3, "4.3 days"),
        ([0.5, 0.9, 0.1], 24, "under 1 day"),
        ([0.9, 0.8, 0.6], 168, "7 days or more"),
        ([math.nan, 0.8, 0.4], 72 + 96 / 2, "5.0 days"),
        ([math.nan] * 3, math.nan, "–"),
    ],
)
def test_reach_is_where_the_line_crosses(acc: list[float], hours: float, words: str) -> None:
    """Catches a lead rounded to the last one above, a guess beyond the leads, and a later return counted."""
    found = reach(LEADS, acc)
    assert found.words == words
    assert found.hours == pytest.approx(hours, nan_ok=True)


def test_first_screen_without_a_ceiling() -> None:
    """Ours first, in the words of the table; the calibrated and the uncalibrated ACC are one, climatology has none."""
    acc = {**ACC, RAW: ACC["mine"], "climatology": [math.nan] * 3, "damped_persistence": ACC["persistence"]}
    results = Results(ScoreTable(table(214, acc)), "mine", ["z500"], LEADS, ["persistence", "climatology"])
    found = horizon(results)
    assert found.ours == "4.3 days"
    ((sample, rows),) = found.groups.items()
    assert sample == "214 init times"
    assert [(r.title, r.cells, r.ours) for r in rows] == [
        ("model", ["4.3 d"], True),
        ("linear regression", ["2.0 d"], False),
        ("persistence", ["under 1 d"], False),
    ]
    assert [r.bar for r in rows] == pytest.approx([100.0, 100 * 48 / 104, 100 * 24 / 104], abs=0.1)
    assert "linear regression 2.0 days and persistence under 1 day" in found.sentence
    assert found.sentence.endswith("Better than climatology up to 3 days.")


def test_twins_are_compared_on_their_init_times(tmp_path: Path) -> None:
    """Catches our reach on all init times beside a ceiling's on a few, and a model listed twice."""
    ours_there = [0.9, 0.6, 0.2]
    twins = {"coarse": [0.99, 0.9, 0.5], "ceiling": [1.0, 0.99, 0.95]}
    common = table(22, {**ACC, "mine": ours_there, **twins})
    common.to_csv(tmp_path / "scores_common.csv", index=False)
    shares = common.assign(climatology=0.0, ceiling=1.0)
    shares.to_csv(tmp_path / "shares.csv", index=False)
    plain = ScoreTable(pd.concat([table(214, ACC), table(22, twins)]))
    beside = Ceiling.read(tmp_path, plain, xr.Dataset(), FACTS)
    found = horizon(Results(plain, "mine", ["z500"], LEADS, ["persistence"], beside))
    titles = {sample: [(r.title, *r.cells) for r in rows] for sample, rows in found.groups.items()}
    assert titles == {
        "214 init times": [("model", "4.3 d"), ("linear regression", "2.0 d"), ("persistence", "under 1 d")],
        "22 common init times": [
            ("model", "3.0 d"),
            ("coarse core", "6.0 d"),
            ("ceiling (perfect model)", "7 d or more"),
        ],
    }
    assert found.ours == "4.3 days"
    assert "coarse" not in found.sentence
