"""The score stage: every model and baseline on the same init times, leads, channels and regions.

Contract: reads the training store, the normals and one or more forecast stores; writes `scores.csv` (tidy), `scores.nc`
(maps, spectra) and `sums.nc` (the sums per init time from which both are computed; other intervals, or scores of more
init times, follow from them without reading a field again). `sums.nc` is also the checkpoint: a run that was killed
resumes from it. The receipt is written last.

References that are too expensive for every init time (evaluation.twins) do not reduce the sample of the others:
`scores_common.csv` compares all models on the init times that the twins have, and `scores.csv` holds the twins' rows
from there, with their number of init times in n_init. `differences.csv` has RMSE and ACC of the model minus those of
every other one, with paired intervals. Where there is a ceiling, `shares.csv` says how much of the gap between
climatology and ceiling every model closes, on those same init times. `power.csv` has the power of every model by zonal
wavenumber over the truth's, `tropics.csv` the share of the tropics where skill is negative, `edges.csv` the jumps at
the edges of a network's patches. Forecasts from elsewhere that were replaced under the same path are scored again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import Console

from evaluate.complete import compared_fingerprints, complete_score
from evaluate.scoring import compare, tables
from evaluate.scoring.ceiling_share import CEILING, share_table
from evaluate.scoring.facts import Climatology, Intervals, SampleFacts, ScoreFacts, TwinFacts
from evaluate.scoring.harm import tropics_table
from evaluate.scoring.patch_edges import edge_table
from evaluate.scoring.power import power_table
from evaluate.scoring.stores import Scored, ScoringOptions, land_sea_mask, score_stores
from pipeline import files, provenance
from pipeline.console import data_name
from pipeline.grid import Grid
from pipeline.store import contract_digest, open_store, read_manifest
from pipeline.weather import foresight
from pipeline.weather.climatology import Normals
from pipeline.weather.config import WeatherConfig
from pipeline.weather.variables import require_channel_names
from pipeline.words import counted

COMMON = ("scores_common.csv", "scores_common.nc")
"""Scores of all models on the init times that the twins have."""


@dataclass(frozen=True)
class Result:
    """The scores of one sample of init times, and what they were computed from."""

    config: WeatherConfig
    forecasts: Mapping[str, xr.Dataset]
    truth: xr.Dataset
    normals: Normals
    scored: Scored

    @cached_property
    def facts(self) -> SampleFacts:
        """The facts that must stand beside every score."""
        scored, normals, config = self.scored, self.normals, self.config
        contract, spacing = self.truth.attrs["contract"], scored.spacing_hours
        init = np.datetime_as_string(scored.alignment.init_times, "h").tolist()
        block = tables.choose_block(scored.sums, channels=config.evaluation.variables, spacing_hours=spacing)
        periods = [f"{p.start:%Y-%m-%dT%H} .. {p.end:%Y-%m-%dT%H}" for p in config.splits.train]
        years, window_days = normals.contract.get("years", []), config.data.normals.window_days
        return SampleFacts(
            label=contract["source"]["label"],
            n_init=len(init),
            first_init=init[0],
            last_init=init[-1],
            init_spacing_hours=spacing,
            lead_hours=scored.alignment.leads.tolist(),
            left_out_init_times={k: v[:20] + ["..."] * (len(v) > 20) for k, v in scored.alignment.dropped.items()},
            grid=Grid.from_dataset(self.truth).describe(),
            climatology=Climatology(normals.kind, years, periods, window_days),
            fitted_baselines={n: dict(f) for n, f in scored.fits.items()},
            regions=list(map(str, scored.sums.regional.sums["region"].values)),
            regions_left_out=scored.regions_left_out,
            bootstrap=Intervals.of(len(init), block=block, spacing_hours=spacing),
        )

    @cached_property
    def sample(self) -> tables.Sample:
        """The sums with the bootstrap's draws."""
        return tables.Sample(self.scored.sums, self.facts.bootstrap.block_init_times)

    @cached_property
    def maps(self) -> xr.Dataset:
        """Maps and spectra."""
        return tables.map_scores(self.scored.sums)

    @property
    def units(self) -> dict[str, str]:
        """Unit of each channel."""
        return dict(zip(map(str, self.truth["channel"].values), map(str, self.truth["unit"].values), strict=True))

    def table(self) -> pd.DataFrame:
        """All metrics, as rows of scores.csv."""
        return tables.score_table(self.sample, units=self.units)

    def differences(self, model: str, *, against: Sequence[str] = ()) -> pd.DataFrame:
        """Differences of a model from others, all of them when none is named."""
        others = against or [m for m in self.scored.sums.models if m != model]
        return tables.difference_table(self.sample, model=model, against=others, units=self.units)

    def power(self, models: Sequence[str] = ()) -> pd.DataFrame:
        """Rows of power.csv of some models, all of them when none is named."""
        frame = power_table(self.maps["spectrum"], n_init=self.facts.n_init)
        return frame[frame["model"].isin(models)] if models else frame

    def edges(self, model: str) -> pd.DataFrame | None:
        """Rows of edges.csv; None for a network without patches that have an inside."""
        network, alignment = self.config.model, self.scored.alignment
        if network.architecture != "dchag" or network.patch < 2:
            return None
        channels, ds = self.config.evaluation.variables, self.forecasts[model]
        return edge_table(ds, self.truth, self.normals, alignment=alignment, channels=channels, patch=network.patch)

    def as_twins(self, models: Sequence[str], *, table: str, of: int) -> TwinFacts:
        """The facts of a smaller sample, beside those of one of `of` init times."""
        facts = self.facts
        span = (facts.n_init, of, facts.first_init, facts.last_init, facts.init_spacing_hours)
        return TwinFacts(list(models), table, *span, facts.bootstrap)

    def write_maps(self, path: Path, facts: SampleFacts) -> None:
        """Write maps and spectra."""
        ds = self.maps.copy()
        mask = land_sea_mask(self.truth)
        if mask is not None:
            ds["land_sea_mask"] = (("latitude", "longitude"), mask.astype(np.float32))
        ds["unit"] = ("channel", [self.units[c] for c in map(str, ds["channel"].values)])
        ds["lead"].attrs["units"] = "hours"
        ds.attrs = {"title": f"Forecast scores, {data_name(facts.label)}", "facts": json.dumps(facts.to_json())}
        with files.replacing(path) as temporary:
            ds.to_netcdf(temporary, engine="netcdf4")


