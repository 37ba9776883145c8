"""The plan of the train stage for forecasts."""

from __future__ import annotations

from typing import Unpack

from model.training.plan_stage import PlanOptions, plan_stage
from model.weather.task import Forecasting
from pipeline.console import say
from pipeline.weather import foresight
from pipeline.weather.config import WeatherConfig


def run_plan(config: WeatherConfig, **options: Unpack[PlanOptions]) -> None:
    """Say what will not work as configured, then plan; see `plan_stage` for arguments and errors."""
    task = Forecasting.planned(config)
    for line in foresight.look_ahead(config):
        say(f"plan: {line}")
    otherwise = "the store's fields take {size} of host memory if they fit; otherwise they are read from the store"
    plan_stage(task, config, what="fields", host_bytes=host_bytes(config), otherwise=otherwise, **options)


def host_bytes(config: WeatherConfig) -> int:
    """What the store's fields take in a rank's host memory where the trainer finds room for them."""
    data, layout = config.data, config.training.layout
    periods = [*config.splits.train, *config.splits.validation]
    times = sum((p.end - p.start).total_seconds() / 3600 // data.step_hours + 1 for p in periods)
    slots = 366 * max(1, 24 // data.step_hours)
    values = (int(times) + slots) * len(data.channels.dynamic) * data.regrid.grid.size
    return int(values * 4 / layout.channel)
