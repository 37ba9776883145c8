"""The sums behind all scores, taken over init times in bounded memory.

Contract: elementwise work is done in the stores' own float32, errors before anomalies so that differences of close
numbers are exact; sums over init times are in float64, sums over cells as `evaluate.scoring.regional` says. The sums of
a batch of init times do not depend on other batches, and merge exactly, so any split over batches or workers gives the
same scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.aggregation import AggregationState
from evaluate.reading.batch import Batch, Field, Predictor
from evaluate.scoring.regional import RegionalSums
from evaluate.statistics import MODEL_STATISTICS, STATISTICS, TRUTH_STATISTICS, Pair
from evaluate.text import iso_hour
from pipeline import files
from pipeline.grid import Grid
from pipeline.words import counted

Array = NDArray[np.float64]
Arrays = dict[str, Array]
"""By statistic."""

MAP_STATISTICS = ("error", "squared_error", "forecast_anomaly_squared", "anomaly_product", "truth_anomaly_squared")
SPECTRUM_BAND = (30.0, 60.0)
"""Latitudes of the zonal spectra, both hemispheres, degrees."""


@dataclass(frozen=True)
class Sums:
    """Everything summed over some init times.

    Args:
        regional: by (model, init_time, lead, channel, region); those of the truth without model.
        maps: by (model, lead, channel, latitude, longitude), summed over init times.
        blocks: squared errors by (block, model, lead, channel, latitude, longitude).
        spectra: power by (model and "truth", lead, channel, zonal_wavenumber), summed over init times.
    """

    regional: AggregationState
    maps: AggregationState
    blocks: AggregationState
    spectra: AggregationState

    @property
    def models(self) -> list[str]:
        """Names of all models, in order."""
        return [str(m) for m in self.regional.sums["model"].values]

    @classmethod
    def merge(cls, parts: Iterable[Sums]) -> Sums:
        """Init times side by side, everything else added; parts are used up one by one, in order."""
        regional: list[AggregationState] = []
        added: dict[str, AggregationState] = {}
        for part in parts:
            regional.append(part.regional)
            for f in fields(cls)[1:]:
                new: AggregationState = getattr(part, f.name)
                added[f.name] = added[f.name] + new if f.name in added else new
        return cls(AggregationState.concat(regional, "init_time"), **added)

    def save(self, path: Path) -> None:
        """Write to a NetCDF file, atomically."""
        with files.replacing(path) as temporary:
            for name, state in vars(self).items():
                state.sums.assign(weight=state.weights).to_netcdf(temporary, group=name, mode="a", engine="netcdf4")

    @classmethod
    def load(cls, path: Path) -> Sums:
        """Read what `save` wrote."""
        groups = {f.name: xr.load_dataset(path, group=f.name, engine="netcdf4") for f in fields(cls)}
        states = {n: AggregationState(ds.drop_vars("weight"), ds["weight"].rename(None)) for n, ds in groups.items()}
        return cls(**states)


@dataclass
class Kernel:
    """Turns a batch into sums: the one piece of work that is done for every init time, in any process.

    Args:
        models: predictors by name.
        regions: from `evaluate.scoring.regions.region_weights`.
        channels: short names, the order of the fields' channel axis.
        leads: hours.
        map_channels: short names of the channels with maps and spectra.
        block_of: block number of every init time, shape (all init times,).
    """

    models: Mapping[str, Predictor]
    regions: xr.DataArray
    channels: Sequence[str]
    leads: Sequence[int]
    map_channels: Sequence[str]
    block_of: NDArray[np.int64]

    def __post_init__(self) -> None:
        self._mapped = np.array([list(self.channels).index(c) for c in self.map_channels], dtype=np.int64)
        self._area = RegionalSums(self.regions)
        self._grid = Grid.from_dataset(self.regions)
        latitude = np.abs(self._grid.latitude)
        band = (latitude >= SPECTRUM_BAND[0]) & (latitude <= SPECTRUM_BAND[1])
        self._rows = self._grid.cell_area.sum(axis=1) * (band if band.any() else 1.0)

    def __call__(self, batch: Batch) -> Sums:
        """Sums of a batch.

        Raises:
            ValueError: a value is not finite; the message names model, channel and time.
        """
        times, leads = batch.valid_times.shape
        channels, models, regions = len(self.channels), len(self.models), self._area.totals.size
        regional = {s: np.empty((models, times, leads, channels, regions)) for s in MODEL_STATISTICS}
        regional |= {s: np.empty((times, leads, channels, regions)) for s in TRUTH_STATISTICS}
        mapped = np.empty((models + 2, times, leads, self._mapped.size, self._grid.size), np.float32)
        for t in range(times):
            for lead in range(leads):
                o, c = batch.truth(t, lead), batch.climatology(t, lead)
                forecasts = {name: predict(batch, t, lead) for name, predict in self.models.items()}
                sums = self._area(o, c, list(forecasts.values()))
                for s, values in sums.models.items():
                    regional[s][:, t, lead] = values
                for s, values in sums.truth.items():
                    regional[s][t, lead] = values
                bad = ~np.isfinite(sums.models["squared_error"]).all(axis=(1, 2))
                if bad.any():
                    model = list(forecasts)[int(np.flatnonzero(bad)[0])]
                    raise ValueError(self._not_finite(model, forecasts[model], batch, t, lead))
                for m, whole in enumerate((*forecasts.values(), o, c)):
                    np.take(whole, self._mapped, axis=0, out=mapped[m, t, lead])
        maps, blocks = self._maps(mapped, self._blocks(batch))
        spectra = np.stack([zonal_power(field, self._grid, self._rows).sum(axis=0) for field in mapped[:-1]])
        return self._labelled(batch, regional, maps, blocks, spectra)

    def _blocks(self, batch: Batch) -> NDArray[np.int64]:
        return self.block_of[batch.start : batch.start + len(batch.init_times)]

    def _maps(self, mapped: Any, block: NDArray[np.int64]) -> tuple[Arrays, Array]:
        """Sums over init times at each cell, and the squared errors of each block.

        Args:
            mapped: forecasts, truth and climatology, shape (model + 2, time, lead, channel, cell).
            block: block number of each init time.
        """
        o, c = mapped[-2], mapped[-1]
        shape = mapped.shape[2:]
        anomaly = o - c
        maps = {s: np.empty(shape if _of_truth(s) else (len(self.models), *shape)) for s in MAP_STATISTICS}
        blocks = np.zeros((int(self.block_of.max()) + 1, len(self.models), *shape))
        for m, f in enumerate(mapped[:-2]):
            pair = Pair(f - o, f - c, anomaly)
            for s in MAP_STATISTICS:
                if s == "squared_error":
                    values = STATISTICS[s].compute(pair)
                    for b in np.unique(block):
                        blocks[b, m] = values[block == b].sum(axis=0, dtype=np.float64)
                    maps[s][m] = blocks[:, m].sum(axis=0)
                elif m == 0 or not _of_truth(s):
                    maps[s][... if _of_truth(s) else m] = STATISTICS[s].compute(pair).sum(axis=0, dtype=np.float64)
        return maps, blocks

    def _labelled(self, batch: Batch, regional: Arrays, maps: Arrays, blocks: Array, spectra: Array) -> Sums:
        counts = np.bincount(self._blocks(batch), minlength=len(blocks)).astype(np.float64)
        model, space = list(self.models), {"latitude": self._grid.latitude, "longitude": self._grid.longitude}
        where: dict[str, Any] = {"lead": self.leads, "channel": self.channels, "region": self.regions["region"].values}
        of_maps: dict[str, Any] = {"lead": self.leads, "channel": self.map_channels}

        def array(values: Array, coords: Mapping[str, Any]) -> xr.DataArray:
            return xr.DataArray(values.reshape([len(v) for v in coords.values()]), dict(coords), list(coords))

        def state(values: Mapping[str, Array], coords: Mapping[str, Any], weights: xr.DataArray) -> AggregationState:
            shared = {k: v for k, v in coords.items() if k != "model"}
            ds = {s: array(v, shared if s in STATISTICS and _of_truth(s) else coords) for s, v in values.items()}
            return AggregationState(xr.Dataset(ds), weights)

        block, wavenumber = {"block": np.arange(len(blocks))}, {"zonal_wavenumber": np.arange(spectra.shape[-1])}
        total, area = xr.DataArray(counts.sum()), array(self._area.totals, {"region": where["region"]})
        return Sums(
            state(regional, {"model": model, "init_time": batch.init_times, **where}, area),
            state(maps, {"model": model, **of_maps, **space}, total),
            state({"squared_error": blocks}, {**block, "model": model, **of_maps, **space}, array(counts, block)),
            state({"power": spectra}, {"model": [*model, "truth"], **of_maps, **wavenumber}, total),
        )

    def _not_finite(self, model: str, f: Field, batch: Batch, t: int, lead: int) -> str:
        init, valid = iso_hour(batch.init_times[t]), iso_hour(batch.valid_times[t, lead])
        for what, values, when in (
            ("truth", batch.truth(t, lead), f"at {valid}"),
            ("climatology", batch.climatology(t, lead), f"at {valid}"),
            (f"forecast {model!r}", f, f"issued {init} for {valid}"),
        ):
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any():
                wrong = counted(int((~np.isfinite(values[bad])).sum()), "value that is not", "values that are not")
                return (
                    f"{what} must be finite, got {wrong}, first "
                    f"in {self.channels[int(np.flatnonzero(bad)[0])]} {when}; run the stage that wrote it again"
                )
        return f"squared error must be finite, got an overflow in forecast {model!r} issued {init} for {valid}"


def zonal_power(fields: Any, grid: Grid, row_weights: Array) -> Array:
    """Mean power by zonal wavenumber of fields (..., cell); sums to the mean square along a latitude.

    Args:
        fields: shape (..., cell).
        grid: of the cells.
        row_weights: weight of each latitude, shape (latitude,).
    """
    rows, columns = grid.shape
    used = np.flatnonzero(row_weights)
    weights = row_weights / row_weights.sum()
    waves = np.fft.rfft(fields.reshape(*fields.shape[:-1], rows, columns)[..., used, :], axis=-1) / columns
    power = np.einsum("...rk,r->...k", waves.real**2 + waves.imag**2, weights[used])
    power[..., 1 : (columns + 1) // 2] *= 2.0
    return np.asarray(power)


def _of_truth(statistic: str) -> bool:
    return STATISTICS[statistic].of_truth
