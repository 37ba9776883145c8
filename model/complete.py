"""Whether a stage of this package has nothing left to do, found out without loading torch.

Contract: as in `preprocess.complete`.
"""

from __future__ import annotations

from model.training.saved import newest
from pipeline.opening import finished
from pipeline.weather.config import WeatherConfig


def complete_train(config: WeatherConfig) -> str | None:
    """Whether the training has ended and its last checkpoint is there."""
    found = newest(config.paths.checkpoints)
    if found is None or not config.paths.receipt("train").exists():
        return None
    return f"train: already complete, {found}"


def complete_forecast(config: WeatherConfig, *, verify: bool = False, mend: bool = True) -> str | None:
    """Whether the forecasts of the test period are there, finished and undamaged.

    Those from given states are always looked at.

    Args:
        config: the experiment.
        verify: as for `pipeline.opening.finished`.
        mend: likewise; False on every rank but the one that writes.
    """
    paths = [config.paths.forecast, *config.paths.uncalibrated.values()]
    done = [finished(path, verify=verify, mend=mend) for path in paths]
    if config.forecast.initial is not None or not all(done) or not config.paths.receipt("forecast").exists():
        return None
    return f"forecast: already complete, {paths[0]}"


def complete_free_run(config: WeatherConfig, *, verify: bool = False, mend: bool = True) -> str | None:
    """Whether the free run is there, finished and undamaged; arguments as above."""
    path = config.paths.free_run
    if not finished(path, verify=verify, mend=mend) or not config.paths.receipt("free_run").exists():
        return None
    return f"free_run: already complete, {path}"


def complete_baselines(config: WeatherConfig, *, verify: bool = False, mend: bool = True) -> str | None:
    """Whether the forecasts of all networks are there, finished and undamaged; arguments as above."""
    paths = list(config.paths.network_forecasts.values())
    done = [finished(path, verify=verify, mend=mend) for path in paths]
    if not paths or not all(done) or not config.paths.receipt("baselines").exists():
        return None
    return f"baselines: complete in {', '.join(map(str, paths))}"
