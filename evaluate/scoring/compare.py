"""Comparison runs: which forecasts are scored together, and every reason why they may not be.

Contract: each model is a forecast store under its own name. Nothing is scored before all of them have passed: same
grid, units, channels, store and leads, no init time twice, common init times, valid times outside every training period
that is known. What does not fit is refused in one error that lists every fault of every model, and nothing is cut to
fit except init times, which are counted and listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from evaluate.baselines import simple
from evaluate.reading import align, weatherbench
from evaluate.reading.align import Alignment
from evaluate.reading.faults import ComparisonError, Fault
from evaluate.scoring.facts import uncalibrated_name
from pipeline import store
from pipeline.grid import Grid
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig

TRAINED_ON = "trained_on"
"""Attribute of an opened forecast: periods that its user says it was fitted on."""


def open_models(config: WeatherConfig) -> dict[str, xr.Dataset]:
    """The forecasts of a configuration by model name: its own, trained baselines, those of evaluation.compare.

    Raises:
        ValueError: a store is missing or unreadable (all of them are named), or two models share a name.
    """
    ours = store.open_store(config.paths.forecast, stage="python -m pipeline forecast")
    name = str(ours.attrs["contract"]["model"])
    models = {name: ours}
    for path in config.paths.uncalibrated.values():
        models[uncalibrated_name(name)] = store.open_store(path, stage="python -m pipeline forecast")
    taken = sorted(set(models) & set(config.paths.network_forecasts))
    if taken:
        raise ValueError(f"model names must differ from the baselines', got {taken}; rename the experiment")
    for name, path in config.paths.network_forecasts.items():
        models[name] = store.open_store(path, stage="python -m pipeline baselines")
    faults: list[Fault] = []
    for entry in config.evaluation.compare:
        if entry.name in {*models, *simple.NAMES, *simple.TWINS}:
            faults.append(Fault("name", "taken by another model; choose another", entry.name))
            continue
        try:
            ds = weatherbench.open_forecast(entry.path, name=entry.name)
            trained_on = [{"start": p.start.isoformat(), "end": p.end.isoformat()} for p in entry.trained_on]
            models[entry.name] = ds.assign_attrs({TRAINED_ON: trained_on})
        except (ValueError, OSError) as error:
            faults.append(Fault("store", str(error), entry.name))
    if faults:
        raise ComparisonError("evaluation.compare must name forecasts that can be read", faults)
    return models


def require_comparable(
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    normals: Normals,
    *,
    leads: Sequence[int],
    channels: Sequence[str] = (),
) -> Alignment:
    """Check everything that can be known before a field is read.

    Args:
        forecasts: by model name.
        truth: training store.
        normals: of the training periods.
        leads: hours.
        channels: that are scored; the first model's when empty.

    Returns:
        Common init times, and what was left out for which reason.

    Raises:
        ComparisonError: every fault of every forecast at once.
    """
    faults = [
        Fault("name", "taken by a baseline; rename the experiment", name) for name in forecasts if name in simple.NAMES
    ]
    grid = Grid.from_dataset(truth)
    if not normals.grid.allclose(grid):
        faults.append(Fault("grid", f"normals on {normals.grid}, the store on {grid}; run the normals stage again"))
    init_times: dict[str, Any] = {}
    for name, ds in forecasts.items():
        faults += align.store_faults(ds, truth, leads=leads, name=name)
        if "channel" in ds.coords:
            channels = channels or list(map(str, ds["channel"].values))
            lacking = [c for c in channels if c not in ds["channel"].values]
            if lacking:
                reason = f"lacks {lacking}, which others have; list those that all have in evaluation.channels"
                faults.append(Fault("channels", reason, name))
        if "init_time" in ds.coords:
            init_times[name] = ds["init_time"].values
    alignment = None
    try:
        if init_times:
            alignment = align.common_init_times(init_times, truth["time"].values, leads=leads)
            faults += _training_faults(alignment, forecasts, normals)
    except ComparisonError as error:
        faults += error.faults
    if faults or alignment is None:
        raise ComparisonError("forecasts must be comparable with the store and with one another", faults)
    return alignment


def _training_faults(alignment: Alignment, forecasts: Mapping[str, xr.Dataset], normals: Normals) -> list[Fault]:
    """Valid times inside training periods: of the climatology, and of every model that says what it was fitted on."""
    valid, shared = alignment.valid_times, normals.contract.get("train", [])
    faults = align.training_faults(valid, shared)
    for name, ds in forecasts.items():
        trained_on = [*(ds.attrs.get("contract", {}).get("train") or []), *ds.attrs.get(TRAINED_ON, [])]
        unshared = [p for p in trained_on if p not in shared]
        faults += align.training_faults(valid, unshared, who=repr(name), model=name)
    return faults
