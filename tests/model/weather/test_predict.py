"""Roll-outs, forecasts from states of elsewhere, and forecasts that a kill -9 cut short."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from model.parallel.mesh import build_mesh
from model.training import checkpoint
from model.weather.architecture import planned_network
from model.weather.fields import Fields
from model.weather.forecast import run_forecast
from model.weather.predict import divide, limits, load_model
from model.weather.stepping import Stepper, Units
from model.weather.train import run_train
from pipeline.config import Config, dump, load, parse
from pipeline.store import ArraySpec, SlabStore, open_store, read_manifest, verify_store
from pipeline.weather.climatology import Normals
from tests.forked import forking

pytestmark = pytest.mark.slow

Make = Callable[..., Config]
HOUR = np.timedelta64(1, "h")


def changed(config: Config, **forecast: Any) -> Config:
    content = config.model_dump(mode="json")
    content["forecast"] |= forecast
    return parse(content)


OPTIONS = {"features": ["season", "latitude"], "output": "overlap", "conditioning": "adaptive_norm"}


def trained(experiment: Make, *, model: dict[str, Any] | None = None, **training: Any) -> Config:
    config = experiment(steps=20, batch_size=8, learning_rate=5e-3, validate_every=20, **training)
    content = config.model_dump(mode="json")
    content["model"] |= model or {}
    config = parse(content)
    run_train(config)
    return config


@pytest.mark.usefixtures("group_of_one")
@pytest.mark.parametrize("network_input", ["state", "anomaly"])
def test_a_state_is_read_again_as_from_the_store(experiment: Make, network_input: Any) -> None:
    """Catches a second step that reads units, statics, earlier states or a climatology other than those of training."""
    content = experiment().model_dump(mode="json")
    content["model"] |= {"history_hours": [24, 48], "network_input": network_input, "features": ["season"]}
    content["training"]["step_hours"] = [24]
    network = planned_network(parse(content))
    normals = Normals.open(experiment().paths.normals)
    fields = Fields(experiment().paths.store, normals, channels=network.channels, network_input=network_input)
    of = {"predicts": "anomaly", "step_hours": [24], "network_input": network_input}
    units = Units.of(normals, channels=network.out_channels, **of, device=torch.device("cpu"))
    stepper = Stepper(network, units, mesh=build_mesh(channel=1, device_type="cpu"))
    init = np.array([13, 40, 200])
    past = [fields.anomalies_at(fields.earlier(init, hours=h)) for h in (48, 24, 0)]
    times = fields.times[init][:, None] - np.array([48, 24, 0]) * HOUR
    climatology = fields.standard_climatology(times) if network_input == "state" else None
    again = stepper.inputs(past, fields.static_at(times[:, -1:])[:, 0], climatology)
    assert torch.allclose(again, fields.inputs(init), atol=1e-6)


def test_roll_out_is_the_model_applied_to_its_own_forecast(experiment: Make, tmp_path: Path) -> None:
    """Catches a roll-out that starts each step from the init time, shifts its leads by a step, or reads the season of
    the init time again; and options of the network that training or forecasts cannot open."""
    config = trained(experiment, model=OPTIONS)
    direct, rolled = changed(config, lead_hours=[24]), changed(config, lead_hours=[24, 72], rollout_hours=24)
    assert direct.paths.forecast != rolled.paths.forecast
    run_forecast(direct)
    run_forecast(rolled)
    first = open_store(direct.paths.forecast)["state"]
    both = open_store(rolled.paths.forecast)
    assert both.attrs["contract"]["rollout_hours"] == 24
    shared = np.isin(first["init_time"].values, both["init_time"].values)
    low, high = limits(tuple(both["channel"].values))
    step = np.clip(first.values[shared, 0], low, high)
    assert np.allclose(both["state"].values[:, 0], step, rtol=1e-6)  # batches of other sizes round differently
    for hours in (24, 48):  # by hand: a store that holds what was predicted, and the direct forecast from it
        states = tmp_path / f"{hours}.zarr"
        times = both["init_time"].values + hours * HOUR
        copy_store(config, states, times=times, values=step)
        run_forecast(direct, initial=states)
        (issued,) = config.root.glob(f"forecast-*-from-{np.datetime_as_string(times[0], 'h')}*.zarr")
        step = np.clip(open_store(issued)["state"].values[:, 0], low, high)
    assert np.allclose(both["state"].values[:, 1], step, atol=1e-3)


def test_states_of_elsewhere_give_the_same_forecasts(experiment: Make, tmp_path: Path) -> None:
    """Catches other statics, another order of channels, and a forecast store written over that of the test period."""
    config = trained(experiment)
    run_forecast(config)
    expected = open_store(config.paths.forecast)
    times = expected["init_time"].values[[2, 5]]
    copy_store(config, tmp_path / "states.zarr", times=times, source={"kind": "files", "label": "ERA5"}, statics=False)
    run_forecast(config, initial=tmp_path / "states.zarr")
    (issued,) = config.root.glob("forecast-*-from-*.zarr")
    found = open_store(issued)
    assert np.array_equal(found["init_time"].values, times)
    assert np.allclose(found["state"].values, expected["state"].values[[2, 5]], atol=1e-3)
    assert found.attrs["title"].endswith("from ERA5, by a model of the simulated atmosphere")
    copy_store(config, tmp_path / "few.zarr", times=times, channels=["t500"])
    with pytest.raises(ValueError, match=r"hold every channel of the model, got none for 2 of 3: t850, t2m"):
        run_forecast(config, initial=tmp_path / "few.zarr")


def copy_store(
    config: Config,
    path: Path,
    *,
    times: np.ndarray,
    values: np.ndarray | None = None,
    channels: list[str] | None = None,
    source: dict[str, str] | None = None,
    statics: bool = True,
) -> None:
    """States at some times, of the training store unless given."""
    ds = open_store(config.paths.store)
    contract = ds.attrs["contract"]
    ds = ds if channels is None else ds.sel(channel=channels)
    state = ds["state"].sel(time=times).values if values is None else values
    coords: xr.Dataset = ds.drop_vars(["state", "time"]).load().assign_coords(time=times)
    if not statics:
        coords = coords.drop_dims("static_channel")
    spec = ArraySpec(dims=("time", "channel", "latitude", "longitude"), shape=state.shape, chunks=(1, *state.shape[1:]))
    contract["source"] = source or contract["source"]
    axis = {"slab_dim": "time", "slab_size": 50}
    with SlabStore(path, arrays={"state": spec}, coords=coords, contract=contract, **axis) as store:
        for slab in store.pending():
            store.write(slab, {"state": state[slab.slice]})
        store.finish({})


def test_raw_weights_are_an_option(experiment: Make) -> None:
    """Catches an option that changes nothing."""
    config = trained(experiment)
    path = checkpoint.best_or_last(config.paths.checkpoints)
    assert path is not None
    fields = Fields(config.paths.store, Normals.open(config.paths.normals))
    average, raw = (load_model(path, fields, device=torch.device("cpu"), weights=w)[1] for w in ("average", "model"))
    assert average != raw
    assert config.paths.forecast != changed(config, weights="model").paths.forecast


def forecast_and_die(path: Path) -> None:
    """In a process of its own: killed when the third slab is written and not yet recorded."""
    record, calls = SlabStore.record, 0

    def dying(self: SlabStore, *arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, *arguments, **options)

    SlabStore.record = dying  # type: ignore[method-assign]
    run_forecast(load(path))


@pytest.mark.slow
def test_kill_9_leaves_nothing_that_is_not_made_again(experiment: Make) -> None:
    """Catches a slab written but not recorded that is trusted, and one recorded that is made twice."""
    config = trained(experiment)
    path = config.root / "config.yaml"
    path.write_text(dump(config))
    process = forking().Process(target=forecast_and_die, args=(path,))
    process.start()
    process.join(timeout=400)
    assert process.exitcode == -signal.SIGKILL
    with pytest.raises(ValueError, match="2 slabs recorded"):
        read_manifest(config.paths.forecast)
    run_forecast(config)
    slabs = read_manifest(config.paths.forecast)["slabs"]
    assert verify_store(config.paths.forecast) == []
    config.paths.receipt("forecast").unlink()
    config.paths.forecast.rename(config.root / "old.zarr")
    run_forecast(config)
    assert read_manifest(config.paths.forecast)["slabs"] == slabs


def test_ranks_divide_the_init_times() -> None:
    """Catches an init time that no rank has, and ranks with more passes than others (sharded models would hang)."""
    for count in (1, 5, 16):
        for ranks in (1, 2, 4):
            parts = [divide(count, ranks=ranks, rank=r) for r in range(ranks)]
            assert len({len(p) for p in parts}) == 1
            assert np.concatenate(parts)[:count].tolist() == list(range(count))
