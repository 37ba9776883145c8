"""Names of earlier states among the input channels: "z500-12h" is z500 twelve hours before the init time.

Contract: an earlier state is an input channel like any other, with a tokeniser row and a place in a group of its
own; its name says which field and how much earlier, and nothing else has to be remembered. Hours are looked up by
time value, never by counting steps.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_EARLIER = re.compile(r"^(?P<channel>.+)-(?P<hours>\d+)h$")


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


def input_names(channels: Sequence[str], static_channels: Sequence[str], *, hours: Sequence[int]) -> tuple[str, ...]:
    """Input channels of a model: dynamic, static, then the dynamic ones of every earlier time.

    Args:
        channels: dynamic channels of the store.
        static_channels: its static ones.
        hours: how much earlier, see `history_hours`.
    """
    earlier = [earlier_name(name, h) for h in sorted(hours) for name in channels]
    return (*channels, *static_channels, *earlier)
