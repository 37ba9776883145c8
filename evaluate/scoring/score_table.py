"""What the score stage wrote, read back: the table of scores with its look-ups, and the maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
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
    def _places(self) -> Any:
        """Positions of the rows of each channel, by variable and level."""
        return self.frame.groupby(["variable", "level"], sort=False).indices

    @cached_property
    def _known(self) -> dict[str, dict[Any, Score]]:
        """Scores of the channels that were asked for: a table has half a million, a page shows a few thousand."""
        return {}

    def _channel(self, name: str) -> pd.DataFrame:
        rows: pd.DataFrame = self.frame.iloc[self._places.get(_split(name), [])]
        return rows

    def _scores(self, channel: str) -> dict[Any, Score]:
        if channel not in self._known:
            frame = self._channel(channel)
            keys = zip(*(frame[c] for c in ("region", "model", "lead", "metric")))
            values = zip(*(frame[c].astype(float) for c in ("value", "ci_low", "ci_high")))
            self._known[channel] = dict(zip(keys, map(Score._make, values)))
        return self._known[channel]

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
        return self._scores(channel).get((region, model, lead, metric), NO_SCORE)

    def rows(self, channel: str, *, region: str = "globe") -> pd.DataFrame:
        """All rows of one channel and region."""
        frame = self._channel(channel)
        return frame[frame["region"] == region]

    def only(self, channels: Sequence[str]) -> ScoreTable:
        """The rows of some channels, in their order."""
        places = [self._places.get(_split(name), []) for name in channels]
        return ScoreTable(self.frame.iloc[np.sort(np.concatenate(places)).astype(np.intp)])


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
