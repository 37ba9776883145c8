"""Baselines with fitted numbers: fitted once on the training periods, kept, and used again.

Contract: pairs of times (init, valid) lie in the training periods, both ends; nothing else is read, so no test or
validation value can reach a fit. For damped persistence a training anomaly is measured against the climatology without
the weather around it (`evaluate.baselines.excluded_window`), as a test anomaly is. The store is read in batches of
bounded memory. Each fit is kept in one file beside the normals with the contract of what it was made from; where that
differs, the fit is repeated.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console

from evaluate.baselines import linear
from evaluate.baselines.damped import DampingSums, damped_persistence
from evaluate.baselines.excluded_window import ExcludedWindow
from evaluate.reading.align import Alignment, lead_hours, valid_times
from evaluate.reading.batch import Batch, Predictor, key
from evaluate.reading.reader import Reader
from pipeline import files
from pipeline.console import terminal_progress
from pipeline.grid import Grid
from pipeline.store import contract_digest
from pipeline.weather.climatology import Normals
from pipeline.weather.foresight import STATE_BYTES
from pipeline.weather.times import Times, coverage, find_pairs, inside

REVISION = 1
"""Raised whenever a fit changes, so that none is mixed with an older one."""
NAMES = ("damped_persistence", "linear")
MAX_INITS = 1000
"""Init times fitted on, spread evenly over the training periods."""

Arrays = dict[str, NDArray[Any]]
"""The numbers of a fit, by the name they have in its file."""


@dataclass(frozen=True)
class Fit:
    """One fitted baseline.

    Args:
        predictor: makes its forecasts.
        digest: of the numbers.
        facts: what a report should say of the fit, JSON-ready.
    """

    predictor: Predictor
    digest: str
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """What baselines are fitted on.

    Args:
        truth: training store.
        normals: of its training periods; their contract says which these are.
        leads: hours.
        channels: short names, the order of the predictors' channel axis.
        console: for progress bars; silent when absent.
    """

    truth: xr.Dataset
    normals: Normals
    leads: Sequence[int]
    channels: Sequence[str]
    console: Console | None = None

    @property
    def contract(self) -> dict[str, Any]:
        """What decides the numbers of a fit, JSON-ready."""
        return {
            "revision": REVISION,
            "store": contract_digest(self.truth.attrs.get("contract", {})),
            "normals": self.normals.digest,
            "lead_hours": lead_hours(np.asarray(self.leads)).tolist(),
            "channels": list(self.channels),
            "max_inits": MAX_INITS,
            "linear": [linear.PATTERNS, linear.SNAPSHOTS, STATE_BYTES, linear.FOLDS],
        }

    @cached_property
    def area(self) -> NDArray[np.float64]:
        """Of every cell."""
        return Grid.from_dataset(self.truth).cell_area.ravel()

    @cached_property
    def times(self) -> Times:
        """Of the training periods."""
        times: Times = self.truth["time"].values.astype("datetime64[ns]")
        return times[inside(times, self.normals.contract.get("train", []))]

    @cached_property
    def groups(self) -> list[tuple[list[int], Times]]:
        """Leads that are fitted on the same init times, at most MAX_INITS of them.

        All leads together where some init time has a pair for every lead, else each by itself.
        """
        periods = self.normals.contract.get("train", [])
        common = coverage(self.times, lead_hours=self.leads, periods=periods).with_all > 0
        groups = []
        for leads in [list(self.leads)] if common else [[lead] for lead in self.leads]:
            pairs = find_pairs(self.times, lead_hours=leads, periods=periods, all_leads=True)
            groups.append((leads, self.times[pairs.init][:: max(1, math.ceil(pairs.init.size / MAX_INITS))]))
        return groups

    @cached_property
    def init(self) -> Times:
        """All init times, of any group."""
        return self.groups[0][1] if len(self.groups) == 1 else np.unique(np.concatenate([i for _, i in self.groups]))

    def batches(self, leads: Sequence[int], description: str, *, init: Times | None = None) -> Iterator[Batch]:
        """Truths and climatologies of init times (all of them when absent) and leads, with a progress bar."""
        alignment = Alignment(self.init if init is None else init, np.asarray(leads))
        reader = Reader(self.truth, self.normals, {}, channels=self.channels, alignment=alignment)
        with terminal_progress("batches", on=self.console) as progress:
            yield from progress.track(reader.batches(), total=len(reader), description=description)


def fit(names: Sequence[str], training: Training, *, folder: Path | None = None) -> dict[str, Fit]:
    """Fitted baselines by name, from their files or fitted now.

    Args:
        names: among NAMES.
        training: what they are fitted on.
        folder: where fits are kept; None keeps none.

    Raises:
        ValueError: no pair of training times is a lead apart, or memory does not hold a linear regression.
    """
    kept = {name: _load(folder, name, training.contract) for name in names}
    absent = [name for name in names if kept[name] is None]
    fitted = _fit(absent, training) if absent else {}
    for name, arrays in fitted.items():
        _save(folder, name, training.contract, arrays)
    return {name: _finish(name, kept[name] or fitted[name]) for name in names}


def _fit(names: Sequence[str], training: Training) -> dict[str, Arrays]:
    """Two passes: means of the weather around each time and snapshots for the patterns, then all pairs."""
    std = training.normals.anomaly_std[training.normals.channel_indices(training.channels)]
    scale = linear.scale_of(training.area, std)
    window_days = float(training.normals.contract.get("window_days", 61))
    window = ExcludedWindow(training.times, window_days=window_days, values=scale.size)
    with_all = training.init.size if len(training.groups) == 1 else 0
    count = linear.snapshot_count(with_all, values=scale.size) if "linear" in names else 0
    snapshots = _survey(training, window, count=count)
    model: linear.LinearModel | None = None
    if "linear" in names:
        snapshots *= scale
        wanted = max(1, min(linear.PATTERNS, count // 3))
        patterns = linear.leading_patterns(snapshots.reshape(count, -1), count=wanted)
        model = linear.LinearModel(patterns, scale, np.zeros((len(training.leads), len(patterns), len(patterns))))
    del snapshots
    factors: list[NDArray[np.float64]] = []
    states: dict[int, NDArray[np.float64]] = {}
    for leads, init in training.groups:
        sums = DampingSums(leads=len(leads), channels=len(training.channels), area=training.area)
        for batch in training.batches(leads, "fit baselines", init=init):
            anomalies = {t: batch.states[t] - batch.normals[t] for t in batch.states}
            fresh = [t for t in anomalies if t not in states]
            if model is not None and fresh:
                states |= zip(fresh, model.coefficients(np.stack([anomalies[t] for t in fresh])), strict=True)
            if "damped_persistence" in names:
                anomalies = {t: window.without(t, a) for t, a in anomalies.items()}
                for t, time in enumerate(batch.init_times):
                    sums.add(anomalies[key(time)], [anomalies[key(v)] for v in batch.valid_times[t]])
        factors.append(sums.factors)
    fitted: dict[str, Arrays] = {}
    if "damped_persistence" in names:
        share = np.array(window.largest_share)
        fitted["damped_persistence"] = {"factors": np.concatenate(factors), "own_share": share}
    if model is not None:
        fitted["linear"] = _regress(model, states, training)
    return {name: arrays | {"inits": np.array(training.init.size)} for name, arrays in fitted.items()}


def _survey(training: Training, window: ExcludedWindow, *, count: int) -> NDArray[np.float32]:
    """Feed the window with all init times; returns `count` anomalies spread over them, (count, channel, cell)."""
    chosen = np.linspace(0, training.init.size - 1, count).round().tolist() if count else []
    rows = {int(position): row for row, position in enumerate(chosen)}
    snapshots = np.empty((count, len(training.channels), training.area.size), np.float32)
    for batch in training.batches([0], "fit survey"):
        for i, time in enumerate(batch.init_times, start=batch.start):
            anomaly = batch.states[key(time)] - batch.normals[key(time)]
            window.add(key(time), anomaly)
            if i in rows:
                snapshots[rows[i]] = anomaly
    return snapshots


def _regress(model: linear.LinearModel, states: Mapping[int, NDArray[np.float64]], training: Training) -> Arrays:
    """One matrix per lead."""
    starts = training.init.astype(np.int64)
    x = np.stack([states[int(t)] for t in starts])
    operators, strengths, explained = [], [], []
    for ends in valid_times(training.init, training.leads).astype(np.int64).T:
        y = np.stack([states[int(t)] for t in ends])
        strength, share = linear.choose_strength(x, y, starts=starts, ends=ends)
        operators.append(linear.ridge(x, y, strength=strength))
        strengths.append(strength)
        explained.append(share)
    chosen = {"operators": np.stack(operators), "strengths": np.array(strengths), "explained": np.array(explained)}
    return {"patterns": model.patterns, "scale": model.scale, **chosen}


def _finish(name: str, arrays: Arrays) -> Fit:
    digest = hashlib.sha256()
    for part in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[part]).tobytes())
    facts: dict[str, Any] = {"init_times_fitted_on": int(arrays["inits"])}
    if name == "damped_persistence":
        facts["largest_own_share_of_climatology"] = round(float(arrays["own_share"]), 3)
        return Fit(damped_persistence(arrays["factors"]), digest.hexdigest()[:16], facts)
    facts |= {
        "patterns": len(arrays["patterns"]),
        "ridge_strength": [float(f"{s:.3g}") for s in arrays["strengths"]],
        "explained_in_cross_validation": [round(float(e), 4) for e in arrays["explained"]],
    }
    model = linear.LinearModel(arrays["patterns"], arrays["scale"], arrays["operators"])
    return Fit(model, digest.hexdigest()[:16], facts)


def _load(folder: Path | None, name: str, contract: Mapping[str, Any]) -> Arrays | None:
    """A fit to the same things, None where there is none."""
    path = None if folder is None else folder / f"{name}.npz"
    if path is None or not path.exists():
        return None
    with np.load(path) as kept:
        arrays = {part: kept[part] for part in kept.files}
    same = json.loads(arrays.pop("contract").tobytes()) == json.loads(json.dumps(contract))
    return arrays if same else None


def _save(folder: Path | None, name: str, contract: Mapping[str, Any], arrays: Arrays) -> None:
    """Keep a fit, where there is a folder for it; the file is there whole or not at all."""
    if folder is None:
        return
    parts: dict[str, Any] = {**arrays, "contract": np.frombuffer(json.dumps(contract).encode(), np.uint8)}
    with files.replacing(folder / f"{name}.npz") as temporary:
        np.savez(temporary, **parts)
