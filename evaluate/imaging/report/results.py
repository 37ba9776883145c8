"""The tables that the score stage wrote, read back, with the look-ups that the page needs.

Contract: a verdict on two scores claims a difference only where the interval of the difference excludes zero.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from evaluate.imaging.facts import ScoreFacts
from evaluate.imaging.scores import METRICS, REGIONS, Region
from evaluate.imaging.sums import MODELS, NETWORK
from evaluate.imaging.tables import ALL
from evaluate.page.cells import NO_SCORE, Score
from pipeline import files

Verdict = Literal["better", "worse", "unsure", "unknown"]
"""unknown: there is no interval."""
BASELINES = tuple(model for model in MODELS if model != NETWORK)


@dataclass(frozen=True, eq=False)
class Results:
    """Scores of one experiment.

    Args:
        facts: of the score stage.
        scores: scores.csv.
        differences: differences.csv.
        traits: traits.csv, empty where there are none.
        trait_differences: trait_differences.csv.
        patches: trait_patches.csv.
    """

    facts: ScoreFacts
    scores: pd.DataFrame = field(repr=False)
    differences: pd.DataFrame = field(repr=False)
    traits: pd.DataFrame = field(repr=False)
    trait_differences: pd.DataFrame = field(repr=False)
    patches: pd.DataFrame = field(repr=False)

    @classmethod
    def read(cls, folder: Path, facts: ScoreFacts) -> Results:
        """What the score stage wrote.

        Raises:
            ValueError: something of it is not there.
        """
        listed = ["scores.csv", "differences.csv"]
        listed += ["traits.csv", "trait_differences.csv", "trait_patches.csv"] if facts.traits.names else []
        for name in listed:
            if not (folder / name).exists():
                raise ValueError(f"scores must exist, got no {folder / name}; run python -m pipeline score")
        tables = [pd.read_csv(io.StringIO(files.read_text(folder / name))) for name in listed]
        tables += [pd.DataFrame()] * (5 - len(tables))
        return cls(facts, *tables)

    @property
    def regions(self) -> list[Region]:
        """Those that were scored."""
        present = set(self.scores["region"])
        return [region for region in REGIONS if region in present]

    @property
    def held_out(self) -> bool:
        """Whether the network has never seen these images."""
        return self.facts.split != "train"

    @property
    def has_intervals(self) -> bool:
        """Whether there were enough images for intervals."""
        return self.facts.intervals == "given"

    @cached_property
    def _scores(self) -> dict[tuple[str, str, str], Score]:
        rows = self.scores[self.scores["band"] == ALL]
        keys = zip(rows["model"], rows["metric"], rows["region"], strict=True)
        return dict(zip(keys, map(Score._make, rows[["value", "ci_low", "ci_high"]].to_numpy()), strict=True))

    def score(self, model: str, metric: str, region: Region) -> Score:
        """One score over all bands; NaN when it is not there."""
        return self._scores.get((model, metric, region), NO_SCORE)

    def verdict(self, against: str, metric: str, region: Region) -> Verdict:
        """Whether the network is better than a baseline, over all bands."""
        d = self.differences
        rows = d[(d["against"] == against) & (d["metric"] == metric) & (d["region"] == region) & (d["band"] == ALL)]
        low, high = (rows[["ci_low", "ci_high"]].to_numpy(float) if len(rows) else np.full((1, 2), np.nan))[0]
        return verdict(low, high, better_is_low=METRICS[metric].better == "low")

    def best_baseline(self, metric: str, region: Region) -> str:
        """The baseline with the best score."""
        sign = 1 if METRICS[metric].better == "low" else -1
        return min(BASELINES, key=lambda model: sign * self.score(model, metric, region).value)

    def unbeaten_bands(self, region: Region) -> tuple[np.ndarray, np.ndarray]:
        """Wavelengths of the bands, and where the network's RMSE is not surely below every baseline's."""
        d = self.differences
        rows = d[(d["region"] == region) & (d["metric"] == "rmse") & (d["band"] != ALL)]
        worst = rows.groupby("wavelength")["ci_high"].agg(lambda ends: ends.max(skipna=False)).sort_index()
        return worst.index.to_numpy(float), ~(worst.to_numpy(float) < 0)

    def trait_score(self, method: str, trait: str, labelled: int) -> Score:
        """R2 of a method with its interval; NaN when it is not there."""
        t = self.traits
        rows = t[(t["method"] == method) & (t["trait"] == trait) & (t["labelled_images"] == labelled)]
        return Score(*rows[["r2", "r2_ci_low", "r2_ci_high"]].to_numpy(float)[0]) if len(rows) else NO_SCORE

    def trait_verdict(self, against: str, trait: str, labelled: int) -> Verdict:
        """Whether the probe is better than another method."""
        d = self.trait_differences
        rows = d[(d["against"] == against) & (d["trait"] == trait) & (d["labelled_images"] == labelled)]
        low, high = (rows[["ci_low", "ci_high"]].to_numpy(float) if len(rows) else np.full((1, 2), np.nan))[0]
        return verdict(low, high, better_is_low=False)

    @property
    def label_numbers(self) -> list[int]:
        """Numbers of labelled images, all of them last."""
        return sorted(int(n) for n in self.traits["labelled_images"].unique()) if len(self.traits) else []


def verdict(low: float, high: float, *, better_is_low: bool) -> Verdict:
    """What the interval of a difference, ours minus another, says about us.

    >>> verdict(-2.0, -1.0, better_is_low=True), verdict(-2.0, -1.0, better_is_low=False)
    ('better', 'worse')
    >>> verdict(-2.0, 1.0, better_is_low=True), verdict(float("nan"), float("nan"), better_is_low=True)
    ('unsure', 'unknown')
    """
    if not np.isfinite(low) or not np.isfinite(high):
        return "unknown"
    if low <= 0 <= high:
        return "unsure"
    return "better" if (high < 0) == better_is_low else "worse"
