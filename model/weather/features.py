"""What a network may read besides fields: the season, the time of day, and where on the planet a cell lies.

Contract: a pure function of time and place, so that values exist for any time, also one that a roll-out reaches and no
store has. Angles enter as sine and cosine, which have no jump at midnight, at New Year or at the date line.

Letters: N times, F features, H/W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.weather.names import wave_and_feature


def feature_fields(
    names: Sequence[str],
    *,
    times: NDArray[np.datetime64],
    latitude: NDArray[np.floating],
    longitude: NDArray[np.floating],
) -> NDArray[np.float32]:
    """Features as fields.

    Args:
        names: of the F channels, see `model.weather.names.feature_names`.
        times: N of them, UTC.
        latitude: (H,) [degrees north].
        longitude: (W,) [degrees east].

    Returns:
        (N, F, H, W): sine or cosine of the share of the year that has passed, of the local solar time (UTC plus an hour
        for every 15 degrees east), of latitude or of longitude.
    """
    angles = {
        "season": 2 * np.pi * _share_passed(times, of="Y")[:, None, None],
        "time_of_day": 2 * np.pi * _share_passed(times, of="D")[:, None, None] + np.deg2rad(longitude),
        "latitude": np.deg2rad(latitude)[:, None],
        "longitude": np.deg2rad(longitude),
    }
    waves = {"sin": np.sin, "cos": np.cos}
    out = np.empty((len(times), len(names), len(latitude), len(longitude)), dtype=np.float32)
    for f, (wave, feature) in enumerate(map(wave_and_feature, names)):
        out[:, f] = waves[wave](angles[feature])
    return out


def _share_passed(times: NDArray[np.datetime64], *, of: str) -> NDArray[np.float64]:
    """How much of the year ("Y") or day ("D") that a time lies in has passed, in [0, 1)."""
    current = times.astype(f"datetime64[{of}]")
    start, end = (edge.astype("datetime64[s]") for edge in (current, current + 1))
    return np.asarray((times - start) / (end - start), dtype=np.float64)
