"""The plan of the train stage: what a rank will hold, found before anything is started."""

from __future__ import annotations

from model.imaging.task import Autoencoding
from model.training.plan_times import Asked, plan_times
from model.training.planner import plan_training, print_plan, size_text
from pipeline import files
from pipeline.console import say
from pipeline.imaging.config import ImagingConfig


def run_plan(
    config: ImagingConfig,
    *,
    memory: str | None = None,
    device: str | None = None,
    hardware: str | None = None,
    nodes: int | None = None,
    calibrate: bool = False,
) -> None:
    """Print what a rank of the configured layout holds, and write it to <results>/plan-train.json.

    Args:
        config: the experiment; no stage need have run where the configuration says which bands there are.
        memory: of one rank, such as "16GB"; None plans without a limit.
        device: "cpu" or "cuda"; by default what this machine would train on.
        hardware: a machine of `model.costs.hardware`: say what the training takes there, with the best layouts.
        nodes: of it; None for the configured number of ranks.
        calibrate: measure this machine for it.

    Raises:
        ValueError: it does not fit, naming the nearest layout that does; or a layout that the model does not allow.
    """
    task = Autoencoding.planned(config)
    asked = Asked(hardware, nodes, calibrate)
    if asked.name is not None:
        content = plan_times(task, config.training, asked=asked, memory=memory, folder=config.root)
        files.write_json(config.root / "plan-train-hardware.json", content)
        return
    found, content, refusal = plan_training(task, config.training, memory=memory, device=device)
    per_tile = len(task.network.channels) * config.data.tile**2 * 4 // config.training.layout.channel
    content["bytes_of_a_tile_in_host_memory"] = per_tile
    files.write_json(config.root / "plan-train.json", content)
    print_plan(found, config.training, name=config.name, device=content["device"])
    say(
        f"plan: beside it, every tile of the training images takes {size_text(per_tile)} of host memory where there is "
        "room for all; they are read from the store otherwise"
    )
    if refusal is not None:
        raise ValueError(refusal)
