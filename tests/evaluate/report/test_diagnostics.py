"""Power, calibration, edges of patches and harm in the tropics, as the report shows them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib import pyplot as plt

from evaluate.report import diagnostics, style
from evaluate.report.results import Results
from evaluate.scoring.score_table import ScoreTable

LEADS = [24, 168]


def gallery(skill: Any = None, **more: Any) -> Any:
    """What diagnostics read of a gallery; `keep` closes figures and gives back their numbers and texts."""
    table = ScoreTable(more.pop("frame", pd.DataFrame()))
    results = Results(table, "mine", ["z500"], LEADS)

    def keep(figure: Any, name: str, numbers: Any, **texts: Any) -> Any:
        plt.close(figure)
        return SimpleNamespace(name=name, values=numbers.values, **texts)

    def labels(title: str, subtitle: str, unit: str) -> style.Labels:
        return style.Labels(title, subtitle, "made-up data", unit)

    about = {"model": "mine", "channels": ["z500"], "ceiling": None, "sample": "9 init times", "note": "made-up data"}
    keeper = SimpleNamespace(keep=keep)
    return SimpleNamespace(results=results, maps=skill, keeper=keeper, labels=labels, **{**about, **more})


def test_power_names_models_and_their_power() -> None:
    """Catches a caption with another model's power, and an uncalibrated or a coarse model left out."""
    models = ["linear", "coarse", "truth", "mine uncalibrated", "mine"]
    power = np.ones((5, 2, 1, 5)) * np.array([9.0, 1.0, 2.0, 4.0, 1.5])[:, None, None, None]
    power[4, 1] = 0.5
    coords = {"spectrum_model": models, "lead": LEADS, "channel": ["z500"], "zonal_wavenumber": np.arange(5)}
    maps = xr.Dataset({"spectrum": (tuple(coords), power)}, coords)
    (found,) = diagnostics.power_pictures(gallery(maps))
    assert "at 1 and 7 days, 9 init times: model 75% and 25%, uncalibrated 200% and 200%, coarse core 50% and 50%." in (
        found.caption
    )
    drawn = found.values["ratio"]
    assert drawn.sel(spectrum_model="mine", lead=168).values.ravel() == pytest.approx([0.25] * 4)
    assert drawn["spectrum_model"].values.tolist() == ["mine", "mine uncalibrated", "coarse"]


def test_calibration_of_the_shown_channels() -> None:
    """Catches leads and channels exchanged, channels that are not shown, and a picture where nothing was calibrated."""
    factors = np.array([[1.0, 0.9, 0.8], [0.5, 0.4, 0.01]])[:, :, None] * np.array([1.0, 0.5, 0.5])
    coords = {
        "lead_time": np.array(LEADS).astype("timedelta64[h]").astype("timedelta64[ns]"),
        "channel": ["t2m", "z500", "u10"],
        "latitude": [-60.0, 0.0, 10.0],
        "unit": ("channel", ["K", "m2 s-2", "m s-1"]),
        "variable": ("channel", ["t2m", "z", "u10"]),
        "level": ("channel", [-1, 500, -1]),
    }
    ds = xr.Dataset(coords=coords)
    assert diagnostics.calibration_picture(gallery(), ds) is None
    found = diagnostics.calibration_picture(
        gallery(), ds.assign_coords(calibration=(("lead_time", "channel", "latitude"), factors))
    )
    assert found is not None
    assert found.values["factor"].values.tolist() == [[[0.9, 0.4], [0.45, 0.2]]]
    assert "z500, outside the tropics: 0.90, 0.40; z500, in the tropics: 0.45, 0.20" in found.alt


def test_edges_are_coloured_against_the_truth(tmp_path: Path) -> None:
    """Catches colour for edges that the truth has as well, axes exchanged, and a file that is not there."""
    at = {"variable": "z", "level": 500, "patch": 8, "n_init": 24}
    rows = [
        {**at, "lead": 24, "axis": "latitude", "forecast": 1.2, "truth": 1.2},
        {**at, "lead": 168, "axis": "latitude", "forecast": 0.9, "truth": 1.2},
        {**at, "lead": 24, "axis": "longitude", "forecast": 3.5, "truth": 1.0},
        {**at, "lead": 168, "axis": "longitude", "forecast": np.nan, "truth": 1.0},
        {**at, "variable": "t2m", "level": "", "lead": 24, "axis": "latitude", "forecast": 2.0, "truth": 1.0},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "edges.csv", index=False)
    assert diagnostics.edge_tables(tmp_path / "none.csv") == []
    first, second = diagnostics.edge_tables(tmp_path / "edges.csv")
    assert (first.title, second.title) == ("Geopotential at 500 hPa", "2 m temperature")
    texts = {name: [c.text for c in cells] for name, cells in first.rows.items()}
    assert texts == {
        "between rows": ["1.20", "0.90"],
        "between rows, truth": ["1.20", "1.20"],
        "between columns": ["3.50", "–"],
        "between columns, truth": ["1.00", "1.00"],
    }
    none, less = (c.background for c in first.rows["between rows"])
    assert none == less != first.rows["between columns"][0].background


def test_share_of_the_tropics_by_variable_and_lead() -> None:
    """Catches another model's maps, leads in another order, and the sentence on channels outside the tropics."""
    dims = ("model", "lead", "channel", "latitude", "longitude")
    coords = {"model": ["other", "mine"], "lead": LEADS, "channel": ["z500"], "latitude": [-40.0, -10.0, 10.0, 40.0]}
    skill = xr.DataArray(np.full((2, 2, 1, 4, 4), 0.1), {**coords, "longitude": np.arange(0, 360, 90.0)}, dims)
    skill[1, 1, 0, 1] = -0.3
    skill[0] = -1.0
    at = {"model": "mine", "metric": "skill", "variable": "q", "ci_low": np.nan, "ci_high": np.nan, "n_init": 9}
    values = [("tropics", "925", 24, -0.2), ("tropics", "500", 168, 0.1), ("globe", "500", 168, -0.9)]
    frame = pd.DataFrame([{**at, "region": r, "level": k, "lead": h, "value": v} for r, k, h, v in values])
    made = gallery(xr.Dataset({"skill": skill}), frame=frame)
    table = diagnostics.tropics_table(made)
    assert {name: [c.text for c in cells] for name, cells in table.rows.items()} == {
        "Geopotential at 500 hPa": ["0%", "50%"]
    }
    assert table.columns == ["1 d", "7 d"]
    said = diagnostics.tropics_sentence(made)
    assert "1 of 2 pairs of channel and lead have a skill below −0.05; the lowest is −0.20 (q925 at 1 day)" in said
