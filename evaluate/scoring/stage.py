"""The score stage: every model and baseline on the same init times, leads, channels and regions.

Contract: reads the training store, the normals and one or more forecast stores; writes
`scores.csv` (tidy), `scores.nc` (maps, spectra) and `sums.nc` (the sums per init time that both are made
of, from which other intervals, or scores of more init times, follow without reading a field again).
`sums.nc` also is the checkpoint: a run that was killed goes on from it. The receipt is written last.

References that are too dear to be made at every init time (evaluation.twins) do not cut the sample of the
others: `scores_common.csv` compares all models on the init times that the twins have, and `scores.csv` holds
the twins' rows from there, which say in n_init on how many init times they stand. `differences.csv` has RMSE and
ACC of the model minus those of every other one, with paired intervals. Where there is a ceiling, `shares.csv` says how
much of the way to it every model has gone, on those same init times. Forecasts from elsewhere that were replaced under
the same path are scored anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console

from evaluate.baselines import fit, simple
from evaluate.reading import align
from evaluate.reading.reader import Reader
from evaluate.scoring import bootstrap, ceiling_share, compare, paired, tables
from evaluate.scoring.kernel import Kernel, Sums
from evaluate.scoring.regions import region_weights
from evaluate.scoring.workers import summed
from pipeline import files, provenance
from pipeline.console import data_name, terminal_progress
from pipeline.grid import Grid
from pipeline.store import contract_digest, open_store, read_manifest
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig

SAVE_SECONDS = 60.0
"""Between two checkpoints."""
MAP_BLOCK_HOURS = 240
"""Init times of ten days make one block of the significance test on maps."""
MAX_MAP_BLOCKS = 32
SPECTRUM_BAND = (30.0, 60.0)
"""Latitudes of the zonal spectra, both hemispheres, degrees."""


@dataclass(frozen=True)
class Scored:
    """What `score_stores` found.

    Args:
        sums: per init time and region, and maps.
        alignment: init times and leads, and what was left out.
        left_out: regions that could not be made, with reasons.
        spacing_hours: the usual spacing of the init times.
        fits: what is worth knowing of the fitted baselines.
    """

    sums: Sums
    alignment: align.Alignment
    left_out: dict[str, str]
    spacing_hours: float
    fits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def run_score(config: WeatherConfig) -> None:
    """Score the forecasts of a configuration and its baselines.

    Raises:
        ValueError: an earlier stage is missing, or forecasts and truth cannot be compared.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    table, maps, sums, common, common_maps, paired_path, shared_path = (
        paths.scores / name for name in ("scores.csv", "scores.nc", "sums.nc", "scores_common.csv", "scores_common.nc",
                                         "differences.csv", "shares.csv")
    )  # fmt: skip
    compared = {entry.name: compare.fingerprint(Path(entry.path)) for entry in config.evaluation.compare}
    if table.exists() and maps.exists() and _scored_before(config, compared):
        console.print(f"score: complete in {paths.scores}", markup=False)
        return
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    normals = Normals.open(paths.normals)
    models = compare.open_models(config)
    name = next(iter(models))
    twins = compare.open_twins(config)
    if all(np.array_equal(ds["init_time"].values, models[name]["init_time"].values) for ds in twins.values()):
        models, twins = models | twins, {}
    options: dict[str, Any] = {
        "leads": config.forecast.lead_hours, "names": config.evaluation.baselines,
        "map_channels": config.evaluation.variables, "console": console, "fits_folder": paths.fits,
        "channels": config.evaluation.channels,
        "workers": config.evaluation.workers, "scheduler": config.evaluation.scheduler, "compared": compared,
    }  # fmt: skip
    with files.lock(paths.scores / "score.lock"):
        scored = score_stores(models, truth, normals, checkpoint=sums, **options)
        facts = describe(scored, truth, normals, config)
        facts |= {"missing_times": _facts(paths.store).get("missing_times", []), "model": name, "compared": compared}
        facts["models"] = {
            m: {"init_times": facts["n_init"], "contract": contract_digest(ds.attrs.get("contract", {}))}
            for m, ds in models.items()
        }
        rows = [table_of(scored, truth, facts)]
        gaps = [_paired(scored, truth, facts, model=name)]
        best = (scored, facts) if ceiling_share.CEILING in models else None
        if twins:
            both = score_stores(
                models | twins, truth, normals, checkpoint=paths.scores / "sums_common.nc", **options
            )  # fmt: skip
            shared = describe(both, truth, normals, config)
            frame = table_of(both, truth, shared)
            files.write_text(common, frame.to_csv(index=False, float_format="%.7g"))
            rows.append(frame[frame["model"].isin(twins)])
            gaps.append(_paired(both, truth, shared, model=name, against=list(twins)))
            facts["twins"] = {
                "models": list(twins), "table": common.name, "n_init": shared["n_init"], "of": facts["n_init"],
                "first_init": shared["first_init"], "last_init": shared["last_init"],
                "init_spacing_hours": shared["init_spacing_hours"], "bootstrap": shared["bootstrap"],
            }  # fmt: skip
            write_maps(both, truth, maps=common_maps, facts=shared)
            best = (both, shared) if ceiling_share.CEILING in twins else None
        if best is not None:
            found = ceiling_share.share_table(best[0].sums, block=best[1]["bootstrap"]["block_init_times"])
            files.write_text(shared_path, found.to_csv(index=False, float_format="%.7g"))
        files.write_text(paired_path, pd.concat(gaps).to_csv(index=False, float_format="%.7g"))
        files.write_text(table, pd.concat(rows).to_csv(index=False, float_format="%.7g"))
        write_maps(scored, truth, maps=maps, facts=facts)
    outputs = [table, paired_path, maps, sums, *([common, common_maps] if twins else [])]
    outputs += [shared_path] if best is not None else []
    provenance.write_receipt(config, stage="score", outputs=outputs, facts=facts)
    beside = f"; {', '.join(twins)} on {facts['twins']['n_init']} of them, {common}" if twins else ""
    console.print(f"score: {facts['n_init']} init times, {table}{beside}", markup=False)


