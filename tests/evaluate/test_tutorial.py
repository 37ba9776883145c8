"""The code of docs/tutorial.md runs as it stands, without a warning, and gives the scores of the score stage."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest
import xarray as xr

from evaluate.scoring.stage import run_score
from pipeline.config import Config

pytestmark = pytest.mark.slow


def test_the_tutorial(experiment: Config, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches code that no longer runs, a store that warns when xarray opens it, or another score than the table's."""
    run_score(experiment)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "demo").symlink_to(experiment.root)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    blocks = re.findall(r"```python\n(.*?)```", (root / "docs" / "tutorial.md").read_text(), re.DOTALL)
    assert len(blocks) == 4
    scope: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for block in blocks:
            exec(block, scope)
    plt.close("all")
    assert (tmp_path / "t850.png").stat().st_size > 10_000
    ours = scope["table"].set_index("model")["value"][experiment.name]
    assert float(scope["by_hand"]) == pytest.approx(ours, rel=2e-5)
    assert float(scope["by_us"].sel(channel="t850", lead_time="7D")) == pytest.approx(ours, rel=2e-5)
    xr.testing.assert_identical(scope["fast"]["state"].load(), scope["truth"]["state"].load())


def test_every_store_opens_without_a_warning(experiment: Config) -> None:
    """Catches metadata that xarray looks for and misses: normals and their sums, too, which no tutorial opens."""
    paths = experiment.paths
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in (paths.store, paths.forecast, paths.normals):
            assert xr.open_zarr(path).attrs["contract"]
