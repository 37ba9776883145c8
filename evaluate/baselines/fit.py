"""Baselines with numbers of their own: fitted once on the training periods, kept, and used again.

Contract: pairs of times (init, valid) lie in the training periods, both ends; nothing else is read, so no
test or validation value can reach a fit. For damped persistence a training anomaly is measured against
the climatology without its own weather (`evaluate.baselines.excluded_window`), as a test anomaly is. The store is read
in batches of bounded memory. Each fit is kept in one file beside the normals with the contract of what it
was made from, and is made anew when that differs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console

from evaluate.baselines import linear
from evaluate.baselines.damped import DampingSums, damped_persistence
from evaluate.baselines.excluded_window import OwnWeather
from evaluate.baselines.simple import Predictor, key
from evaluate.reading.align import Alignment, Times, lead_hours, valid_times
from evaluate.reading.reader import Reader
from pipeline import files
from pipeline.console import terminal_progress
from pipeline.grid import Grid
from pipeline.store import contract_digest
from pipeline.weather.climatology import Normals
from pipeline.weather.times import find_pairs, inside

REVISION = 1
"""Raised whenever a fit changes, so that none is mixed with an older one."""
NAMES = ("damped_persistence", "linear")
MAX_INITS = 1000
"""Init times fitted on, spread evenly over the training periods."""


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


def fit(
    names: Sequence[str], truth: xr.Dataset, normals: Normals, *, leads: Sequence[int], channels: Sequence[str],
    folder: Path | None = None, console: Console | None = None,
) -> dict[str, Fit]:  # fmt: skip
    """Fitted baselines by name, from their files or made now.

    Args:
        names: among NAMES.
        truth: training store.
        normals: of its training periods; their contract says which these are.
        leads: hours.
        channels: short names, the order of the predictors' channel axis.
        folder: where fits are kept; None keeps none.
        console: for the progress bar; silent when absent.

    Raises:
        ValueError: no pair of training times is a lead apart, or memory does not hold a linear regression.
    """
    hours = lead_hours(np.asarray(leads)).tolist()
    contract = {
        "revision": REVISION, "store": contract_digest(truth.attrs.get("contract", {})), "normals": normals.digest,
        "lead_hours": hours, "channels": list(channels), "max_inits": MAX_INITS,
        "linear": [linear.PATTERNS, linear.SNAPSHOTS, linear.SNAPSHOT_BYTES, linear.FOLDS],
    }  # fmt: skip
    arrays = {name: _load(folder, name, contract) for name in names}
    absent = [name for name in names if arrays[name] is None]
    if absent:
        for name, made in _make(absent, truth, normals, hours, list(channels), console).items():
            arrays[name] = made
            if folder is not None:
                _save(folder, name, contract, made)
    return {name: _finish(name, found) for name, found in arrays.items() if found is not None}


def _make(
    names: Sequence[str], truth: xr.Dataset, normals: Normals, leads: list[int], channels: list[str],
    console: Console | None,
) -> dict[str, dict[str, NDArray[Any]]]:  # fmt: skip
    """Two passes: means of the weather around each time and snapshots for the patterns, then all pairs."""
    area = Grid.from_dataset(truth).cell_area.ravel()
    periods = normals.contract.get("train", [])
    times: Times = truth["time"].values.astype("datetime64[ns]")
    init = times[find_pairs(times, lead_hours=leads, periods=periods, all_leads=True).init]
    init = init[:: max(1, math.ceil(init.size / MAX_INITS))]
    spread = normals.anomaly_std[normals.channel_indices(channels)]
    scale = linear.scale_of(area, spread)
    own = OwnWeather(
        times[inside(times, periods)], window_days=float(normals.contract.get("window_days", 61)), values=scale.size
    )
    count = linear.snapshot_count(init.size, values=scale.size) if "linear" in names else 0
    snapshots = _survey(truth, normals, init, channels, own, count=count, console=console)
    model: linear.LinearModel | None = None
    if "linear" in names:
        snapshots *= scale
        wanted = max(1, min(linear.PATTERNS, count // 3))
        patterns = linear.leading_patterns(snapshots.reshape(count, -1), count=wanted)
        model = linear.LinearModel(patterns, scale, np.zeros((len(leads), len(patterns), len(patterns))))
    del snapshots
    sums = DampingSums(leads=len(leads), area=area)
    states: dict[int, NDArray[np.float64]] = {}
    reader = Reader(truth, normals, {}, channels=channels, alignment=Alignment(init, np.asarray(leads)))
    with terminal_progress("batches", on=console) as progress:
        for batch in progress.track(reader.batches(), total=len(reader), description="fit baselines"):
            anomalies = {t: batch.states[t] - batch.normals[t] for t in batch.states}
            fresh = [t for t in anomalies if t not in states]
            if model is not None and fresh:
                found = model.coefficients(np.stack([anomalies[t] for t in fresh]))
                states |= zip(fresh, found, strict=True)
            if "damped_persistence" in names:
                anomalies = {t: own.without(t, a) for t, a in anomalies.items()}
                for t, time in enumerate(batch.init_times):
                    sums.add(anomalies[key(time)], [anomalies[key(v)] for v in batch.valid_times[t]])
    made: dict[str, dict[str, NDArray[Any]]] = {}
    if "damped_persistence" in names:
        made["damped_persistence"] = {
            "factors": sums.factors,
            "inits": np.array(len(init)),
            "own_share": np.array(own.largest_share),
        }
    if model is not None:
        made["linear"] = _regress(model, states, init, leads)
    return made


def _regress(
    model: linear.LinearModel, states: Mapping[int, NDArray[np.float64]], init: Times, leads: list[int]
) -> dict[str, NDArray[Any]]:
    """One matrix a lead."""
    starts = init.astype("datetime64[ns]").astype(np.int64)
    x = np.stack([states[int(t)] for t in starts])
    operators, strengths, explained = [], [], []
    for ends in valid_times(init, leads).astype("datetime64[ns]").astype(np.int64).T:
        y = np.stack([states[int(t)] for t in ends])
        strength, share = linear.choose_strength(x, y, starts=starts, ends=ends)
        operators.append(linear.ridge(x, y, strength=strength))
        strengths.append(strength)
        explained.append(share)
    return {
        "patterns": model.patterns, "scale": model.scale, "operators": np.stack(operators),
        "strengths": np.array(strengths), "explained": np.array(explained), "inits": np.array(len(init)),
    }  # fmt: skip


def _survey(
    truth: xr.Dataset, normals: Normals, init: Times, channels: list[str], own: OwnWeather, *, count: int,
    console: Console | None,
) -> NDArray[np.float32]:  # fmt: skip
    """Feed `own` with all init times; returns `count` anomalies spread over them, (count, channel, cell)."""
    reader = Reader(truth, normals, {}, channels=channels, alignment=Alignment(init, np.array([0])))
    chosen = np.linspace(0, init.size - 1, count).round().astype(np.int64) if count else np.empty(0, np.int64)
    rows = {int(position): row for row, position in enumerate(chosen)}
    snapshots = np.empty((count, len(channels), reader.cells), np.float32)
    with terminal_progress("batches", on=console) as progress:
        for batch in progress.track(reader.batches(), total=len(reader), description="fit survey"):
            for i, time in enumerate(batch.init_times, start=batch.start):
                anomaly = batch.states[key(time)] - batch.normals[key(time)]
                own.add(key(time), anomaly)
                if i in rows:
                    snapshots[rows[i]] = anomaly
    return snapshots


def _finish(name: str, arrays: Mapping[str, NDArray[Any]]) -> Fit:
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


def _load(folder: Path | None, name: str, contract: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
    """A fit made from the same things, None where there is none."""
    path = None if folder is None else folder / f"{name}.npz"
    if path is None or not path.exists():
        return None
    with np.load(path) as kept:
        found = {part: kept[part] for part in kept.files}
    same = json.loads(found.pop("contract").tobytes()) == json.loads(json.dumps(contract))
    return found if same else None


def _save(folder: Path, name: str, contract: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Keep a fit; the file is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{name}.tmp.npz"
    parts: dict[str, Any] = {**arrays, "contract": np.frombuffer(json.dumps(contract).encode(), np.uint8)}
    np.savez(temporary, **parts)
    files.sync(temporary)
    temporary.replace(folder / f"{name}.npz")
    files.sync(folder)
