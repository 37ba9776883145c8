"""Comparison runs: several models on common init times, references on fewer, and every reason for a refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml

from evaluate.reading import weatherbench
from evaluate.reading.faults import ComparisonError
from evaluate.scoring import compare, stage
from pipeline import config as configuration
from pipeline import provenance
from pipeline.config import Config
from pipeline.store import manifest_path, open_store
from pipeline.weather.climatology import Normals
from tests.evaluate.conftest import second_year_until
from tests.stores import write_store

pytestmark = pytest.mark.slow

LEADS = [24, 168]
SHORT = second_year_until("2002-03-31")


def inputs(config: Config) -> tuple[xr.Dataset, xr.Dataset, Normals]:
    """Forecast, truth, normals."""
    return open_store(config.paths.forecast).load(), open_store(config.paths.store), Normals.open(config.paths.normals)


def with_evaluation(config: Config, **evaluation: Any) -> Config:
    """The same experiment scored otherwise."""
    raw = yaml.safe_load(configuration.dump(config))
    raw["evaluation"] |= evaluation
    return configuration.parse(raw)


@pytest.fixture(scope="module")
def base(build_experiment: Any, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A quarter to test on."""
    config: Config = build_experiment(tmp_path_factory.mktemp("compare"), **SHORT)
    return config


def test_three_models_side_by_side(base: Config, tmp_path: Path) -> None:
    """A store of this project, one in WeatherBench 2's layout with fewer channels, and ours: the same init times for
    all, the rest listed, the same numbers for the same forecasts."""
    forecast, _, _ = inputs(base)
    other = {**forecast.attrs["contract"], "model": "other"}
    write_store(tmp_path / "late.zarr", forecast.isel(init_time=slice(20, None)), other)
    few = ["z500", "t500", "t2m"]
    some = forecast.isel(channel=[forecast["channel"].values.tolist().index(c) for c in few])
    steps = np.array(LEADS).astype("timedelta64[h]").astype("timedelta64[ns]")
    some = some.drop_encoding().assign_coords(lead_time=steps)
    weatherbench.write_weatherbench(some, tmp_path / "foreign.zarr")
    entries = [
        {"name": "late", "path": str(tmp_path / "late.zarr")},
        {"name": "foreign", "path": str(tmp_path / "foreign.zarr")},
    ]
    config = with_evaluation(base, compare=entries, channels=few)
    stage.run_score(config)
    frame = pd.read_csv(config.paths.scores / "scores.csv")
    total = forecast.sizes["init_time"]
    assert set(frame["n_init"]) == {total - 20}
    assert set(frame["variable"]) == {"z", "t", "t2m"}
    facts = provenance.read_receipt(config, stage="score")["facts"]
    assert len(facts["left_out_init_times"]["no forecast of late"]) == 20
    assert set(facts["models"]) == {"tiny", "late", "foreign"}
    keys = ["variable", "level", "lead", "region", "metric"]
    values = {m: frame[frame["model"] == m].set_index(keys)["value"] for m in ("tiny", "late", "foreign")}
    pd.testing.assert_series_equal(values["tiny"], values["late"])
    np.testing.assert_allclose(values["tiny"], values["foreign"], rtol=1e-6)
    lacking = with_evaluation(base, compare=entries[1:])
    with pytest.raises(ValueError, match=r"forecast 'foreign', channels: lacks .* in evaluation.channels"):
        stage.run_score(lacking)


def test_everything_that_cannot_be_opened_is_named(base: Config, tmp_path: Path) -> None:
    """Two missing files in one message; a name that is taken, and one that is there twice, by the configuration."""
    entries = [
        {"name": "a", "path": str(tmp_path / "a.zarr")},
        {"name": "b", "path": str(tmp_path / "b.zarr")},
    ]
    with pytest.raises(ValueError, match="got 2 faults") as caught:
        stage.run_score(with_evaluation(base, compare=entries))
    text = str(caught.value)
    assert "a.zarr" in text
    assert "b.zarr" in text
    for name in ("linear", "coarse", base.name):
        with pytest.raises(ValueError, match=f"compare: name '{name}' must differ from the models it is compared with"):
            with_evaluation(base, compare=[{"name": name, "path": str(tmp_path / "c.zarr")}])
    with pytest.raises(ValueError, match="compare must name each model once, got a more than once"):
        with_evaluation(base, compare=[entries[0], entries[0]])


