"""A free run of a year: the demo's network and those of benchmarks/training_time.py, applied for 365 days.

A channel is bounded if its RMS anomaly over any month is between half and twice the truth's, and its values stay in
the plausible range (evaluate/scoring/free_run.py); after Gallusser et al. (2025, arXiv 2505.02506), who compare maps of
ten years. Needs trained experiments: `make demo`, benchmarks/training_time.py. Models that are not asked for keep their
rows. Also writes docs/images/free_run.png.

    python benchmarks/free_run.py
    python benchmarks/free_run.py --longer results/longer --steps 6600 12000
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import RESULTS, write
from benchmarks.support.process import ROOT, parser
from benchmarks.training_time import DEMO, LONGER, run
from evaluate.scoring.free_run import departure_ratio, step_days, verdicts
from pipeline.config import load
from pipeline.weather.free_run_store import read_free_run

DAYS = 365
SHOWN = ("z500", "t850", "t2m", "u10")
MARKS = (30, 60, 90, 120, 180, 270, 365)
"""Days at which the size of the departures is told."""
FIGURE = ROOT / "docs" / "images" / "free_run.png"


def entry(name: str, settings: list[str]) -> dict[str, Any]:
    """Make the free run of an experiment, unless it is there, and judge it."""
    settings = [*settings, f"forecast.free_run_days={DAYS}"]
    run("free_run", settings, threads=2)
    config: Any = load(DEMO, settings)
    found = read_free_run(config.paths.free_run)
    days, ratio = step_days(found), np.sqrt(departure_ratio(found))
    channels = list(map(str, found["channel"].values))
    judged = verdicts(found)
    ends = [v.day for v in judged if v.kind != "bounded"]
    of = {name: ratio[:, channels.index(name)] for name in SHOWN}
    return {
        "model": name,
        "steps": config.training.steps,
        "bounded": len(judged) - len(ends),
        "channels": len(judged),
        "first_unbounded_day": min(ends, default=None),
        "median_unbounded_day": float(np.median(ends)) if ends else None,
        "kinds": {kind: sum(v.kind == kind for v in judged) for kind in sorted({v.kind for v in judged})},
        "deviation_over_truth": {
            k: {str(day): round(float(v[days == day][0]), 3) for day in MARKS} for k, v in of.items()
        },
        "curve": {k: [None if np.isnan(x) else round(float(x), 3) for x in v[::5]] for k, v in of.items()},
        "curve_days": [float(day) for day in days[::5]],
    }


def draw(rows: list[dict[str, Any]]) -> None:
    """RMS anomaly over the preceding month relative to the truth's, against days."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(SHOWN), figsize=(12, 3.5), layout="constrained", sharey=True)
    for axes, name in zip(panels, SHOWN, strict=True):
        axes.axhspan(0.5, 2, color="0.92")
        axes.axhline(1, color="0.5", linewidth=0.8)
        for row in rows:
            values = np.array([np.nan if x is None else x for x in row["curve"][name]])
            axes.plot(row["curve_days"], values, label=f"{row['model']}, {row['steps']:,} steps")
        axes.set(title=name, xlabel="days", yscale="log", ylim=(0.4, 30))
        axes.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("relative to the truth's")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(
        "A free run of a year, simulated atmosphere: RMS anomaly over the preceding month; grey counts as bounded"
    )
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--demo", nargs="*", default=[], help="settings of the demo")
    command.add_argument("--longer", default=str(ROOT / "results" / "longer"), help="directory of the longer trainings")
    command.add_argument("--steps", nargs="*", type=int, default=[], help="of the longer trainings")
    given = command.parse_args()
    rows = [entry("the demo", given.demo)]
    for steps in given.steps:
        rows.append(entry("ten years of data", [*LONGER, f"directory={given.longer}", f"training.steps={steps}"]))
    made = {(row["model"], row["steps"]) for row in rows}
    path = RESULTS / "free_run.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows += [row for row in before if (row["model"], row["steps"]) not in made]
    for row in rows:
        print({k: v for k, v in row.items() if not k.startswith("curve")}, flush=True)
    draw(rows)
    print(write("free_run", {"days": DAYS, "rows": rows}))


if __name__ == "__main__":
    main()
