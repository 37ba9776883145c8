"""The sums of forecast stores and baselines over their common init times, with a checkpoint.

Contract: nothing is summed before all stores have passed `evaluate.scoring.compare`. A checkpoint belongs to one set of
models, init times, leads, channels, stores and fits; one of anything else is ignored. A run that was killed resumes at
its checkpoint and ends with the same sums.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console

from evaluate.baselines import fit, simple
from evaluate.reading.align import Alignment
from evaluate.reading.reader import Reader
from evaluate.scoring import compare
from evaluate.scoring.kernel import Kernel, Sums
from evaluate.scoring.regions import region_weights
from evaluate.scoring.workers import summed
from pipeline import files
from pipeline.console import terminal_progress
from pipeline.grid import Grid
from pipeline.store import contract_digest
from pipeline.weather.climatology import Normals

SAVE_SECONDS = 60.0
"""Between two checkpoints."""
MAP_BLOCK_HOURS = 240
"""Init times of ten days make one block of the significance test on maps."""
MAX_MAP_BLOCKS = 32


@dataclass(frozen=True)
class ScoringOptions:
    """What is scored, and how it is computed.

    Args:
        leads: hours; every forecast must have them.
        map_channels: channels that get maps and spectra.
        baselines: from `evaluate.baselines.simple.NAMES`.
        channels: that are scored; the first model's when empty.
        compared: fingerprints of forecasts from elsewhere, so that no checkpoint of replaced ones is resumed.
        fits_folder: where fitted baselines are kept.
        batch_size: init times read at once; 0 chooses it by memory.
        workers: processes that sum side by side.
        scheduler: address of a Dask scheduler whose workers do it instead.
        console: for the progress bar; silent when absent.
    """

    leads: Sequence[int]
    map_channels: Sequence[str]
    baselines: Sequence[str] = ("persistence", "climatology")
    channels: Sequence[str] = ()
    compared: Mapping[str, str] = field(default_factory=dict)
    fits_folder: Path | None = None
    batch_size: int = 0
    workers: int = 1
    scheduler: str | None = None
    console: Console | None = None


@dataclass(frozen=True)
class Scored:
    """What `score_stores` computed.

    Args:
        sums: per init time and region, and maps.
        alignment: init times and leads, and what was left out.
        regions_left_out: regions that could not be scored, with reasons.
        spacing_hours: the usual spacing of the init times.
        fits: what is worth knowing of the fitted baselines.
    """

    sums: Sums
    alignment: Alignment
    regions_left_out: dict[str, str]
    spacing_hours: float
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def score_stores(
    forecasts: Mapping[str, xr.Dataset],
    truth: xr.Dataset,
    normals: Normals,
    options: ScoringOptions,
    *,
    checkpoint: Path | None = None,
) -> Scored:
    """Sum every statistic of every model over common init times.

    Args:
        forecasts: forecast stores by model name.
        truth: training store.
        normals: of the training periods, on the same grid.
        options: what is scored, and how it is computed.
        checkpoint: file to save to now and then, and to resume from.

    Raises:
        ValueError: stores that cannot be compared (every reason at once), no common init time, or a NaN.
    """
    channels = list(options.channels or map(str, next(iter(forecasts.values()))["channel"].values))
    alignment = compare.require_comparable(forecasts, truth, normals, leads=options.leads, channels=channels)
    training = fit.Training(truth, normals, options.leads, channels, options.console)
    fits = fit.fit([n for n in options.baselines if n in fit.NAMES], training, folder=options.fits_folder)
    predictors = simple.PREDICTORS | {n: f.predictor for n, f in fits.items()}
    models = {name: simple.stored(name) for name in forecasts} | {n: predictors[n] for n in options.baselines}
    gaps = np.diff(alignment.init_times) / np.timedelta64(1, "h")
    spacing = float(np.median(gaps)) if gaps.size else 24.0
    blocks = _map_blocks(len(alignment.init_times), spacing)
    regions = region_weights(Grid.from_dataset(truth), land_sea_mask=land_sea_mask(truth))
    batch_size, leads = options.batch_size, alignment.leads.tolist()
    reader = Reader(truth, normals, forecasts, channels=channels, alignment=alignment, batch_size=batch_size)
    kernel = Kernel(models, regions, channels, leads, list(options.map_channels), blocks)
    key = {
        "init_times": np.datetime_as_string(alignment.init_times, "h").tolist(),
        "leads": leads,
        "models": list(models),
        "channels": channels,
        "map_channels": kernel.map_channels,
        "normals": normals.digest,
        "stores": [contract_digest(ds.attrs.get("contract", {})) for ds in [truth, *forecasts.values()]],
        "fits": {n: f.digest for n, f in fits.items()},
        "batch_size": reader.batch_size,
        "layout": 1,
        **({"compared": dict(options.compared)} if options.compared else {}),
    }
    sums = _sum(reader, kernel, options, checkpoint=checkpoint, key=key)
    return Scored(sums, alignment, dict(regions.attrs["left_out"]), spacing, {n: f.facts for n, f in fits.items()})


def _sum(
    reader: Reader, kernel: Kernel, options: ScoringOptions, *, checkpoint: Path | None, key: Mapping[str, Any]
) -> Sums:
    """All batches, resuming from a checkpoint of the same run and saving one now and then."""
    parts: list[Sums] = []
    done, total = 0, len(reader)
    note = None if checkpoint is None else checkpoint.with_suffix(".json")
    if checkpoint is not None and note is not None and note.exists() and checkpoint.exists():
        saved = files.read_json(note)
        if saved["key"] == json.loads(json.dumps(key)):
            parts, done = [Sums.load(checkpoint)], int(saved["done"])
    with terminal_progress("batches", on=options.console) as progress:
        task = progress.add_task("score", total=total, completed=done)
        batches = summed(reader, kernel, first=done, workers=options.workers, scheduler=options.scheduler)

        def until_save() -> Iterator[Sums]:
            """What was summed before, then further batches until it is time to save."""
            nonlocal done
            yield from parts
            until = time.monotonic() + SAVE_SECONDS
            for count, sums in batches:
                yield sums
                done += count
                progress.advance(task, count)
                if time.monotonic() > until:
                    return

        while done < total:
            parts = [Sums.merge(until_save())]
            if checkpoint is not None and note is not None:
                note.unlink(missing_ok=True)
                parts[0].save(checkpoint)
                files.write_json(note, {"key": key, "done": done})
    return parts[0]


def land_sea_mask(truth: xr.Dataset) -> NDArray[np.floating] | None:
    """Land fraction on the grid of a training store, or None where the store has none."""
    if "static" not in truth or "lsm" not in truth["static_channel"].values:
        return None
    return np.asarray(truth["static"].sel(static_channel="lsm").values)


def _map_blocks(num: int, spacing_hours: float) -> NDArray[np.int64]:
    length = max(1, round(MAP_BLOCK_HOURS / spacing_hours), -(-num // MAX_MAP_BLOCKS))
    return np.arange(num) // length
