"""Earlier states as input channels: names, groups, and their place in the model's configuration."""

from __future__ import annotations

import doctest
from typing import get_args

import pytest

import model.weather.names
from model.dchag import OUTPUTS, DCHAGConfig
from model.weather.architecture import network_config
from model.weather.names import (
    FEATURES,
    channel_and_hours,
    earlier_name,
    feature_names,
    history_hours,
    input_names,
    is_feature,
    variable_and_level,
)
from pipeline.weather import sections_model
from pipeline.weather import variables as catalogue


def test_doctest() -> None:
    """Catches an example in the documentation that is no longer true."""
    assert doctest.testmod(model.weather.names).failed == 0


def test_every_channel_of_the_catalogue_keeps_its_name() -> None:
    """Catches a short name that looks like an earlier state."""
    dynamic, static = catalogue.channels(tuple(v.short for v in catalogue.CATALOGUE if not v.static))
    names = tuple(c.name for c in dynamic + static)
    assert [channel_and_hours(name) for name in names] == [(name, 0) for name in names]
    assert [channel_and_hours(earlier_name(name, 240)) for name in names] == [(name, 240) for name in names]
    assert history_hours([*names, "z500-48h", "u10-6h", "z850-48h"]) == (6, 48)


def test_an_earlier_state_is_in_the_group_of_its_variable_and_level() -> None:
    """Catches z500-12h as a variable of its own, which would give every earlier channel its own group."""
    names = input_names(["z500", "z850", "t850", "u10"], ["lsm"], hours=[24, 12])
    earlier = [f"{name}-{hours}h" for hours in (12, 24) for name in ("z500", "z850", "t850", "u10")]
    assert list(names[5:]) == earlier
    found = {name: variable_and_level(name) for name in ("u10-12h", "u10", "u100", "t2m")}
    assert found == {"u10-12h": ("u10", None), "u10": ("u10", None), "u100": ("u", 100), "t2m": ("t2m", None)}
    config = DCHAGConfig(channels=names, out_channels=names[:4], image=(2, 2), width=16, heads=2, groups="variable")
    grouped = [{names[i] for i in group} for group in config.channel_tree().groups]
    assert {"z500", "z850", "z500-12h", "z850-12h", "z500-24h", "z850-24h"} in grouped
    assert len(grouped) == 4


def test_settings_name_what_there_is() -> None:
    """Catches a feature or an output that the configuration offers and the network does not know, or the reverse."""
    fields = sections_model.Model.model_fields
    assert get_args(get_args(fields["features"].annotation)[0]) == FEATURES
    assert get_args(fields["output"].annotation) == OUTPUTS
    assert all(map(is_feature, feature_names(FEATURES)))
    assert not any(map(is_feature, ("season", "z500", "sin_z500", "cos")))


def test_features_are_channels_between_statics_and_earlier_states() -> None:
    """Catches features that groups by variable scatter, in the order of the configuration, or with a pressure level."""
    block = sections_model.Model(width=16, heads=2, features=["longitude", "season"], history_hours=[12])
    features = ("sin_season", "cos_season", "sin_longitude", "cos_longitude")
    for by, expected in (("variable", set(features)), ("level", {"lsm", *features})):
        groups = sections_model.Groups(by=by)
        model = block.model_copy(update={"groups": groups})
        config = network_config(model, channels=["z500", "t500"], static_channels=["lsm"], image=(6, 12))
        assert config.channels == ("z500", "t500", "lsm", *features, "z500-12h", "t500-12h")
        assert config.out_channels == ("z500", "t500")
        tree = config.channel_tree()
        assert expected in [{config.channels[i] for i in group} for group in tree.groups]
    unet = network_config(
        block.model_copy(update={"architecture": "unet"}), channels=["z500"], static_channels=["lsm"], image=(6, 12)
    )
    assert unet.channels == ("z500", "lsm", *features, "z500-12h")
    listed = sections_model.Model(groups=sections_model.Groups(by="list", listed=[["z500"]]), features=["season"])
    with pytest.raises(ValueError, match="sin_season"):
        network_config(listed, channels=["z500"], static_channels=[], image=(6, 12))


@pytest.mark.parametrize("hours", [[], [12, 24]])
def test_listed_groups_take_their_earlier_states_along(hours: list[int]) -> None:
    """Catches a listed partition that history makes invalid, and a static field with a past."""
    groups = sections_model.Groups(by="list", listed=[["z500", "lsm"], ["t850"]])
    block = sections_model.Model(width=16, heads=2, groups=groups, history_hours=hours)
    config = network_config(block, channels=["z500", "t850"], static_channels=["lsm"], image=(6, 12))
    assert config.out_channels == ("z500", "t850")
    tree = config.channel_tree()
    first = {config.channels[i] for i in tree.groups[0]}
    assert first == {"z500", "lsm"} | {f"z500-{h}h" for h in hours}
