"""A small experiment with known skill, written through the project's own stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline import files, provenance
from pipeline.config import Config
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from preprocess.normals.stage import run_normals
from tests.stores import data_block, write_store, write_training_store

CHANNELS = {"z": 2500.0, "t": 6.0, "t2m": 5.0, "u10": 4.0}
MEANS = {"z": 55000.0, "t": 275.0, "t2m": 288.0, "u10": 1.0}


def experiment_config(directory: Path, **changes: Any) -> Config:
    """Two years of daily fields on a 12 x 24 grid: one to train on, half of the other to test on."""
    raw: dict[str, Any] = {
        "name": "tiny",
        "directory": str(directory),
        "source": {"kind": "files", "paths": ["none.nc"], "label": "made-up data"},
        "data": data_block(
            ("2001-01-01", "2002-07-31"),
            train=("2001-01-01", "2001-12-31"),
            test=("2002-01-01", "2002-07-31"),
            variables=["z", "t", "t2m", "u10"],
            levels=[500, 850],
            statics=["lsm"],
            step_hours=24,
            regrid={"resolution": 15.0},
            slab_times=64,
        ),
        "forecast": {"lead_hours": [24, 168], "init_step_hours": 24},
        "model": {"patch": 2},
        "training": {"lead_hours": [24, 168]},
        "evaluation": {"variables": ["z500", "t2m"]},
    }
    for dotted, value in changes.items():
        node = raw
        *parents, last = dotted.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return configuration.parse(raw)


def second_year_until(end: str) -> dict[str, Any]:
    """Changes of the experiment that shorten its second year, which is the one tested on."""
    train = {"start": "2001-01-01", "end": "2001-12-31"}
    splits = {"train": train, "test": {"start": "2002-01-01", "end": end}}
    return {"data__period": {"start": "2001-01-01", "end": end}, "data__splits": splits}


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], *, waves: int = 5) -> np.ndarray:
    """Unit-variance random fields with large scales only; the last two axes are latitude and longitude."""
    rows, columns = shape[-2:]
    spectrum = np.fft.rfft2(rng.standard_normal(shape))
    wave = np.hypot(np.fft.fftfreq(rows)[:, None] * rows * 2, np.fft.rfftfreq(columns)[None, :] * columns)
    field = np.fft.irfft2(spectrum * np.exp(-((wave / waves) ** 2)), s=(rows, columns))
    return np.asarray(field / field.std())


def write_truth(config: Config, *, seed: int = 0, gap: slice | None = None) -> xr.Dataset:
    """A training store of red noise about a seasonal cycle; `gap` leaves times out."""
    rng = np.random.default_rng(seed)
    grid, channels = config.data.regrid.grid, config.data.channels.dynamic
    period = config.data.period
    times = np.arange(period.start, period.end, np.timedelta64(config.data.step_hours, "h")).astype("datetime64[ns]")
    shape = (len(channels), *grid.shape)
    scale = np.array([CHANNELS.get(c.variable, 3.0) for c in channels])[:, None, None]
    middle = np.array([MEANS.get(c.variable, 0.0) for c in channels])[:, None, None]
    phi = np.exp(-config.data.step_hours / 24 / 4.0)
    x = smooth_noise(rng, shape)
    state = np.empty((times.size, *shape), np.float32)
    for i, time in enumerate(times):
        x = phi * x + np.sqrt(1 - phi**2) * smooth_noise(rng, shape)
        day = (time - np.datetime64("2001-01-01")) / np.timedelta64(1, "D")
        season = np.sin(2 * np.pi * day / 365.25) * np.sin(np.deg2rad(grid.latitude))[:, None]
        state[i] = middle + scale * (x + 1.5 * season - 1.0 * np.sin(np.deg2rad(grid.latitude))[:, None] ** 2)
    keep = np.ones(times.size, bool)
    if gap is not None:
        keep[gap] = False
    lsm = (smooth_noise(rng, grid.shape) > 0.3).astype(np.float32)
    missing = [str(t) for t in np.datetime_as_string(times[~keep], "h")]
    return write_training_store(config, times[keep], state[keep], lsm[None], facts={"missing_times": missing})


def write_forecast(
    config: Config,
    truth: xr.Dataset,
    *,
    memory_days: float = 8.0,
    change: Callable[[xr.Dataset], xr.Dataset] | None = None,
) -> xr.Dataset:
    """Forecasts that correlate with the truth by r = exp(-lead / memory) and are damped by r; `change` spoils them."""
    rng = np.random.default_rng(7)
    normals = Normals.open(config.paths.normals)
    times = truth["time"].values
    leads = np.array(config.forecast.lead_hours)
    test = config.data.splits.test
    valid = times[:, None] + leads.astype("timedelta64[h]")[None]
    usable = (
        (times >= np.datetime64(test.start)) & np.isin(valid, times).all(1) & (valid <= np.datetime64(test.end)).all(1)
    )
    step = config.forecast.init_step_hours // config.data.step_hours
    init = times[usable][::step]
    state = np.empty((init.size, leads.size, *truth["state"].shape[1:]), np.float32)
    for i, start in enumerate(init):
        for j, hours in enumerate(leads):
            when = start + np.timedelta64(int(hours), "h")
            climate = normals.climatology_at(np.array([when]))[0]
            r = np.exp(-hours / 24 / memory_days)
            anomaly = truth["state"].sel(time=when).values - climate
            noise = smooth_noise(rng, state.shape[2:]) * np.sqrt((anomaly**2).mean((1, 2), keepdims=True))
            state[i, j] = climate + r * (r * anomaly + np.sqrt(1 - r * r) * noise)
    coords = truth[["channel", "variable", "level", "unit", "latitude", "longitude"]].drop_vars(
        ["time", "static_channel"], errors="ignore"
    )
    durations = leads.astype("timedelta64[h]").astype("timedelta64[ns]")
    ds = coords.assign_coords(init_time=init, lead_time=durations).assign(
        state=(("init_time", "lead_time", "channel", "latitude", "longitude"), state)
    )
    if change is not None:
        ds = change(ds)
    ds["lead_time"].encoding = {"units": "hours", "dtype": "int64"}
    contract = {
        "kind": "forecast",
        "channels": list(ds["channel"].values),
        "grid": config.data.regrid.grid.describe(),
        "source": {"kind": config.source.kind, "label": "simulated" if config.simulated else config.source.label},
        "lead_hours": leads.tolist(),
        "checkpoint": "0123456789abcdef",
        "model": config.name,
    }
    write_store(config.paths.forecast, ds, contract)
    provenance.write_receipt(config, stage="forecast", outputs=[config.paths.forecast], facts={"init_times": init.size})
    return ds


def write_ceiling(config: Config, *, every: int = 10) -> xr.Dataset:
    """A ceiling on some of the init times: the truth, which it knows less of as the lead grows."""
    forecast, truth = open_store(config.paths.forecast), open_store(config.paths.store)
    part = forecast.isel(init_time=slice(None, None, every)).load()
    leads = np.array(config.forecast.lead_hours)
    valid = part["init_time"].values[:, None] + leads.astype("timedelta64[h]")
    exact = truth["state"].sel(time=valid.ravel()).values.reshape(part["state"].shape)
    share = np.exp(-leads / 24 / 60.0)[:, None, None, None]
    ceiling = part.assign(state=(part["state"].dims, (share * exact + (1 - share) * part["state"].values)))
    write_store(config.paths.twins["ceiling"], ceiling, {**part.attrs["contract"], "model": "ceiling"})
    return ceiling


def write_training_log(config: Config) -> None:
    """A metrics.jsonl as training leaves it."""
    import json

    lines = []
    for step in range(1, 101):
        lines.append({"kind": "train", "step": step, "loss": 1.0 + 2.0 / step, "learning_rate": 5e-4})
        if step % 20 == 0:
            skill = {str(h): {"skill": 0.3 - 10 / (step + 20), "loss": 1.0} for h in config.forecast.lead_hours}
            lines.append({"kind": "validation", "step": step, "loss": 1.0 + 3.0 / step, "leads": skill})
    files.write_text(config.paths.metrics, "".join(json.dumps(line) + "\n" for line in lines))
    provenance.write_receipt(config, stage="train", outputs=[config.paths.metrics], facts={"steps": 100})


def build(directory: Path, *, gap: slice | None = None, change: Any = None, **changes: Any) -> Config:
    """A whole experiment ready to be scored."""
    config = experiment_config(directory, **changes)
    truth = write_truth(config, gap=gap)
    run_normals(config)
    write_forecast(config, truth, change=change)
    write_training_log(config)
    return config


@pytest.fixture(scope="session")
def build_experiment() -> Callable[..., Config]:
    """`build`, for tests that need a spoiled or unusual experiment."""
    return build


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """An experiment that tests only read."""
    return build(tmp_path_factory.mktemp("experiment"))
