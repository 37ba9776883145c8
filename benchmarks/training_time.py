"""What more minutes of training give: the demo's planet and network, longer, with more years and more of
the time at three and four steps in a row.

Each run has the demo's configuration with the settings of LONGER and as many steps as fit into its minutes at the rate
of a short run, so that the load of the machine during the real run changes nothing; then all init times of the test
months are forecast and scored. Trainings resume when rerun; finished ones are only scored again. References are the
demo's scores, so `make demo` first.

    python benchmarks/training_time.py --minutes 15 60 120
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.recipe import CONFIGS
from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, parser
from model.training.metrics_log import read_metrics
from pipeline.config import load
from pipeline.provenance import read_receipt

DEMO = CONFIGS / "demo.yaml"
LONGER = [
    "name=longer",
    "data.period={start: 2001-01-01, end: 2010-12-31}",
    "data.splits.train=[{start: 2001-01-01, end: 2003-07-31}, {start: 2004-10-01, end: 2010-12-31}]",
    "data.normals.window_days=31",
    "training.rollout=[[0, 1], [0.35, 2], [0.55, 3], [0.7, 4]]",
    "training.validate_every=2000",
    "training.checkpoint_every=500",
    "training.learning_rate=2.0e-3",
    "training.ema_decay=0.995",
    "evaluation.twins.models=[]",
]
"""The demo's test months, seven more years to train on, and more steps in a row."""
PROBE = 40
"""Steps of a short run."""


def run(stage: str, settings: list[str], *, threads: int) -> None:
    """A stage, as the command line runs it."""
    words = [word for item in settings for word in ("--set", item)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline", stage, "--config", str(DEMO), *words]
    subprocess.run(command, check=True, cwd=ROOT, env=environment)


def steps_per_second(settings: list[str], *, threads: int) -> float:
    """Of the better of two short runs."""
    found = []
    for seed in (1000, 1001):
        short = [*settings, f"training.steps={PROBE}", f"training.seed={seed}", "training.validate_every=40"]
        run("train", short, threads=threads)
        config: Any = load(DEMO, short)
        trained = [r for r in read_metrics(config.paths.metrics) if r["kind"] == "train"]
        found.append(float(trained[-1]["samples_per_second"]) / config.training.batch_size)
    return max(found)


def scores(config: Any, model: str) -> dict[str, dict[str, float]]:
    """ACC of a model by channel and lead [h], over the globe."""
    found: dict[str, dict[str, float]] = {}
    with (config.paths.scores / "scores.csv").open() as file:
        for row in csv.DictReader(file):
            if row["model"] == model and row["metric"] == "acc" and row["region"] == "globe":
                level = row["level"].split(".")[0]
                found.setdefault(row["variable"] + level, {})[row["lead"]] = round(float(row["value"]), 4)
    return found


def entry(config: Any, *, rate: float) -> dict[str, Any]:
    """A finished experiment: its training and its ACC; minutes are those of its steps at the rate measured."""
    facts = read_receipt(config, stage="train")["facts"]
    known = {"steps": facts["steps"], "samples": facts["steps"] * config.training.batch_size}
    minutes = round(facts["steps"] / rate / 60, 1)
    return {"minutes": minutes, **known, "seconds": facts["seconds"], "acc": scores(config, config.name)}


def main() -> None:
    command = parser(__doc__)
    lengths = command.add_mutually_exclusive_group()
    lengths.add_argument("--minutes", nargs="+", type=float, default=[15.0, 60.0])
    lengths.add_argument("--steps", nargs="+", type=int, help="instead of minutes")
    command.add_argument("--directory", default=str(ROOT / "results" / "longer"))
    command.add_argument("--threads", type=int, default=torch.get_num_threads())
    command.add_argument("--demo", nargs="*", default=[], help="settings of the demo that is the reference")
    given = command.parse_args()
    settings = [*LONGER, f"directory={given.directory}"]
    for stage in ("simulate", "regrid", "normals"):
        run(stage, settings, threads=given.threads)
    rate = steps_per_second(settings, threads=given.threads)
    rows = [entry(load(DEMO, given.demo), rate=rate)]
    for steps in given.steps or [int(60 * minutes * rate) for minutes in given.minutes]:
        longer = [*settings, f"training.steps={steps}"]
        for stage in ("train", "forecast", "score"):
            run(stage, longer, threads=given.threads)
        rows.append(entry(load(DEMO, longer), rate=rate))
    references = {name: scores(load(DEMO, given.demo), name) for name in ("ceiling", "coarse", "linear", "persistence")}
    for row in rows:
        week = row["acc"]["z500"]["168"]
        over = {name: round(week / of["z500"]["168"], 3) for name, of in references.items() if "z500" in of}
        print(
            f"{row['minutes']} min, {row['steps']} steps: ACC of z500 at 7 days {week}, over that of {over}", flush=True
        )
    about = {"threads": given.threads, "steps_per_second": round(rate, 3)}
    print(write("training_time", {**about, "rows": rows, "references": references}))


if __name__ == "__main__":
    main()