def _scored_before(config: WeatherConfig, compared: Mapping[str, str]) -> bool:
    """Whether the stage is complete, with these very forecasts from elsewhere; one that is gone has not changed."""
    if not config.paths.receipt("score").exists():
        return False
    known = provenance.read_receipt(config, stage="score")["facts"].get("compared", {})
    return all(known.get(name) == found for name, found in compared.items() if found)


def score_stores(
    forecasts: Mapping[str, xr.Dataset], truth: xr.Dataset, normals: Normals, *, leads: Sequence[int],
    names: Sequence[str] = ("persistence", "climatology"), map_channels: Sequence[str], checkpoint: Path | None = None,
    console: Console | None = None, batch_size: int | None = None, fits_folder: Path | None = None,
    channels: Sequence[str] = (), workers: int = 1, scheduler: str | None = None,
    compared: Mapping[str, str] | None = None,
) -> Scored:  # fmt: skip
    """Sum every statistic of every model over common init times.

    Args:
        forecasts: forecast stores by model name.
        truth: training store.
        normals: of the training periods, on the same grid.
        leads: hours; every forecast must have them.
        names: baselines, from `evaluate.baselines.simple.NAMES`.
        map_channels: channels that get maps and spectra.
        checkpoint: file to save to now and then, and to go on from.
        console: for the progress bar; silent when absent.
        batch_size: init times read at once; chosen by memory when absent.
        fits_folder: where fitted baselines are kept.
        channels: that are scored; the first model's when empty.
        workers: processes that sum side by side.
        scheduler: address of a Dask scheduler whose workers do it instead.
        compared: fingerprints of forecasts from elsewhere, so that no checkpoint of replaced ones is taken up.

    Raises:
        ValueError: stores that cannot be compared (every reason at once), no common init time, or a NaN.
    """
    channels = list(channels or map(str, next(iter(forecasts.values()))["channel"].values))
    alignment = compare.require_comparable(forecasts, truth, normals, leads=leads, names=names, channels=channels)
    grid = Grid.from_dataset(truth)
    fits = fit.fit(
        [n for n in names if n in fit.NAMES], truth, normals, leads=leads, channels=channels, folder=fits_folder,
        console=console,
    )  # fmt: skip
    predictors = simple.PREDICTORS | {n: f.predictor for n, f in fits.items()}
    gaps = np.diff(alignment.init_times) / np.timedelta64(1, "h")
    spacing = float(np.median(gaps)) if gaps.size else 24.0
    regions = region_weights(grid, land_sea_mask=_land_sea_mask(truth))
    reader = Reader(
        truth, normals, forecasts, channels=channels, alignment=alignment, batch_size=batch_size
    )  # fmt: skip
    inside = (np.abs(grid.latitude) >= SPECTRUM_BAND[0]) & (np.abs(grid.latitude) <= SPECTRUM_BAND[1])
    rows = grid.cell_area.sum(axis=1) * (inside if inside.any() else 1.0)
    models = {name: simple.stored(name) for name in forecasts} | {n: predictors[n] for n in names}
    kernel = Kernel(
        models, channels=channels, leads=alignment.leads.tolist(), regions=regions, map_channels=map_channels,
        block_of=_map_blocks(len(alignment.init_times), spacing), spectrum_rows=rows,
    )  # fmt: skip
    key = {
        "init_times": np.datetime_as_string(alignment.init_times, "h").tolist(), "leads": alignment.leads.tolist(),
        "models": list(models), "channels": channels, "map_channels": list(map_channels), "normals": normals.digest,
        "stores": [contract_digest(ds.attrs.get("contract", {})) for ds in [truth, *forecasts.values()]],
        "fits": {n: f.digest for n, f in fits.items()}, "batch_size": reader.batch_size, "layout": 1,
    } | ({"compared": dict(compared)} if compared else {})  # fmt: skip
    pieces = partial(summed, reader, kernel, workers=workers, scheduler=scheduler)
    sums = _stream(pieces, len(reader), checkpoint=checkpoint, key=key, console=console)
    return Scored(sums, alignment, dict(regions.attrs["left_out"]), spacing, {n: f.facts for n, f in fits.items()})


