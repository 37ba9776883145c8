"""docs/recipe.md and its figure: variants of the demo's recipe at equal time, and what longer trainings reach."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.support.measure import RESULTS
from benchmarks.support.process import ROOT

FIGURE = ROOT / "docs" / "images" / "recipe.png"
PAGE = ROOT / "docs" / "recipe.md"
SHOWN = ("z500", "t850", "t2m", "u10")
MARK = "<!-- benchmarks/recipe.py writes what follows -->"
"""What stands above it in the page is written by hand and kept."""

Row = dict[str, Any]


def publish(rows: list[Row], *, budget: str, threads: int) -> None:
    """Draw the figure and write the page.

    Args:
        rows: of the runs so far, with "variant", "seed", "set", "steps", "parameters" and "skill" by lead and channel.
        budget: time of each, in words.
        threads: that each had.
    """
    longer = training_time()
    draw(rows, longer, budget=budget)
    words = PAGE.read_text().split(MARK)[0] if PAGE.exists() else ""
    PAGE.write_text(f"{words}{MARK}\n{page(rows, budget=budget, threads=threads)}")


def training_time() -> dict[str, Any] | None:
    """What benchmarks/training_time.py found, where it has been run."""
    path = RESULTS / "training_time.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def by_variant(rows: list[Row]) -> dict[str, list[Row]]:
    """Runs of each variant, best mean skill of z500 at seven days first."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return dict(sorted(found.items(), key=lambda item: -mean(item[1], "168", "z500")))


def mean(runs: list[Row], lead: str, channel: str) -> float:
    """Mean skill over seeds, NaN where the lead was not validated."""
    return float(np.mean([run["skill"].get(lead, {}).get(channel, np.nan) for run in runs]))


def draw(rows: list[Row], longer: dict[str, Any] | None, *, budget: str) -> None:
    """Left, what more minutes of training give; right, the variants at equal time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    variants = by_variant(rows)
    height = max(4.5, 0.26 * len(variants) + 1.8)
    if longer is None:
        fig, right = plt.subplots(figsize=(7.5, height), layout="constrained")
    else:
        fig, (left, right) = plt.subplots(1, 2, figsize=(13, height), layout="constrained")
        draw_minutes(left, longer)
    for number, (name, runs) in enumerate(reversed(variants.items())):
        for channel, colour in zip(SHOWN, ("C0", "C1", "C2", "C3"), strict=True):
            values = [run["skill"].get("168", {}).get(channel, np.nan) for run in runs]
            label = channel if number == 0 else None
            right.plot(values, [number] * len(values), ".", color=colour, markersize=8, label=label)
        if name == "base":
            right.axhspan(number - 0.5, number + 0.5, color="0.93", zorder=0)
    right.axvline(0.0, color="0.4", linewidth=0.8)
    right.set_yticks(range(len(variants)), [str(name) for name in reversed(variants)], fontsize="small")
    right.set(xlabel="skill at 7 days, uncalibrated [1]", title=f"variants of the recipe, {budget} each; a dot a seed")
    right.grid(axis="x", color="0.9")
    right.legend(fontsize="small", loc="lower right")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(FIGURE, dpi=110)
    plt.close(fig)


def draw_minutes(ax: Any, longer: dict[str, Any]) -> None:
    """ACC of z500 against minutes of training, one line a lead, with what it is compared to."""
    rows = sorted(longer["rows"], key=lambda row: row["minutes"])
    minutes = [row["minutes"] for row in rows]
    for number, days in enumerate((3, 7, 14)):
        lead = str(24 * days)
        ax.plot(minutes, [row["acc"]["z500"][lead] for row in rows], "o-", color=f"C{number}", label=f"{days} days")
        for name, style in (("ceiling", "--"), ("coarse", ":"), ("linear", "-.")):
            reference = longer["references"].get(name, {}).get("z500", {}).get(lead)
            if reference is not None:
                ax.axhline(reference, color=f"C{number}", linestyle=style, linewidth=0.9)
    ax.plot([], [], "k--", linewidth=0.9, label="what could be known (ceiling)")
    ax.plot([], [], "k:", linewidth=0.9, label="coarse physical core")
    ax.plot([], [], "k-.", linewidth=0.9, label="linear regression")
    ax.set_xscale("log")
    ax.set_xticks(minutes, [f"{m:.3g}" for m in minutes])
    ax.minorticks_off()
    ax.set(xlabel="minutes of training", ylabel="ACC of z500, test months [1]", ylim=(0, 1), title="longer trainings")
    ax.grid(color="0.92")
    ax.legend(fontsize="small", loc="lower right")


def page(rows: list[Row], *, budget: str, threads: int) -> str:
    """The table of docs/recipe.md, best variant first."""
    variants = by_variant(rows)
    base = variants.get("base")
    channels = " | ".join(SHOWN)
    last = " against base |" if base else ""
    lines = [
        f"{budget} for each run, {threads} thread(s), the simulated atmosphere. Skill against climatology of the",
        "validation pairs, before calibration; with several seeds their mean and half their range.",
        "",
        f"| variant | settings | seeds | steps | parameters [M] | z500, 3 days | 7 days: {channels} |{last}",
        f"|---|---|---|---|---|---|{'---|' * len(SHOWN)}{'---|' if base else ''}",
    ]
    for name, runs in variants.items():
        settings = ", ".join(f"`{item}`" for item in runs[0]["set"]) or f"the {name}'s"
        week = " | ".join(cell(runs, "168", channel) for channel in SHOWN)
        gain = f" {mean(runs, '168', 'z500') - mean(base, '168', 'z500'):+.3f} |" if base else ""
        known = f"{len(runs)} | {runs[0]['steps']} | {runs[0]['parameters'] / 1e6:.1f} | {cell(runs, '72', 'z500')}"
        lines.append(f"| {name} | {settings} | {known} | {week} |{gain}")
    return "\n".join(lines) + "\n"


def cell(runs: list[Row], lead: str, channel: str) -> str:
    """Mean over seeds, with half the range where there are several."""
    values = [run["skill"][lead][channel] for run in runs if lead in run["skill"]]
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"
