"""What may be compared with what, and the messages when it may not."""

from __future__ import annotations

import re

import numpy as np
import pytest
import xarray as xr

from evaluate import metrics, text
from evaluate.reading import align
from evaluate.reading.faults import ComparisonError
from pipeline.grid import Grid

HOUR = np.timedelta64(1, "h")
GRID = Grid(np.linspace(-60, 60, 4), np.arange(6) * 60.0)


def forecast(**changes) -> xr.DataArray:
    """(init_time, lead_time, channel, latitude, longitude) of zeros and ones."""
    coords = {
        "init_time": np.datetime64("2004-02-27", "ns") + np.arange(3) * 24 * HOUR,
        "lead_time": np.array([24, 72]),
        "channel": ["z500", "t2m"],
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    }
    coords |= changes
    values = np.random.default_rng(0).normal(size=[len(v) for v in coords.values()])
    return xr.DataArray(values, coords, list(coords)).assign_coords(unit=("channel", ["m2 s-2", "K"]))


def store(ds_forecast: xr.DataArray | None = None, *, times: int = 12, **changes) -> tuple[xr.Dataset, xr.Dataset]:
    """A forecast store and a training store that fit."""
    f = forecast() if ds_forecast is None else ds_forecast
    coords = {
        "time": np.datetime64("2004-02-25", "ns") + np.arange(times) * 24 * HOUR,
        "channel": ["z500", "t2m", "u10"],
        "latitude": GRID.latitude,
        "longitude": GRID.longitude,
    } | changes
    truth = xr.DataArray(np.zeros([len(v) for v in coords.values()]), coords, list(coords))
    units = ["m2 s-2", "K", "m s-1"][: len(coords["channel"])]
    truth = truth.assign_coords(unit=("channel", units))
    return f.to_dataset(name="state"), truth.to_dataset(name="state")


@pytest.mark.parametrize(
    ("hours", "title"), [(6, "6 h"), (24, "1 day"), (36, "36 h"), (72, "3 days"), (168, "7 days"), (720, "30 days")]
)
def test_lead_titles(hours: int, title: str) -> None:
    """Titles adapt to hours and days; catches "0.25 days" and "168 h"."""
    assert text.lead_title(hours) == title


def test_lead_hours_from_any_type() -> None:
    """Hours from timedelta of any unit and from numbers; a lead of 90 minutes is refused, not rounded."""
    found = align.lead_hours(np.array([6, 24]) * HOUR.astype("timedelta64[ns]"))
    np.testing.assert_array_equal(found, [6, 24])
    np.testing.assert_array_equal(align.lead_hours([168]), [168])
    with pytest.raises(ValueError, match="lead times must be whole hours"):
        align.lead_hours(np.array([90], "timedelta64[m]"))


def test_valid_time_crosses_a_leap_day() -> None:
    """27 February 2004 + 72 h is 1 March: catches a calendar without 29 February."""
    valid = align.valid_times(np.array(["2004-02-27"], "datetime64[ns]"), [24, 72])
    assert valid[0].astype("datetime64[D]").astype(str).tolist() == ["2004-02-28", "2004-03-01"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.isel(latitude=slice(1, None)), "grid"),
        (lambda t: t.assign_coords(longitude=t["longitude"] + 0.5), "grid"),
        (lambda t: t.isel(latitude=slice(None, None, -1)), "sort both south to north"),
        (lambda t: t.rename(latitude="lat"), "rename"),
        (lambda t: t.rename(longitude="lon"), "rename"),
        (lambda t: t.assign_coords(unit=("channel", ["m2 s-2", "degC"])), "units 'K', got 'degC'"),
        (lambda t: t.isel(channel=[0]), "labels on channel"),
        (lambda t: t.isel(channel=[1, 0]), "channel in the forecast's order"),
        (lambda t: t.isel(lead_time=[0]), "labels on lead_time"),
        (lambda t: t.assign_coords(init_time=t["init_time"] + 6 * HOUR), "labels on init_time"),
        (lambda t: t.isel(init_time=[0, 0, 1]), "each init_time once"),
        (lambda t: t.isel(init_time=0, drop=True), "none of .'init_time'."),
        (lambda t: t.expand_dims(member=2), "no dimension the forecast lacks, got .'member'."),
    ],
)
def test_labelled_mismatches_are_refused(spoil, message: str) -> None:
    """xarray would align the common labels and drop the rest without a word; every one is an error here."""
    f = forecast()
    with pytest.raises(ValueError, match=message):
        metrics.rmse(f, spoil(f.copy()))


def test_attribute_units_are_compared() -> None:
    """A truth in degrees Celsius gives an error of 273 K, not a score."""
    f = forecast().isel(channel=1, drop=True).assign_attrs(units="K")
    with pytest.raises(ValueError, match="units 'K', got 'degC'"):
        metrics.rmse(f, f.assign_attrs(units="degC"))


