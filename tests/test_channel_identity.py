"""The wind at 10 hPa and the wind at 10 m are two channels wherever channels are found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from evaluate.reading.align import store_faults
from evaluate.reading.weatherbench import open_forecast, to_weatherbench, write_weatherbench
from evaluate.report import animation, heat_tables
from evaluate.report.results import Results
from evaluate.scoring.score_table import ScoreTable
from model.dchag import DCHAG, DCHAGConfig
from model.training.optimise import channel_weights
from model.weather import foreign_states
from model.weather.architecture import network_config
from model.weather.fields import InputLayout
from model.weather.names import input_names
from model.weights.climax import CLIMAX_CHANNELS
from model.weights.start import copy_weights
from pipeline.config import parse
from pipeline.grid import Grid
from pipeline.weather.sections_model import Groups, Model
from pipeline.weather.variables import channels
from preprocess.export import long_name
from tests.pipeline.test_cli import RAW

CHANNELS = channels(("z", "u", "v", "u10", "v10"), (10, 500))[0]
NAMES = tuple(c.name for c in CHANNELS)
ASKED: dict[str, Any] = {"variables": ["z", "u", "v", "u10", "v10"], "levels": [10, 500]}


def configured(**changes: Any) -> Any:
    """A configuration of a store that has both winds."""
    raw = RAW | {"data": RAW["data"] | {"channels": ASKED}}
    return parse(raw | {"evaluation": {"variables": ["u10"]}} | changes)


def labelled(dims: tuple[str, ...], shape: tuple[int, ...], **coords: Any) -> xr.Dataset:
    """Fields of all channels as stores label them."""
    grid = Grid.regular(30.0)
    about = {
        "channel": list(NAMES),
        "variable": ("channel", [c.variable for c in CHANNELS]),
        "level": ("channel", [c.level or -1 for c in CHANNELS]),
        "unit": ("channel", [c.spec.unit for c in CHANNELS]),
        "latitude": grid.latitude,
        "longitude": grid.longitude,
    }
    values = np.empty((*shape, len(CHANNELS), *grid.shape), np.float32)
    for row in range(len(CHANNELS)):
        values[..., row, :, :] = 3.0 + row
    values[..., NAMES.index("z10"), :, :] = 3.0e5
    values[..., NAMES.index("z500"), :, :] = 5.4e4
    return xr.Dataset({"state": ((*dims, "channel", "latitude", "longitude"), values)}, about | coords)


def forecast() -> xr.Dataset:
    """One forecast of one day."""
    times = {"init_time": np.array(["2020-01-01"], "datetime64[ns]"), "lead_time": np.array([24], "timedelta64[h]")}
    return labelled(("init_time", "lead_time"), (1, 1), **times)


def shape(names: tuple[str, ...], **settings: Any) -> DCHAGConfig:
    sizes = {"image": (4, 6), "patch": 2, "width": 8, "depth": 1, "heads": 2, "decoder_depth": 0}
    return DCHAGConfig(channels=names, out_channels=names, **(sizes | settings))


def test_the_names_are_those_that_the_tests_below_are_about() -> None:
    """Catches tests that prove nothing because the names differ anyway."""
    assert NAMES == ("z10", "z500", "u@10hPa", "u500", "v@10hPa", "v500", "u10", "v10")


def test_settings_name_each() -> None:
    """Catches a map, a score or a loss weight asked for one wind and made for the other."""
    both = configured(evaluation={"variables": ["u@10hPa", "u10"], "channels": list(NAMES)})
    assert both.evaluation.variables == ["u@10hPa", "u10"]
    configured(training={"channel_weights": {"u@10hPa": 2.0}})
    only = RAW | {"data": RAW["data"] | {"channels": ASKED | {"variables": ["z", "u"]}}}
    for changes in ({"evaluation": {"variables": ["u10"]}}, {"training": {"channel_weights": {"u10": 2.0}}}):
        with pytest.raises(ValueError, match=r"must (be|name) channels.*, got 'u10'"):
            parse(only | {"evaluation": {"variables": ["z500"]}} | changes)
    with pytest.raises(ValueError, match=r"must be channels of the store, got 'u@10hPa'"):
        parse(RAW | {"evaluation": {"variables": ["u@10hPa"]}})


def test_loss_weights_find_each() -> None:
    """Catches the weight of all u on levels on the 10 m wind, and that of the 10 m wind on u at 10 hPa."""
    named = [(c.name, c.variable, c.level) for c in CHANNELS]

    def ratio(**weights: float) -> dict[str, float]:
        found = channel_weights(named, weights=weights, pressure_weighted=False)
        return {name: float(w / found.min()) for name, w in zip(NAMES, found, strict=True) if w > 1.5 * found.min()}

    assert ratio(u10=3.0) == pytest.approx({"u10": 3.0})
    assert ratio(**{"u@10hPa": 3.0}) == pytest.approx({"u@10hPa": 3.0})
    assert ratio(u=3.0) == pytest.approx({"u@10hPa": 3.0, "u500": 3.0})


def test_groups_put_each_where_it_belongs() -> None:
    """Catches the wind at 10 hPa in a group of the 10 m winds, or outside of its level's."""
    names = input_names(NAMES, ["lsm"], hours=[12])

    def grouped(**block: Any) -> list[set[str]]:
        config = network_config(
            Model(width=8, heads=2, history_hours=[12], groups=Groups(**block)),
            channels=NAMES,
            static_channels=["lsm"],
            image=(4, 6),
        )
        assert config.channels == names
        return [{names[i] for i in group} for group in config.channel_tree().groups]

    by_variable = {"u@10hPa", "u500", "u@10hPa-12h", "u500-12h"}
    assert by_variable in grouped(by="variable")
    assert {"u10", "u10-12h"} in grouped(by="variable")
    ten = {"z10", "u@10hPa", "v@10hPa"}
    assert ten | {f"{name}-12h" for name in ten} in grouped(by="level")
    listed = [["u10", "lsm"], [name for name in NAMES if name != "u10"]]
    assert {"u10", "u10-12h", "lsm"} in grouped(by="list", listed=listed)


