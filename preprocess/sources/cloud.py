"""ERA5 in public clouds: ARCO-ERA5 and WeatherBench 2, read anonymously through fsspec.

Contract: opening reads the consolidated metadata and the time axis, no field. ARCO-ERA5's time axis
runs far beyond its data, which end at the attribute valid_time_stop (final ERA5; the whole of that
day); later times, filled with NaN or with preliminary ERA5T, are left out.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipeline.sections import ArcoSource, Channels, WeatherBench2Source
from preprocess.sources.archive import Archive, Piece


def open_cloud(source: ArcoSource | WeatherBench2Source, *, channels: Channels) -> Archive:
    """Open a Zarr archive at an address.

    Args:
        source: its address (gs://, http:// or a local path) and label.
        channels: what is wanted.

    Raises:
        ValueError: the address cannot be opened; see also `Archive`.
    """
    options = {"token": "anon"} if source.url.startswith(("gs://", "gcs://")) else None
    try:
        raw = xr.open_zarr(source.url, chunks=None, storage_options=options)
    except Exception as error:  # every protocol has its own exceptions
        raise ValueError(
            f"source.url must be a Zarr archive that can be read from here, got {source.url} "
            f"({type(error).__name__}: {error}); check the address and the network"
        ) from error
    return Archive(
        [Piece.of(valid_times(raw), origin=source.url)],
        channels=channels,
        label=source.label,
        description=source.model_dump(mode="json"),
    )


def valid_times(raw: xr.Dataset) -> xr.Dataset:
    """The part of an archive that holds final data, by its valid_time_start and valid_time_stop."""
    if "valid_time_stop" not in raw.attrs:
        return raw
    times = raw["time"].values
    first = np.datetime64(str(raw.attrs.get("valid_time_start", times[0]))[:10], "D")
    last = np.datetime64(str(raw.attrs["valid_time_stop"])[:10], "D")
    day = times.astype("datetime64[D]")
    inside = np.flatnonzero((day >= first) & (day <= last))
    return raw.isel(time=slice(int(inside[0]), int(inside[-1]) + 1)) if inside.size else raw.isel(time=slice(0, 0))
