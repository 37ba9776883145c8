"""Jumps at the edges of patches, of forecasts and of their truth."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.edges import edge_ratio
from evaluate.scoring import compare, patch_edges
from evaluate.scoring.patch_edges import COLUMNS, edge_table
from pipeline.config import Config
from pipeline.store import open_store
from pipeline.weather.climatology import Normals

pytestmark = pytest.mark.slow


def test_table_is_the_ratio_of_anomalies(experiment: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches full fields in place of anomalies, the truth of another time, and leads or channels mixed up."""
    paths, channels = experiment.paths, ["t2m", "z500"]
    forecast, truth, normals = open_store(paths.forecast), open_store(paths.store), Normals.open(paths.normals)
    alignment = compare.require_comparable({"tiny": forecast}, truth, normals, leads=[24, 168])
    monkeypatch.setattr(patch_edges, "MOST_INITS", 3)
    frame = edge_table(forecast, truth, normals, alignment=alignment, channels=channels, patch=3)
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["n_init"]) == {3}
    assert len(frame) == 2 * 2 * 2
    last = len(alignment.init_times) - 1
    init = alignment.init_times[[0, int(np.round(last / 2)), last]]
    valid = init + np.timedelta64(7, "D")
    number = list(map(str, truth["channel"].values)).index("t2m")
    climatology = normals.climatology_at(valid)[:, number]
    came = truth["state"].sel(channel="t2m", time=valid).rename(time="init_time").drop_vars("init_time")
    issued = forecast["state"].sel(channel="t2m", init_time=init).isel(lead_time=1).drop_vars("init_time")
    for kind, fields in (("truth", came), ("forecast", issued)):
        right = edge_ratio(fields.load() - climatology, patch=3)
        rows = frame.query("variable == 't2m' and lead == 168").set_index("axis")
        for axis in ("latitude", "longitude"):
            assert rows.loc[axis, kind] == pytest.approx(float(right.sel(axis=axis)), rel=1e-4)
