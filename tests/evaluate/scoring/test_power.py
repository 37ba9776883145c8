"""Power by wavenumber over the truth's."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from evaluate.scoring.kernel import zonal_power
from evaluate.scoring.power import COLUMNS, power_ratios, power_table
from pipeline.grid import Grid

GRID = Grid(np.linspace(-75, 75, 6), np.arange(0, 360, 22.5))
LEADS = [24, 168]


def spectrum(fields: dict[str, list[np.ndarray]]) -> xr.DataArray:
    """Spectra of fields (latitude, longitude), one for each lead, as scores.nc has them."""
    rows = GRID.cell_area.sum(axis=1)
    power = np.stack([zonal_power(np.stack([f.ravel() for f in at]), GRID, rows) for at in fields.values()])
    dims = ("spectrum_model", "lead", "channel", "zonal_wavenumber")
    coords = {"spectrum_model": list(fields), "lead": LEADS, "channel": ["z500"]}
    return xr.DataArray(power[:, :, None], coords, dims).assign_coords(zonal_wavenumber=np.arange(power.shape[-1]))


def waves(*parts: tuple[int, float]) -> np.ndarray:
    """A mean of 7, and waves of given number and amplitude that grow towards the equator."""
    longitude, shape = np.deg2rad(GRID.longitude), np.cos(np.deg2rad(GRID.latitude))[:, None]
    return 7.0 + shape * sum(a * np.cos(k * longitude + 0.3 * k) for k, a in parts)


def test_ratio_is_that_of_squared_amplitudes() -> None:
    """Catches rows without weights, a truth of another lead, wavenumbers shifted by one, and the mean counted."""
    truth = [waves((1, 4.0), (3, 2.0)), waves((1, 2.0), (3, 1.0))]
    given = spectrum({"mine": [waves((1, 2.0), (3, 3.0)), waves((1, 2.0), (3, 0.5))], "truth": truth})
    found = power_ratios(given).sel(spectrum_model="mine", channel="z500")
    assert found.sel(lead=24, zonal_wavenumber=[1, 3]).values == pytest.approx([0.25, 2.25], rel=1e-9)
    assert found.sel(lead=168, zonal_wavenumber=[1, 3]).values == pytest.approx([1.0, 0.25], rel=1e-9)
    assert found["zonal_wavenumber"].values.tolist() == list(range(1, 9))
    frame = power_table(given, n_init=5)
    assert tuple(frame.columns) == COLUMNS
    row = frame.query("lead == 24 and zonal_wavenumber == 3").iloc[0]
    area = GRID.cell_area.sum(axis=1)
    mean = sum(a * np.cos(np.deg2rad(y)) ** 2 for a, y in zip(area, GRID.latitude, strict=True)) / area.sum()
    assert (row["power"], row["truth"]) == pytest.approx((3.0**2 / 2 * mean, 2.0**2 / 2 * mean), rel=1e-9)
    assert set(frame["model"]) == {"mine"}


def test_a_blown_up_spectrum_shows() -> None:
    """Noise of the smallest scales, of a tenth of the amplitude, that grows with the lead: catches a measure over all
    scales, in which it would be lost."""
    truth = waves((1, 4.0), (7, 0.01))
    noise = [waves((7, 0.02)) - 7.0, waves((7, 0.4)) - 7.0]
    found = power_ratios(spectrum({"mine": [truth + n for n in noise], "truth": [truth, truth]}))
    small = found.sel(spectrum_model="mine", channel="z500", zonal_wavenumber=7)
    assert small.values == pytest.approx([3.0**2, 41.0**2], rel=1e-9)
    assert found.sel(zonal_wavenumber=1).values.ravel() == pytest.approx([1.0, 1.0], rel=1e-6)


def test_no_power_no_ratio() -> None:
    """A truth without a wavenumber: no infinity in the table."""
    field = waves((2, 1.0))
    given = spectrum({"mine": [field, field], "truth": [field, field]})
    given[{"spectrum_model": 1, "zonal_wavenumber": 5}] = 0.0
    assert power_ratios(given).sel(zonal_wavenumber=5).isnull().all()
