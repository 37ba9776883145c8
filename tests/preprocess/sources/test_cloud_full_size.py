"""The whole road at ERA5's true size: 721 x 1440 cells, 37 levels a chunk, 80 channels, over HTTP."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline.config import parse
from pipeline.grid import Grid
from pipeline.weather.variables import parse_channel, standard_geopotential
from preprocess.ingest.stage import run_regrid
from preprocess.regrid import regrid
from tests.preprocess.servers.layouts import write_archive
from tests.preprocess.servers.web import serving

LEVELS = (
    1,
    2,
    3,
    5,
    7,
    10,
    20,
    30,
    50,
    70,
    100,
    125,
    150,
    175,
    200,
    225,
    250,
    300,
    350,
    400,
    450,
    500,
    550,
    600,
    650,
    700,
    750,
    775,
    800,
    825,
    850,
    875,
    900,
    925,
    950,
    975,
    1000,
)
BASE = {"t": 260.0, "u": 10.0, "v": -3.0, "q": 0.004, "t2m": 280.0, "u10": 5.0, "v10": -2.0, "lsm": 0.5, "orog": 2e4}
SOURCE = Grid(np.linspace(90.0, -90.0, 721), np.arange(1440) * 0.25)
TIMES = np.arange("2001-01-01", "2001-01-02", np.timedelta64(6, "h"), dtype="datetime64[ns]")


def wave() -> np.ndarray:
    """The one pattern all fields are made of, within -1 .. 1."""
    lat, lon = np.deg2rad(SOURCE.latitude)[:, None], np.deg2rad(SOURCE.longitude)[None, :]
    return (0.6 * np.sin(lat) + 0.4 * np.cos(lat) * np.cos(3 * lon - 0.3)).astype(np.float32)


def terms(short: str, level: int | None, time: np.datetime64) -> tuple[float, float]:
    """(offset, factor) of the pattern: other ones for every variable, level and time."""
    middle = standard_geopotential(float(max(level or 0, 10))) if short == "z" else BASE[short]
    size = 0.02 * middle if short in ("z", "q") else 4.0
    if short in ("lsm", "orog"):
        size = 0.4 * middle
    hours = (time - TIMES[0]) / np.timedelta64(1, "h")
    return middle + size * ((level or 0) / 1000.0 + hours / 100.0), size


@pytest.mark.slow
def test_eighty_channels_at_true_size(tmp_path: Path, root: Path) -> None:
    """Catches what only shows at full size: levels or rows mixed up among 37 and 721, a chunk read twice."""
    pattern = wave()

    def field(short: str, level: int | None, times: Any, latitude: Any, longitude: Any) -> np.ndarray:
        offset, factor = terms(short, level, times[0])
        return (pattern * np.float32(factor) + np.float32(offset))[None]

    try:
        write_archive(
            tmp_path / "arco",
            truth=field,
            variables=("z", "t", "u", "v", "q", "t2m", "u10", "v10"),
            levels=LEVELS,
            latitude=SOURCE.latitude,
            longitude=SOURCE.longitude,
            times=TIMES,
            padding=100,
            attrs={"valid_time_start": "2001-01-01", "valid_time_stop": "2001-01-01"},
        )
        with serving(tmp_path) as web:
            config = parse(
                {
                    "name": "full",
                    "directory": str(tmp_path / "results"),
                    "source": {"kind": "arco", "url": f"{web.url}/arco"},
                    "data": {
                        "period": {"start": "2001-01-01", "end": "2001-01-01"},
                        "splits": {
                            "train": {"start": "2001-01-01", "end": "2001-01-01T06:00"},
                            "test": {"start": "2001-01-01T12:00", "end": "2001-01-01"},
                        },
                    },
                    "training": {"lead_hours": [6]},
                    "forecast": {"lead_hours": [6], "init_step_hours": 6},
                    "evaluation": {"variables": []},
                }
            )
            path = tmp_path / "experiment.yaml"
            path.write_text(configuration.dump(config))
            done = subprocess.run(
                [sys.executable, "-m", "pipeline", "regrid", "--config", str(path)],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            chunks = {p: n for p, n in web.asked.items() if p.rpartition("/")[2].count(".") >= 2}
            assert len(chunks) == 4 * 8
            assert set(chunks.values()) == {1}, f"something was read twice: {chunks}"
            before = web.requests
            run_regrid(config)
            assert web.requests == before, "a finished store was made from the network again"
        found = xr.open_zarr(config.paths.store, consolidated=False).load()
    finally:
        shutil.rmtree(tmp_path / "arco", ignore_errors=True)  # 1.5 GB
    dynamic = config.data.channels.dynamic
    assert found["state"].shape == (4, 78, 32, 64)
    assert found["static"].shape == (2, 32, 64)
    lazy = xr.Dataset(
        {"pattern": (("latitude", "longitude"), pattern)},
        coords={"latitude": SOURCE.latitude, "longitude": SOURCE.longitude},
    )
    coarse = regrid(lazy, target=config.data.regrid.grid, method="bilinear")["pattern"].values
    for i, time in enumerate(TIMES):
        for channel in dynamic:
            offset, factor = terms(channel.variable, channel.level, time)
            cells = found["state"].sel(channel=channel.name).values[i]
            np.testing.assert_allclose(cells, factor * coarse + offset, atol=1e-6 * (abs(offset) + factor), rtol=0)
    for name in found["static_channel"].values:
        offset, factor = terms(str(parse_channel(str(name)).variable), None, TIMES[0])
        cells = found["static"].sel(static_channel=name).values
        np.testing.assert_allclose(cells, factor * coarse + offset, atol=1e-6 * (abs(offset) + factor), rtol=0)
