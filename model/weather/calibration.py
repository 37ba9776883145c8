"""Calibration: how much of the anomaly to keep at each lead, channel and latitude, fitted on the validation periods.

Contract: the factor is the area-weighted regression of the true anomaly on the forecast one through zero, over init
times spread evenly over the validation periods and over cells within 20 degrees of latitude, weighted less the farther
away, of both hemispheres, so that a season at hand does not decide; kept between 0.01 and 1. In the tropics anomalies
of heights and temperatures are small, and a factor of the whole globe would leave errors there that are larger than
they. A forecast that knows nothing any more becomes the climatology; a hundredth is left of it, so that it has an ACC.
Test periods are never read. The factors are stored beside the checkpoints that they belong to, and used again while
model, leads and periods are the same.

Letters: N init times, E leads, V predicted channels, H/W grid.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model.parallel import launch
from model.weather.job import Job, climatology_at_leads, forecast_fields
from pipeline import files
from pipeline.console import terminal_progress
from pipeline.grid import Grid
from pipeline.store import contract_digest
from pipeline.weather.config import WeatherConfig
from pipeline.weather.times import find_pairs, find_times

STARTS = 64
"""Most init times of the fit."""
TOGETHER = 16
"""Of these, issued at a time."""
REACH = 20.0
"""How far away in latitude cells have a say [degrees]."""
LEAST = 0.01
"""Smallest factor: an anomaly of zero has no correlation."""


@dataclass(frozen=True)
class Calibration:
    """Factors of a model's anomalies.

    Attributes:
        factors: (E, V, H), between 0.01 and 1.
        lead_hours: E leads [h].
        channels: V names.
        latitude: H [degrees].
        init_times: of the fit.
    """

    factors: list[list[list[float]]]
    lead_hours: list[int]
    channels: list[str]
    latitude: list[float]
    init_times: list[str]

    @property
    def array(self) -> NDArray[np.float32]:
        """The factors, (E, V, H)."""
        return np.array(self.factors, dtype=np.float32)

    def applied(self, state: NDArray[np.float32], climatology: NDArray[np.float32]) -> NDArray[np.float32]:
        """Forecasts with calibrated anomalies.

        Args:
            state: (N, E, V, H, W), canonical units.
            climatology: the same shape, at the valid times.
        """
        scaled: NDArray[np.float32] = climatology + self.array[..., None] * (state - climatology)
        return scaled


def calibrate(config: WeatherConfig, job: Job, folder: Path, *, console: Console) -> Calibration:
    """The factors of a model: those stored, or fitted now by all ranks together.

    Args:
        config: the experiment.
        job: with the training store's fields.
        folder: of the training, where they are kept.
        console: for the progress bar.

    Raises:
        ValueError: the validation periods are too short for some lead.
    """
    leads, whole = config.forecast.lead_hours, job.predictor.whole
    about = _about(config, model=job.digest, steps=job.steps)
    path = _path(folder, about)
    if launch.from_main(path.exists()):
        return _read(path)
    try:
        pairs = find_pairs(
            whole.times,
            lead_hours=leads,
            periods=config.splits.validation,
            history_hours=config.model.history_hours,
            all_leads=True,
        )
    except ValueError as error:
        raise ValueError(f"forecast.calibrate needs all leads inside the validation periods: {error}") from None
    init = pairs.init[np.unique(np.linspace(0, len(pairs) - 1, min(STARTS, len(pairs))).round().astype(int))]
    found = Calibration(
        fit(config, job, init, console=console),
        list(leads),
        list(whole.channels),
        whole.coords["latitude"].values.tolist(),
        np.datetime_as_string(whole.times[init], unit="h").tolist(),
    )
    if launch.is_main():
        files.write_json(path, json.loads(json.dumps(about | asdict(found))))
    return found


def stored(config: WeatherConfig, folder: Path, *, model: str, steps: Sequence[int]) -> Calibration | None:
    """The factors that forecasts of a model were issued with; None where there are none.

    Args:
        config: the experiment.
        folder: of the training.
        model: digest of the weights.
        steps: with which forecasts are rolled out [h].
    """
    path = _path(folder, _about(config, model=model, steps=steps))
    return _read(path) if config.calibrates and path.exists() else None


def _about(config: WeatherConfig, *, model: str, steps: Sequence[int]) -> dict[str, Any]:
    """What factors belong to."""
    periods = [p.model_dump(mode="json") for p in config.splits.validation]
    leads = config.forecast.lead_hours
    return {"model": model, "leads": leads, "steps": list(steps), "reach": REACH, "periods": periods}


def _path(folder: Path, about: dict[str, Any]) -> Path:
    return folder / f"calibration-{contract_digest(about)[:8]}.json"


def _read(path: Path) -> Calibration:
    content = files.read_json(path)
    return Calibration(**{key: content[key] for key in Calibration.__dataclass_fields__})


def fit(config: WeatherConfig, job: Job, init: NDArray[np.int64], *, console: Console) -> list[list[list[float]]]:
    """The factors (E, V, H) from some init times, the same on every rank.

    Args:
        config: the experiment.
        job: with the training store's fields.
        init: their positions in the store.
        console: for the progress bar.
    """
    whole, leads = job.predictor.whole, np.asarray(config.forecast.lead_hours)
    grid = Grid(whole.coords["latitude"].values, whole.coords["longitude"].values)
    sums = np.zeros((3, len(leads), len(whole.channels), grid.shape[0]))
    progress = terminal_progress("init times", on=console)
    with progress:
        task = progress.add_task("calibrate", total=len(init))
        for first in range(0, len(init), TOGETHER):
            some = init[first : first + TOGETHER]
            values = forecast_fields(config, job, some)
            progress.advance(task, len(some))
            if values is None:
                continue
            forecast = whole.scaling.anomaly(values, climatology_at_leads(job, some, config.forecast.lead_hours))
            positions = find_times(whole.times, whole.times[some][:, None] + leads.astype("timedelta64[h]"))
            truth = whole.anomalies(positions.ravel()).numpy().reshape(forecast.shape)
            for i, (one, other) in enumerate(((forecast, truth), (forecast, forecast), (truth, truth))):
                sums[i] += np.einsum("nevhw,nevhw->evh", one, other, dtype=np.float64)
    found: list[list[list[float]]] = factors(*launch.from_main(sums), grid=grid).tolist()
    return found


def factors(
    cross: NDArray[np.float64], square: NDArray[np.float64], truth: NDArray[np.float64], *, grid: Grid
) -> NDArray[np.float64]:
    """Regression factors by latitude, (E, V, H).

    Args:
        cross: (E, V, H) sums of forecast times true anomaly over init times and longitudes.
        square: likewise, of forecast anomalies squared.
        truth: likewise, of true anomalies squared; rows count in proportion to it, so that none outweighs the others.
        grid: of the rows.
    """
    away = np.abs(np.abs(grid.latitude)[:, None] - np.abs(grid.latitude))
    weight_HH = np.maximum(0.0, 1.0 - away / REACH) * grid.area_weights.sum(axis=1)
    cross, square = (
        np.divide(sums, truth, out=np.zeros_like(sums), where=truth > 0) @ weight_HH.T for sums in (cross, square)
    )
    return np.clip(np.divide(cross, square, out=np.zeros_like(cross), where=square > 0), LEAST, 1.0)
