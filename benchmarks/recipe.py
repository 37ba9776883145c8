"""A training recipe found by measurement: variants of the demo's, each given the same time, compared at seven days.

Each variant is the demo's configuration (`base`) with the settings named below; `direct` is demo_direct.yaml, a
network that predicts every lead in one pass. Short runs of all variants first measure their steps per second, from
which their numbers of steps follow: a larger model gets fewer steps, the schedule ends with the time, and the load of
the machine during the real runs changes nothing (the better of two short runs counts; what changes neither network
nor number of steps in a row has the base's rate). The score is the skill against climatology of the fixed
validation pairs, rolled out without calibration, with the averaged weights. Seeds change the initial weights and the
order of samples; the spread of the base over seeds says which differences count. Runs that
benchmarks/results/recipe.json has for the same budget are not made again. Needs the demo's store: `make demo` first.
Also writes docs/recipe.md and its figure.

    python benchmarks/recipe.py                                          # all variants, one seed
    python benchmarks/recipe.py --only base patches --seeds 0 1 2        # some, over three seeds
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support import recipe_page
from benchmarks.support.measure import RESULTS, write
from benchmarks.support.process import ROOT, in_fresh_process, options, parser
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline.config import Config, load
from pipeline.provenance import read_receipt
from preprocess.normals.stage import run_normals

CONFIGS = ROOT / "workflows" / "config"
LEADS = ("24", "72", "168")
PROBE = 24
"""Steps of a short run."""
BARE = "model.features=[]"
"""Neither season nor latitude at the input, as the demo was before."""
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "direct": [],
    "without season and latitude": [BARE],
    "latitude alone": ["model.features=[latitude]"],
    "one step only": ["training.rollout=[[0, 1]]"],
    "up to two steps": ["training.rollout=[[0, 1], [0.5, 2]]"],
    "up to three steps": ["training.rollout=[[0, 1], [0.5, 2], [0.75, 3]]"],
    "four steps, from 40%": ["training.rollout=[[0, 1], [0.4, 2], [0.6, 3], [0.8, 4]]"],
    "up to five steps": ["training.rollout=[[0, 1], [0.3, 2], [0.5, 3], [0.7, 4], [0.85, 5]]"],
    "gradients of the last step": ["training.rollout_gradients=last"],
    "anomaly as target": ["model.predicts=anomaly"],
    "steps of 12 h": ["training.step_hours=[12]"],
    "steps of 12 and 24 h": ["training.step_hours=[12, 24]"],
    "steps of 12 h, without season and latitude": ["training.step_hours=[12]", BARE],
    "steps of 24 and 48 h, without season and latitude": ["training.step_hours=[24, 48]", BARE],
    "noise on inputs, without season and latitude": ["training.input_noise=0.1", BARE],
    "loss by pressure, without season and latitude": ["training.pressure_weighted=true", BARE],
    "patches": ["model.output=patches"],
    "overlap of 1": ["model.output_margin=1"],
    "overlap of 4": ["model.output_margin=4"],
    "smooth": ["model.output=smooth"],
    "adaptive norm": ["model.conditioning=adaptive_norm"],
    "adaptive norm, without season and latitude": ["model.conditioning=adaptive_norm", BARE],
    "width 256": ["model.width=256"],
    "width 256, without season and latitude": ["model.width=256", BARE],
    "width 768": ["model.width=768", "model.heads=12"],
    "depth 1": ["model.depth=1"],
    "depth 3, without season and latitude": ["model.depth=3", BARE],
    "patch 4, width 256": ["model.patch=4", "model.width=256"],
    "unit C": ["model.unit=C"],
    "batch 8": ["training.batch_size=8"],
    "batch 32": ["training.batch_size=32"],
    "learning rate 2e-3": ["training.learning_rate=2.0e-3"],
    "learning rate 5e-3": ["training.learning_rate=5.0e-3"],
    "weight decay 0.1": ["training.weight_decay=0.1"],
    "no averaging": ["training.ema_decay=0.0"],
    "no rotation": ["training.roll_longitude=false"],
    "U-Net, without season and latitude": ["model.architecture=unet", BARE],
    "ResNet, without season and latitude": ["model.architecture=resnet", BARE],
}
SAME_RATE = (
    "training.input_noise",
    "training.pressure",
    "training.learning",
    "training.weight",
)
"""Settings that leave the time of a step as it is, or nearly so."""


def one(case: dict[str, Any]) -> dict[str, Any]:
    """Train a variant: its curve, or with `probe` only its steps per second."""
    torch.set_num_threads(case["threads"])
    folder = Path(tempfile.mkdtemp())
    try:
        if case["probe"]:
            return {"steps_per_second": max(rate(case, folder / str(number)) for number in range(2))}
        config = configured(case, folder, steps=case["steps"])
        start = time.perf_counter()
        run_train(config)
        seconds = time.perf_counter() - start
        facts = read_receipt(config, stage="train")["facts"]
        records = [r for r in read_metrics(config.paths.metrics) if r["kind"] == "validation"]
    finally:
        shutil.rmtree(folder)
    last = records[-1]["leads"]
    return {
        "steps": case["steps"],
        "seconds": round(seconds, 1),
        "parameters": facts["parameters"],
        "skill": {
            lead: {"all": round(last[lead]["skill"], 4)}
            | {k: round(v, 4) for k, v in last[lead]["skill_by_channel"].items()}
            for lead in LEADS
            if lead in last
        },
        "curve": [
            [r["step"], round(r["leads"]["168"]["skill_by_channel"]["z500"], 4)] for r in records if "168" in r["leads"]
        ],
    }


def rate(case: dict[str, Any], folder: Path) -> float:
    """Steps per second of a short run."""
    config = configured(case, folder, steps=PROBE)
    run_train(config)
    trained = [r for r in read_metrics(config.paths.metrics) if r["kind"] == "train"]
    return float(trained[-1]["samples_per_second"]) / config.training.batch_size


def configured(case: dict[str, Any], folder: Path, *, steps: int) -> Config:
    """The demo's configuration with a variant's settings, on the demo's store."""
    validations = 1 if case["probe"] else 4
    training = {"steps": steps, "validate_every": max(1, steps // validations), "checkpoint_every": steps}
    training |= {"warmup_steps": min(50, steps // 6), "tensorboard": "false", "seed": case["seed"]}
    overrides = [f"training.{key}={value}" for key, value in training.items()]
    path = CONFIGS / ("demo_direct.yaml" if case["variant"] == "direct" else "demo.yaml")
    config = load(path, [f"directory={folder}", *overrides, *case["set"]])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(Path(case["data"]).resolve())
    if not config.paths.store.exists():
        raise SystemExit(f"the demo's store must exist, got none at {config.paths.store}; run make demo first")
    if not config.paths.normals.exists():
        run_normals(config)  # steps of another length have changes of their own
    return config


def paced_like(name: str) -> str:
    """The variant whose steps take as long: the base, or that without features, where the rest costs nothing."""
    costly = [item for item in VARIANTS[name] if not item.startswith(SAME_RATE)]
    known = {(): "base", (BARE,): "without season and latitude"}
    return name if name == "direct" else known.get(tuple(costly), name)


class Study:
    """The rows of all runs, written after every one.

    Args:
        given: the command line.
        budget: what each run may spend, in words.
    """

    def __init__(self, given: argparse.Namespace, budget: str) -> None:
        self.given, self.budget = given, budget
        path = RESULTS / "recipe.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        same = found.get("budget") == budget and found.get("threads") == given.threads
        if found and not same and not given.fresh:
            raise SystemExit(
                f"error: {path.name} holds runs of {found['budget']} on {found['threads']} thread(s), got {budget} on "
                f"{given.threads}; ask for the same, or start anew with --fresh"
            )
        self.rates: dict[str, float] = found["steps_per_second"] if same else {}
        self.rows: list[dict[str, Any]] = found["rows"] if same else []

    def pace(self, name: str) -> None:
        """Measure a variant's rate, unless it is known."""
        if name not in self.rates:
            self.rates[name] = self._measure(name, seed=0, probe=True)["steps_per_second"]
            self._write()

    def run(self, name: str, *, seed: int) -> None:
        """Train a variant with a seed, unless that has been done."""
        if any(row["variant"] == name and row["seed"] == seed for row in self.rows):
            return
        steps = max(PROBE, int(self.given.seconds * self.rates[paced_like(name)]))
        self.rows.append(self._measure(name, seed=seed, probe=False, steps=steps))
        print(json.dumps({k: v for k, v in self.rows[-1].items() if k != "curve"}), flush=True)
        self._write()
        recipe_page.publish(self.rows, budget=self.budget, threads=self.given.threads)

    def _measure(self, name: str, *, seed: int, **more: Any) -> dict[str, Any]:
        case = {"variant": name, "seed": seed, "set": VARIANTS[name], "data": self.given.data}
        found = in_fresh_process(__file__, case | {"threads": self.given.threads} | more)
        if "error" in found:
            raise SystemExit(f"error: {name}: {found['error']}")
        return {key: value for key, value in found.items() if key not in ("data", "threads", "probe")}

    def _write(self) -> None:
        about = {"budget": self.budget, "threads": self.given.threads}
        write("recipe", {**about, "steps_per_second": self.rates, "rows": self.rows})


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--data", default=str(ROOT / "results" / "demo" / "data"), help="folder of the demo's store")
    command.add_argument("--seconds", type=float, default=240.0, help="of training, for each run")
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    command.add_argument("--seeds", nargs="+", type=int, default=[0])
    command.add_argument("--fresh", action="store_true", help="drop runs of another budget")
    given = options(command, one)
    study = Study(given, f"{given.seconds:g} s")
    for name in dict.fromkeys(map(paced_like, given.only)):
        study.pace(name)
    for name in given.only:
        for seed in given.seeds:
            study.run(name, seed=seed)


if __name__ == "__main__":
    main()
