"""Whether forecasts show the patches that they were predicted in, beside the truth's own ratio.

Contract: `evaluate.edges.edge_ratio` of anomalies from the climatology, of forecast and truth at the same valid times,
over some init times spread evenly over the sample. Calibration factors vary slowly with latitude, so calibrated and
uncalibrated forecasts have nearly the same ratios.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from evaluate.edges import edge_ratio
from evaluate.reading.align import Alignment
from evaluate.reading.reader import Reader
from evaluate.scoring.tables import with_channel
from pipeline.weather.climatology import Normals

MOST_INITS = 24
"""Init times of the sample; jumps are averaged over all cells as well, so a few suffice."""
MOST_BYTES = 200_000_000
"""Of the fields held at once; large grids have fewer init times."""
COLUMNS = ("variable", "level", "lead", "axis", "forecast", "truth", "patch", "n_init")
"""Of edges.csv."""


def edge_table(
    forecast: xr.Dataset,
    truth: xr.Dataset,
    normals: Normals,
    *,
    alignment: Alignment,
    channels: Sequence[str],
    patch: int,
) -> pd.DataFrame:
    """Ratios of jumps at patch edges to jumps inside patches, one row for each channel, lead and axis.

    Args:
        forecast: a forecast store.
        truth: training store.
        normals: with the climatology.
        alignment: init times and leads of the scores.
        channels: short names.
        patch: side of a patch [cells].

    Raises:
        ValueError: as `evaluate.edges.edge_ratio`.
    """
    leads, grid = alignment.leads, (truth["latitude"].size, truth["longitude"].size)
    fits = MOST_BYTES // (2 * 4 * len(leads) * len(channels) * int(np.prod(grid)))
    total = len(alignment.init_times)
    chosen = np.unique(np.linspace(0, total - 1, int(np.clip(fits, 1, min(MOST_INITS, total)))).round().astype(int))
    some = Alignment(alignment.init_times[chosen], leads)
    anomalies = np.empty((2, len(chosen), len(leads), len(channels), *grid), np.float32)
    for batch in Reader(truth, normals, {"": forecast}, channels=channels, alignment=some).batches():
        for t, lead in np.ndindex(*batch.valid_times.shape):
            climatology = batch.climatology(t, lead)
            for which, field in enumerate((batch.forecasts[""][t, lead], batch.truth(t, lead))):
                anomalies[which, batch.start + t, lead] = (field - climatology).reshape(-1, *grid)
    coords = {"kind": ["forecast", "truth"], "lead": leads, "channel": list(channels)}
    dims = ("kind", "init_time", "lead", "channel", "latitude", "longitude")
    ratios = edge_ratio(xr.DataArray(anomalies, coords, dims), patch=patch)
    frame = ratios.to_dataset("kind").to_dataframe(dim_order=["channel", "lead", "axis"]).reset_index()
    return with_channel(frame.assign(patch=patch, n_init=len(chosen)))[list(COLUMNS)]
