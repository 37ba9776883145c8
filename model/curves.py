"""The picture of a training run: loss, skill of the fixed validation pairs at each lead, learning rate.

Contract: reads metrics.jsonl only, so it can be drawn again at any time. The leads validated may change on the way,
being the forecast's and no part of what is trained: each has its curve where it was scored.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from model.training.metrics_log import read_metrics
from pipeline.console import data_with_article


def draw_curves(metrics: Path, figure: Path, *, label: str) -> Path:
    """Draw the curves of a run.

    Args:
        metrics: metrics.jsonl of the run.
        figure: the PNG to write.
        label: what the data are called, e.g. "simulated"; it goes into the title.

    Returns:
        `figure`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    records = read_metrics(metrics)
    train = [r for r in records if r["kind"] == "train"]
    validation = [r for r in records if r["kind"] == "validation"]
    steps = np.array([r["step"] for r in train])
    loss = np.array([r["loss"] for r in train])
    rows = 3 if validation else 2
    fig, axes = plt.subplots(rows, 1, figsize=(8, 2.6 * rows), sharex=True, layout="constrained")
    axes[0].plot(steps, loss, color="0.8", linewidth=0.8, label="training, each batch")
    window = max(1, len(loss) // 50)
    if window > 1:
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        axes[0].plot(steps[window - 1 :], smooth, color="C0", label=f"training, mean of {window} batches")
    if validation:
        axes[0].plot([r["step"] for r in validation], [r["loss"] for r in validation], "o-", color="C1",
                     markersize=3, label="validation")  # fmt: skip
        for lead in dict.fromkeys(hours for r in validation for hours in r["leads"]):
            found = [(r["step"], r["leads"][lead]["skill"]) for r in validation if lead in r["leads"]]
            axes[1].plot(*zip(*found, strict=True), "o-", markersize=3, label=f"{int(lead) / 24:g} d")
        axes[1].axhline(0.0, color="0.5", linewidth=0.8)
        axes[1].set_ylabel("skill against\nclimatology [1]")
        axes[1].legend(title="lead", fontsize="small")
    axes[0].set_ylabel("weighted MSE\nof normalised anomalies [1]")
    axes[0].legend(fontsize="small")
    axes[-1].plot(steps, [r["learning_rate"] for r in train], color="C2")
    axes[-1].set_ylabel("learning rate [1]")
    axes[-1].set_xlabel("step")
    axes[0].set_title(f"Training on {data_with_article(label)}: {steps[-1] if len(steps) else 0} steps")
    temporary = figure.with_name(f".{figure.name}.tmp.png")
    fig.savefig(temporary, dpi=120)
    plt.close(fig)
    temporary.replace(figure)
    return figure
