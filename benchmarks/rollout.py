"""Training through 1, 2 and 4 steps in a row, and a roll-out of 30 days: time and memory, as multiples of one step.

Claim: a training step through K steps costs at most 1.1 K times one, with gradients through all of them; with those of
the last step alone (the pushforward trick), or with activations recomputed, it takes less memory. The size is that of
the recipe for models with steps: 78 channels, patches of 8, width 512, depth 2, 16 samples, changes over 24 h.

    python benchmarks/rollout.py                  # on this processor, some minutes
    python benchmarks/rollout.py --device cuda
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import measure, write
from benchmarks.support.process import ROOT, options, parser, part
from model.parallel.launch import process_group
from model.parallel.mesh import build_mesh
from model.training.rehearsal import Rehearsal
from model.weather.task import Forecasting
from model.weather.trajectories import Trajectories
from pipeline.config import load
from pipeline.weather.config import WeatherConfig

DEMO = ROOT / "workflows" / "config" / "demo.yaml"
SIZE = (
    "model.predicts=change model.patch=8 model.width=512 model.depth=2 model.heads=8 model.decoder_depth=0 "
    "model.groups.by=flat training.step_hours=[24] training.batch_size=16 training.anomaly_weighted=false "
    "training.lead_weights=[] forecast.lead_hours=[24,720]"
)
STEPS = (1, 2, 4)
FORMS = {"all": "", "last": "training.rollout_gradients=last", "recomputed": "training.recompute=true"}
DAYS, INITS, TOGETHER = 30, 214, 32
"""Of the roll-out; the demo's init times."""


def experiment(steps: int, form: str) -> WeatherConfig:
    """The experiment with so many steps in a row."""
    config = load(DEMO, [*SIZE.split(), f"training.rollout=[[0,{steps}]]", *FORMS[form].split()])
    assert isinstance(config, WeatherConfig)
    return config


def one(case: dict[str, Any]) -> dict[str, float]:
    """One variant: a training step, or a roll-out where no form is named."""
    device = torch.device(case["device"])
    config = experiment(case["steps"], case["form"] or "all")
    task = Forecasting.planned(config)
    with process_group(world_size=1):
        mesh = build_mesh(channel=1, device_type=device.type)
        rehearsal = Rehearsal(task, config.training, mesh=mesh, device=device)
        if case["form"]:
            return measure(rehearsal.step, repeats=case["repeats"], device=case["device"])
        batch = task.example(TOGETHER, channels=task.network.channels, device=device, dtype=torch.float32)
        assert isinstance(batch, Trajectories)
        batch = batch.first(1)
        static = batch.static.expand(-1, DAYS, -1, -1, -1)
        whole = Trajectories(**{**vars(batch), "static": static})
        stepper = task.stepper(mesh, device=device)

        def work() -> None:
            with rehearsal.learner.evaluating():
                for _ in stepper.roll(rehearsal.learner.predict, stepper.whole(batch.states)[:, 0], whole, steps=DAYS):
                    pass

        return measure(work, repeats=case["repeats"], device=case["device"])


def main() -> None:
    """Measure every variant."""
    command = parser(__doc__)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--repeats", type=int, default=5)
    chosen = options(command, one)
    rows: list[dict[str, Any]] = []
    for form in FORMS:
        for steps in STEPS:
            if form == "last" and steps == 1:
                continue
            case = {"form": form, "steps": steps, "device": chosen.device, "repeats": chosen.repeats}
            rows.append({"form": form, "steps": steps, **part(__file__, **case)})
            for key in ("wall_s", "tensors_MB"):
                rows[-1][f"{key}_over_one_step"] = round(rows[-1][key] / rows[0][key], 3)
            print(json.dumps(rows[-1]), flush=True)
    rolled = part(__file__, form="", steps=1, device=chosen.device, repeats=max(1, chosen.repeats // 2))
    passes = -(-INITS // TOGETHER)
    month = {
        "days": DAYS,
        "init_times": INITS,
        "seconds": round(rolled["wall_s"] * passes, 2),
        "tensors_MB": rolled["tensors_MB"],
        "forward_over_training_step": round(rolled["wall_s"] / DAYS / TOGETHER * 16 / rows[0]["wall_s"], 3),
    }
    print(json.dumps(month))
    about = {"what": "the demo's 78 channels, patch 8, width 512, depth 2, 16 samples a step", "claim": "1.1 K"}
    print(write(f"rollout_{chosen.device}", {**about, "training": rows, "roll_out": month}))


if __name__ == "__main__":
    main()
