"""A training recipe found by measurement: variants of one base, each given the same time, compared at seven days.

Each variant differs from the base (the demo's configuration with the settings of BASE) only in the settings named
below; `demo` is the demo's configuration as it is, which has adopted what helped. With --seconds, short runs of all
variants first measure their steps per second, from which their numbers of steps follow, so that a larger model gets
fewer steps, the schedule ends with the time, and the load of the machine during the real runs changes nothing (the
better of two runs counts; variants that change neither model nor batch have the base's rate). With --steps, all take
as many steps. The score is the skill against climatology of the fixed validation pairs, forecast with the averaged
weights. A difference below 0.01 is about that of another seed: the base runs with two seeds to show it. Variants that
benchmarks/results/recipe.json has for the same budget are not run again. Needs the demo's store: `make demo` first.
Also writes docs/recipe.md and its figure.

    python benchmarks/recipe.py --seconds 180                      # all variants, 45 minutes
    python benchmarks/recipe.py --steps 250 --only demo "unit C"   # some
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

from benchmarks.support.measure import RESULTS, write
from benchmarks.support.process import ROOT, in_fresh_process, options, parser
from model.training.metrics_log import read_metrics
from model.weather.train import run_train
from pipeline.config import Config, load
from pipeline.provenance import read_receipt

FIGURE = ROOT / "docs" / "images" / "recipe.png"
PAGE = ROOT / "docs" / "recipe.md"
LEAD = "168"
PROBE = 24
"""Steps of a short run."""
BASE = ["model.patch=8", "model.depth=4", "training.batch_size=16", "training.anomaly_weighted=false"]
"""Settings that were varied and that the demo has since changed, so that the study stays comparable."""
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "base, another seed": ["training.seed=1"],
    "demo": [],
    "3 leads alone": ["training.lead_hours=[168, 336, 720]"],
    "7 days alone": ["training.lead_hours=[168]"],
    "leads 1 to 14 days": ["training.lead_hours={start: 24, stop: 336, step: 24}"],
    "loss in anomaly units": ["training.anomaly_weighted=true"],
    "loss by pressure": ["training.pressure_weighted=true"],
    "width 192": ["model.width=192"],
    "width 96": ["model.width=96"],
    "depth 6": ["model.depth=6"],
    "depth 2": ["model.depth=2"],
    "unit C": ["model.unit=C"],
    "one group": ["model.groups.by=flat"],
    "states as input": ["model.network_input=state"],
    "history of 24 h": ["model.history_hours=[24]"],
    "no rotation": ["training.roll_longitude=false"],
    "learning rate 1.5e-3": ["training.learning_rate=1.5e-3"],
    "learning rate 6e-3": ["training.learning_rate=6.0e-3"],
    "weight decay 0.1": ["training.weight_decay=0.1"],
    "dropout 0.1": ["model.dropout=0.1"],
    "no averaging": ["training.ema_decay=0.0"],
    "batch 32": ["training.batch_size=32"],
    "batch 8": ["training.batch_size=8"],
    "depth 2, batch 32": ["model.depth=2", "training.batch_size=32"],
    "patch 4": ["model.patch=4"],
    "patch 16": ["model.patch=16"],
}


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
    last = records[-1]["leads"][LEAD]
    return {
        "steps": case["steps"],
        "seconds": round(seconds, 1),
        "parameters": facts["parameters"],
        "skill_7_days": {
            "all": round(last["skill"], 4),
            **{k: round(v, 4) for k, v in last["skill_by_channel"].items()},
        },
        "curve": [[r["step"], round(r["leads"][LEAD]["skill_by_channel"]["z500"], 4)] for r in records],
    }


def rate(case: dict[str, Any], folder: Path) -> float:
    """Steps per second of a short run."""
    config = configured(case, folder, steps=PROBE)
    run_train(config)
    trained = [r for r in read_metrics(config.paths.metrics) if r["kind"] == "train"]
    return float(trained[-1]["samples_per_second"]) / config.training.batch_size


def configured(case: dict[str, Any], folder: Path, *, steps: int) -> Config:
    """The demo's configuration with a variant's settings, on the demo's store."""
    validations = 1 if case["probe"] else 8
    training = {"steps": steps, "validate_every": max(1, steps // validations), "checkpoint_every": steps}
    training |= {"warmup_steps": min(50, steps // 6), "tensorboard": "false"}
    overrides = [f"training.{key}={value}" for key, value in training.items()]
    config = load(case["config"], [f"directory={folder}", *overrides, *case["set"]])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(Path(case["data"]).resolve())
    if not config.paths.store.exists() or not config.paths.normals.exists():
        raise SystemExit(f"the demo's store must exist, got none at {config.paths.store}; run make demo first")
    return config


def paced_like(name: str) -> str:
    """The variant whose steps take as long: the base unless model or batch differ."""
    other = any(item.startswith(("model.", "training.batch_size")) for item in VARIANTS[name])
    return name if other or name == "demo" else "base"


def earlier(budget: str, *, threads: int) -> list[dict[str, Any]]:
    """Variants measured before with the same budget, which are not measured again."""
    path = RESULTS / "recipe.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    same = found.get("budget") == budget and found.get("threads") == threads
    rows: list[dict[str, Any]] = found["rows"] if same else []
    return rows


def draw(rows: list[dict[str, Any]], figure: Path, *, budget: str) -> None:
    """Curves of z500 skill against the share of the budget, and the last values of all shown channels."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    ordered = sorted(rows, key=lambda row: row["skill_7_days"]["z500"])
    fig, (left, right) = plt.subplots(1, 2, figsize=(11, max(4.0, 0.28 * len(rows) + 2.2)), layout="constrained")
    for row in rows:
        share = [100 * step / row["steps"] for step, _ in row["curve"]]
        style: dict[str, Any] = {"color": "0.7", "zorder": 1}
        if row["variant"] == "demo":
            style = {"color": "C1", "zorder": 2, "label": "the demo's recipe"}
        left.plot(share, [skill for _, skill in row["curve"]], **style)
    left.axhline(0.0, color="0.4", linewidth=0.8)
    left.set(xlabel=f"share of {budget} [%]", ylabel="skill of z500 at 7 days against climatology [1]")
    left.legend(fontsize="small")
    for name, marker in (("z500", "o"), ("t850", "s"), ("t2m", "^"), ("u10", "v")):
        values = [row["skill_7_days"].get(name) for row in ordered]
        right.plot(values, range(len(ordered)), marker, label=name, markersize=5, linestyle="none")
    right.set_yticks(range(len(ordered)), [f"{row['variant']} ({row['steps']})" for row in ordered], fontsize="small")
    right.set(xlabel="skill at 7 days against climatology [1]", title="variants (steps)")
    right.grid(axis="x", color="0.9")
    right.legend(fontsize="small")
    fig.suptitle(f"Training recipes on the simulated atmosphere, {budget} each")
    figure.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(figure, dpi=110)
    plt.close(fig)


def page(rows: list[dict[str, Any]], *, budget: str, threads: int) -> str:
    """docs/recipe.md: the figure and the table, best first."""
    base = next((row["skill_7_days"]["z500"] for row in rows if row["variant"] == "base"), None)
    shown = [name for name in ("z500", "t850", "t2m", "u10") if name in rows[0]["skill_7_days"]]
    lines = [
        "# A training recipe for the demo",
        "",
        f"Written by benchmarks/recipe.py: {budget} for each variant, {threads} thread(s), the simulated atmosphere.",
        "Skill against climatology at 7 days, of the fixed validation pairs; 1 is perfect, 0 is climatology.",
        f"The base is the demo with `{'`, `'.join(BASE)}`; each variant changes the settings named and nothing else.",
        "",
        "![Skill at seven days of the variants](images/recipe.png)",
        "",
        f"| variant | settings | steps | parameters | {' | '.join(shown)} | z500 against the base |",
        f"|---|---|---|---|{'---|' * len(shown)}---|",
    ]
    for row in sorted(rows, key=lambda row: -row["skill_7_days"]["z500"]):
        skill = row["skill_7_days"]
        against = f"{skill['z500'] - base:+.3f}" if base is not None else ""
        settings = ", ".join(f"`{item}`" for item in row["set"]) or f"the {row['variant']}'s"
        values = " | ".join(f"{skill[name]:.3f}" for name in shown)
        lines.append(f"| {row['variant']} | {settings} | {row['steps']} | {row['parameters']} | {values} | {against} |")
    return "\n".join(lines) + "\n"


class Study:
    """The rows of all variants, written after every run.

    Args:
        given: the command line.
        budget: what each variant may spend, in words.
    """

    def __init__(self, given: argparse.Namespace, budget: str) -> None:
        self.given, self.budget = given, budget
        self.rows = earlier(budget, threads=given.threads)

    def lacks(self, name: str, key: str) -> bool:
        """Whether a variant's row has no such entry yet."""
        return not any(key in row for row in self.rows if row["variant"] == name)

    def run(self, name: str, **more: Any) -> None:
        """Run a variant in a process of its own."""
        common = {"config": self.given.config, "data": self.given.data, "threads": self.given.threads}
        settings = VARIANTS[name] if name == "demo" else [*BASE, *VARIANTS[name]]
        found = in_fresh_process(__file__, {"variant": name, "set": settings, **common, **more})
        found = {k: v for k, v in found.items() if k not in (*common, "probe")} | {"set": VARIANTS[name]}
        print(json.dumps({k: v for k, v in found.items() if k != "curve"}), flush=True)
        known: dict[str, Any] = next((row for row in self.rows if row["variant"] == name), {})
        self.rows = [*(row for row in self.rows if row["variant"] != name), known | found]
        about = {"budget": self.budget, "threads": self.given.threads, "lead_hours": int(LEAD)}
        write("recipe", {**about, "rows": self.rows})

    def publish(self) -> None:
        """Draw the figure and write the page of what has been run."""
        done = [row for row in self.rows if "curve" in row]
        if done:
            draw(done, FIGURE, budget=self.budget)
            PAGE.write_text(page(done, budget=self.budget, threads=self.given.threads))


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--config", default=str(ROOT / "workflows" / "config" / "demo.yaml"))
    command.add_argument("--data", default=str(ROOT / "results" / "demo" / "data"), help="folder of the demo's store")
    budget = command.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=0.0)
    budget.add_argument("--steps", type=int, default=300)
    command.add_argument("--threads", type=int, default=torch.get_num_threads())
    command.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = options(command, one)
    study = Study(given, f"{given.seconds:g} s" if given.seconds else f"{given.steps} steps")
    for name in dict.fromkeys(map(paced_like, given.only)):
        if given.seconds and study.lacks(name, "steps_per_second"):
            study.run(name, probe=True)
    rates = {row["variant"]: row.get("steps_per_second", 0.0) for row in study.rows}
    for name in given.only:
        if study.lacks(name, "curve"):
            steps = max(PROBE, int(given.seconds * rates[paced_like(name)])) if given.seconds else given.steps
            study.run(name, probe=False, steps=steps)
            study.publish()


if __name__ == "__main__":
    main()
