"""The plan of the train stage: what a rank will hold, found before anything is started."""

from __future__ import annotations

from model.training.plan_times import Asked, plan_times
from model.training.planner import plan_training, print_plan, size_text
from model.weather.task import Forecasting
from pipeline import files
from pipeline.console import say
from pipeline.weather import foresight
from pipeline.weather.config import WeatherConfig


def run_plan(
    config: WeatherConfig,
    *,
    memory: str | None = None,
    device: str | None = None,
    hardware: str | None = None,
    nodes: int | None = None,
    calibrate: bool = False,
) -> None:
    """Print what a rank of the configured layout holds, and write it to <results>/plan-train.json.

    Args:
        config: the experiment; no stage need have run.
        memory: of one rank, such as "16GB"; None plans without a limit.
        device: "cpu" or "cuda"; by default what this machine would train on.
        hardware: a machine of `model.costs.hardware`: say what the training takes there, with the best layouts.
        nodes: of it; None for the configured number of ranks.
        calibrate: measure this machine for it.

    Raises:
        ValueError: it does not fit, naming the nearest layout that does; or a layout that the model does not allow.
    """
    task = Forecasting.planned(config)
    for line in foresight.look_ahead(config):
        say(f"plan: {line}")
    asked = Asked(hardware, nodes, calibrate)
    if asked.name is not None:
        content = plan_times(task, config.training, asked=asked, memory=memory, folder=config.root)
        files.write_json(config.root / "plan-train-hardware.json", content)
        return
    found, content, refusal = plan_training(task, config.training, memory=memory, device=device)
    content["bytes_of_fields_in_host_memory"] = host_bytes(config)
    files.write_json(config.root / "plan-train.json", content)
    print_plan(found, config.training, name=config.name, device=content["device"])
    say(
        f"plan: beside it, the store's fields take {size_text(content['bytes_of_fields_in_host_memory'])} of host "
        "memory where there is room; they are read from the store otherwise"
    )
    if refusal is not None:
        raise ValueError(refusal)


def host_bytes(config: WeatherConfig) -> int:
    """What the store's fields take in a rank's host memory where the trainer finds room for them."""
    data, layout = config.data, config.training.layout
    periods = [*config.splits.train, *config.splits.validation]
    times = sum((p.end - p.start).total_seconds() / 3600 // data.step_hours + 1 for p in periods)
    slots = 366 * max(1, 24 // data.step_hours)
    values = (int(times) + slots) * len(data.channels.dynamic) * data.regrid.grid.size
    return int(values * 4 / layout.channel)