def run_score(config: WeatherConfig) -> None:
    """Score the forecasts of a configuration and its baselines.

    Raises:
        ValueError: an earlier stage is missing, or forecasts and truth cannot be compared.
    """
    paths, console = config.paths, Console(stderr=True, highlight=False, soft_wrap=True)
    if done := complete_score(config):
        console.print(done, markup=False)
        return
    compared = compared_fingerprints(config)
    models = compare.open_models(config)
    twins = {name: open_store(path, stage="python -m pipeline twins") for name, path in paths.twins.items()}
    inits = next(iter(models.values()))["init_time"].values
    if all(np.array_equal(ds["init_time"].values, inits) for ds in twins.values()):
        models, twins = models | twins, {}
    with files.lock(paths.scores / "score.lock"):
        times = open_store(paths.store, stage="python -m pipeline regrid")["time"].values
        baselines, lines = foresight.usable_baselines(config, times)
        for line in [*foresight.left_out(config), *lines]:
            console.print(f"score: {line}", markup=False)
        facts, outputs = _write_scores(config, models, twins, _options(config, baselines, compared, console))
    provenance.write_receipt(config, stage="score", outputs=outputs, facts=facts.to_json())
    table = paths.scores / "scores.csv"
    fewer = f"; {', '.join(twins)} on {facts.twins.n_init} of them, {paths.scores / COMMON[0]}" if facts.twins else ""
    console.print(f"score: {counted(facts.n_init, 'init time')}, {table}{fewer}", markup=False)


