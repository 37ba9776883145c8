"""ERA5 in public clouds: ARCO-ERA5 and WeatherBench 2, read anonymously.

Contract: opening reads the metadata and the axes, no field. ARCO-ERA5's time axis is allocated from 1900 to
2050 and full of NaN outside its data; its attributes tell where they are: final ERA5 from valid_time_start to
valid_time_stop, preliminary ERA5T from then to valid_time_stop_era5t, all three whole days. Times outside are
refused, preliminary ones too unless `source.preliminary` takes them; the contract then says from when on.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from pipeline.console import say, stamp
from pipeline.weather import units
from pipeline.weather.sections import ArcoSource, Channels, Data, WeatherBench2Source
from pipeline.weather.times import wanted_span
from preprocess.decode.identify import Request
from preprocess.sources.archive import Archive
from preprocess.sources.piece import Piece
from preprocess.sources.remote import open_zarr

_HOUR = np.timedelta64(1, "h")


def open_cloud(source: ArcoSource | WeatherBench2Source, *, channels: Channels, data: Data) -> Archive:
    """Open a Zarr archive at an address.

    Args:
        source: its address (gs://, http:// or a local path) and label.
        channels: what is wanted.
        data: period and step of the store to be written.

    Raises:
        ValueError: the address cannot be opened, or the period is not inside its data; see also `Archive`.
    """
    raw, store = open_zarr(source.url, patience=source)
    raw = named(raw)
    time = next((name for name in units.COORDINATE_NAMES["time"] if name in raw.dims), None)
    if time is None:
        raise ValueError(f"source.url must be an archive with a time axis, got none in {source.url}; check the address")
    store.guard(raw, time=time)
    first, last = wanted_span(data)
    description = source.identity
    if isinstance(source, ArcoSource):
        version = arco_version(raw, first, last, preliminary=source.preliminary, url=source.url)
        if version is not None:
            description["version"] = version
            if "ERA5T" in version:
                say(f"source: {version}; ERA5T is preliminary and may still be corrected by ECMWF")
    times = raw[time].values
    if first < times[0] or last > times[-1]:
        raise ValueError(
            f"data.period must lie inside the archive, got {stamp(first)} .. {stamp(last)}; {source.url} holds "
            f"{stamp(times[0])} .. {stamp(times[-1])}: change data.period"
        )
    span = slice(int(np.searchsorted(times, first)), int(np.searchsorted(times, last, side="right")))
    piece = Piece.of(raw.isel({time: span}), origin=source.url, request=Request.of(channels))
    return Archive([piece], channels=channels, label=source.label, description=description)


def named(raw: xr.Dataset) -> xr.Dataset:
    """The fields that bear a name of the catalogue, which alone says what they are.

    Derived fields, such as WeatherBench 2's "u_component_of_geostrophic_wind", may still carry the attributes of
    the field they were derived from and would be taken for it.
    """
    raw = raw.drop_vars([name for name in raw.data_vars if units.variable_named(str(name)) is None])
    for array in raw.data_vars.values():
        array.attrs.pop("standard_name", None)
    return raw


def arco_version(
    raw: xr.Dataset, first: np.datetime64, last: np.datetime64, *, preliminary: bool, url: str
) -> str | None:
    """Which of ECMWF's releases the times from `first` to `last` belong to, by the archive's attributes.

    Args:
        raw: the archive.
        first: earliest wanted time.
        last: latest wanted time.
        preliminary: whether ERA5T will do.
        url: for messages.

    Returns:
        "ERA5", "ERA5T", or "ERA5, and ERA5T from <time> on"; None for an archive that does not tell.

    Raises:
        ValueError: times before or after the data, or preliminary ones that are not wanted.
    """
    if "valid_time_stop" not in raw.attrs:
        return None
    start = _day(raw, "valid_time_start") if "valid_time_start" in raw.attrs else first
    final = _day(raw, "valid_time_stop") + 24 * _HOUR
    stop = (
        max(final, _day(raw, "valid_time_stop_era5t") + 24 * _HOUR) if "valid_time_stop_era5t" in raw.attrs else final
    )
    holds = f"{url} holds ERA5 for {stamp(start)} .. {stamp(final - _HOUR)}"
    if stop > final:
        holds += f" and preliminary ERA5T until {stamp(stop - _HOUR)}"
    if first < start or last >= (stop if preliminary else final):
        late = last >= final and last < stop
        advice = (
            "end data.period earlier, or take ERA5T with source.preliminary: true" if late else "change data.period"
        )
        raise ValueError(
            f"data.period must lie inside the archive's data, got {stamp(first)} .. {stamp(last)}; {holds}: {advice}"
        )
    if last < final:
        return "ERA5"
    return "ERA5T" if first >= final else f"ERA5, and ERA5T from {stamp(final)} on"


def _day(raw: xr.Dataset, attribute: str) -> np.datetime64:
    """The beginning of the day an attribute names."""
    return np.datetime64(str(raw.attrs[attribute])[:10], "ns")
