"""The sums behind all scores, taken over init times in bounded memory.

Contract: elementwise work is done in the stores' own float32, errors before anomalies so that
differences of close numbers are exact; sums over cells go through at most 256 terms in float32 and
then in float64, which agrees with float64 throughout to 1e-6. The sums of a batch of init times do not
depend on other batches, and merge exactly, so any split over batches or workers gives the same scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from evaluate.aggregation import AggregationState
from evaluate.baselines import Batch, Predictor
from evaluate.statistics import MODEL_STATISTICS, STATISTICS, TRUTH_STATISTICS, Pair
from pipeline.grid import Grid

Array = NDArray[np.float64]

MAP_STATISTICS = ("error", "squared_error", "forecast_anomaly_squared", "anomaly_product", "truth_anomaly_squared")
_SEGMENT = 256
_BLOCK_VALUES = 33_000


class SpatialSums:
    """Area-weighted sums over the cells of each region.

    Args:
        weights: from `evaluate.regions.region_weights`.
    """

    def __init__(self, weights: xr.DataArray) -> None:
        flat = weights.values.reshape(weights.sizes["region"], -1).T.astype(np.float32)
        self.totals: Array = flat.sum(axis=0, dtype=np.float64)
        self._whole = flat.shape[0] // _SEGMENT * _SEGMENT
        self._rest = flat[self._whole :]
        self._head = np.ascontiguousarray(flat[: self._whole].reshape(-1, _SEGMENT, flat.shape[1]))

    def __call__(self, values: NDArray[np.float32]) -> Array:
        """Sums of fields (..., cell): shape (..., region), float64."""
        rows = values.reshape(-1, values.shape[-1])
        head = rows[:, : self._whole].reshape(rows.shape[0], -1, _SEGMENT).transpose(1, 0, 2)
        total = np.matmul(head, self._head).sum(axis=0, dtype=np.float64)
        if self._rest.size:
            total = total + rows[:, self._whole :] @ self._rest
        return np.asarray(total.reshape(*values.shape[:-1], total.shape[-1]))


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
        regions: from `evaluate.regions.region_weights`.
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
        self._area = SpatialSums(regions)
        self._grid = Grid.from_dataset(regions)
        self._rows = spectrum_rows / spectrum_rows.sum()
        self._step = max(1, _BLOCK_VALUES // self._grid.size)
        self._work = np.empty((len(MODEL_STATISTICS), self._step, self._grid.size), np.float32)
        self._spare = np.empty((2, self._step, self._grid.size), np.float32)

    def __call__(self, batch: Batch) -> Sums:
        """Sums of a batch.

        Raises:
            ValueError: a value is not finite; the message names model, channel and time.
        """
        times, leads = batch.valid_times.shape
        channels, cells, drawn, models = len(self.channels), self._grid.size, len(self._drawn), len(self.models)
        regions = self._area.totals.size
        regional = {s: np.empty((models, times, leads, channels, regions)) for s in MODEL_STATISTICS}
        regional |= {s: np.empty((times, leads, channels, regions)) for s in TRUTH_STATISTICS}
        maps = {s: np.zeros((leads, drawn, cells)) if _of_truth(s) else np.zeros((models, leads, drawn, cells))
                for s in MAP_STATISTICS}  # fmt: skip
        blocks = np.zeros((int(self.block_of.max()) + 1, models, leads, drawn, cells))
        spectra = np.zeros((models + 1, leads, drawn, self._grid.shape[1] // 2 + 1))
        for t in range(times):
            for lead in range(leads):
                o, c = batch.truth(t, lead), batch.climatology(t, lead)
                self._sum_truth(o, c, regional, (t, lead))
                for m, (name, predictor) in enumerate(self.models.items()):
                    f = predictor(batch, t, lead)
                    if f is c:
                        self._sum_climatology(o, c, regional, (m, t, lead))
                    else:
                        self._sum_model(f, o, c, regional, (m, t, lead))
                    if not np.isfinite(regional["squared_error"][m, t, lead, :, 0]).all():
                        raise ValueError(_not_finite(name, f, o, c, batch, t, lead, self.channels))
                    fm, om, cm = f[self._drawn], o[self._drawn], c[self._drawn]
                    pair = Pair(fm - om, fm - cm, om - cm)
                    for s in MAP_STATISTICS:
                        if not _of_truth(s):
                            maps[s][m, lead] += STATISTICS[s].compute(pair)
                        elif m == 0:
                            maps[s][lead] += STATISTICS[s].compute(pair)
                    blocks[self.block_of[batch.start + t], m, lead] += STATISTICS["squared_error"].compute(pair)
                    spectra[m, lead] += self._power(fm)
                spectra[models, lead] += self._power(o[self._drawn])
        counts = np.bincount(self.block_of[batch.start : batch.start + times], minlength=blocks.shape[0])
        return self._label(batch, regional, maps, blocks, spectra, counts.astype(np.float64))

    def _parts(self) -> Iterator[tuple[slice, NDArray[np.float32], NDArray[np.float32]]]:
        """Channels a few at a time, with buffers that stay in the processor's cache."""
        for start in range(0, len(self.channels), self._step):
            size = min(self._step, len(self.channels) - start)
            yield slice(start, start + size), self._work[:, :size], self._spare[:, :size]

    def _sum_model(self, f: Any, o: Any, c: Any, regional: dict[str, Array], where: tuple[int, int, int]) -> None:
        """Regional sums of one forecast field; the first statistic, the error, is made in its place."""
        for part, work, spare in self._parts():
            pair = Pair(
                np.subtract(f[part], o[part], out=work[0]),
                np.subtract(f[part], c[part], out=spare[0]),
                np.subtract(o[part], c[part], out=spare[1]),
            )
            for i, s in enumerate(MODEL_STATISTICS[1:], start=1):
                STATISTICS[s].compute(pair, out=work[i])
            for s, sums in zip(MODEL_STATISTICS, self._area(work), strict=True):
                regional[s][where][part] = sums

    def _sum_truth(self, o: Any, c: Any, regional: dict[str, Array], where: tuple[int, int]) -> None:
        """Regional sums that all models share: of the anomaly, made in its place, and of its square."""
        for part, work, _ in self._parts():
            pair = Pair(None, None, np.subtract(o[part], c[part], out=work[0]))
            STATISTICS[TRUTH_STATISTICS[1]].compute(pair, out=work[1])
            for s, sums in zip(TRUTH_STATISTICS, self._area(work[:2]), strict=True):
                regional[s][where][part] = sums

    def _sum_climatology(self, o: Any, c: Any, regional: dict[str, Array], where: tuple[int, int, int]) -> None:
        """The same for the climatology as a forecast, whose error is minus the truth's anomaly."""
        regional["error"][where] = -regional["truth_anomaly"][where[1:]]
        regional["squared_error"][where] = regional["truth_anomaly_squared"][where[1:]]
        regional["forecast_anomaly_squared"][where] = 0.0
        regional["anomaly_product"][where] = 0.0
        for part, _, work in self._parts():
            np.absolute(np.subtract(o[part], c[part], out=work[0]), out=work[0])
            regional["absolute_error"][where][part] = self._area(work[:1])[0]

    def _power(self, values: Any) -> Array:
        """Mean power by zonal wavenumber, shape (channel, wavenumber); sums to the mean square along a latitude."""
        rows, columns = self._grid.shape
        used = np.flatnonzero(self._rows)
        waves = np.fft.rfft(values.reshape(-1, rows, columns)[:, used], axis=-1) / columns
        power = waves.real**2 + waves.imag**2
        power[..., 1 : (columns + 1) // 2] *= 2.0
        return np.asarray(np.tensordot(power, self._rows[used], axes=(1, 0)))

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
