"""Zarr archives behind a network, read patiently, and without believing that a missing chunk is data.

Contract: a request that fails for a passing reason (a lost or silent connection, HTTP 408, 425, 429 or 5xx, a
body cut short) is made again after a random, exponentially growing wait, a limited number of times; at most
`parallel_requests` are under way at once, each for one chunk. What stays broken raises `ValueError` with
variable, time and address. Zarr takes an absent chunk for one full of the fill value; for a field of an
archive it is an error here. Stores can be pickled to workers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from pipeline.console import say, stamp
from pipeline.weather.sections import RemoteSource
from pipeline.weather.times import Times

if TYPE_CHECKING:
    from tenacity import RetryCallState

RETRIED_STATUS = frozenset({408, 425, 429})
"""HTTP errors below 500 that pass: request timeout, too early, too many requests."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
_SILENT_RETRIES = 2
_IN_HEADER = -1
"""In place of a length: each Blosc chunk states its own."""


class DamagedError(Exception):
    """A body that is not as long as its own header or the array's layout says, or metadata that end early."""


@dataclass(frozen=True, eq=False)
class GuardedField:
    """An array whose chunks must all exist.

    Args:
        chunk_times: times in one chunk, 0 for a field without time.
        times: the whole time axis.
    """

    chunk_times: int
    times: Times

    def when(self, chunk: int) -> str:
        """The times of a chunk as messages print them; "" for a field without time."""
        times = self.times[chunk * self.chunk_times : (chunk + 1) * self.chunk_times]
        ends = [stamp(time) for time in times[[0, -1]]] if times.size else []
        return f" at {' .. '.join(dict.fromkeys(ends))}" if ends else ""


@dataclass
class _Connection:
    """What has to be closed when a store is no longer used."""

    filesystem: Any
    loop: asyncio.AbstractEventLoop | None = None


class PatientStore(WrapperStore[Store]):
    """A read-only Zarr store that retries, limits its requests, and refuses absent chunks of guarded fields."""

    def __init__(self, store: Store, *, url: str, retries: int, parallel: int) -> None:
        super().__init__(store)
        self.url = url
        self.retries = retries
        self.parallel = parallel
        self.fields: dict[str, GuardedField] = {}
        self.lengths: dict[str, int] = {}
        """Bytes of a chunk by array: a number for uncompressed ones, _IN_HEADER for Blosc."""
        self._begin()

    def _begin(self) -> None:
        """State of this process, not sent to others."""
        self._gate: asyncio.Semaphore | None = None
        self._given_up: dict[str, str] = {}
        self._connection = _Connection(getattr(self._store, "fs", None))
        weakref.finalize(self, _disconnect, self._connection)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_gate", "_given_up", "_connection")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def guard(self, raw: xr.Dataset, *, time: str | None) -> None:
        """From now on every chunk of every field (an array of two or more dimensions) must be there.

        Args:
            raw: the dataset as opened from this store, with its whole time axis.
            time: name of the time dimension, if there is one.
        """
        times = np.zeros(0, "datetime64[ns]") if time is None else raw[time].values
        for name, array in raw.data_vars.items():
            if array.ndim > 1:
                chunks = dict(zip(array.dims, array.encoding.get("chunks") or array.shape, strict=True))
                self.fields[str(name)] = GuardedField(int(chunks.get(time, 0)), times)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """One object, or None for one that is absent and may be.

        Raises:
            ValueError: it stays unreadable, or a chunk of a guarded field is absent.
        """
        if key in self._given_up:
            raise ValueError(self._given_up[key])
        address = f"{self.url}/{key}"
        try:
            data = await self._tried(key, prototype, byte_range)
        except Exception as error:  # every protocol has its own exceptions
            tries = f" after {self.retries + 1} tries" if passing(error) else ""
            self._given_up[key] = (
                f"{self.what(key)} must be readable, got {describe(error)} from {address}{tries}; "
                "run the same command again, which resumes here"
            )
            raise ValueError(self._given_up[key]) from error
        if data is None and self._field(key) is not None:
            self._given_up[key] = (
                f"{self.what(key)} must have its values, got no chunk at {address}; the archive is incomplete there: "
                "choose another data.period, or report it to the archive's maintainers"
            )
            raise ValueError(self._given_up[key])
        return data

    def _field(self, key: str) -> GuardedField | None:
        """The guarded field that a key is a chunk of, or None."""
        name, chunk = _array_and_chunk(key)
        return self.fields.get(name) if chunk else None

    def what(self, key: str) -> str:
        """What messages call a key: variable and time, where it is a chunk of a guarded field."""
        name, chunk = _array_and_chunk(key)
        field = self._field(key)
        return f"variable {name!r}{field.when(chunk[0])}" if field is not None else f"{key!r} of the archive"

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of objects, each as `get` reads it."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def _tried(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

        if self._gate is None:
            self._gate = asyncio.Semaphore(self.parallel)
            self._connection.loop = asyncio.get_running_loop()
        data: Buffer | None = None
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(self.retries + 1),
            wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
            retry=retry_if_exception(passing),
            before_sleep=self._announce,
            reraise=True,
        ):
            with attempt:
                async with self._gate:
                    data = await self._store.get(key, prototype, byte_range)
                if data is not None and byte_range is None:
                    self._require_whole(key, data)
        return data

    def _require_whole(self, key: str, data: Buffer) -> None:
        name, chunk = _array_and_chunk(key)
        if not chunk:
            self._learn(key, data)
            return
        length = self.lengths.get(name, len(data))
        if length == _IN_HEADER:
            length = int.from_bytes(data.as_numpy_array()[12:16].tobytes(), "little")
        if length != len(data):
            raise DamagedError(f"{len(data)} bytes where {length} should be")

    def _learn(self, key: str, data: Buffer) -> None:
        """Lengths of chunks, from the consolidated metadata of Zarr 2."""
        if not key.endswith((".zmetadata", ".zarray", ".zattrs", ".zgroup", "zarr.json")):
            return
        try:
            content = json.loads(data.to_bytes())
        except ValueError:
            raise DamagedError(f"metadata that end after {len(data)} bytes") from None
        for path, layout in content.get("metadata", {}).items() if key == ".zmetadata" else ():
            name, _, kind = path.rpartition("/")
            if kind != ".zarray" or layout.get("filters"):
                continue
            compressor = layout.get("compressor")
            if compressor is None:
                self.lengths[name] = int(np.prod(layout["chunks"])) * np.dtype(layout["dtype"]).itemsize
            elif compressor.get("id") == "blosc":
                self.lengths[name] = _IN_HEADER

    def _announce(self, state: RetryCallState) -> None:
        if state.attempt_number > _SILENT_RETRIES and state.outcome is not None:
            wait = state.next_action.sleep if state.next_action else 0.0
            error = describe(state.outcome.exception())
            say(f"source: {error}; again in {wait:.0f} s ({state.attempt_number} of {self.retries}): {self.url}")


