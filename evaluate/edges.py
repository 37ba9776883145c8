"""Whether fields show the patches that a network predicted them in.

Contract: an array function, like the scores in `evaluate.metrics`, but of forecasts alone: no truth enters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

_MEAN_OVER = ("init_time", "latitude", "longitude")


def edge_ratio(fields: xr.DataArray, *, patch: int) -> xr.DataArray:
    """Mean squared jump across edges of patches over that between neighbouring cells inside patches.

    1 means that edges are not seen. Weather itself is near 1 but not exactly, since edges lie at certain latitudes:
    compare with the ratio of the truth on the same times.

    Args:
        fields: dimensions latitude and longitude, the whole circle, from the first row and column of the patches on;
            any others. Anomalies show edges best: a mean field has jumps of its own.
        patch: side of a patch [cells].

    Returns:
        The ratio along each `axis` (latitude, longitude) for the other dimensions without init_time, float64; NaN where
        fields are constant inside patches, or one patch reaches from pole to pole.

    Raises:
        ValueError: a grid that patches of at least two cells do not divide.
    """
    sizes = [fields.sizes.get(axis, 0) for axis in ("latitude", "longitude")]
    if patch < 2 or any(n == 0 or n % patch for n in sizes):
        raise ValueError(
            "fields must have a latitude and a longitude that patches of at least 2 cells divide, got "
            f"{sizes[0]} x {sizes[1]} cells and patches of {patch}"
        )
    fields = fields.astype(np.float64).drop_vars(["latitude", "longitude"], errors="ignore")
    jumps = {"latitude": fields.diff("latitude"), "longitude": fields.roll(longitude=-1) - fields}
    dims: Any = [d for d in _MEAN_OVER if d in fields.dims]
    ratios = []
    for axis, jump in jumps.items():
        at_edge = np.arange(jump.sizes[axis]) % patch == patch - 1
        edges, inside = ((jump.isel({axis: which}) ** 2).mean(dims) for which in (at_edge, ~at_edge))
        ratios.append(edges / inside.where(inside > 0))
    return xr.concat(ratios, dim=xr.DataArray(list(jumps), dims="axis", name="axis"))
