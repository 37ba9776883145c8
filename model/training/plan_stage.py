"""The plan of the train stage, of any workload: what a rank will hold, found before anything is started."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

from model.training.plan_times import Asked, plan_times
from model.training.planner import plan_training, print_plan, size_text
from model.training.task import PlannedTask
from pipeline import files
from pipeline.config import Config
from pipeline.console import say


class PlanOptions(TypedDict, total=False):
    """What the command line asks.

    Attributes:
        memory: of one rank, such as "16GB"; None plans without a limit.
        device: "cpu" or "cuda"; by default what this machine would train on.
        hardware: a machine of `model.costs.hardware`: say what the training takes there, with the best layouts.
        nodes: of it; None for the configured number of ranks.
        calibrate: measure this machine for it.
    """

    memory: str | None
    device: str | None
    hardware: str | None
    nodes: int | None
    calibrate: bool


def plan_stage(
    task: PlannedTask[Any],
    config: Config,
    *,
    what: str,
    host_bytes: int,
    otherwise: str,
    **options: Unpack[PlanOptions],
) -> None:
    """Print what a rank of the configured layout holds, and write it to <results>/plan-train.json.

    Args:
        task: of the workload, by shapes alone.
        config: the experiment; no stage need have run where it says which channels there are.
        what: is held in host memory beside it, e.g. "fields".
        host_bytes: of it on a rank.
        otherwise: a sentence on what that is and when it is not held, with {size} for the bytes.
        options: see `PlanOptions`.

    Raises:
        ValueError: it does not fit, naming the nearest layout that does; or a layout that the model does not allow.
    """
    memory = options.get("memory")
    asked = Asked(options.get("hardware"), options.get("nodes"), options.get("calibrate", False))
    if asked.name is not None:
        if options.get("device") is not None:
            raise ValueError(f"--device must be absent with --hardware, which decides it, got {options['device']}")
        content = plan_times(task, config.training, asked=asked, memory=memory, folder=config.root)
        files.write_json(config.root / "plan-train-hardware.json", content)
        return
    found, content, refusal = plan_training(task, config.training, memory=memory, device=options.get("device"))
    content[f"bytes_of_{what}_in_host_memory"] = host_bytes
    files.write_json(config.root / "plan-train.json", content)
    print_plan(found, config.training, name=config.name, device=content["device"])
    say(f"plan: in addition, {otherwise.format(size=size_text(host_bytes))}")
    if refusal is not None:
        raise ValueError(refusal)
