"""The picture of a training run."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import matplotlib.pyplot as plt
import pytest

from model.curves import draw_curves


def test_leads_that_changed_on_the_way_are_all_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a finished training that ends in an error because forecast.lead_hours changed between two calls."""
    metrics = tmp_path / "metrics.jsonl"
    records = [{"kind": "train", "step": s, "loss": 1.0 / s, "learning_rate": 1e-3} for s in range(1, 61)]
    for step, leads in ((20, [24, 36]), (40, [24, 36]), (60, [24, 168])):
        scores = {str(hours): {"skill": step / hours} for hours in leads}
        records.append({"kind": "validation", "step": step, "loss": 0.5, "leads": scores})
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    monkeypatch.setattr(plt, "close", lambda _: None)
    draw_curves(metrics, tmp_path / "curves.png", label="simulated")
    top, skill, rate = plt.gcf().axes
    drawn = {str(line.get_label()): line.get_xydata().tolist() for line in skill.get_lines()[:-1]}  # type: ignore[union-attr]
    assert drawn == {
        "1 d": [[20, 20 / 24], [40, 40 / 24], [60, 60 / 24]],
        "1.5 d": [[20, 20 / 36], [40, 40 / 36]],
        "7 d": [[60, 60 / 168]],
    }
    assert top.get_title() == "Training on a simulated atmosphere: 60 steps"
    assert len(rate.get_lines()[0].get_xdata()) == 60  # type: ignore[arg-type]
    assert matplotlib.image.imread(tmp_path / "curves.png").std() > 0.05
