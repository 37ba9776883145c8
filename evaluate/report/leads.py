"""Which leads are shown, where there are too many to show them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST = 5
"""Leads that a row of maps or tiles has room for."""


def few(leads: Sequence[int], *, most: int = MOST) -> list[int]:
    """Some of the leads, spread over them by position, the first and the last among them.

    Args:
        leads: hours, increasing.
        most: how many at most.
    """
    places = np.linspace(0, len(leads) - 1, min(len(leads), most)).astype(int)
    return [leads[i] for i in places]


def mapped(leads: Sequence[int], *, chosen: Sequence[int]) -> list[int]:
    """Leads that get maps: those of evaluation.map_lead_hours, or a few where it is empty."""
    return [h for h in leads if h in chosen] if chosen else few(leads)


def of_cases(leads: Sequence[int]) -> list[int]:
    """Leads at which single forecasts are shown: the first, and the last or, of many, the one in the middle."""
    return sorted({leads[0], leads[len(leads) // 2 if len(leads) > 3 else -1]})


def logarithmic(leads: Sequence[int]) -> bool:
    """Whether an axis of these leads is logarithmic: the short ones of many would lie on top of one another."""
    return len(leads) > 4 and max(leads) >= 8 * min(leads)
