"""What must be said beside every score: sample, climatology, intervals, and what was left out.

Contract: `ScoreFacts.to_json` is what stands in the score stage's receipt and in the attribute `facts` of scores.nc;
`ScoreFacts.from_json` reads it, also as older versions wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import TypeAdapter

from evaluate.scoring import bootstrap


@dataclass(frozen=True)
class Climatology:
    """What anomalies are taken from.

    Args:
        kind: "day of year x hour", or why it is less than that.
        years: training years.
        periods: training periods, as text.
        window_days: full width of the smoothing window.
    """

    kind: str
    years: list[int]
    periods: list[str]
    window_days: int | float


@dataclass(frozen=True)
class Intervals:
    """How confidence intervals were made.

    Args:
        kind: of the bootstrap.
        confidence: nominal coverage.
        block_init_times: length of a block, in init times.
        block_days: the same in days.
        resamples: number of draws.
        intervals: "given", or why there are none.
    """

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
        few = f"none: {num_init} init times hold fewer than {bootstrap.FEWEST_BLOCKS} blocks of {days:g} days"
        given = "given" if num_init / block >= bootstrap.FEWEST_BLOCKS else few
        return cls("moving block, stretched percentile", 0.95, block, days, bootstrap.NUM_RESAMPLES, given)


@dataclass(frozen=True)
class SampleFacts:
    """The facts of scores on one sample of init times.

    Args:
        label: of the data, e.g. "simulated".
        n_init: number of init times.
        first_init, last_init: ISO times.
        init_spacing_hours: usual spacing of init times.
        lead_hours: leads.
        left_out_init_times: reason -> init times, the first twenty.
        grid: `Grid.describe()`.
        climatology: what anomalies are taken from.
        fitted_baselines: name -> what is worth knowing of the fit.
        regions: names of those scored.
        regions_left_out: name -> reason.
        bootstrap: how intervals were made.
        formulas: where they are explained.
    """

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
    """The sample of the twins, where it is smaller than that of the other models.

    Args:
        models: their names.
        table: file with the scores of all models on this sample.
        n_init: number of init times.
        of: number of init times of the others.
        first_init, last_init: ISO times.
        init_spacing_hours: usual spacing of init times.
        bootstrap: of this sample.
    """

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
    """The facts of the score stage.

    Args:
        missing_times: that the training store lacks.
        model: name of the experiment's own.
        compared: name -> fingerprint of a forecast from elsewhere.
        models: name -> number of init times and digest of its contract.
        twins: their sample; None where it is the same.
    """

    missing_times: list[str] = field(default_factory=list)
    model: str = ""
    compared: dict[str, str] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    twins: TwinFacts | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> ScoreFacts:
        """The facts of a receipt, or of scores.nc."""
        return TypeAdapter(cls).validate_python(content)
