"""Whether a free run stays near the climate of the data: its mean and variance beside the truth's, and a verdict.

Contract: judged by channel and over the globe, from the numbers that the free_run stage kept. A channel

- leaves its range at the first step at which a value is outside the plausible range, or is not finite, before limits;
- grows at the first step at which its departures from the climatology, in the mean square over the `WINDOW_DAYS` up to
  it, are more than `FACTOR` times those of the truth over the run; it fades where they are less than 1 / `FACTOR` of
  them, which is what a run that collapses to the climatology does;
- is bounded otherwise.

`FACTOR` is four, twice the truth's standard deviation or half of it: seasons and slow weather move the mean square over
a month by far less. Gallusser et al. (2025, arXiv 2505.02506) compare maps of the mean and the standard deviation over
ten years; one year is too short for maps.

Letters: T steps, V channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

WINDOW_DAYS = 30
FACTOR = 4.0
SEASONS = {"DJF": (12, 1, 2), "MAM": (3, 4, 5), "JJA": (6, 7, 8), "SON": (9, 10, 11)}
ALL = "all"
"""What the table calls the whole run."""

Kind = Literal["bounded", "leaves its range", "grows", "fades"]


@dataclass(frozen=True)
class Verdict:
    """What became of a channel.

    Attributes:
        channel: short name.
        kind: what happened first.
        day: after how many days; NaN for a bounded one.
    """

    channel: str
    kind: Kind
    day: float = float("nan")


def verdicts(run: xr.Dataset) -> list[Verdict]:
    """One for each channel.

    Args:
        run: from `pipeline.weather.free_run_store.read_free_run`.
    """
    days = step_days(run)
    outside = ~(run["outside"].values == 0)
    ratio = departure_ratio(run)
    found = []
    for v, channel in enumerate(map(str, run["channel"].values)):
        tests: dict[Kind, NDArray[np.bool_]] = {
            "leaves its range": outside[:, v],
            "grows": ratio[:, v] > FACTOR,
            "fades": ratio[:, v] < 1 / FACTOR,
        }
        first: dict[Kind, float] = {kind: float(days[when.argmax()]) for kind, when in tests.items() if when.any()}
        kind = min(first, key=lambda kind: first[kind], default=None)
        found.append(Verdict(channel, "bounded") if kind is None else Verdict(channel, kind, first[kind]))
    return found


def departure_ratio(run: xr.Dataset) -> NDArray[np.float64]:
    """Mean square of the departures over the last month up to each step, over that of the truth, (T, V).

    NaN before the first month is over; of a shorter run, its whole mean stands at the last step.
    """
    numbers = run["numbers"].sel(moment="departure")
    ours, truth = (numbers.sel(source=source).values for source in ("model", "truth"))
    reference = np.nanmean(truth, axis=0)
    hours = run.attrs["contract"]["step_hours"]
    window = min(max(1, round(WINDOW_DAYS * 24 / hours)), len(ours))
    sums = np.cumsum(np.concatenate([np.zeros_like(ours[:1]), ours]), axis=0)
    ratio = np.full_like(ours, np.nan)
    ratio[window - 1 :] = (sums[window:] - sums[:-window]) / window / reference
    return ratio


def free_run_table(run: xr.Dataset) -> pd.DataFrame:
    """Mean and variance by channel and season, of the model and of the truth on the days that the truth has.

    Args:
        run: from `read_free_run`.

    Returns:
        Columns channel, unit, season, days (with a truth), mean, truth_mean, variance, truth_variance (over cells and
        times together), departure, truth_departure (mean square from the climatology), verdict, day.
    """
    there = np.isfinite(run["numbers"].sel(source="truth", moment="mean").values).all(axis=1)
    months = run["time"].values.astype("datetime64[M]").astype(int) % 12 + 1
    hours = run.attrs["contract"]["step_hours"]
    judged = {verdict.channel: verdict for verdict in verdicts(run)}
    rows = []
    for season, members in {ALL: tuple(range(1, 13)), **SEASONS}.items():
        chosen = there & np.isin(months, members)
        if not chosen.any():
            continue
        part = run["numbers"].isel(time=chosen)
        columns = {f"{prefix}{k}": v for prefix, source in _PREFIXES.items() for k, v in _over(part, source).items()}
        for v, channel in enumerate(map(str, run["channel"].values)):
            row = {"channel": channel, "unit": str(run["unit"].values[v]), "season": season}
            row |= {"days": chosen.sum() * hours / 24} | {name: values[v] for name, values in columns.items()}
            rows.append(row | {"verdict": judged[channel].kind, "day": judged[channel].day})
    return pd.DataFrame(rows)


def step_days(run: xr.Dataset) -> NDArray[np.float64]:
    """Days since the init time, (T,)."""
    return np.asarray((run["time"].values - np.datetime64(run.attrs["contract"]["init_time"])) / np.timedelta64(1, "D"))


_PREFIXES = {"": "model", "truth_": "truth"}


def _over(part: xr.DataArray, source: str) -> dict[str, NDArray[np.float64]]:
    """Mean, variance and mean square departure over cells and times, (V,) each."""
    mean, variance, departure = (part.sel(source=source, moment=m).values for m in ("mean", "variance", "departure"))
    total = variance.mean(axis=0) + mean.var(axis=0)
    return {"mean": mean.mean(axis=0), "variance": total, "departure": departure.mean(axis=0)}
