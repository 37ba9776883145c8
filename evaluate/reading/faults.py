"""Faults: the reasons why forecasts cannot be compared, as values, so that all of them stand in one message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "channels", "dimensions", "duplicates", "grid", "labels", "leads", "name", "store", "times", "training", "units"
]


@dataclass(frozen=True)
class Fault:
    """One reason why something cannot be compared.

    Args:
        kind: what does not fit.
        reason: what is there instead, and what to do.
        model: the forecast that it is about; None for the store, or for all forecasts.
    """

    kind: Kind
    reason: str
    model: str | None = None

    def __str__(self) -> str:
        return f"{'' if self.model is None else f'forecast {self.model!r}, '}{self.kind}: {self.reason}"


class ComparisonError(ValueError):
    """What was to be compared cannot be.

    Args:
        rule: what should have been, as the beginning of a sentence.
        faults: at least one.
    """

    def __init__(self, rule: str, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        lines = "".join(f"\n  {fault}" for fault in faults)
        super().__init__(f"{rule}, got {len(faults)} faults:{lines}" if len(faults) > 1 else f"{rule}; {faults[0]}")