def score_now(config: WeatherConfig, *, leads: Sequence[int], channels: Sequence[str]) -> Result:
    """Score the experiment's own forecasts of some channels and leads beside persistence and climatology.

    Nothing is written; a channel takes seconds.

    Args:
        config: the experiment; its forecast stage must be complete.
        leads: hours.
        channels: short names; maps are made of all of them.

    Raises:
        ValueError: an earlier stage is missing, or forecasts and truth cannot be compared.
    """
    paths = config.paths
    forecast = open_store(paths.forecast, stage="python -m pipeline forecast")
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    require_channel_names(truth, store=paths.store)
    known = list(map(str, forecast["channel"].values))
    models = {str(forecast.attrs["contract"]["model"]): forecast.isel(channel=[known.index(c) for c in channels])}
    options = ScoringOptions(leads, channels, console=Console(stderr=True))
    normals = Normals.open(paths.normals)
    drawn = config.evaluation.model_copy(update={"variables": list(channels)})
    scored = score_stores(models, truth, normals, options)
    return Result(config.model_copy(update={"evaluation": drawn}), models, truth, normals, scored)


def _options(
    config: WeatherConfig, baselines: Sequence[str], compared: Mapping[str, str], console: Console
) -> ScoringOptions:
    evaluation = config.evaluation
    return ScoringOptions(
        leads=config.forecast.lead_hours,
        map_channels=evaluation.variables,
        baselines=baselines,
        channels=evaluation.channels,
        compared=compared,
        fits_folder=config.paths.fits,
        workers=evaluation.workers,
        scheduler=evaluation.scheduler,
        console=console,
    )


def _write_scores(
    config: WeatherConfig, models: dict[str, xr.Dataset], twins: dict[str, xr.Dataset], options: ScoringOptions
) -> tuple[ScoreFacts, list[Path]]:
    """Score, and write everything but the receipt; returns what stands in it."""
    paths, name = config.paths, next(iter(models))
    truth = open_store(paths.store, stage="python -m pipeline regrid")
    require_channel_names(truth, store=paths.store)
    normals = Normals.open(paths.normals)

    def score(forecasts: dict[str, xr.Dataset], sums: str) -> Result:
        scored = score_stores(forecasts, truth, normals, options, checkpoint=paths.scores / sums)
        return Result(config, forecasts, truth, normals, scored)

    result = score(models, "sums.nc")
    rows, differences, power = [result.table()], [result.differences(name)], [result.power()]
    beside_ceiling = result if CEILING in models else None
    twin_facts = None
    if twins:
        common = score(models | twins, "sums_common.nc")
        frame = common.table()
        _write_csv(paths.scores / COMMON[0], frame)
        common.write_maps(paths.scores / COMMON[1], common.facts)
        rows.append(frame[frame["model"].isin(twins)])
        differences.append(common.differences(name, against=list(twins)))
        power.append(common.power(list(twins)))
        twin_facts = common.as_twins(list(twins), table=COMMON[0], of=result.facts.n_init)
        beside_ceiling = common if CEILING in twins else None
    contracts = {m: contract_digest(ds.attrs.get("contract", {})) for m, ds in models.items()}
    facts = ScoreFacts(
        **vars(result.facts),
        missing_times=read_manifest(paths.store)["facts"].get("missing_times", []),
        model=name,
        compared=dict(options.compared),
        models={m: {"init_times": result.facts.n_init, "contract": digest} for m, digest in contracts.items()},
        twins=twin_facts,
    )
    written = {
        "shares.csv": None if beside_ceiling is None else share_table(beside_ceiling.sample),
        "power.csv": pd.concat(power),
        "tropics.csv": tropics_table(result.maps["skill"]),
        "edges.csv": result.edges(name),
        "differences.csv": pd.concat(differences),
        "scores.csv": pd.concat(rows),
    }
    frames = {file: frame for file, frame in written.items() if frame is not None}
    for file, frame in frames.items():
        _write_csv(paths.scores / file, frame)
    result.write_maps(paths.scores / "scores.nc", facts)
    outputs = [*frames, "scores.nc", "sums.nc", *(COMMON if twins else ())]
    return facts, [paths.scores / file for file in outputs]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    files.write_text(path, frame.to_csv(index=False, float_format="%.7g"))