def test_every_fault_of_every_model_at_once(base: Config) -> None:
    """Grid, units, leads, duplicates, a renamed latitude and overlap with training, each on its own line; a user who
    fixes one at a time would need as many runs."""
    forecast, truth, normals = inputs(base)
    spoiled = {
        "fine": forecast,
        "shifted": forecast.assign_coords(longitude=forecast["longitude"] + 7.5),
        "celsius": forecast.assign_coords(unit=("channel", ["degC"] * forecast.sizes["channel"])),
        "short": forecast.isel(lead_time=[0]),
        "doubled": forecast.isel(init_time=[0, 0, 1, 2, 3]),
        "renamed": forecast.rename(latitude="lat"),
        "poor": forecast.isel(channel=[0]),
        "flipped": forecast.isel(latitude=slice(None, None, -1)),
        "elsewhere": forecast.assign_attrs(contract={"store": "another"}),
        "seen": forecast.assign_attrs(
            contract={}, trained_on=[{"start": "2002-01-01T00:00:00", "end": "2002-01-05T00:00:00"}]
        ),
    }
    with pytest.raises(ComparisonError, match="got 14 faults") as caught:
        compare.require_comparable(spoiled, truth, normals, leads=LEADS)
    expected = {
        "shifted": ("grid", "regrid one of them"),
        "celsius": ("units", "z500 is in 'degC'"),
        "short": ("leads", "[168] h are missing"),
        "doubled": ("duplicates", "init_time must be unique"),
        "renamed": ("dimensions", "must hold state"),
        "poor": ("channels", "which others have"),
        "flipped": ("grid", "sort both south to north"),
        "elsewhere": ("store", "issued from another"),
        "seen": ("training", "where 'seen' was fitted"),
    }
    for name, (kind, reason) in expected.items():
        assert any((f.model, f.kind) == (name, kind) and reason in f.reason for f in caught.value.faults), name
    assert {f.model for f in caught.value.faults} == set(expected)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [f"  {fault}" for fault in caught.value.faults]


def test_one_fault_is_one_sentence(base: Config) -> None:
    """No list where there is a single reason; and a model whose contract tells its training years is refused by it."""
    forecast, truth, normals = inputs(base)
    with pytest.raises(ValueError, match="leads") as caught:
        compare.require_comparable({"a": forecast.isel(lead_time=[0])}, truth, normals, leads=LEADS)
    assert "\n" not in str(caught.value)
    trained = forecast.assign_attrs(
        contract={"train": [{"start": "1990-01-01T00:00:00", "end": "2002-01-31T23:00:00"}]}
    )
    with pytest.raises(ValueError, match="where 'a' was fitted"):
        compare.require_comparable({"a": trained}, truth, normals, leads=LEADS)
    apart = {"a": forecast.isel(init_time=slice(0, 5)), "b": forecast.isel(init_time=slice(5, 9))}
    with pytest.raises(ValueError, match="times: no common init time of 9"):
        compare.require_comparable(apart, truth, normals, leads=LEADS)