def describe(scored: Scored, truth: xr.Dataset, normals: Normals, config: WeatherConfig) -> dict[str, Any]:
    """The facts that must stand beside every score, JSON-ready."""
    init = np.datetime_as_string(scored.alignment.init_times, "h")
    block = tables.choose_block(scored.sums, channels=config.evaluation.variables, spacing_hours=scored.spacing_hours)
    enough = len(init) / block >= bootstrap.FEWEST_BLOCKS
    return {
        "label": truth.attrs["contract"]["source"]["label"],
        "n_init": len(init),
        "first_init": str(init[0]),
        "last_init": str(init[-1]),
        "init_spacing_hours": scored.spacing_hours,
        "lead_hours": scored.alignment.leads.tolist(),
        "left_out_init_times": {k: v[:20] + ["..."] * (len(v) > 20) for k, v in scored.alignment.dropped.items()},
        "grid": Grid.from_dataset(truth).describe(),
        "climatology": {"kind": normals.kind, "years": normals.contract.get("years", []),
                        "periods": [f"{p.start:%Y-%m-%dT%H} .. {p.end:%Y-%m-%dT%H}" for p in config.data.splits.train],
                        "window_days": config.data.normals.window_days},
        "fitted_baselines": {n: dict(f) for n, f in scored.fits.items()},
        "regions": list(map(str, scored.sums.regional.sums["region"].values)),
        "regions_left_out": scored.left_out,
        "bootstrap": {"kind": "moving block, stretched percentile", "confidence": 0.95, "block_init_times": block,
                      "block_days": block * scored.spacing_hours / 24.0, "resamples": bootstrap.NUM_RESAMPLES,
                      "intervals": "given" if enough else f"none: {len(init)} init times hold fewer than "
                      f"{bootstrap.FEWEST_BLOCKS} blocks of {block * scored.spacing_hours / 24.0:g} days"},
        "formulas": "docs/metrics.md",
    }  # fmt: skip


