"""Whether a stage of this package has nothing left to do, found out without loading torch.

Contract: as in `preprocess.complete`.
"""

from __future__ import annotations

from model.training.saved import newest
from pipeline.store import read_manifest
from pipeline.weather.config import WeatherConfig


def complete_train(config: WeatherConfig) -> str | None:
    """Whether the training has ended and its last checkpoint is there."""
    found = newest(config.paths.checkpoints)
    if found is None or not config.paths.receipt("train").exists():
        return None
    return f"train: already complete, {found}"


def complete_forecast(config: WeatherConfig) -> str | None:
    """Whether the forecasts of the test period are there and finished; those from given states are always looked at."""
    paths = [config.paths.forecast, *config.paths.uncalibrated.values()]
    there = config.paths.receipt("forecast").exists() and all(path.exists() for path in paths)
    if config.forecast.initial is not None or not there:
        return None
    for path in paths:
        read_manifest(path, stage="python -m pipeline forecast")
    return f"forecast: already complete, {paths[0]}"


def complete_baselines(config: WeatherConfig) -> str | None:
    """Whether the forecasts of all networks are there."""
    paths = list(config.paths.network_forecasts.values())
    if not paths or not config.paths.receipt("baselines").exists() or not all(path.exists() for path in paths):
        return None
    return f"baselines: complete in {', '.join(map(str, paths))}"