def test_references_on_fewer_init_times_leave_the_sample_whole(build_experiment: Any, tmp_path: Path) -> None:
    """A ceiling on every tenth init time: the others keep all of theirs in scores.csv, its rows say on how many they
    stand, and scores_common.csv compares everybody on the same ones."""
    twins = {"variables": ["z500"], "twins": {"models": ["ceiling"], "init_step_hours": 240}}
    config: Config = build_experiment(tmp_path, source={"kind": "simulation"}, evaluation=twins, **SHORT)
    with pytest.raises(ValueError, match="run python -m pipeline twins first"):
        stage.run_score(config)
    forecast, truth, _ = inputs(config)
    part = forecast.isel(init_time=slice(None, None, 10)).copy(deep=True)
    valid = part["init_time"].values[:, None] + np.array(LEADS).astype("timedelta64[h]")
    exact = truth["state"].sel(time=valid.ravel()).values.reshape(part["state"].shape)
    ceiling = part.assign(state=(part["state"].dims, exact))
    write_store(config.paths.twins["ceiling"], ceiling, {**part.attrs["contract"], "model": "ceiling"})
    stage.run_score(config)
    frame = pd.read_csv(config.paths.scores / "scores.csv")
    common = pd.read_csv(config.paths.scores / "scores_common.csv")
    n = part.sizes["init_time"]
    models = ("tiny", "persistence", "climatology", "damped_persistence", "linear", "ceiling")
    expected = {m: [n if m == "ceiling" else forecast.sizes["init_time"]] for m in models}
    assert frame.groupby("model")["n_init"].unique().map(list).to_dict() == expected
    assert set(common["n_init"]) == {n}
    assert set(common["model"]) == set(frame["model"])
    ceiling = frame[(frame["model"] == "ceiling") & (frame["metric"] == "rmse")]["value"]
    assert len(ceiling)
    assert (ceiling == 0).all()
    gaps = pd.read_csv(config.paths.scores / "differences.csv")
    rows = {"variable": "z", "level": 500, "lead": 168, "metric": "rmse", "region": "globe"}
    at = {m: g.loc[(g[list(rows)] == pd.Series(rows)).all(axis=1)] for m, g in (("gap", gaps), ("common", common))}
    ours, best = (at["common"].query(f"model == '{m}'")["value"].item() for m in ("tiny", "ceiling"))
    gap = at["gap"].query("against == 'ceiling'")
    assert gap["value"].item() == pytest.approx(ours - best)
    assert gap["n_init"].item() == n
    against = gaps.groupby("against")["n_init"].first()
    assert against["persistence"] == forecast.sizes["init_time"]
    assert set(gaps["model"]) == {"tiny"}
    facts = provenance.read_receipt(config, stage="score")["facts"]
    assert facts["twins"]["n_init"] == n
    assert facts["twins"]["of"] == forecast.sizes["init_time"]
    with xr.open_dataset(config.paths.scores / "scores.nc") as ds:
        assert "ceiling" not in ds["model"].values.tolist()
        assert json.loads(ds.attrs["facts"])["twins"]["models"] == ["ceiling"]


def test_a_compared_store_that_was_replaced_is_scored_anew(base: Config, tmp_path: Path) -> None:
    """Other forecasts under the same path, one of our stores and one of somebody else's: the scores follow, whether
    the stage was complete or only its sums were; and nothing is done twice where nothing has changed."""
    forecast, _, _ = inputs(base)
    few = ["z500", "t500", "t2m"]
    columns = [forecast["channel"].values.tolist().index(c) for c in few]
    some = forecast.isel(init_time=slice(0, 40), channel=columns).drop_encoding()
    steps = np.array(LEADS).astype("timedelta64[h]").astype("timedelta64[ns]")
    paths = {"own": tmp_path / "own.zarr", "foreign": tmp_path / "foreign.nc"}

    def put(shift: float) -> None:
        moved = some.assign(state=some["state"] + np.float32(shift))
        shutil.rmtree(paths["own"], ignore_errors=True)
        manifest_path(paths["own"]).unlink(missing_ok=True)
        write_store(paths["own"], moved, {**moved.attrs["contract"], "model": "other"})
        weatherbench.to_weatherbench(moved.assign_coords(lead_time=steps)).to_netcdf(paths["foreign"])

    entries = [{"name": n, "path": str(p)} for n, p in paths.items()]
    config = with_evaluation(base, compare=entries, channels=few, baselines=["climatology"])

    def biases() -> dict[str, float]:
        stage.run_score(config)
        frame = pd.read_csv(config.paths.scores / "scores.csv")
        rows = frame.query("variable == 't2m' and metric == 'bias' and region == 'globe' and lead == 24")
        return {str(m): float(v) for m, v in zip(rows["model"], rows["value"], strict=True)}

    put(0.0)
    first = biases()
    kept = (config.paths.scores / "scores.csv").stat().st_mtime_ns
    assert biases() == first
    assert (config.paths.scores / "scores.csv").stat().st_mtime_ns == kept
    for shift, receipt in ((2.0, True), (4.0, False)):
        put(shift)
        if not receipt:
            config.paths.receipt("score").unlink()
        found = biases()
        for name in paths:
            assert found[name] - first[name] == pytest.approx(shift, abs=1e-3), (name, shift)
        assert found["tiny"] == first["tiny"]
    shutil.rmtree(paths["own"])
    assert biases() == found
