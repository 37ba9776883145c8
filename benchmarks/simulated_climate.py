"""The simulated atmosphere against ERA5's mean and standard deviation by level, and how fast its weather changes.

Claims: z500's mean is within 3% of ERA5's, standard deviations of z, t and u at 500 and 850 hPa within a factor of 2;
the flow is turbulent (persistence is useless after some days, and a run from a slightly different state diverges).

    python -m pipeline simulate --config workflows/config/demo.yaml
    python benchmarks/simulated_climate.py

ERA5's moments are over all times and grid points, not weighted by area; so are ours here. The archive has rows on the
poles and 5 degrees, ERA5's statistics are of 0.25 degrees.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, parser
from pipeline import store
from pipeline.config import load
from pipeline.grid import Grid
from pipeline.weather.config import WeatherConfig as Config
from pipeline.weather.variables import BY_SHORT
from preprocess.simulation.setup import SimulationSetup

REFERENCE = ROOT.parent / "shared" / "reference" / "real" / "era5_level_statistics"
Array = NDArray[np.floating[Any]]
UPPER = ("z", "t", "u", "v", "q")
LONG = {short: BY_SHORT[short].long for short in (*UPPER, "t2m", "u10", "v10")}
FIELDS = (("z", 500), ("t", 500), ("t", 850), ("u", 850), ("q", 700), ("t", 50), ("t2m", None), ("u10", None))
"""Channels whose persistence is measured."""
WANTED = (("z", 500), ("t", 850), ("t2m", None))
"""Channels of the perturbed runs."""
ERA5 = {"mean": "mean_by_level", "std": "stddev_by_level", "change": "diffs_stddev_by_level"}
"""Files of ERA5's statistics."""
PERSISTENCE_DAYS = (1, 3, 7, 14)
TWIN_DAYS = (1, 3, 7, 10, 14, 21, 30)


def field_of(archive: xr.Dataset, short: str, level: int | None) -> Array:
    """A channel at all times, (time, latitude, longitude)."""
    data = archive[LONG[short]]
    return (data if level is None else data.sel(level=level)).values


def moments(archive: xr.Dataset, reference: Path) -> list[dict[str, Any]]:
    """Mean, standard deviation and that of 12-hour differences, ours and ERA5's, for each variable and level."""
    era5 = {key: xr.open_dataset(reference / f"{file}.nc") for key, file in ERA5.items()}
    hours = int(np.diff(archive["time"].values[:2])[0] / np.timedelta64(1, "h"))
    rows = []
    for short, name in LONG.items():
        levels = [p for p in archive["level"].values if p in era5["mean"]["level"].values] if short in UPPER else [None]
        for level in levels:
            values = field_of(archive, short, level).astype(np.float64)
            step = 12 // hours
            ours = {"mean": values.mean(), "std": values.std(), "change": (values[step:] - values[:-step]).std()}
            row: dict[str, Any] = {"variable": short, "level": None if level is None else int(level)}
            for key, of in era5.items():
                theirs = float(of[name] if level is None else of[name].sel(level=level))
                row |= {key: float(ours[key]), f"{key}_era5": theirs}
            rows.append(row)
    return rows


def anomalies(field: Array, times: Array) -> Array:
    """(time, latitude, longitude) without the mean, two harmonics of the year and the diurnal cycle."""
    since = (times - times[0]) / np.timedelta64(1, "h")
    year = 2.0 * np.pi * since / (24.0 * 365.2425)
    hours = np.unique(since % 24)
    columns = [f(k * year) for k in (1, 2) for f in (np.sin, np.cos)] + [since % 24 == h for h in hours]
    design = np.stack(columns, axis=1).astype(np.float64)
    flat = field.reshape(len(field), -1).astype(np.float64)
    fit, *_ = np.linalg.lstsq(design, flat, rcond=None)
    return (flat - design @ fit).reshape(field.shape)


def correlation(a: Array, b: Array, weight: Array) -> float:
    """Anomaly correlation, mean over times."""
    over = (-2, -1)
    products = (weight * a * b).sum(over) / np.sqrt((weight * a * a).sum(over) * (weight * b * b).sum(over))
    return float(np.mean(products))


