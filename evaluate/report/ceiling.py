"""Scores of the model beside climatology and ceiling: what every figure of a simulated run says.

Contract: `Ceiling.read` finds the scores of all models on the init times that the ceiling has (shares.csv,
scores_common.csv and .nc, or scores.csv and .nc where they are the same); without a ceiling it finds nothing, and
reports of real data do not mention one. A `Comparison` is one score of model, climatology and ceiling, with the share
of the gap between the two that the model closes; where the ceiling is not better than the climatology it says that
instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from evaluate import text
from evaluate.metrics import METRICS
from evaluate.scoring.ceiling_share import CEILING
from evaluate.scoring.facts import ScoreFacts
from evaluate.scoring.score_table import NO_SCORE, Score, ScoreTable
from evaluate.statistics import STATISTICS, Pair
from pipeline.weather.variables import parse_channel
from pipeline.words import counted


@dataclass(frozen=True)
class Comparison:
    """One score of model, climatology and ceiling.

    Args:
        metric: "rmse", "acc", "skill" or "bias".
        unit: for people, "" for none.
        model, climatology, ceiling: the scores.
        share: of the gap between climatology and ceiling that the model closes; NaN where it means nothing.
        sample: on what, "15 common init times".
    """

    metric: str
    unit: str
    model: float
    climatology: float
    ceiling: float
    share: Score = NO_SCORE
    sample: str = ""

    def number(self, value: float) -> str:
        """A score without its unit."""
        return text.number(value) if self.metric in ("rmse", "bias") else text.score(value)

    @property
    def verdict(self) -> str:
        """The share in words, or why there is none."""
        return self._verdict(text.percent(self.share.value))

    def _verdict(self, share: str) -> str:
        if self.metric == "bias":
            return ""
        if math.isfinite(self.share.value):
            return (
                f"{share} of the ceiling's ACC" if self.metric == "acc" else f"closes {share} of the gap to the ceiling"
            )
        if self.metric == "acc":
            return "ceiling has no significant ACC here"
        return (
            f"ceiling is {'worse than' if self._ceiling_is_worse else 'not significantly better than'} climatology here"
        )

    @property
    def _ceiling_is_worse(self) -> bool:
        return self.ceiling > self.climatology if self.metric == "rmse" else self.ceiling < self.climatology

    @property
    def sentence(self) -> str:
        """All of it, for captions."""
        value, low, high = map(text.percent, self.share)
        verdict = self._verdict(f"{value} [{low}, {high}]" if self.share.has_interval else value)
        no_share = self.metric in ("rmse", "skill") and not math.isfinite(self.share.value)
        undamped = " (a single, undamped run)" if no_share and self._ceiling_is_worse else ""
        ours, base, best = map(self.number, (self.model, self.climatology, self.ceiling))
        scores = f"model {ours}, climatology {base}, ceiling {best}{f' {self.unit}' if self.unit else ''}"
        return f"{self.sample[0].upper()}{self.sample[1:]}: {scores}{f': {verdict}' if verdict else ''}{undamped}."


@dataclass(frozen=True)
class Ceiling:
    """Scores of all models on the init times of the ceiling.

    Args:
        table: like scores.csv.
        shares: shares.csv.
        maps: like scores.nc, with every model.
        model: ours.
        n_init: how many init times.
        of: how many the others have.
        spacing_hours: between them.
    """

    table: ScoreTable = field(repr=False)
    shares: ScoreTable = field(repr=False)
    maps: xr.Dataset = field(repr=False)
    model: str
    n_init: int
    of: int
    spacing_hours: float

    @classmethod
    def read(cls, folder: Path, table: ScoreTable, maps: xr.Dataset, facts: ScoreFacts) -> Ceiling | None:
        """The ceiling of a folder of scores, of which `table` is scores.csv and `maps` scores.nc; None for none."""
        twins = facts.twins
        if not (folder / "shares.csv").exists() or CEILING not in {*(twins.models if twins else ()), *facts.models}:
            return None
        if (folder / "scores_common.nc").exists():
            maps = xr.load_dataset(folder / "scores_common.nc", engine="netcdf4")
        sample = twins or facts
        shares = ScoreTable.read(folder / "shares.csv")
        return cls(
            read_common(folder, table),
            shares,
            maps,
            facts.model,
            sample.n_init,
            facts.n_init,
            sample.init_spacing_hours,
        )

    @property
    def sample(self) -> str:
        """The init times, in words."""
        return counted(self.n_init, "common init time" if self.n_init != self.of else "init time")

    def compare(self, channel: str, lead: int, metric: str) -> Comparison:
        """One score over the globe beside those of climatology and ceiling."""
        unit = text.pretty_unit(parse_channel(channel).spec.unit) if metric in ("rmse", "bias") else ""
        ours, best, base = (
            self.table.score(m, channel, lead, metric).value for m in (self.model, CEILING, "climatology")
        )
        if metric in ("acc", "skill"):
            base = 0.0
        elif metric == "rmse" and not math.isfinite(base):
            rows = self.shares.rows(channel)
            base = float(rows[(rows["lead"] == lead) & (rows["metric"] == metric)]["climatology"].max())
        return Comparison(metric, unit, ours, base, best, self.share(channel, lead, metric), self.sample)

    def share(self, channel: str, lead: int, metric: str, *, model: str = "", region: str = "globe") -> Score:
        """A model's share (ours where none is named); NaN where it means nothing."""
        return self.shares.score(model or self.model, channel, lead, metric, region=region)

    @property
    def note(self) -> str:
        """What is compared on which init times."""
        fewer = (
            "The ceiling is expensive to run: wherever the model is compared with it, all models are compared on the "
            f"{text.sample(self.n_init, of=self.of, spacing_hours=self.spacing_hours, having='it has')}. "
        )
        return fewer * (self.n_init != self.of) + (
            "The gap runs from climatology to ceiling. Climatology has an ACC of 0, so in ACC the share closed is the "
            "model's divided by the ceiling's: how much of the predictable part the model predicts."
        )


def read_common(folder: Path, table: ScoreTable) -> ScoreTable:
    """Scores of all models on common init times: of their own file in the folder, or those of scores.csv."""
    path = folder / "scores_common.csv"
    return ScoreTable.read(path) if path.exists() else table


@dataclass(frozen=True, eq=False)
class Fields:
    """One forecast at one valid time, each field of shape (latitude, longitude).

    Args:
        forecast: ours.
        truth: what came.
        climatology: at the valid time.
        ceiling: its forecast from the same init time, where there is one.
    """

    forecast: Any
    truth: Any
    climatology: Any
    ceiling: Any = None

    def compare(self, metric: str, unit: str, weights: Any) -> Comparison:
        """RMSE or ACC of this forecast beside the climatology's and the ceiling's.

        Args:
            metric: "rmse" or "acc".
            unit: of the variable, for people.
            weights: of the cells.
        """
        score = METRICS[metric]
        o, mean = self.truth - self.climatology, weights / weights.sum()

        def of(forecast: Any) -> float:
            pair = Pair(forecast - self.truth, forecast - self.climatology, o)
            means = {s: (mean * STATISTICS[s].compute(pair)).sum() for s in score.statistics}
            return float(score.finish(*score.parts(means)))

        ours, best, base = of(self.forecast), of(self.ceiling), of(self.climatology) if score.power else 0.0
        ceiling_is_better = best < base if score.power else best > base
        share = (ours - base) / (best - base) if ceiling_is_better else math.nan
        return Comparison(metric, unit if score.power else "", ours, base, best, Score(share), "this forecast")