def test_missing_and_duplicate_valid_times() -> None:
    """A valid time that the truth lacks is named; a truth with a doubled time is refused."""
    f = forecast()
    _, truth = store()
    truth = truth["state"].sel(channel=["z500", "t2m"])
    metrics.rmse(f, truth)
    with pytest.raises(ValueError, match="1 of 6 missing, first 2004-03-03T00"):
        metrics.rmse(f, truth.sel(time=truth["time"] != np.datetime64("2004-03-03")))
    with pytest.raises(ValueError, match="truth time must be unique"):
        metrics.rmse(f, xr.concat([truth, truth.isel(time=[3])], "time"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f, t: (f, t.rename(latitude="lat")), "store must hold state"),
        (lambda f, t: (f.rename(lead_time="step"), t), "must hold state"),
        (lambda f, t: (f.assign_coords(latitude=f["latitude"] + 1), t), "grid"),
        (lambda f, t: (f, t.sel(channel=["z500", "u10"])), "channels: the store lacks t2m"),
        (lambda f, t: (f.assign_coords(unit=("channel", ["m2 s-2", "degC"])), t), "units: t2m is in 'degC'"),
        (lambda f, t: (f.isel(lead_time=[0]), t), r"leads: \[72\] h are missing"),
        (lambda f, t: (f.isel(init_time=[0, 0, 1]), t), "init_time must be unique"),
        (lambda f, t: (f, t.isel(time=[0, 1, 1, 2])), "duplicates: time must be unique"),
        (
            lambda f, t: (f.assign_attrs(contract={"store": "elsewhere"}), t.assign_attrs(contract={"a": 1})),
            "issued from",
        ),
        (
            lambda f, t: (
                f.assign_attrs(contract={"regrid": {"method": "bilinear"}}),
                t.assign_attrs(contract={"regrid": {"method": "conservative"}}),
            ),
            "regrid: method: bilinear against conservative",
        ),
    ],
)
def test_stores_that_cannot_be_compared(spoil, message: str) -> None:
    """Each fault of a forecast store against a training store has its own clear line."""
    f, t = store()
    assert align.store_faults(f, t, leads=[24, 72], name="ours") == []
    (fault,) = align.store_faults(*spoil(f, t), leads=[24, 72], name="ours")
    assert re.search(message, str(fault))


def test_all_faults_are_listed_at_once() -> None:
    """A user who fixes one thing at a time should see all of them the first time."""
    f, t = store()
    f = f.assign_coords(latitude=f["latitude"] + 1, unit=("channel", ["m", "K"])).isel(lead_time=[1])
    faults = align.store_faults(f, t, leads=[24, 72], name="ours")
    assert [fault.kind for fault in faults] == ["grid", "units", "leads"]
    assert all(str(fault) in str(ComparisonError("both must match", faults)) for fault in faults)


def test_common_init_times_and_reasons() -> None:
    """All leads and models share init times; what is left out is listed with its reason, nothing silently."""
    day = np.datetime64("2004-01-01", "ns") + np.arange(12) * 24 * HOUR
    truth = np.delete(day, 6)
    found = align.common_init_times({"a": day[:9], "b": day[1:10]}, truth, leads=[24, 72])
    # without day 6 itself: inits whose valid times are day 6 are 5 (24 h) and 3 (72 h)
    np.testing.assert_array_equal(found.init_times, day[[1, 2, 4, 7, 8]])
    assert found.dropped["no forecast of b"] == ["2004-01-01T00"]
    assert found.dropped["the store lacks the init time"] == ["2004-01-07T00"]
    assert found.dropped["the store lacks the valid time at 1 day"] == ["2004-01-06T00"]
    assert found.dropped["the store lacks the valid time at 3 days"] == ["2004-01-04T00"]
    assert sum(map(len, found.dropped.values())) + len(found.init_times) == 10


def test_no_overlap_is_an_error_with_the_reasons() -> None:
    """An empty sample must not become an empty table."""
    day = np.datetime64("2004-01-01", "ns") + np.arange(5) * 24 * HOUR
    with pytest.raises(ValueError, match="overlap in time; times: no common init time of 5"):
        align.common_init_times({"a": day}, day, leads=[24 * 10])


def test_scoring_inside_training_is_refused() -> None:
    """A test period that reaches into the training years would flatter model and climatology alike."""
    valid = np.datetime64("2004-01-01", "ns") + np.arange(4) * 24 * HOUR
    before = {"start": "2003-01-01T00:00:00", "end": "2003-12-31T23:00:00"}
    assert align.training_faults(valid, [before]) == []
    (fault,) = align.training_faults(valid, [before, {**before, "end": "2004-01-02T00:00:00"}])
    assert fault.kind == "training"
    assert fault.reason.startswith("2 of 4 valid times, first 2004-01-01T00")
