"""A report on a single forecast: what it says of one init time, and what it leaves out."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from html import unescape

import pytest
import xarray as xr

from evaluate.report import style
from evaluate.report.stage import run_report
from evaluate.scoring import print_scores
from evaluate.scoring.stage import run_score
from pipeline.config import Config
from tests.evaluate.conftest import second_year_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]

MANY_OF_ONE = re.compile(
    r"\b1 (common |valid |missing )*(init times|days|frames|variables|times|steps|blocks|models)\b"
)


@pytest.fixture(scope="module")
def said(build_experiment: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Everything that score and report say of one init time at one lead, by where it is said."""
    shown = {"variables": ["t2m"], "animation_frames": 5}
    changes = {"forecast": {"lead_hours": [168], "init_step_hours": 24}, **second_year_until("2002-01-08")}
    config = build_experiment(tmp_path_factory.mktemp("one"), evaluation=shown, **changes)
    labels: list[style.Labels] = []
    stream, plain = io.StringIO(), style.write_labels
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(stream), redirect_stderr(stream):
        patch.setattr(style, "write_labels", lambda at, given, **more: labels.append(given) or plain(at, given, **more))
        run_score(config)
        run_report(config)
        print_scores.run_print_scores(config, variable="t2m")
    with xr.open_dataset(config.paths.scores / "scores.nc") as ds:
        maps = " ".join(map(str, ds.data_vars))
    drawn = " ".join(p.name for p in sorted(config.paths.figures.rglob("*.png")))
    return {
        "page": unescape(config.paths.report.read_text()),
        "messages": stream.getvalue(),
        "panels": "\n".join(f"{a.title} {a.subtitle}" for a in labels),
        "maps": maps,
        "drawn": drawn,
    }


def test_one_is_not_counted_as_many(said: dict[str, str]) -> None:
    """Catches "1 init times", "1 of 1 variables" and a period from a day to itself, wherever they are written."""
    assert len(said["panels"].splitlines()) >= 10
    for where in ("page", "messages", "panels"):
        found = [match[0] for match in MANY_OF_ONE.finditer(re.sub(r"data:image[^\"]*", "", said[where]))]
        assert not found, (where, found)
        assert "1 Jan 00 UTC – 1 Jan" not in said[where]
        assert "of 1 variable" not in said[where]
    assert "1 init time, 1 Jan 2002 00 UTC" in said["panels"]
    assert "score: 1 init time," in said["messages"]
    assert "the only init time" in said["page"]


def test_no_interval_is_promised(said: dict[str, str]) -> None:
    """Catches a sentence about intervals, or about what they exclude, where there are none."""
    assert "No confidence intervals are given (none: 1 init time holds fewer than 4 blocks of 3 days)" in said["page"]
    for where in ("page", "messages"):
        assert "95% interval" not in said[where]
        assert "excludes zero" not in said[where]
    assert "no 95% intervals" not in said["page"]
    assert "too few init times for intervals" in said["messages"]


def test_no_map_of_a_correlation_of_one_value(said: dict[str, str]) -> None:
    """At each cell the ACC of a single init time is 1 or -1: neither drawn nor written."""
    assert "t2m_rmse_168h.png" in said["drawn"]
    assert "t2m_acc_168h.png" not in said["drawn"]
    assert "rmse" in said["maps"].split()
    assert "acc" not in said["maps"].split()
    assert "Anomaly correlation</h4>" not in said["page"]