def test_earlier_states_are_read_from_each() -> None:
    """Catches the history of one wind read from the other."""
    wanted = ("u@10hPa", "u10", "u@10hPa-12h")
    layout = InputLayout.of(wanted, dynamic=NAMES, static=())
    assert layout.input_channels == wanted
    assert layout.channels == ("u@10hPa", "u10")
    assert [(hours, rows.tolist()) for hours, rows in layout.blocks] == [(0, [0, 1]), (12, [0])]


def test_fine_tuning_takes_the_weights_of_each() -> None:
    """Catches weights trained for the 10 m wind that start the wind at 10 hPa, or those of the file lost."""
    theirs, ours = DCHAG(shape(("u500", "u10")), seed=1), DCHAG(shape(("u@10hPa", "u500", "u10")), seed=2)
    before = ours.stage.tokeniser.weight.detach().clone()
    taken = copy_weights(theirs, ours, source=Path("file"))
    assert taken.initialised == ("u@10hPa", "u@10hPa (predicted)")
    assert torch.equal(ours.stage.tokeniser.weight[0], before[0])
    assert torch.equal(ours.stage.tokeniser.weight[2], theirs.stage.tokeniser.weight[1])
    back = copy_weights(ours, DCHAG(shape(("u500", "u10")), seed=3), source=Path("file"))
    assert back.unused == ("u@10hPa",)
    assert "u@10hPa" not in CLIMAX_CHANNELS
    assert "u10" in CLIMAX_CHANNELS