def table_of(scored: Scored, truth: xr.Dataset, facts: Mapping[str, Any]) -> pd.DataFrame:
    """All metrics finished, as rows of scores.csv."""
    scores = tables.regional_scores(scored.sums, block=facts["bootstrap"]["block_init_times"])
    return tables.to_table(scores, units=_units(truth), num_init=facts["n_init"])


def _paired(
    scored: Scored, truth: xr.Dataset, facts: Mapping[str, Any], *, model: str, against: Sequence[str] | None = None
) -> pd.DataFrame:
    others = [str(m) for m in scored.sums.regional.sums["model"].values if m != model]
    return paired.paired_table(
        scored.sums, model=model, against=others if against is None else against,
        block=facts["bootstrap"]["block_init_times"], units=_units(truth),
    )  # fmt: skip


def write_maps(scored: Scored, truth: xr.Dataset, *, maps: Path, facts: dict[str, Any]) -> None:
    """Write maps and spectra."""
    units = _units(truth)
    ds = tables.map_scores(scored.sums)
    mask = _land_sea_mask(truth)
    if mask is not None:
        ds["land_sea_mask"] = (("latitude", "longitude"), mask.astype(np.float32))
    ds["unit"] = ("channel", [units[c] for c in map(str, ds["channel"].values)])
    ds["lead"].attrs["units"] = "hours"
    ds.attrs = {"title": f"Forecast scores, {data_name(facts['label'])}", "facts": json.dumps(facts)}
    temporary = maps.with_name(f".{maps.name}.tmp")
    ds.to_netcdf(temporary, engine="netcdf4")
    temporary.replace(maps)


def _stream(
    pieces: Callable[..., Iterator[tuple[int, Sums]]], length: int, *, checkpoint: Path | None, key: dict[str, Any],
    console: Console | None,
) -> Sums:  # fmt: skip
    """All batches, going on from a checkpoint of the same run and saving one now and then."""
    parts: list[Sums] = []
    done = 0
    note = checkpoint.with_suffix(".json") if checkpoint is not None else None
    if checkpoint is not None and note is not None and note.exists() and checkpoint.exists():
        found = files.read_json(note)
        if found["key"] == json.loads(json.dumps(key)):
            parts, done = [Sums.load(checkpoint)], int(found["done"])
    progress = terminal_progress("batches", on=console)
    with progress:
        task = progress.add_task("score", total=length, completed=done)
        batches = pieces(first=done)

        def some() -> Iterator[Sums]:
            """What was summed before, then fresh batches until it is time to save."""
            nonlocal done
            yield from parts
            until = time.monotonic() + SAVE_SECONDS
            for count, sums in batches:
                yield sums
                done += count
                progress.advance(task, count)
                if time.monotonic() > until:
                    return

        while done < length:
            parts = [Sums.merge(some())]
            if checkpoint is not None and note is not None:
                note.unlink(missing_ok=True)
                parts[0].save(checkpoint)
                files.write_json(note, {"key": key, "done": done})
    return parts[0]


def _map_blocks(num: int, spacing_hours: float) -> Any:
    length = max(1, round(MAP_BLOCK_HOURS / spacing_hours), -(-num // MAX_MAP_BLOCKS))
    return np.arange(num) // length


def _land_sea_mask(truth: xr.Dataset) -> Any:
    if "static" not in truth or "lsm" not in truth["static_channel"].values:
        return None
    return truth["static"].sel(static_channel="lsm").values


def _units(truth: xr.Dataset) -> dict[str, str]:
    return dict(zip(map(str, truth["channel"].values), map(str, truth["unit"].values), strict=True))


def _facts(path: Path) -> dict[str, Any]:
    return dict(read_manifest(path)["facts"])
