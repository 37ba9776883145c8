"""Trainings that end before their time."""

from __future__ import annotations

import os
from typing import Any

import pytest

from model.training.trainer import Trainer


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch, *, signal_number: int | None = None) -> None:
    """Make the run end at a step: by an exception that nothing handles, or by a signal to this process."""
    original = Trainer._train_step

    def dying(self: Trainer, batch: Any, **options: Any) -> Any:
        if self.step == step:
            if signal_number is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal_number)
        return original(self, batch, **options)

    monkeypatch.setattr(Trainer, "_train_step", dying)