def _array_and_chunk(key: str) -> tuple[str, tuple[int, ...]]:
    """(array, chunk indices) of a key; no indices for metadata."""
    name, _, rest = key.partition("/")
    parts = re.split(r"[./]", rest.removeprefix("c/"))
    return name, tuple(map(int, parts)) if all(p.isdigit() for p in parts) else ()


def _disconnect(connection: _Connection) -> None:
    """Close the connections of a store in the event loop that opened them."""
    session, loop = getattr(connection.filesystem, "_session", None), connection.loop
    if session is None or session.closed or loop is None or not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(session.close(), loop)
    with suppress(RuntimeError):
        if asyncio.get_running_loop() is loop:
            return
    with suppress(Exception):  # at worst the other side waits for its own timeout
        closing.result(timeout=1.0)


def passing(error: BaseException) -> bool:
    """Whether a request that failed so may succeed when it is made again, by any protocol."""
    import aiohttp
    import requests

    if isinstance(error, DamagedError | TimeoutError | ConnectionError):
        return True
    status = error.status if isinstance(error, aiohttp.ClientResponseError) else getattr(error, "code", None)  # gcsfs
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
    if str(status).isdigit():
        return int(str(status)) in RETRIED_STATUS or int(str(status)) >= 500
    return isinstance(error, aiohttp.ClientError | requests.RequestException)


def describe(error: BaseException | None) -> str:
    """An error in one line: its type, and its message if it has one."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def open_zarr(url: str, *, patience: RemoteSource) -> tuple[xr.Dataset, PatientStore]:
    """Open a Zarr archive; reads its metadata and coordinates.

    Args:
        url: gs://, http(s)://, any other protocol of fsspec, or a local path.
        patience: how long to wait, and how often to try.

    Raises:
        ValueError: nothing can be opened there.
    """
    try:
        store = PatientStore(
            _connect(url, patience),
            url=url.rstrip("/"),
            retries=patience.retries if "://" in url else 0,
            parallel=patience.parallel_requests,
        )
        raw = xr.open_zarr(store, chunks=None, consolidated=True if "://" in url else None)
    except ImportError as error:
        raise ValueError(
            f"source.url must be of a protocol that is installed, got {url} ({error}); "
            "install the extra: make setup EXTRAS=cloud"
        ) from None
    except Exception as error:  # every protocol has its own exceptions
        raise ValueError(
            f"source.url must be a Zarr archive (remote ones with consolidated metadata) that can be read from here, "
            f"got {url} ({describe(error)}); check the address and the network"
        ) from error
    return raw, store


def _connect(url: str, patience: RemoteSource) -> Store:
    if "://" not in url:
        return LocalStore(url, read_only=True)
    import aiohttp

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # its retries print tracebacks; ours print one line
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience.timeout_s, sock_read=patience.timeout_s)
    options: dict[str, Any] = {}
    if url.startswith(("gs://", "gcs://")):
        options = {"token": "anon", "requests_timeout": timeout}
    elif url.startswith(("http://", "https://")):
        options = {"client_kwargs": {"timeout": timeout}}
    return FsspecStore.from_url(url, storage_options={"skip_instance_cache": True, **options}, read_only=True)
