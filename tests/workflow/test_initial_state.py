"""One real ERA5 state is enough to issue a forecast: from the file to physical fields, as the command line does it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline.__main__ import app
from pipeline.config import dump, parse
from pipeline.store import open_store
from pipeline.weather.variables import plausible_range
from tests.model.conftest import raw_config, write_store

pytestmark = pytest.mark.slow


def test_a_forecast_from_one_real_state(
    shared_reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a step missing between the file and the forecast, and units or levels mixed up on the way."""
    from tests.model import conftest

    content = raw_config(tmp_path / "results", steps=2, batch_size=2)
    content["data"]["channels"] = {"variables": ["z", "t", "u", "v", "q"], "statics": ["lsm", "orog"]}
    content["data"]["regrid"]["resolution"] = 22.5
    content["evaluation"]["variables"] = ["z500"]
    content["forecast"] = {"lead_hours": [24, 72], "rollout_hours": 24}
    config = parse(content)
    ranges = [plausible_range(channel) for channel in config.data.channels.dynamic]
    low, high = np.array(ranges, dtype=np.float32).T[:, :, None, None]

    def plausible(times: np.ndarray, grid: object) -> np.ndarray:
        noise = np.random.default_rng(1).uniform(0.3, 0.7, (len(times), len(low), 8, 16))
        return (low + (high - low) * noise).astype(np.float32)

    monkeypatch.setattr(conftest, "synthetic_state", plausible)
    write_store(config, together=len(low))
    path = tmp_path / "config.yaml"
    path.write_text(dump(config))
    real = shared_reference / "real" / "era5_tl31_19590102T00.nc"
    for command in (["train"], ["forecast", "--initial", str(real)]):
        CliRunner().invoke(app, [*command, "--config", str(path)], catch_exceptions=False)
    (issued,) = config.root.glob("forecast-*-from-1959-01-02T00-*.zarr")
    ds = open_store(issued)
    assert ds["state"].shape == (1, 2, 75, 8, 16)
    assert ds["init_time"].values.astype("datetime64[h]").astype(str).tolist() == ["1959-01-02T00"]
    assert ((ds["state"].values >= low) & (ds["state"].values <= high)).all()
    assert "ERA5, by a model of the simulated atmosphere" in ds.attrs["title"]
    (states,) = config.root.glob("initial/*/data/store-*.zarr")
    t850 = open_store(states)["state"].sel(channel="t850").values
    assert 225 < t850.min() < t850.mean() < t850.max() < 310
