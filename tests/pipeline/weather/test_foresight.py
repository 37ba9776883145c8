"""What an experiment can be known to lack before the long work: refused if asked for, else left out with a line."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.config import dump, parse
from pipeline.weather import foresight
from pipeline.weather.config import WeatherConfig
from tests.stores import data_block

DATA = data_block(
    ("2001-01-01", "2001-06-30"),
    train=("2001-01-01", "2001-03-31"),
    validation=("2001-04-01", "2001-05-15"),
    test=("2001-05-16", "2001-06-30"),
    variables=["z", "q"],
    levels=[500, 700],
    statics=[],
    step_hours=12,
)
DAY = np.timedelta64(24, "h")


def config(**changes: Any) -> WeatherConfig:
    """An experiment of half a year; `a__b=c` changes a key."""
    raw: dict[str, Any] = {"name": "case", "source": {"kind": "simulation"}, "data": copy.deepcopy(DATA)}
    for dotted, value in changes.items():
        *parents, last = dotted.split("__")
        node = raw
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    parsed = parse(raw)
    assert isinstance(parsed, WeatherConfig)
    return parsed


def times(start: str = "2001-01-01", end: str = "2001-07-01") -> np.ndarray:
    """Every twelve hours."""
    return np.arange(start, end, np.timedelta64(12, "h"), dtype="datetime64[ns]")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"forecast__lead_hours": [24, 2160]},
            "forecast.lead_hours must fit into data.splits.test, 2001-05-16T00 .. 2001-06-30T23, got 2160 h; lengthen",
        ),
        (
            {"forecast__lead_hours": [1080], "model__history_hours": [48]},
            "got 1080 h and states 48 h earlier; lengthen the period or drop the lead",
        ),
        (
            {"training__lead_hours": [24, 2400]},
            "training.lead_hours must fit into data.splits.train, 2001-01-01T00 .. 2001-03-31T23, got 2400 h",
        ),
        (
            {"data__splits__test": {"start": "2001-05-16T03:00", "end": "2001-06-30"}},
            "data.splits.test must start at a time of the store, every 12 h from 2001-01-01T00, got 2001-05-16T03",
        ),
        (
            {
                "evaluation__baselines": ["persistence", "linear"],
                "forecast__lead_hours": [24, 1056],
                "data__splits__train": {"start": "2001-01-01", "end": "2001-02-25"},
            },
            "evaluation.baselines: linear needs 30 training times that have a later one at every lead, got 24;",
        ),
        (
            {
                "evaluation__baselines": ["damped_persistence"],
                "forecast__lead_hours": [24, 1032],
                "data__splits__train": {"start": "2001-01-01", "end": "2001-02-01"},
            },
            "damped_persistence needs a pair of training times at every lead, got none for 1032 h;",
        ),
        (
            {"evaluation__baselines": ["linear"], "data__regrid__resolution": 0.1},
            "evaluation.baselines: linear needs 30 states in 1.5 GB, got states of 25920000 values; leave it out",
        ),
        ({"evaluation__variables": ["z500", "t2m"]}, "evaluation.variables must be channels of the store, got 't2m'"),
        ({"evaluation__variables": ["z500", "q700", "z500"]}, "must name each channel once, got z500 more than once"),
        (
            {"evaluation__map_lead_hours": [24, 168]},
            "evaluation.map_lead_hours must be among forecast.lead_hours [168, 336, 720], got 24",
        ),
        (
            {"evaluation__cases": ["2001-05-20T06:00"]},
            "evaluation.cases must be init times of the forecasts, every 24 h within 2001-05-16T00 .. 2001-05-31T00,",
        ),
        ({"name": "linear"}, "name must differ from the models it is compared with, got 'linear'; rename"),
        (
            {"evaluation__compare": [{"name": "case", "path": "x.zarr"}]},
            "evaluation.compare: name 'case' must differ from the models it is compared with",
        ),
        (
            {"evaluation__compare": [{"name": "climatology", "path": "x.zarr"}]},
            "evaluation.compare: name 'climatology' must differ from the models it is compared with",
        ),
    ],
)
def test_what_was_asked_for_and_cannot_be_is_refused_by_the_configuration(
    changes: dict[str, Any], message: str
) -> None:
    """Catches an experiment that regrids and trains for days and then cannot be forecast, scored or drawn."""
    with pytest.raises(ValueError, match="must describe an experiment") as error:
        config(**changes)
    assert message in str(error.value)


def test_defaults_that_do_not_fit_are_left_out_with_a_line() -> None:
    """Catches an error about a key that its user never set, and one that is left out without a word."""
    found = config(data__splits__test={"start": "2001-05-16", "end": "2001-06-01"})
    assert found.evaluation.variables == ["z500"]
    assert found.forecast.lead_hours == [168, 336]
    assert foresight.left_out(found) == [
        "forecast.lead_hours: 720 h does not fit into data.splits.test; left out",
        "evaluation.variables: t850, t2m and u10 are not among the channels; drawn: z500",
    ]
    again = parse(yaml.safe_load(dump(found)))
    assert again == found
    assert foresight.left_out(again) == []


def test_baselines_by_default_need_enough_training_times() -> None:
    """Catches a score stage that fails on a baseline which nobody asked for."""
    found = config(data__splits__train={"start": "2001-01-01", "end": "2001-02-01"}, training__lead_hours=[24])
    assert found.evaluation.baselines == ["persistence", "climatology", "damped_persistence"]
    (line,) = [x for x in foresight.left_out(found) if x.startswith("evaluation.baselines")]
    assert line == (
        "evaluation.baselines: linear needs 30 training times that have a later one at every lead, got 4; left out"
    )
    nothing = config(data__splits__train={"start": "2001-01-01", "end": "2001-01-03"}, training__lead_hours=[24])
    assert nothing.evaluation.baselines == ["persistence", "climatology"]


def test_something_is_always_drawn() -> None:
    """A store without any of the default variables: its first channel; catches an empty report."""
    found = config(data__channels={"variables": ["q"], "levels": [700], "statics": []})
    assert found.evaluation.variables == ["q700"]
    some = config(evaluation__channels=["q500", "q700"])
    assert some.evaluation.variables == ["q500"]


def test_a_configuration_that_fits_is_as_it_was() -> None:
    """Catches defaults that are touched where they fit, which would rename outputs that are there."""
    found = config(data__channels={"variables": ["z", "t", "t2m", "u10"], "levels": [500, 850], "statics": []})
    assert foresight.left_out(found) == []
    assert found.evaluation.baselines == ["persistence", "climatology", "damped_persistence", "linear"]
    assert "evaluation" not in found.model_fields_set


def test_leads_of_later_forecasts_may_be_longer_than_the_validation_period() -> None:
    """Catches a trained model that may not be asked for a longer lead."""
    month = {"start": "2001-04-01", "end": "2001-04-10"}
    found = config(data__splits__validation=month, forecast__lead_hours=[24, 720], training__lead_hours=[24])
    assert found.forecast.lead_hours == [24, 720]


def test_initial_states_need_no_test_period() -> None:
    """Catches a forecast from a file that is refused for the test period."""
    assert config(forecast__initial="x.nc", forecast__lead_hours=[2400]).forecast.lead_hours == [2400]


def test_gaps_of_the_store_are_seen_before_training() -> None:
    """The configuration fits and the store does not: refused with the reason; by default left out with a line."""
    asked = config(evaluation__baselines=["linear"], forecast__lead_hours=[24])
    whole = times()
    assert foresight.usable_baselines(asked, whole) == (["linear"], [])
    few = np.concatenate([whole[:20], whole[180:]])
    with pytest.raises(ValueError, match="linear needs 30 training times that have a later one at every lead, got 18"):
        foresight.require(asked, few)
    default = config(forecast__lead_hours=[24])
    names, lines = foresight.usable_baselines(default, few)
    assert names == ["persistence", "climatology", "damped_persistence"]
    assert lines == [
        "evaluation.baselines: linear needs 30 training times that have a later one at every lead, got 18; left out"
    ]
    with pytest.raises(ValueError, match=r"test period must hold an init time|none for 24 h"):
        foresight.require(default, whole[whole < np.datetime64("2001-05-17")])


def test_damped_persistence_needs_pairs_at_each_lead_not_one_start_with_all() -> None:
    """Catches a baseline refused though each of its factors can be fitted."""
    whole = times()
    start = whole[0]
    apart = np.array(
        [start, start + DAY, start + 20 * DAY, start + 50 * DAY, *whole[whole > np.datetime64("2001-05-15")]]
    )
    asked = config(evaluation__baselines=["damped_persistence"], forecast__lead_hours=[24, 720])
    assert foresight.usable_baselines(asked, apart)[0] == ["damped_persistence"]