def persistence(archive: xr.Dataset, weight: Array) -> dict[str, dict[int, float]]:
    """Anomaly correlation of a field with itself some days later."""
    found = {}
    for short, level in FIELDS:
        field = anomalies(field_of(archive, short, level), archive["time"].values)
        per_day = int(np.timedelta64(1, "D") / (archive["time"].values[1] - archive["time"].values[0]))
        found[f"{short}{level or ''}"] = {
            d: round(correlation(field[: -d * per_day], field[d * per_day :], weight), 3) for d in PERSISTENCE_DAYS
        }
    return found


def perturbed(state: dict[str, Any], seed: int) -> dict[str, Any]:
    """The state with every spectral coefficient changed by 0.1%."""
    rng = np.random.default_rng(seed)
    for name in ("vorticity", "divergence", "temperature", "humidity"):
        factor = (1.0 + 1e-3 * rng.standard_normal(state[name].shape)).astype(np.float32)
        state = state | {name: state[name] * factor, f"previous_{name}": state[f"previous_{name}"] * factor}
    return state


def twins(config: Config, archive: xr.Dataset, weight: Array, *, starts: int) -> dict[str, dict[int, float]]:
    """The same model from slightly perturbed states: anomaly correlation with the archive, by days."""
    setup = SimulationSetup(config)
    synthesis = setup.synthesis()
    times = archive["time"].values.astype("datetime64[m]")
    truth = {}
    for short, level in WANTED:
        values = field_of(archive, short, level)
        truth[short] = (values, anomalies(values, archive["time"].values))
    total: dict[str, dict[int, list[float]]] = {f"{s}{p or ''}": {d: [] for d in TWIN_DAYS} for s, p in WANTED}
    last = times[-1] - np.timedelta64(max(TWIN_DAYS), "D")
    kept = [t for t in times if setup.state_path(t).exists() and t <= last]
    for number, start in enumerate(kept[:: max(1, len(kept) // starts)][:starts]):
        state = setup.latest_state(start)
        assert state is not None
        state = perturbed(state, number)
        for day in TWIN_DAYS:
            when = start + np.timedelta64(day, "D")
            state = setup.advance_to(state, when)
            fields = synthesis.to_era5([state])
            at = int(np.flatnonzero(times == when)[0])
            for short, level in WANTED:
                values, anomaly = truth[short]
                ours = fields[LONG[short]][0]
                ours = ours if level is None else ours[setup.levels.index(level)]
                forecast = ours - (values[at] - anomaly[at])
                total[f"{short}{level or ''}"][day].append(correlation(forecast, anomaly[at], weight))
    return {name: {d: round(float(np.mean(v)), 3) for d, v in days.items()} for name, days in total.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, ERA5 in brackets."""
    lines = ["| | hPa | mean | std | ratio of std | 12 h change, ratio |", "|---|---|---|---|---|---|"]
    for r in rows:
        size = 1e3 if r["variable"] == "q" else 1.0
        lines.append(
            f"| {r['variable']} | {r['level'] or ''} | {r['mean'] * size:.5g} ({r['mean_era5'] * size:.5g}) "
            f"| {r['std'] * size:.4g} ({r['std_era5'] * size:.4g}) | {r['std'] / r['std_era5']:.2f} "
            f"| {r['change'] / r['change_era5']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write benchmarks/results."""
    command = parser(__doc__)
    command.add_argument("--config", default="workflows/config/demo.yaml")
    command.add_argument("--set", nargs="*", default=[], help="settings as on the command line of the stages")
    command.add_argument("--reference", type=Path, default=REFERENCE, help="folder of ERA5's statistics by level")
    command.add_argument("--twins", type=int, default=12, help="start dates of the perturbed runs; 0 leaves them out")
    given = command.parse_args()
    config = load(given.config, given.set)
    archive = store.open_store(config.paths.simulated)
    grid = Grid.from_dataset(archive)
    rows = moments(archive, given.reference)
    print(table(rows))
    result: dict[str, Any] = {"moments": rows, "persistence_acc": persistence(archive, grid.cell_area)}
    print(json.dumps(result["persistence_acc"], indent=1))
    if given.twins:
        result["twin_acc"] = twins(config, archive, grid.cell_area, starts=given.twins)
        print(json.dumps(result["twin_acc"], indent=1))
    result["seconds_to_simulate"] = json.loads(config.paths.receipt("simulate").read_text())["facts"]["seconds"]
    write("simulated_climate", result)


if __name__ == "__main__":
    main()
