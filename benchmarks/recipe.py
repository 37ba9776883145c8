"""A training recipe found by measurement: variants of one base, each given the same time, judged at seven days.

Every variant differs from the base (the demo's configuration with the settings of BASE) in the settings named below
and nowhere else; `demo` is the demo's configuration as it is, which took over what helped. With --seconds, short runs
of all variants, before anything else, measure their steps a second and the number of steps follows, so that a larger
model pays for its size (and the schedule ends with the time) and what the machine does meanwhile changes nothing (the
best of two runs; variants that change neither model nor batch have the base's rate); with --steps, all take as many
steps. The score is the skill against climatology of the fixed validation pairs, forecast with the averaged weights. A
difference below 0.01 is about what another seed makes: the base runs with two seeds to show it. What
benchmarks/results/recipe.json holds of the same budget is not run again. Needs the demo's store: `make demo` first.
Writes docs/recipe.md and its figure too.

    python benchmarks/recipe.py --seconds 180                      # all variants, 45 minutes
    python benchmarks/recipe.py --steps 250 --only demo unit_c     # some
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.support.measure import RESULTS, in_fresh_process, write
from model.training.metrics_log import read_metrics
from model.training.trainer import run_train
from pipeline.config import Config, load
from pipeline.provenance import read_receipt

ROOT = Path(__file__).resolve().parent.parent
FIGURE = ROOT / "docs" / "images" / "recipe.png"
PAGE = ROOT / "docs" / "recipe.md"
LEAD = "168"
PROBE = 24
"""Steps of a short run."""
BASE = ["model.patch=8", "model.depth=4", "training.batch_size=16", "training.anomaly_weighted=false"]
"""What was varied and is another in the demo by now, so that the study stays what it was."""
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
    """Train a variant; its curve, or with `probe` the steps a second alone."""
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
    """Steps a second of a short run."""
    config = configured(case, folder, steps=PROBE)
    run_train(config)
    trained = [r for r in read_metrics(config.paths.metrics) if r["kind"] == "train"]
    return float(trained[-1]["samples_per_second"]) / config.training.batch_size


def configured(case: dict[str, Any], folder: Path, *, steps: int) -> Config:
    """The demo's configuration with a variant's settings, on the demo's store."""
    validations = 1 if case["probe"] else 8
    overrides = [
        f"directory={folder}", f"training.steps={steps}", f"training.validate_every={max(1, steps // validations)}",
        f"training.checkpoint_every={steps}", f"training.warmup_steps={min(50, steps // 6)}",
        "training.tensorboard=false", *case["set"],
    ]  # fmt: skip
    config = load(case["config"], overrides)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").symlink_to(Path(case["data"]).resolve())
    if not config.paths.store.exists() or not config.paths.normals.exists():
        raise SystemExit(f"the demo's store must exist, got none at {config.paths.store}; run make demo first")
    return config


def paced_like(name: str) -> str:
    """The variant whose steps take as long: the base where neither the model nor the batch is another."""
    other = any(item.startswith(("model.", "training.batch_size")) for item in VARIANTS[name])
    return name if other or name == "demo" else "base"


def earlier(budget: str, *, threads: int) -> list[dict[str, Any]]:
    """Variants measured before with the same budget; they are not measured again."""
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
        demo = row["variant"] == "demo"
        share = [100 * step / row["steps"] for step, _ in row["curve"]]
        left.plot(share, [skill for _, skill in row["curve"]], color="C1" if demo else "0.7", zorder=2 if demo else 1,
                  label="the demo's recipe" if row["variant"] == "demo" else None)  # fmt: skip
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default=str(ROOT / "workflows" / "config" / "demo.yaml"))
    parser.add_argument("--data", default=str(ROOT / "results" / "demo" / "data"), help="folder of the demo's store")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--seconds", type=float, default=0.0)
    budget.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(json.loads(options.one))))
        return
    said = f"{options.seconds:g} s" if options.seconds else f"{options.steps} steps"
    rows = earlier(said, threads=options.threads)
    common = {"config": options.config, "data": options.data, "threads": options.threads}

    def measure(name: str, **more: Any) -> None:
        known: dict[str, Any] = next((row for row in rows if row["variant"] == name), {})
        settings = VARIANTS[name] if name == "demo" else [*BASE, *VARIANTS[name]]
        found = in_fresh_process(__file__, {"variant": name, "set": settings, **common, **more})
        found = {k: v for k, v in found.items() if k not in (*common, "probe")} | {"set": VARIANTS[name]}
        print(json.dumps({k: v for k, v in found.items() if k != "curve"}), flush=True)
        rows[:] = [*(row for row in rows if row["variant"] != name), known | found]
        write("recipe", {"budget": said, "threads": options.threads, "lead_hours": int(LEAD), "rows": rows})

    def missing(key: str) -> list[str]:
        have = {row["variant"] for row in rows if key in row}
        return [name for name in dict.fromkeys(("base", *options.only)) if name not in have]

    if options.seconds:
        for name in dict.fromkeys(map(paced_like, options.only)):
            if name in missing("steps_per_second"):
                measure(name, probe=True)
    rates = {row["variant"]: row.get("steps_per_second", 0.0) for row in rows}
    for name in (name for name in missing("curve") if name in options.only):
        steps = max(PROBE, int(options.seconds * rates[paced_like(name)])) if options.seconds else options.steps
        measure(name, probe=False, steps=steps)
        done = [row for row in rows if "curve" in row]
        if done:
            draw(done, FIGURE, budget=said)
            PAGE.write_text(page(done, budget=said, threads=options.threads))


if __name__ == "__main__":
    main()
