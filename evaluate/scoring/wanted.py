"""What a user asks for by name, and what there is instead when there is no such thing.

Contract: one message for each name that is not known: what it must be one of, and what was given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluate.text import iso_hour, parse_lead
from pipeline.weather.times import Times
from pipeline.words import spanned


def one_of(what: str, given: str, known: Sequence[str]) -> str:
    """A name that is known.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    if given not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {given!r}")
    return given


def lead(given: str, known: Sequence[int], *, of: str) -> int:
    """A lead in hours, from "7d" or "168h".

    Args:
        given: as typed.
        known: hours.
        of: whose leads these are, for the message.

    Raises:
        ValueError: it is no lead, or not one of those.
    """
    hours = parse_lead(given)
    if hours not in known:
        raise ValueError(f"lead must be one of {of}, {', '.join(map(_as_typed, known))}; got {_as_typed(hours)}")
    return hours


def _as_typed(hours: int) -> str:
    return f"{hours}h" if hours % 24 else f"{hours // 24}d"


def time(given: str) -> np.datetime64:
    """A time, from "2004-01-15" or "2004-01-15T12".

    Raises:
        ValueError: it is none.
    """
    try:
        found = np.datetime64(given.strip().removesuffix("Z"), "ns")
        if np.isnat(found):
            raise ValueError
    except ValueError:
        raise ValueError(f"init must be a time such as 2004-01-15 or 2004-01-15T12, got {given!r}") from None
    return found


def init_time(given: str, known: Times) -> np.datetime64:
    """An init time, from "2004-01-15" or "2004-01-15T12".

    Args:
        given: as typed.
        known: init times of the forecasts, increasing.

    Raises:
        ValueError: it is no time, or not one of those; the message has the first, the last and the nearest.
    """
    asked = time(given)
    known = known.astype("datetime64[ns]")
    if asked not in known:
        span, near = spanned(iso_hour(known[0]), iso_hour(known[-1])), known[np.argmin(np.abs(known - asked))]
        got = f"{iso_hour(asked)}; the nearest is {iso_hour(near)}"
        raise ValueError(f"init must be an init time of the forecasts, {span}, got {got}")
    return asked
