"""What names of channels say: "z500" is geopotential at 500 hPa, "z500-12h" the same twelve hours before the init time.

Contract: an earlier state is an input channel like any other, with a tokeniser row and a place in a group of its
own; its name says which field and how much earlier, and nothing else has to be remembered. Hours are looked up by
time value, never by counting steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEVEL_CHANNEL = re.compile(r"^([a-z]+)(?:(\d+)|@(\d+)hPa)$")
_TEN_METRE_WINDS = frozenset({"u10", "v10"})
_EARLIER = re.compile(r"^(?P<channel>.+)-(?P<hours>\d+)h$")
FEATURES = ("season", "time_of_day", "latitude", "longitude")
"""What a network may read besides fields, in the order of its channels (`model.weather.features`)."""
_WAVES = ("sin", "cos")


def earlier_name(channel: str, hours: int) -> str:
    """Name of a channel some hours before the init time; the channel's own for 0.

    >>> earlier_name("z500", 12)
    'z500-12h'
    """
    return f"{channel}-{hours}h" if hours else channel


def channel_and_hours(name: str) -> tuple[str, int]:
    """The inverse of `earlier_name`.

    >>> channel_and_hours("z500-12h"), channel_and_hours("t2m")
    (('z500', 12), ('t2m', 0))
    """
    match = _EARLIER.match(name)
    return (match["channel"], int(match["hours"])) if match else (name, 0)


def history_hours(names: Sequence[str]) -> tuple[int, ...]:
    """How much earlier the states are that some input channels name, increasing; empty without history."""
    return tuple(sorted({hours for _, hours in map(channel_and_hours, names)} - {0}))


def feature_names(features: Sequence[str]) -> tuple[str, ...]:
    """Channels of some features, in the order of `FEATURES` whatever the order given.

    >>> feature_names(["latitude", "season"])
    ('sin_season', 'cos_season', 'sin_latitude', 'cos_latitude')
    """
    return tuple(f"{wave}_{feature}" for feature in FEATURES if feature in features for wave in _WAVES)


def wave_and_feature(name: str) -> tuple[str, str]:
    """What a channel of `feature_names` holds: "sin" or "cos", and of which feature.

    >>> wave_and_feature("sin_time_of_day")
    ('sin', 'time_of_day')
    """
    wave, _, feature = name.partition("_")
    return wave, feature


def is_feature(name: str) -> bool:
    """Whether a channel is one of `feature_names`."""
    wave, feature = wave_and_feature(name)
    return wave in _WAVES and feature in FEATURES


def input_names(
    channels: Sequence[str], static_channels: Sequence[str], *, hours: Sequence[int], features: Sequence[str] = ()
) -> tuple[str, ...]:
    """Input channels of a model: dynamic, static, features, then the dynamic ones of every earlier time.

    Args:
        channels: dynamic channels of the store.
        static_channels: its static ones.
        hours: how much earlier, see `history_hours`.
        features: some of `FEATURES`.
    """
    earlier = [earlier_name(name, h) for h in sorted(hours) for name in channels]
    return (*channels, *static_channels, *feature_names(features), *earlier)


def variable_and_level(name: str) -> tuple[str, int | None]:
    """Variable and pressure level [hPa] of a short name.

    "z500" -> ("z", 500), "u@10hPa" -> ("u", 10); "t2m" and "u10" (the wind at 10 m) -> (name, None). An earlier state
    ("z500-12h") belongs to the same variable and level as the present one, and all features to one variable.
    """
    if is_feature(name):
        return "feature", None
    name, _ = channel_and_hours(name)
    match = _LEVEL_CHANNEL.match(name)
    if match is None or name in _TEN_METRE_WINDS:
        return name, None
    return match.group(1), int(match.group(2) or match.group(3))
