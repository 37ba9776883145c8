"""Persistence and climatology on fifty years of real daily weather: makes docs/real-data.md.

NCEP/NCAR reanalysis 1 over Iberia (6 x 9 points, 1961-2010, daily), as
`tests/evaluate/scoring/test_real_data.py` uses it. Missing days at the end of two variables are handled by an
explicit mask, never by dropping what is NaN.

    python benchmarks/real_data.py                    # prints the page
    python benchmarks/real_data.py --write            # and writes docs/real-data.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import xarray as xr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.process import ROOT, parser
from evaluate import bootstrap, metrics
from evaluate.baselines import simple
from evaluate.reading import align
from pipeline.weather.climatology import day_slots

DATA = ROOT.parent / "shared" / "reference" / "real" / "ncep_r1_iberia_daily"
LEADS = (24, 168, 336, 720)
NAMES = {"Z500": ("Z500", "m² s⁻²"), "T850": ("T850", "K"), "2T": ("2 m temperature", "K")}
FITTED, SCORED = slice("1961", "1990"), slice("1991", "2010")
WINDOW = 31

PAGE = """# Fifty years of real weather

Scores of persistence and climatology on real data, by this project's formulas ([metrics.md](metrics.md)): a check of
the formulas, and an impression of what can be expected at 7, 14 and 30 days. Written by
`python benchmarks/real_data.py --write`; `tests/evaluate/scoring/test_real_data.py` checks the figures.

**Data.** NCEP/NCAR reanalysis 1 (Kalnay et al. 1996), daily 1961-2010, 6 x 9 points over Iberia. The last {missing}
days of Z500 and T850 are missing. They are masked: a pair counts where the values at its init time and at its valid
time both exist, and a NaN without a mask is an error. Climatology: mean by day of year over 1961-1990, smoothed
over {window} days. The init times of 1991-2010 are scored, so nothing is scored in the period of the fit.

**Memory.** Autocorrelation of the anomaly of the box mean of Z500 over all fifty years:

| 1 day | 7 days | 14 days | 30 days |
|---|---|---|---|
{memory}

A forecast that keeps the anomaly unchanged, with autocorrelation r at the lead, has MSE = 2 (1 - r) times that of
climatology and skill 2 r - 1: it beats climatology only while r > 1/2, that is for about two days. Persistence of the
field itself is worse still at 30 days, because the season moves on.

**Scores.** RMSE in the unit given; 95% intervals by the moving-block bootstrap in brackets.

| | init times | lead | RMSE persistence | RMSE climatology | skill of persistence | ACC of persistence |
|---|---|---|---|---|---|---|
{rows}

At one day persistence beats climatology; from a week on it is far behind, in every variable. So at 7, 14 and 30 days
climatology is the forecast to beat, and a model that only beats persistence has shown nothing.
"""


def read(variable: str, *, folder: Path = DATA) -> xr.DataArray:
    """(time, latitude, longitude), float64, with its gaps."""
    with xr.open_dataset(folder / f"NCEP_{variable}.nc") as ds:
        array = ds[next(iter(ds.data_vars))].load()
    return array.rename(lat="latitude", lon="longitude").astype(np.float64)


def daily_climatology(truth: xr.DataArray, *, window: int) -> xr.DataArray:
    """Mean by day of year, smoothed with a circular window of days."""
    slots = truth["time"].copy(data=day_slots(truth["time"].values)).rename("dayofyear")
    mean = truth.groupby(slots).mean("time")
    days = np.arange(-(window // 2), window // 2 + 1)
    return sum(mean.roll(dayofyear=int(d), roll_coords=False) for d in days) / window


def memory(z500: xr.DataArray) -> list[float]:
    """Autocorrelation of the anomaly of the box mean at the leads."""
    mean = z500.where(z500.notnull().all(("latitude", "longitude")), drop=True).mean(("latitude", "longitude"))
    slots = mean["time"].copy(data=day_slots(mean["time"].values)).rename("dayofyear")
    anomaly = (mean.groupby(slots) - mean.groupby(slots).mean("time")).values
    return [float(np.corrcoef(anomaly[: -h // 24], anomaly[h // 24 :])[0, 1]) for h in LEADS]


def rows_of(variable: str) -> list[str]:
    """Rows of the table for one variable."""
    whole, (title, unit) = read(variable), NAMES[variable]
    truth = whole.sel(time=SCORED)
    climatology = daily_climatology(whole.sel(time=FITTED), window=WINDOW)
    init = truth["time"].values[: -LEADS[-1] // 24]
    forecast = simple.persistence_forecast(truth, init_times=init, leads=LEADS)
    at_valid = simple.climatology_forecast(climatology, init_times=init, leads=LEADS)
    mask = align.at_valid_time(truth.notnull(), forecast) & forecast.notnull()
    lines = []
    how = {"dims": metrics.SPACE, "mask": mask}
    mse, reference = metrics.mse(forecast, truth, **how), metrics.mse(at_valid, truth, **how)
    acc = metrics.acc(forecast, truth, climatology=climatology, **how)
    for i, lead in enumerate(LEADS):
        counted = np.isfinite(mse.isel(lead_time=i).values)
        e, c, a = (x.isel(lead_time=i).values[counted] for x in (mse, reference, acc))
        n = len(e)
        block = bootstrap.block_length(e)
        weights = bootstrap.resample_weights(n, block=block)
        skill, low, high = _with_interval([e, c], lambda e, c: 1 - e / c, weights, block)
        corr, clow, chigh = _with_interval([a], lambda a: a, weights, block)
        days = "1 day" if lead == 24 else f"{lead // 24} days"
        digits = 0 if e.mean() > 1e3 else 2
        rmse = [f"{np.sqrt(x.mean()):.{digits}f}" for x in (e, c)]
        first = f"{title} [{unit}]" if i == 0 else ""
        lines.append(
            f"| {first} | {n} | {days} | {rmse[0]} | {rmse[1]} | {skill:.2f} [{low:.2f}, {high:.2f}] | "
            f"{corr:.2f} [{clow:.2f}, {chigh:.2f}] |"
        )
    return lines


def _with_interval(parts, finish, weights, block):
    low, high = bootstrap.interval(parts, finish, weights=weights, block=block)
    return float(finish(*[p.mean() for p in parts])), float(low), float(high)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--write", action="store_true", help="write docs/real-data.md")
    given = command.parse_args()
    z500 = read("Z500")
    missing = int(z500.isnull().any(("latitude", "longitude")).sum())
    memory_row = "| " + " | ".join(f"{r:.2f}" for r in memory(z500)) + " |"
    rows = "\n".join(line for name in NAMES for line in rows_of(name))
    page = PAGE.format(missing=missing, window=WINDOW, memory=memory_row, rows=rows)
    print(page)
    if given.write:
        (ROOT / "docs" / "real-data.md").write_text(page)


if __name__ == "__main__":
    main()
