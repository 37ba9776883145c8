"""Figures of a page on disk."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from evaluate.page.figure_data import Numbers
from evaluate.page.keeper import Keeper


@pytest.mark.parametrize(("sample", "data"), [("", "made-up data"), ("9 days", "made-up data; 9 days")])
def test_a_figure_is_kept_with_its_numbers(tmp_path: Path, sample: str, data: str) -> None:
    """Catches numbers that do not say of what data and sample they are, and a progress bar that stands still."""
    ticks: list[int] = []
    others = plt.get_fignums()
    keeper = Keeper(tmp_path, "made-up data", lambda: ticks.append(1), sample)
    numbers = Numbers(pd.DataFrame({"loss": [0.5, 0.25]}), "Loss")
    picture = keeper.keep(plt.figure(figsize=(1, 1)), "below/loss", numbers, alt="A loss.", caption="Falls.")
    assert (picture.alt, picture.caption) == ("A loss.", "Falls.")
    assert picture.png == (tmp_path / "below" / "loss.png").read_bytes()
    assert (tmp_path / "below" / "loss.pdf").exists()
    assert (tmp_path / "below" / "loss.csv").read_text().split() == ["loss", "0.5", "0.25"]
    with xr.open_dataset(tmp_path / "below" / "loss.nc", engine="netcdf4") as ds:
        assert ds.attrs == {"title": "Loss", "data": data}
    assert ticks == [1]
    assert plt.get_fignums() == others
