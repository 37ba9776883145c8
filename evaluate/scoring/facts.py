"""What must be said beside every score: sample, climatology, intervals, and what was left out.

Contract: `to_json` is what stands in the score stage's receipt and in the attribute `facts` of scores.nc; `from_json`
reads it, also as older versions wrote it. Names of fields are its keys; times are ISO texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluate import bootstrap
from evaluate.receipt_facts import read_facts
from pipeline.words import counted

UNCALIBRATED = "uncalibrated"


def uncalibrated_name(model: str) -> str:
    """What the forecasts of a model are called as they were before their calibration."""
    return f"{model} {UNCALIBRATED}"


@dataclass(frozen=True)
class Climatology:
    """What anomalies are taken from: its kind, the training years and periods, the width of its window."""

    kind: str
    years: list[int]
    periods: list[str]
    window_days: int | float


@dataclass(frozen=True)
class Intervals:
    """How confidence intervals were made; `intervals` is "given", or why there are none."""

    kind: str
    confidence: float
    block_init_times: int
    block_days: float
    resamples: int
    intervals: str

    @property
    def given(self) -> bool:
        """Whether scores have intervals."""
        return self.intervals == "given"

    @classmethod
    def of(cls, num_init: int, *, block: int, spacing_hours: float) -> Intervals:
        """Those of a number of init times, in blocks of `block`."""
        days = block * spacing_hours / 24.0
        sample, length = counted(num_init, "init time holds", "init times hold"), counted(days, "day")
        few = f"none: {sample} fewer than {bootstrap.FEWEST_BLOCKS} blocks of {length}"
        given = "given" if num_init / block >= bootstrap.FEWEST_BLOCKS else few
        return cls("moving block, stretched percentile", 0.95, block, days, bootstrap.NUM_RESAMPLES, given)


@dataclass(frozen=True)
class SampleFacts:
    """The facts of scores on one sample of init times; what was left out is listed by its reason."""

    label: str
    n_init: int
    first_init: str
    last_init: str
    init_spacing_hours: float
    lead_hours: list[int]
    left_out_init_times: dict[str, list[str]]
    grid: dict[str, Any]
    climatology: Climatology
    fitted_baselines: dict[str, dict[str, Any]]
    regions: list[str]
    regions_left_out: dict[str, str]
    bootstrap: Intervals
    formulas: str = "docs/metrics.md"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; what is absent is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TwinFacts:
    """The sample of the twins, where it is smaller than the `of` init times of the other models."""

    models: list[str]
    table: str
    n_init: int
    of: int
    first_init: str
    last_init: str
    init_spacing_hours: float
    bootstrap: Intervals


@dataclass(frozen=True)
class ScoreFacts(SampleFacts):
    """The facts of the score stage: those of its sample, and the models in it; `model` is the experiment's own."""

    missing_times: list[str] = field(default_factory=list)
    model: str = ""
    compared: dict[str, str] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    twins: TwinFacts | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoreFacts:
        """The facts of a receipt, or of scores.nc.

        Raises:
            ValueError: something that this version does not write, or lacks what it writes.
        """
        return read_facts(cls, content)
