"""The sums behind all scores, taken over init times in bounded memory.

Contract: elementwise work is done in the stores' own float32, errors before anomalies so that
differences of close numbers are exact; sums over init times are in float64, sums over cells as
`evaluate.scoring.regional` says. The sums of a batch of init times do not depend on other batches, and merge
exactly, so any split over batches or workers gives the same scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.baselines.simple import Batch, Predictor
from evaluate.scoring.aggregation import AggregationState
from evaluate.scoring.regional import RegionalSums
from evaluate.scoring.statistics import MODEL_STATISTICS, STATISTICS, TRUTH_STATISTICS, Pair
from pipeline.grid import Grid

Array = NDArray[np.float64]

MAP_STATISTICS = ("error", "squared_error", "forecast_anomaly_squared", "anomaly_product", "truth_anomaly_squared")


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
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        for f in fields(self):
            state: AggregationState = getattr(self, f.name)
            ds = state.sums.assign(weight=state.weights)
            ds.to_netcdf(temporary, group=f.name, mode="a", engine="netcdf4")
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Sums:
        """Read what `save` wrote."""
        states = {}
        for f in fields(cls):
            with xr.open_dataset(path, group=f.name, engine="netcdf4") as ds:
                whole = ds.load()
            states[f.name] = AggregationState(whole.drop_vars("weight"), whole["weight"].rename(None))
        return cls(**states)


class Kernel:
    """Turns a batch into sums.

    Args:
        models: predictors by name.
        channels: short names, the order of the fields' channel axis.
        leads: hours.
        regions: from `evaluate.scoring.regions.region_weights`.
        map_channels: short names of the channels with maps and spectra.
        block_of: block number of every init time, shape (all init times,).
        spectrum_rows: weight of each latitude in the spectra, shape (latitude,).
    """

    def __init__(
        self, models: Mapping[str, Predictor], *, channels: Sequence[str], leads: Sequence[int],
        regions: xr.DataArray, map_channels: Sequence[str], block_of: NDArray[np.int64], spectrum_rows: Array,
    ) -> None:  # fmt: skip
        self.models, self.channels, self.leads = dict(models), list(channels), [int(h) for h in leads]
        self.map_channels, self.block_of = list(map_channels), block_of
        self._drawn = np.array([self.channels.index(c) for c in map_channels], dtype=np.int64)
        self._region_names = regions["region"].values
        self._area = RegionalSums(regions)
        self._grid = Grid.from_dataset(regions)
        self._rows = spectrum_rows / spectrum_rows.sum()

    def __call__(self, batch: Batch) -> Sums:
        """Sums of a batch.

        Raises:
            ValueError: a value is not finite; the message names model, channel and time.
        """
        times, leads = batch.valid_times.shape
        channels, drawn, models = len(self.channels), self._drawn, len(self.models)
        regions, cells = self._area.totals.size, self._grid.size
        regional = {s: np.empty((models, times, leads, channels, regions)) for s in MODEL_STATISTICS}
        regional |= {s: np.empty((times, leads, channels, regions)) for s in TRUTH_STATISTICS}
        shown = np.empty((models + 2, times, leads, drawn.size, cells), np.float32)
        for t in range(times):
            for lead in range(leads):
                o, c = batch.truth(t, lead), batch.climatology(t, lead)
                fields = [predictor(batch, t, lead) for predictor in self.models.values()]
                found = self._area(o, c, fields)
                for s, values in found.models.items():
                    regional[s][:, t, lead] = values
                for s, values in found.truth.items():
                    regional[s][t, lead] = values
                bad = ~np.isfinite(found.models["squared_error"]).all(axis=(1, 2))
                if bad.any():
                    m = int(np.flatnonzero(bad)[0])
                    raise ValueError(_not_finite(list(self.models)[m], fields[m], o, c, batch, t, lead, self.channels))
                for m, whole in enumerate((*fields, o, c)):
                    np.take(whole, drawn, axis=0, out=shown[m, t, lead])
        block = self.block_of[batch.start : batch.start + times]
        counts = np.bincount(block, minlength=int(self.block_of.max()) + 1)
        maps, blocks = self._maps(shown, block, len(counts))
        spectra = np.stack([self._power(field).sum(axis=0) for field in shown[:-1]])
        return self._label(batch, regional, maps, blocks, spectra, counts.astype(np.float64))

    def _maps(self, shown: Any, block: Any, num_blocks: int) -> tuple[dict[str, Array], Array]:
        """Sums over init times at each cell, and the squared errors of each block.

        Args:
            shown: forecasts, truth and climatology, shape (model + 2, time, lead, channel, cell).
            block: block number of each init time.
            num_blocks: of all init times.
        """
        o, c = shown[-2], shown[-1]
        shape = shown.shape[2:]
        anomaly = o - c
        maps = {s: np.empty(shape if _of_truth(s) else (len(self.models), *shape)) for s in MAP_STATISTICS}
        blocks = np.zeros((num_blocks, len(self.models), *shape))
        for m, f in enumerate(shown[:-2]):
            pair = Pair(f - o, f - c, anomaly)
            for s in MAP_STATISTICS:
                if s == "squared_error":
                    values = STATISTICS[s].compute(pair)
                    for b in np.unique(block):
                        blocks[b, m] = values[block == b].sum(axis=0, dtype=np.float64)
                    maps[s][m] = blocks[:, m].sum(axis=0)
                elif not _of_truth(s):
                    maps[s][m] = STATISTICS[s].compute(pair).sum(axis=0, dtype=np.float64)
                elif m == 0:
                    maps[s][:] = STATISTICS[s].compute(pair).sum(axis=0, dtype=np.float64)
        return maps, blocks

    def _power(self, values: Any) -> Array:
        """Mean power by zonal wavenumber of fields (..., cell); sums to the mean square along a latitude."""
        rows, columns = self._grid.shape
        used = np.flatnonzero(self._rows)
        fields = values.reshape(*values.shape[:-1], rows, columns)[..., used, :]
        waves = np.fft.rfft(fields, axis=-1) / columns
        power = np.einsum("...rk,r->...k", waves.real**2 + waves.imag**2, self._rows[used])
        power[..., 1 : (columns + 1) // 2] *= 2.0
        return np.asarray(power)

    def _label(
        self, batch: Batch, regional: dict[str, Array], maps: dict[str, Array], blocks: Array, spectra: Array,
        counts: Array,
    ) -> Sums:  # fmt: skip
        names, lead = list(self.models), ("lead", self.leads)
        axes: dict[str, Any] = {
            "model": names, "init_time": batch.init_times, "lead": self.leads, "channel": self.channels,
            "region": self._region_names,
        }  # fmt: skip
        space = {"latitude": self._grid.latitude, "longitude": self._grid.longitude}
        drawn: dict[str, Any] = {"lead": lead[1], "channel": self.map_channels}

        def array(values: Array, coords: dict[str, Any]) -> xr.DataArray:
            return xr.DataArray(values.reshape([len(v) for v in coords.values()]), coords, list(coords))

        def state(values: dict[str, Array], coords: dict[str, Any], weights: xr.DataArray) -> AggregationState:
            without = {k: v for k, v in coords.items() if k != "model"}
            ds = {s: array(v, without if s in STATISTICS and _of_truth(s) else coords) for s, v in values.items()}
            return AggregationState(xr.Dataset(ds), weights)

        block = {"block": np.arange(blocks.shape[0])}
        total = xr.DataArray(counts.sum())
        wavenumber = {"zonal_wavenumber": np.arange(spectra.shape[-1])}
        return Sums(
            state(regional, axes, xr.DataArray(self._area.totals, {"region": self._region_names}, ["region"])),
            state(maps, {"model": names, **drawn, **space}, total),
            state({"squared_error": blocks}, {**block, "model": names, **drawn, **space}, array(counts, block)),
            state({"power": spectra}, {"model": [*names, "truth"], **drawn, **wavenumber}, total),
        )


def _of_truth(statistic: str) -> bool:
    return STATISTICS[statistic].of_truth


def _not_finite(model: str, f: Any, o: Any, c: Any, batch: Batch, t: int, lead: int, channels: Sequence[str]) -> str:
    init = np.datetime_as_string(batch.init_times[t], "h")
    valid = np.datetime_as_string(batch.valid_times[t, lead], "h")
    for what, values, when in (
        ("truth", o, f"at {valid}"),
        ("climatology", c, f"at {valid}"),
        (f"forecast {model!r}", f, f"issued {init} for {valid}"),
    ):
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            return (
                f"{what} must be finite, got {int((~np.isfinite(values[bad])).sum())} values that are not, first in "
                f"{channels[int(np.flatnonzero(bad)[0])]} {when}; make that output anew"
            )
    return f"squared error must be finite, got an overflow in forecast {model!r} issued {init} for {valid}"
