"""Which init times forecasts are issued for.

Contract: one rule for everything that is scored: init times lie a fixed spacing apart from the start of the
test period on, and both they and their valid times at every lead are in the store and in the period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.sections import Period

Times = NDArray[np.datetime64]


def issue_times(times: Times, *, lead_hours: Sequence[int], period: Period, step_hours: int, setting: str) -> Times:
    """Init times of a period.

    Args:
        times: of the store.
        lead_hours: leads [h].
        period: init and all valid times lie in it.
        step_hours: spacing of init times, counted from the period's start.
        setting: the key that gave the spacing, for the message.

    Raises:
        ValueError: there is none.
    """
    leads = np.asarray(lead_hours).astype("timedelta64[h]")
    start, end = np.datetime64(period.start, "ns"), np.datetime64(period.end, "ns")
    wanted = np.arange(start, end + np.timedelta64(1, "ns"), np.timedelta64(step_hours, "h"))
    valid = wanted[:, None] + leads[None, :]
    found = wanted[np.isin(wanted, times) & (np.isin(valid, times) & (valid <= end)).all(axis=1)]
    if not found.size:
        raise ValueError(
            f"test period must hold an init time every {step_hours} h with all leads {list(lead_hours)} h, got none; "
            f"lengthen it or choose {setting} on the store's hours"
        )
    return np.asarray(found.astype("datetime64[ns]"))
