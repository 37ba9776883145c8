"""The direct demo's training with flat aggregation, D-CHAG-C and D-CHAG-L, on one and two ranks, with several seeds.

Claim: a run on two channel ranks follows the run on one rank, and the final scores of the three settings differ by no
more than those of seeds. Everything but the channel stage and the number of steps is the demo's. Needs its
store: `make run CONFIG=workflows/config/demo_direct.yaml` first. No time is measured, so runs may share the machine; a
finished run is not repeated.

    python benchmarks/training_curves.py                  # 12 runs of 300 steps, 20 minutes to an hour
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import write
from benchmarks.support.process import ROOT, parser
from benchmarks.support.training import train

DEMO = ROOT / "workflows" / "config" / "demo_direct.yaml"
FIGURE = ROOT / "docs" / "images" / "channel_settings.png"
SETTINGS = {
    "flat": ["model.tree=none", "model.unit=C"],
    "D-CHAG-C": ["model.tree=Tree0", "model.unit=C"],
    "D-CHAG-L": ["model.tree=Tree0", "model.unit=L"],
}
SHOWN = ("z500", "t850")
LEAD = "168"


def configure(folder: Path, setting: str, *, seed: int, ranks: int, steps: int) -> list[str]:
    """One run's settings."""
    home = folder / f"{setting}-{ranks}-{seed}"
    training = {"seed": seed, "steps": steps, "layout.channel": ranks, "validate_every": 50, "checkpoint_every": 100}
    return [f"directory={home}", *SETTINGS[setting], *(f"training.{k}={v}" for k, v in training.items())]


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses of every step and of every validation, and the last validation's skills at 7 days."""
    validation = [r for r in records if r["kind"] == "validation"]
    last = validation[-1]["leads"][LEAD]
    return {
        "loss": [r["loss"] for r in records if r["kind"] == "train"],
        "validation_step": [r["step"] for r in validation],
        "validation_loss": [r["loss"] for r in validation],
        "final_loss": validation[-1]["loss"],
        "final_skill": {"all": last["skill"], **{name: last["skill_by_channel"][name] for name in SHOWN}},
    }


def verdict(runs: dict[tuple[str, int, int], dict[str, Any]], seeds: int) -> dict[str, Any]:
    """Two ranks against one, settings against the standard deviation over seeds."""
    found: dict[str, Any] = {"two_ranks_against_one": {}, "final_skill_7_days": {}}
    for setting in SETTINGS:
        one, two = runs[setting, 1, 0], runs[setting, 2, 0]
        apart = np.abs(np.array(two["loss"]) / np.array(one["loss"]) - 1)
        found["two_ranks_against_one"][setting] = {
            "largest_relative_difference_of_loss_first_10_steps": float(apart[:10].max()),
            "largest_relative_difference_of_loss": float(apart.max()),
            "relative_difference_of_final_validation_loss": two["final_loss"] / one["final_loss"] - 1,
        }
        each = {k: [runs[setting, 1, seed]["final_skill"][k] for seed in range(seeds)] for k in ("all", *SHOWN)}
        found["final_skill_7_days"][setting] = {
            k: {"seeds": v, "mean": float(np.mean(v)), "std": float(np.std(v, ddof=1))} for k, v in each.items()
        }
    for name in ("all", *SHOWN):
        entries = [found["final_skill_7_days"][setting][name] for setting in SETTINGS]
        means = [entry["mean"] for entry in entries]
        std = float(np.sqrt(np.mean([entry["std"] ** 2 for entry in entries])))
        found["final_skill_7_days"][f"range of means over seed std, {name}"] = (max(means) - min(means)) / std
    return found


def draw(runs: dict[tuple[str, int, int], dict[str, Any]], figure: Path) -> None:
    """All runs in one figure: loss of each step smoothed, and of validation."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    window = 20
    for color, setting in enumerate(SETTINGS):
        for (name, ranks, seed), found in runs.items():
            if name != setting:
                continue
            style: dict[str, Any] = {"color": f"C{color}", "linewidth": 0.9, "alpha": 0.45}
            if ranks == 2:
                style = {"color": "k", "linestyle": (0, (1, 2.5)), "linewidth": 2.0, "zorder": 5}
            elif seed == 0:
                style = {"color": f"C{color}", "linewidth": 2.0, "label": setting}
            smooth = np.convolve(found["loss"], np.ones(window) / window, mode="valid")
            axes[0].plot(np.arange(window, len(found["loss"]) + 1), smooth, **style)
            axes[1].plot(found["validation_step"], found["validation_loss"], **style)
    axes[0].plot([], [], color="k", linestyle=(0, (1, 2.5)), linewidth=2.0, label="the same on 2 channel ranks")
    axes[0].plot([], [], color="0.5", linewidth=0.9, alpha=0.6, label="other seeds")
    axes[0].set(title=f"Training loss, mean of {window} batches", xlabel="step", ylabel="weighted MSE of anomalies [1]")
    axes[1].set(title="Validation loss, moving average of weights", xlabel="step")
    axes[0].legend(fontsize="small")
    fig.suptitle("The demo's training (simulated atmosphere) with three channel stages, on 1 and 2 ranks")
    fig.savefig(figure, dpi=110)


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--steps", type=int, default=300)
    command.add_argument("--seeds", type=int, default=3)
    command.add_argument("--folder", type=Path, help="keep the runs here, and resume from those that are there")
    given = command.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        runs = {}
        for ranks, seed in [(1, 0), (2, 0), *((1, seed) for seed in range(1, given.seeds))]:
            for setting in SETTINGS:
                overrides = configure(folder, setting, seed=seed, ranks=ranks, steps=given.steps)
                runs[setting, ranks, seed] = summary(train(DEMO, overrides, made=[], ranks=ranks))
                print(setting, f"{ranks} ranks, seed {seed}:", runs[setting, ranks, seed]["final_skill"], flush=True)
        draw(runs, FIGURE)
        found = verdict(runs, given.seeds)
    about = {"what": "validation of the demo's training, skill against climatology", "steps": given.steps}
    print(write("training_curves", {**about, **found}))


if __name__ == "__main__":
    main()
