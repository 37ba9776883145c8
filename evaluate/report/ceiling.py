"""Where the model stands between climatology and ceiling: what every figure of a simulated run says.

Contract: `Ceiling.read` finds the scores of all models on the init times that the ceiling has (shares.csv,
scores_common.csv and .nc, or scores.csv and .nc where they are the same); without a ceiling it finds nothing, and
reports of real data say nothing of one. A `Stand` is one score of model, climatology and ceiling, with the share of
the way that the model has gone; where the ceiling does not know more than the climatology it says that instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from evaluate.report import sentences, style
from evaluate.scoring.ceiling_share import CEILING
from pipeline.weather.variables import parse_channel


@dataclass(frozen=True)
class Stand:
    """One score of model, climatology and ceiling.

    Args:
        metric: "rmse", "acc", "skill" or "bias".
        unit: for people, "" for none.
        model, climatology, ceiling: the scores.
        share: of the way that the model has gone; NaN where it means nothing.
        low, high: its interval; NaN for none.
        sample: on what, "15 common init times".
    """

    metric: str
    unit: str
    model: float
    climatology: float
    ceiling: float
    share: float = math.nan
    low: float = math.nan
    high: float = math.nan
    sample: str = ""

    def number(self, value: float) -> str:
        """A score without its unit."""
        return style.number(value) if self.metric in ("rmse", "bias") else style.score(value)

    @property
    def way(self) -> str:
        """The share in words, or why there is none."""
        if self.metric == "bias":
            return ""
        if math.isfinite(self.share):
            return f"{style.percent(self.share)} of the way to the ceiling"
        if self.metric == "acc":
            return "the ceiling itself knows nothing sure here"
        worse = self.ceiling > self.climatology if self.metric == "rmse" else self.ceiling < self.climatology
        return f"ceiling {'is below' if worse else 'cannot be told from'} climatology here"

    @property
    def sentence(self) -> str:
        """All of it, for captions."""
        unit = f" {self.unit}" if self.unit else ""
        told = (
            f"{self.sample[0].upper()}{self.sample[1:]}: model {self.number(self.model)}, "
            f"climatology {self.number(self.climatology)}, ceiling {self.number(self.ceiling)}{unit}"
        )
        if self.metric == "bias":
            return f"{told}."
        interval = f" [{style.percent(self.low)}, {style.percent(self.high)}]" if math.isfinite(self.low) else ""
        end = self.way.replace(" of the way", f"{interval} of the way")
        single = " (a single run that is not damped)" if "is below" in end else ""
        return f"{told}: {end}{single}."


@dataclass(frozen=True)
class Ceiling:
    """Scores of all models on the init times of the ceiling.

    Args:
        frame: like scores.csv, level as text.
        shares: shares.csv, level as text.
        maps: like scores.nc, with every model.
        model: ours.
        n_init: how many init times.
        of: how many the others have.
        spacing_hours: between them.
    """

    frame: pd.DataFrame = field(repr=False)
    shares: pd.DataFrame = field(repr=False)
    maps: xr.Dataset = field(repr=False)
    model: str
    n_init: int
    of: int
    spacing_hours: float

    @classmethod
    def read(cls, folder: Path, frame: pd.DataFrame, scores: xr.Dataset, facts: Mapping[str, Any]) -> Ceiling | None:
        """The ceiling of a folder of scores; None where there is none."""
        path = folder / "shares.csv"
        twins = facts.get("twins", {})
        if not path.exists() or CEILING not in {*twins.get("models", []), *facts.get("models", {})}:
            return None
        maps = scores
        if (folder / "scores_common.nc").exists():
            with xr.open_dataset(folder / "scores_common.nc", engine="netcdf4") as ds:
                maps = ds.load()
        count = int(twins.get("n_init", facts["n_init"]))
        return cls(
            read_common(folder, frame), _table(path), maps, str(facts["model"]), count, int(facts["n_init"]),
            float(twins.get("init_spacing_hours", facts["init_spacing_hours"])),
        )  # fmt: skip

    @property
    def sample(self) -> str:
        """The init times, in words."""
        return f"{self.n_init} common init times" if self.n_init != self.of else f"{self.n_init} init times"

    def stand(self, channel: str, lead: int, metric: str, *, region: str = "globe") -> Stand:
        """Where the model stands in one score."""
        power = metric in ("rmse", "bias")
        unit = style.pretty_unit(parse_channel(channel).spec.unit) if power else ""
        rows = sentences.select(self.frame, channel=channel, region=region)
        ours, best, base = (
            sentences.lookup(rows, model=m, lead=lead, metric=metric)[0] for m in (self.model, CEILING, "climatology")
        )
        found = sentences.lookup(
            sentences.select(self.shares, channel=channel, region=region), model=self.model, lead=lead, metric=metric
        )
        if metric == "acc":
            base = 0.0
        elif not math.isfinite(base) and metric in ("rmse", "skill"):
            base = float(self._row(channel, lead, metric, region).get("climatology", math.nan))
        return Stand(metric, unit, ours, base, best, *found, sample=self.sample)

    def _row(self, channel: str, lead: int, metric: str, region: str) -> Mapping[str, Any]:
        rows = sentences.select(self.shares, channel=channel, region=region)
        rows = rows[(rows["lead"] == lead) & (rows["metric"] == metric)]
        return dict(rows.iloc[0]) if len(rows) else {}

    def note(self) -> str:
        """What is compared on which init times."""
        fewer = (
            f"The ceiling is costly: wherever the model is set against it, all are compared on the {self.n_init} of "
            f"{self.of} init times that it has, every {self.spacing_hours / 24:g} days. "
            if self.n_init != self.of
            else ""
        )
        return (
            f"{fewer}The way begins at the climatology and ends at the ceiling; in ACC, where the climatology has 0, "
            "the share says how much the model knows of what could be known."
        )


def read_common(folder: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """Scores of all models on common init times.

    Args:
        folder: of the scores.
        frame: scores.csv, level as text.
    """
    path = folder / "scores_common.csv"
    return _table(path) if path.exists() else frame


def case(
    metric: str, unit: str, *, fields: Mapping[str, Any], truth: Any, climatology: Any, weights: Any, sample: str,
    model: str,
) -> Stand:  # fmt: skip
    """Where one forecast stands: RMSE or ACC of a single field of the model and of the ceiling.

    Args:
        metric: "rmse" or "acc".
        unit: for people.
        fields: by model, with "ceiling".
        truth: a field.
        climatology: a field.
        weights: of the cells.
        sample: what it is.
        model: ours.
    """
    o = truth - climatology
    mean = weights / weights.sum()
    found = {}
    for name, field_ in fields.items():
        f = field_ - climatology
        if metric == "rmse":
            found[name] = float(np.sqrt((mean * (f - o) ** 2).sum()))
        else:
            found[name] = float((mean * f * o).sum() / np.sqrt((mean * f * f).sum() * (mean * o * o).sum()))
    base = float(np.sqrt((mean * o * o).sum())) if metric == "rmse" else 0.0
    gains = {name: base - v if metric == "rmse" else v for name, v in found.items()}
    share = gains[model] / gains[CEILING] if gains[CEILING] > 0 else math.nan
    return Stand(metric, unit, found[model], base, found[CEILING], share, sample=sample)


def _table(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, dtype={"level": str, "unit": str})
    return frame.assign(level=frame["level"].fillna(""))
