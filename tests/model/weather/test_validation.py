"""Scores of the fixed validation pairs, against the same by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from model.weather.samples import Items
from model.weather.validation import Sums, part_of_rank
from pipeline.config import load

LEADS = (24, 72)
AREA = torch.tensor([[1.0] * 5, [3.0] * 5, [0.5] * 5])
STD = np.array([2.0, 5.0])
WEIGHTS = torch.tensor([0.5, 1.5])


def sample(start: int) -> tuple[Tensor, Tensor]:
    """Prediction and target (V, H, W) of a start."""
    generator = torch.Generator().manual_seed(start)
    y, target = torch.randn(2, 2, 3, 5, generator=generator, dtype=torch.float64)
    return y, target


@pytest.mark.parametrize(("ranks", "batch_size"), [(1, 7), (1, 2), (2, 3), (3, 2)])
def test_scores_are_area_weighted_means_of_each_lead(ranks: int, batch_size: int) -> None:
    """Catches cells counted alike, leads mixed up, samples that only fill up a batch or rank counted."""
    lead = np.array([0, 0, 0, 1, 1, 1, 1])
    items = Items(start=np.arange(7), lead=lead, roll=np.zeros(7, dtype=np.int64))

    def predict(some: Items) -> tuple[Tensor, Tensor]:
        assert len(some) <= batch_size
        pairs = [sample(int(start)) for start in some.start]
        return torch.stack([y for y, _ in pairs]), torch.stack([t for _, t in pairs])

    whole = Sums.zero(leads=2, channels=2, device=torch.device("cpu"))
    for rank in range(ranks):
        sums = Sums.zero(leads=2, channels=2, device=torch.device("cpu"))
        for some, leads in part_of_rank(items, rank=rank, ranks=ranks, batch_size=batch_size):
            y, target = predict(some)
            sums.add(y, target, lead=leads, area_HW=AREA)
        for name in ("error", "climatology", "count"):
            getattr(whole, name).add_(getattr(sums, name))
    found = whole.scores(lead_hours=LEADS, channel_V=2 * WEIGHTS, channels=("z500", "t2m"), std=STD, shown=["t2m"])

    area = AREA.double() / AREA.sum()
    losses = []
    for e, hours in enumerate(LEADS):
        chosen = [sample(int(start)) for start in np.flatnonzero(lead == e)]
        mse = torch.stack([((y - t).square() * area).sum(dim=(1, 2)) for y, t in chosen]).mean(dim=0)
        nothing = torch.stack([(t.square() * area).sum(dim=(1, 2)) for _, t in chosen]).mean(dim=0)
        weighted, without = ((m * WEIGHTS).mean().item() for m in (mse, nothing))
        entry = found["leads"][str(hours)]
        assert entry["loss"] == pytest.approx(weighted)
        assert entry["skill"] == pytest.approx(1 - weighted / without)
        assert entry["rmse"] == {"t2m": pytest.approx(5.0 * mse[1].sqrt().item())}
        assert entry["skill_by_channel"] == {"t2m": pytest.approx(1 - (mse[1] / nothing[1]).item())}
        losses.append(weighted)
    assert found["loss"] == pytest.approx(np.mean(losses))


@pytest.mark.parametrize(
    ("step_hours", "lead_hours", "expected"),
    [
        ([24], [24, 72, 168, 720], (24, [1, 3, 7])),
        ([24, 48], [24, 72, 120, 168, 240], (24, [1, 3, 5, 7])),
        ([24, 48], [48, 96, 144], (48, [1, 2, 3])),
        ([12, 24], [24, 36, 72, 168], (12, [1, 2, 3, 6, 14])),
        ([48], [240, 336], (48, [1, 4])),
    ],
)
def test_models_with_steps_are_validated_at_the_leads_issued(
    root: Path, step_hours: list[int], lead_hours: list[int], expected: tuple[int, list[int]]
) -> None:
    """Catches a step that misses the leads that another one reaches, so that no skill of theirs is written."""
    settings = [f"training.step_hours={step_hours}", f"forecast.lead_hours={lead_hours}"]
    config: Any = load(root / "workflows" / "config" / "demo.yaml", settings)
    assert config.validation_steps == expected
