"""What the score stage wrote, read back: the table of scores with its look-ups, and the maps."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from evaluate.page.cells import NO_SCORE as NO_SCORE
from evaluate.page.cells import Score as Score
from pipeline import files
from pipeline.weather.variables import parse_channel


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Rows of scores.csv, or of another table with its columns.

    Args:
        frame: with `level` as text, "" for none.
    """

    frame: pd.DataFrame = field(repr=False)

    @cached_property
    def _scores(self) -> dict[Any, Score]:
        keys = zip(*(self.frame[c] for c in ("variable", "level", "region", "model", "lead", "metric")))
        values = zip(*(self.frame[c].astype(float) for c in ("value", "ci_low", "ci_high")))
        return dict(zip(keys, map(Score._make, values)))

    @classmethod
    def read(cls, path: Path) -> ScoreTable:
        """A table that the score stage wrote."""
        frame = pd.read_csv(io.StringIO(files.read_text(path)), dtype={"level": str, "unit": str})
        return cls(frame.assign(level=frame["level"].fillna("")))

    @property
    def models(self) -> list[str]:
        """In order."""
        return [str(m) for m in self.frame["model"].unique()]

    def score(self, model: str, channel: str, lead: int, metric: str, *, region: str = "globe") -> Score:
        """One score; NaN when it is not there."""
        variable, level = _split(channel)
        return self._scores.get((variable, level, region, model, lead, metric), NO_SCORE)

    def rows(self, channel: str, *, region: str = "globe") -> pd.DataFrame:
        """All rows of one channel and region."""
        variable, level = _split(channel)
        frame = self.frame
        return frame[(frame["variable"] == variable) & (frame["level"] == level) & (frame["region"] == region)]


def _split(channel: str) -> tuple[str, str]:
    parsed = parse_channel(channel)
    return parsed.variable, "" if parsed.level is None else str(parsed.level)


def read_scores(folder: Path) -> tuple[ScoreTable, xr.Dataset]:
    """The table and the maps that the score stage wrote.

    Raises:
        ValueError: they are not there.
    """
    for path in (folder / "scores.csv", folder / "scores.nc"):
        if not path.exists():
            raise ValueError(f"scores must exist, got no {path}; run python -m pipeline score")
    return ScoreTable.read(folder / "scores.csv"), xr.load_dataset(folder / "scores.nc", engine="netcdf4")
