"""The large arrays of a store as xarray sees them, read by the project's own reader.

Contract: the same values as `xarray.open_zarr` gives, several times faster for the small chunks of a training store,
and a damaged shard is refused with its file, slab, times and remedy wherever it is read. Arrays that are not laid
out as ours stay as Zarr reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from pipeline.shards import Reader


class _Stored(BackendArray):
    """One array, indexed as xarray's backends are."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.shape = reader.shape
        self.dtype = np.dtype(reader.array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Values for one slice, position or list of positions along each dim, in any order."""
        wanted = [_increasing(k, size) for k, size in zip(key, self.shape, strict=True)]
        if any(isinstance(k, np.ndarray) and not k.size for k, _ in wanted):
            sizes = [k.size if isinstance(k, np.ndarray) else k.stop - k.start for k, _ in wanted]
            values: NDArray[Any] = np.empty(sizes, self.dtype)
        else:
            values = self.reader.pick(*(k for k, _ in wanted))
        for axis, (_, back) in enumerate(wanted):
            values = values if back is None else np.take(values, back, axis=axis)
        alone = tuple(axis for axis, k in enumerate(key) if isinstance(k, (int, np.integer)))
        return values.squeeze(axis=alone) if alone else values


def through_reader(ds: xr.Dataset, path: Path) -> xr.Dataset:
    """A dataset that `xarray.open_zarr` opened, its large arrays read by `pipeline.shards`.

    Args:
        ds: without Dask.
        path: folder of the store.
    """
    for name in [n for n, v in ds.data_vars.items() if v.encoding.get("shards") and v.dtype.kind == "f"]:
        reader, old = Reader(path, str(name)), ds[name].variable
        if reader.direct and old.dtype == reader.array.dtype and not {"scale_factor", "add_offset"} & set(old.encoding):
            data = indexing.LazilyIndexedArray(_Stored(reader))
            ds[name] = xr.Variable(old.dims, data, old.attrs, old.encoding)
    return ds


def _increasing(key: Any, size: int) -> tuple[Any, NDArray[np.intp] | None]:
    """A slice of step one or increasing positions, and how to put what they give into the order asked for."""
    if isinstance(key, slice) and key.step in (None, 1):
        start, stop, _ = key.indices(size)
        return (slice(start, stop), None) if stop > start else (np.empty(0, np.intp), None)
    if isinstance(key, slice):
        key = np.arange(size)[key]
    positions = np.atleast_1d(np.asarray(key, np.intp))
    positions = np.where(positions < 0, positions + size, positions)
    unique, back = np.unique(positions, return_inverse=True)
    return unique, None if np.array_equal(unique, positions) else back
