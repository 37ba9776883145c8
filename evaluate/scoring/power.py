"""Power of forecasts by zonal wavenumber, over the truth's: what is blurred, and what blows up.

Contract: made from the spectra that scoring sums (`evaluate.scoring.kernel.zonal_power`), so it costs no reading and
covers every init time. Zonal wavenumbers in the belt of 30 to 60 degrees of both hemispheres, rows weighted by their
area: one wavenumber has nearly one length there, and waves count up to the shortest that a row holds, while a spherical
transform is exact up to half as many wavenumbers as there are rows. Wavenumber 0, the mean of a row, is left out.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from evaluate.scoring.tables import with_channel

COLUMNS = ("model", "variable", "level", "lead", "zonal_wavenumber", "power", "truth", "ratio", "n_init")
"""Of power.csv."""


def power_ratios(spectrum: xr.DataArray) -> xr.DataArray:
    """Power of each model over the truth's at the same wavenumber, lead and channel.

    Args:
        spectrum: by spectrum_model, "truth" among them, and zonal_wavenumber; any other dimensions.

    Returns:
        Without "truth" and wavenumber 0: 1 is the truth's power, less is blurred, more is noise; NaN where the truth
        has none.
    """
    waves = spectrum.isel(zonal_wavenumber=slice(1, None)).astype(np.float64)
    truth = waves.sel(spectrum_model="truth", drop=True)
    return waves.drop_sel(spectrum_model="truth") / truth.where(truth > 0)


def power_table(spectrum: xr.DataArray, *, n_init: int) -> pd.DataFrame:
    """The rows of power.csv.

    Args:
        spectrum: by (spectrum_model, lead, channel, zonal_wavenumber), mean over init times.
        n_init: how many.
    """
    waves = spectrum.isel(zonal_wavenumber=slice(1, None))
    truth = waves.sel(spectrum_model="truth", drop=True)
    ds = xr.Dataset({"power": waves.drop_sel(spectrum_model="truth"), "ratio": power_ratios(spectrum)})
    ds = ds.assign(truth=truth).rename(spectrum_model="model")
    frame = ds.to_dataframe(dim_order=["model", "channel", "lead", "zonal_wavenumber"]).reset_index()
    return with_channel(frame.assign(n_init=n_init))[list(COLUMNS)]
