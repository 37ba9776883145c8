"""The score stage on a small experiment: right numbers, one sample for all, kills, and bad input."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evaluate import metrics
from evaluate.baselines import simple
from evaluate.metrics import METRICS
from evaluate.scoring import stage, stores, tables
from evaluate.scoring.kernel import Kernel, Sums, zonal_power
from evaluate.scoring.score_table import ScoreTable, read_scores
from evaluate.scoring.stores import ScoringOptions, score_stores
from pipeline import provenance
from pipeline.config import Config
from pipeline.store import open_store, read_manifest
from pipeline.weather.climatology import Normals
from pipeline.weather.variables import parse_channel
from tests.evaluate.conftest import second_year_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scored(experiment: Config) -> Config:
    """The experiment after the score stage."""
    stage.run_score(experiment)
    return experiment


def opened(config: Config) -> tuple[xr.Dataset, xr.Dataset, Normals]:
    """Forecast store, training store, normals."""
    forecast, truth = open_store(config.paths.forecast).load(), open_store(config.paths.store).load()
    return forecast, truth, Normals.open(config.paths.normals)


def climatology_array(normals: Normals) -> xr.DataArray:
    """The climatology as a labelled array."""
    slots = np.arange(366) + np.datetime64("2000-01-01", "D")  # a leap year has every slot
    fields = normals.climatology_at(slots.astype("datetime64[ns]"))
    return xr.DataArray(
        fields[:, None],
        {
            "dayofyear": np.arange(1, 367),
            "hour": [0],
            "channel": list(normals.channels),
            "latitude": normals.grid.latitude,
            "longitude": normals.grid.longitude,
        },
        ["dayofyear", "hour", "channel", "latitude", "longitude"],
    )


def value(frame: pd.DataFrame, **wanted: object) -> pd.Series:
    """The one row that has these entries."""
    for key, entry in wanted.items():
        frame = frame[frame[key] == entry]
    assert len(frame) == 1, f"{len(frame)} rows"
    return frame.iloc[0]


def test_table_agrees_with_labelled_metrics(scored: Config) -> None:
    """The streamed float32 sums against float64 on labelled arrays: every channel, lead, model; catches any mix-up."""
    frame = ScoreTable.read(scored.paths.scores / "scores.csv").frame
    forecast, truth, normals = opened(scored)
    climatology = climatology_array(normals)
    leads, init = scored.forecast.lead_hours, forecast["init_time"].values
    fields = {
        "tiny": forecast["state"],
        "persistence": simple.persistence_forecast(truth["state"], init_times=init, leads=leads),
        "climatology": simple.climatology_forecast(climatology, init_times=init, leads=leads),
    }
    acc = ("acc", "acc_pooled")
    for model, field in fields.items():
        field = field.assign_coords(lead_time=forecast["lead_time"]).transpose("init_time", "lead_time", ...)
        for name in ("rmse", "mse", "mean_rmse", "mae", "bias", *acc, "pearson", "activity", "skill"):
            found = getattr(metrics, name)(field, truth["state"], climatology=climatology).transpose("lead_time", ...)
            exact = found.transpose("lead_time", "channel").values
            size = abs(exact)
            if name == "bias":  # a small difference of large numbers is exact on the scale of the errors
                size = metrics.mae(field, truth["state"]).transpose("lead_time", "channel").values
            rows = frame[(frame["model"] == model) & (frame["metric"] == name) & (frame["region"] == "globe")]
            ours = rows.set_index(["lead", "variable", "level"])["value"].to_dict()
            specs = [parse_channel(str(c)) for c in forecast["channel"].values]
            keys = [(lead, s.variable, "" if s.level is None else str(s.level)) for lead in leads for s in specs]
            assert len(ours) == len(keys)
            table = np.array([ours[key] for key in keys]).reshape(exact.shape)
            if model == "climatology" and name in (*acc, "pearson"):
                assert np.isnan(table).all()
            else:
                assert np.all(abs(table - exact) <= 2e-6 * size + 1e-12), (model, name)


def test_regions_and_maps_agree_with_labelled_metrics(scored: Config) -> None:
    """Tropical RMSE by a masked labelled score, and maps of RMSE, ACC, bias and skill at every cell."""
    table, maps = read_scores(scored.paths.scores)
    frame = table.frame
    forecast, truth, normals = opened(scored)
    climatology = climatology_array(normals)
    f = forecast["state"].sel(channel="z500", drop=True)
    o = truth["state"].sel(channel="z500", drop=True)
    c = climatology.sel(channel="z500", drop=True)
    tropics = abs(f["latitude"]) <= 20
    mask = (tropics & xr.ones_like(f, dtype=bool)).transpose(*f.dims)
    exact = metrics.rmse(f, o, mask=mask)
    row = value(frame, model="tiny", variable="z", level="500", lead=168, region="tropics", metric="rmse")
    assert row["value"] == pytest.approx(exact.sel(lead_time="7D").item(), rel=2e-6)
    for name in ("rmse", "acc", "bias", "skill"):
        expected = getattr(metrics, name)(f, o, climatology=c, dims=("init_time",))
        found = maps[name].sel(model="tiny", channel="z500")
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max().item())


def test_table_has_every_row_and_the_sample(scored: Config) -> None:
    """All models x channels x leads x regions x scores, same n_init, units; nothing left out because it is NaN."""
    frame = ScoreTable.read(scored.paths.scores / "scores.csv").frame
    facts = provenance.read_receipt(scored, stage="score")["facts"]
    channels = scored.data.channels.dynamic
    assert len(frame) == (1 + len(simple.NAMES)) * len(channels) * 2 * len(facts["regions"]) * len(METRICS)
    assert frame["n_init"].unique().tolist() == [facts["n_init"]]
    assert facts["n_init"] == 205  # 1 January to 24 July: the last init is the longest lead before the period's end
    assert (facts["first_init"], facts["last_init"]) == ("2002-01-01T00", "2002-07-24T00")
    bands, continents = ["tropics", "nh_extratropics", "sh_extratropics"], ["europe", "north_america", "east_asia"]
    assert set(facts["regions"]) == {"globe", *bands, *continents, "land", "sea"}
    assert (
        value(frame, model="tiny", variable="z", level="500", lead=24, region="globe", metric="mse")["unit"]
        == "(m2 s-2)^2"
    )
    assert frame[frame["metric"] == "acc"]["unit"].unique().tolist() == ["1"]
    assert facts["climatology"]["years"] == [2001]
    assert facts["bootstrap"]["block_init_times"] >= 3
    assert list(frame.columns) == list(tables.COLUMNS)


def test_known_skill_is_found_inside_its_interval(scored: Config) -> None:
    """The forecasts were built with correlation r = exp(-lead / 8 days): ACC r, skill r^2, activity r."""
    frame = ScoreTable.read(scored.paths.scores / "scores.csv").frame
    for lead in (24, 168):
        r = np.exp(-lead / 24 / 8.0)
        rows = frame[(frame["model"] == "tiny") & (frame["region"] == "globe") & (frame["lead"] == lead)]
        for name, expected in (("acc", r), ("skill", r * r)):
            found = rows[rows["metric"] == name]["value"]
            assert found.mean() == pytest.approx(expected, abs=0.06), (lead, name)
        bounds = rows[rows["metric"] == "skill"]
        assert (bounds["ci_low"] < bounds["value"]).all()
        assert (bounds["ci_high"] > bounds["value"]).all()


def test_baselines_are_what_they_say(scored: Config) -> None:
    """Skill of a baseline against itself is zero with no interval; climatology has no activity."""
    frame = ScoreTable.read(scored.paths.scores / "scores.csv").frame
    rows = frame[(frame["region"] == "globe") & (frame["variable"] == "t2m") & (frame["lead"] == 24)]
    assert value(rows, model="climatology", metric="skill")["value"] == 0
    assert value(rows, model="persistence", metric="skill_persistence")["value"] == 0
    assert value(rows, model="climatology", metric="activity")["value"] == 0
    assert value(rows, model="tiny", metric="skill_persistence")["value"] > 0


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_scores_do_not_depend_on_the_batch_size(scored: Config, batch_size: int) -> None:
    """ACC pooled per batch would change with it (a defect of the reference code); sums that merge do not."""
    forecast, truth, normals = opened(scored)
    some = forecast.isel(init_time=slice(0, 29))
    found, whole = (
        score_stores({"tiny": some}, truth, normals, ScoringOptions([24, 168], ["z500"], batch_size=size))
        for size in (batch_size, 29)
    )
    xr.testing.assert_allclose(found.sums.regional.sums, whole.sums.regional.sums, rtol=1e-12)
    xr.testing.assert_allclose(found.sums.maps.sums, whole.sums.maps.sums, rtol=1e-9)
    assert found.sums.maps.weights.item() == 29
    assert found.sums.blocks.weights.sum().item() == 29


def test_a_small_cache_changes_nothing(scored: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """When truths do not fit in memory they are read again, not dropped or mixed up."""
    from evaluate.reading import reader

    forecast, truth, normals = opened(scored)
    some = forecast.isel(init_time=slice(0, 20))
    options = ScoringOptions([24, 168], ["z500"], batch_size=3)
    whole = score_stores({"tiny": some}, truth, normals, options)
    monkeypatch.setattr(reader, "CACHE_BYTES", 1)
    found = score_stores({"tiny": some}, truth, normals, options)
    xr.testing.assert_identical(found.sums.regional.sums, whole.sums.regional.sums)


def test_killed_run_goes_on_and_ends_identical(scored: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between checkpoints, then run again: nothing done twice, and sums equal to the last bit."""
    forecast, truth, normals = opened(scored)
    some = forecast.isel(init_time=slice(0, 20))
    options = ScoringOptions([24, 168], ["z500", "t2m"], batch_size=4)
    whole = score_stores({"tiny": some}, truth, normals, options, checkpoint=tmp_path / "whole.nc")
    monkeypatch.setattr(stores, "SAVE_SECONDS", 0.0)
    plain, calls = Kernel.__call__, []

    def dies(self, batch):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(batch.start)
        return plain(self, batch)

    monkeypatch.setattr(Kernel, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        score_stores({"tiny": some}, truth, normals, options, checkpoint=tmp_path / "killed.nc")

    def counts(self, batch):
        calls.append(batch.start)
        return plain(self, batch)

    monkeypatch.setattr(Kernel, "__call__", counts)
    found = score_stores({"tiny": some}, truth, normals, options, checkpoint=tmp_path / "killed.nc")
    assert calls == [0, 4, 8, 12, 16]
    for name in ("regional", "maps", "blocks", "spectra"):
        xr.testing.assert_equal(getattr(found.sums, name).sums, getattr(whole.sums, name).sums)
    again = Sums.load(tmp_path / "killed.nc")
    xr.testing.assert_equal(again.regional.sums, whole.sums.regional.sums)
    shorter = dataclasses.replace(options, leads=[24])
    other = score_stores({"tiny": some}, truth, normals, shorter, checkpoint=tmp_path / "killed.nc")
    assert other.sums.regional.sums.sizes["lead"] == 1  # a checkpoint of another run is not used


def test_complete_stage_does_nothing(scored: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run again with nothing changed: returns at once."""
    monkeypatch.setattr(stage, "score_stores", None)
    stage.run_score(scored)


def test_paired_difference_of_two_models(scored: Config) -> None:
    """The interval of a difference uses common draws, so it is narrower than the two intervals together."""
    forecast, truth, normals = opened(scored)
    some = forecast.isel(init_time=slice(0, 150))
    sums = score_stores({"tiny": some}, truth, normals, ScoringOptions([24], ["z500"])).sums
    found = tables.difference(tables.Sample(sums, 10), METRICS["rmse"], model="tiny", against="climatology")
    scores = tables.regional_scores(tables.Sample(sums, 10)).sel(metric="rmse", region="globe", channel="z500", lead=24)
    at = {"region": "globe", "channel": "z500", "lead": 24}
    gap = scores["value"].sel(model="tiny") - scores["value"].sel(model="climatology")
    assert found["value"].sel(at).item() == pytest.approx(gap.item())
    assert found["high"].sel(at).item() < 0
    apart = sum((scores["high"] - scores["low"]).sel(model=m).item() for m in ("tiny", "climatology"))
    assert (found["high"] - found["low"]).sel(at).item() < apart


def test_difference_of_fewer_init_times_than_a_block(scored: Config) -> None:
    """Eleven days of six-hourly data: a difference without an interval, not an error that ends the stage."""
    forecast, truth, normals = opened(scored)
    some = forecast.isel(init_time=slice(0, 8))
    sums = score_stores({"tiny": some}, truth, normals, ScoringOptions([24], ["z500"])).sums
    found = tables.difference(tables.Sample(sums, 12), METRICS["rmse"], model="tiny", against="climatology")
    assert np.isfinite(found["value"]).all()
    assert np.isnan(found["low"]).all()
    assert np.isnan(found["high"]).all()


def test_two_forecast_stores_share_their_init_times(scored: Config) -> None:
    """Several models: the common sample, and the rest listed; one that lacks a channel is refused."""
    forecast, truth, normals = opened(scored)
    a, b = forecast.isel(init_time=slice(0, 12)), forecast.isel(init_time=slice(5, 20))
    found = score_stores({"a": a, "b": b}, truth, normals, ScoringOptions([24, 168], ["z500"]))
    assert len(found.alignment.init_times) == 7
    assert {k: len(v) for k, v in found.alignment.dropped.items()} == {"no forecast of a": 8, "no forecast of b": 5}
    errors = found.sums.regional.sums["squared_error"]
    np.testing.assert_array_equal(errors.sel(model="a"), errors.sel(model="b"))
    with pytest.raises(ValueError, match="forecast 'b', channels: lacks"):
        score_stores({"a": a, "b": b.isel(channel=[0])}, truth, normals, ScoringOptions([24], ["z500"]))
    with pytest.raises(ValueError, match="forecast 'climatology', name: taken by a baseline"):
        score_stores({"climatology": a}, truth, normals, ScoringOptions([24], ["z500"]))


SHORT = second_year_until("2002-02-28")


def nan_at(ds: xr.Dataset) -> xr.Dataset:
    """One NaN."""
    values = ds["state"].values.copy()
    values[3, 1, 2, 4, 5] = np.nan
    return ds.assign(state=(ds["state"].dims, values))


def test_bad_forecasts_are_refused_with_one_message(build_experiment, tmp_path: Path) -> None:
    """A NaN is named with its place and no table is written; a stage that is missing is named too."""
    config = build_experiment(tmp_path, change=nan_at, **SHORT)
    where = "t500 issued 2002-01-04T00 for 2002-01-11T00"
    with pytest.raises(ValueError, match=f"forecast 'tiny' must be finite, got 1 value that is not, first in {where}"):
        stage.run_score(config)
    assert not (config.paths.scores / "scores.csv").exists()
    assert not config.paths.receipt("score").exists()
    shutil.rmtree(config.paths.forecast)
    with pytest.raises(ValueError, match="run python -m pipeline forecast first"):
        stage.run_score(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda ds: ds.assign_coords(unit=("channel", ["K"] * ds.sizes["channel"])),
            "units: z500 is in 'K', the store has 'm2 s-2'",
        ),
        (lambda ds: ds.isel(lead_time=[0]), r"leads: \[168\] h are missing"),
        (lambda ds: ds.assign_coords(longitude=ds["longitude"] + 7.5), "grid: forecast"),
        (lambda ds: ds.assign_coords(init_time=ds["init_time"] + np.timedelta64(12, "h")), "no common init time"),
    ],
)
def test_stores_that_do_not_fit_are_refused(scored: Config, change, message: str) -> None:
    """Units, leads, grid, no overlap in time: one clear error each."""
    forecast, truth, normals = opened(scored)
    with pytest.raises(ValueError, match=message):
        score_stores({"tiny": change(forecast)}, truth, normals, ScoringOptions([24, 168], ["z500"]))


def test_a_gap_is_reported_and_nothing_crosses_it(build_experiment, tmp_path: Path) -> None:
    """Times missing in the store: the inits they spoil are absent, the facts say which, nothing is invented."""
    config = build_experiment(tmp_path, gap=slice(400, 403), **SHORT)
    stage.run_score(config)
    facts = provenance.read_receipt(config, stage="score")["facts"]
    assert facts["missing_times"] == ["2002-02-05T00", "2002-02-06T00", "2002-02-07T00"]
    assert read_manifest(config.paths.store)["facts"]["missing_times"] == facts["missing_times"]
    forecast, truth, normals = opened(config)
    # offered a forecast whose valid time falls into the gap, scoring leaves it out and says why
    late = forecast.isel(init_time=[-1]).assign_coords(init_time=[np.datetime64("2002-02-04", "ns")])
    fuller = xr.concat([forecast, late], "init_time").sortby("init_time")
    found = score_stores({"tiny": fuller}, truth, normals, ScoringOptions([24, 168], ["z500"]))
    assert found.alignment.dropped == {"the store lacks the valid time at 1 day": ["2002-02-04T00"]}
    assert len(found.alignment.init_times) == facts["n_init"]


def test_a_default_baseline_that_the_store_is_too_short_for_is_left_out(
    build_experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A gap in the training year, which the configuration cannot know: a line, and everything else is scored; catches
    an error about a key that nobody set, and one that was set and is ignored."""
    config = build_experiment(tmp_path, gap=slice(25, 355), **second_year_until("2002-01-20"))
    asked = config.evaluation.model_copy(update={"baselines": ["linear"]})
    with pytest.raises(ValueError, match="linear needs 30 training times that have a later one at every lead, got 21"):
        stage.run_score(config.model_copy(update={"evaluation": asked}))
    stage.run_score(config)
    assert "score: evaluation.baselines: linear needs 30 training times" in capsys.readouterr().err
    models = ScoreTable.read(config.paths.scores / "scores.csv").models
    assert models == ["tiny", "persistence", "climatology", "damped_persistence"]


def test_spectrum_sums_to_the_mean_square(scored: Config) -> None:
    """Parseval along latitudes, and a pure wave at its own wavenumber: catches a factor of two at zero or Nyquist."""
    grid = scored.data.regrid.grid
    rows = np.ones(grid.shape[0])
    field = np.random.default_rng(0).normal(size=(2, grid.size))
    np.testing.assert_allclose(zonal_power(field, grid, rows).sum(-1), (field**2).mean(-1), rtol=1e-12)
    wave = np.cos(3 * np.deg2rad(grid.longitude)) * np.ones((grid.shape[0], 1))
    power = zonal_power(wave.reshape(1, -1), grid, rows)[0]
    assert power[3] == pytest.approx(0.5)
    assert power.sum() == pytest.approx(0.5)