def test_initial_states_are_matched_by_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a forecast of the wind at 10 hPa that starts from the wind at 10 m, and an old training store."""
    trained = labelled(("time",), (1,), time=np.array(["2020-01-01"], "datetime64[ns]"))
    trained.attrs["contract"] = {"grid": {}}
    monkeypatch.setattr(foreign_states, "open_store", lambda *_args, **_options: trained)
    states = trained.sel(channel=[name for name in NAMES if "@" not in name])
    with pytest.raises(ValueError, match=r"got none for 2 of 8: u@10hPa, v@10hPa;"):
        foreign_states.as_in_training(states, like=Path("store"), name="states")
    trained = trained.assign_coords(channel=[name.replace("@10hPa", "10") for name in NAMES])
    with pytest.raises(ValueError, match=r"store old must call its channels .* got u10 is u@10hPa"):
        foreign_states.as_in_training(states, like=Path("old"), name="states")


def test_climax_and_climate_learn_get_both() -> None:
    """Catches two channels under one name of an .npz file, where the second overwrites the first."""
    long = [long_name(name) for name in NAMES]
    assert len(set(long)) == len(NAMES)
    assert (long_name("u@10hPa"), long_name("u10")) == ("u_component_of_wind_10", "10m_u_component_of_wind")


def test_weatherbench_gets_and_gives_both(tmp_path: Path) -> None:
    """Catches the wind at 10 hPa written as the 10 m wind, and one of them lost on the way back."""
    ds = to_weatherbench(forecast())
    aloft, below = ds["u_component_of_wind"].sel(level=10), ds["10m_u_component_of_wind"]
    assert (aloft.attrs["long_name"], below.attrs["long_name"]) == ("Eastward wind", "10 m eastward wind")
    assert (float(aloft.mean()), float(below.mean())) == (3.0 + NAMES.index("u@10hPa"), 3.0 + NAMES.index("u10"))
    write_weatherbench(forecast(), tmp_path / "a.zarr")
    back = open_forecast(tmp_path / "a.zarr")
    assert back["channel"].values.tolist() == list(NAMES)
    np.testing.assert_array_equal(back["state"].values, forecast()["state"].values)
    chosen = open_forecast(tmp_path / "a.zarr", channels=["u10", "u@10hPa"])["state"].mean(("latitude", "longitude"))
    assert chosen.values.ravel().tolist() == [3.0 + NAMES.index("u10"), 3.0 + NAMES.index("u@10hPa")]


def test_forecasts_that_call_another_channel_the_same_are_not_compared() -> None:
    """Catches a forecast of the wind at 10 hPa, called u10 by an earlier version, scored against the 10 m wind."""
    truth = labelled(("time",), (1,), time=np.array(["2020-01-02"], "datetime64[ns]"))
    assert store_faults(forecast(), truth, leads=[24], name="mine") == []
    other = forecast().sel(channel=["u@10hPa", "z500"]).assign_coords(channel=["u10", "z500"])
    faults = store_faults(other, truth, leads=[24], name="other")
    assert [fault.reason for fault in faults] == ["u10 of the store is of another variable or level"]


def test_scores_and_tables_keep_them_apart(tmp_path: Path) -> None:
    """Catches the scores of the wind at 10 hPa shown as those of the 10 m wind, near the surface."""
    rows = [
        {"variable": c.variable, "level": str(c.level or ""), "value": 0.01 * row}
        for row, c in enumerate(CHANNELS, start=1)
    ]
    frame = pd.DataFrame(rows).assign(
        region="globe", model="mine", lead=24, metric="skill", ci_low=np.nan, ci_high=np.nan, unit="1", n_init=9
    )
    frame.to_csv(tmp_path / "scores.csv", index=False)
    table = ScoreTable.read(tmp_path / "scores.csv")
    for row, name in enumerate(NAMES, start=1):
        assert table.score("mine", name, 24, "skill").value == pytest.approx(0.01 * row), name
        assert table.rows(name)["value"].tolist() == pytest.approx([0.01 * row]), name
    cards = {card.title: card for card in heat_tables.scorecard(Results(table, "mine", ["u10"], [24]))}
    assert {title: list(card.rows) for title, card in cards.items()} == {
        "Geopotential": ["10", "500"],
        "Eastward wind": ["10", "500"],
        "Northward wind": ["10", "500"],
        "Near the surface": ["u10", "v10"],
    }
    shown = [cards[title].rows[row][0] for title, row in (("Eastward wind", "10"), ("Near the surface", "u10"))]
    assert shown[0] != shown[1]


def test_files_of_figures_differ(tmp_path: Path) -> None:
    """Catches the animation of one wind that overwrites the other's."""
    paths = {animation.path_of(tmp_path, channel=name, lead=24) for name in NAMES}
    assert len(paths) == len(NAMES)
