"""The fetch stage: downloads from the Copernicus Climate Data Store, queued, checked and recorded.

Contract: `source.parallel_requests` requests are under way at once. The identifier of a queued request is recorded
when the CDS gives it, so a run that was killed takes its place in the queue again. A file is downloaded under
another name, must have the length and checksum the CDS states and hold every field that was asked for, is flushed,
renamed and only then recorded with its SHA-256. Passing faults are tried again; others stop with variable and time.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pipeline import files, provenance
from pipeline.console import progress, say, stamp
from pipeline.weather.config import WeatherConfig
from pipeline.weather.sections import CdsSource
from pipeline.weather.times import Times
from pipeline.words import counted
from preprocess.cds_requests import BYTES_OF_FIELD, Folder, Request, needed_requests
from preprocess.sources import remote
from preprocess.sources.local_files import open_file
from preprocess.sources.piece import Piece

_REPEATS = 2
"""How often a request that failed at the CDS is submitted again."""
_BLOCK = 1 << 20

T = TypeVar("T")


class JobError(Exception):
    """The CDS gave up on a request."""


def run_fetch(config: WeatherConfig) -> None:
    """Download everything an experiment needs from the CDS."""
    source = config.source
    if not isinstance(source, CdsSource):
        raise ValueError(
            f"source.kind must be cds for fetch, got {source.kind!r}; other sources are read where they are"
        )
    folder, requests = Folder.of(config), needed_requests(config)
    with files.lock(folder.path / "fetch.lock"):
        missing = folder.missing(requests)
        if missing:
            need = sum(r.fields for r in missing) * BYTES_OF_FIELD[source.data_format]
            say(
                f"fetch: {len(missing)} of {counted(len(requests), 'request')}, "
                f"{counted(sum(r.fields for r in missing), 'field')}, "
                f"at most {need / 1e9:.1f} GB, into {folder.path}"
            )
            files.free_space_check(folder.path, need)
            _Queue(source, folder).run(missing, done=len(requests) - len(missing))
    recorded = folder.recorded()
    total = sum(recorded[r.file]["bytes"] for r in requests)
    facts = {"files": len(requests), "bytes": total, "folder": str(folder.path)}
    provenance.write_receipt(config, stage="fetch", outputs=[folder.manifest], facts=facts)
    say(folder.summary(requests))


def connect(source: CdsSource) -> Any:
    """A client of the CDS.

    Raises:
        ValueError: the client is not installed, or no address and key are configured.
    """
    try:
        from cdsapi.api import get_url_key_verify
        from ecmwf.datastores import Client
    except ImportError as error:
        raise ValueError(
            f"source.kind cds must have the CDS's client, got {error}; install it: make setup EXTRAS=cloud"
        ) from None
    try:
        url, key, verify = get_url_key_verify(source.url, None, None)
    except Exception as error:  # cdsapi raises this very class
        raise ValueError(
            f"the CDS must know its user, got no address and key ({error}); put them into ~/.cdsapirc as "
            "https://cds.climate.copernicus.eu/how-to-api shows, or into CDSAPI_URL and CDSAPI_KEY"
        ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that service messages cannot be had; a lost network shows soon enough
        return Client(url=url, key=key, verify=verify, timeout=source.timeout_s, progress=False, maximum_tries=1)


class _Queue:
    """Requests under way, and the record of them."""

    def __init__(self, source: CdsSource, folder: Folder) -> None:
        self.source = source
        self.folder = folder
        files.clear_abandoned(folder.path)
        self.jobs_path = folder.path / "jobs.json"
        self.jobs: dict[str, str] = files.read_json(self.jobs_path) if self.jobs_path.exists() else {}
        self.recorded = folder.recorded()
        self.writing = threading.Lock()
        self.stopping = threading.Event()
        self.client = self._tried(lambda: connect(source), "the CDS")

    def run(self, requests: list[Request], *, done: int) -> None:
        """Fetch all of them; the first that fails stops the others after what they are doing."""
        with (
            progress("requests") as bar,
            ThreadPoolExecutor(self.source.parallel_requests, thread_name_prefix="cds") as pool,
        ):
            task = bar.add_task("fetch", total=done + len(requests), completed=done)
            waiting: set[Future[None]] = {pool.submit(self._fetch_or_stop, r) for r in requests}
            try:
                while waiting:
                    finished, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in finished:
                        future.result()
                        bar.advance(task)
            finally:
                self.stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)

    def _fetch_or_stop(self, request: Request) -> None:
        try:
            if not self.stopping.is_set():
                self._fetch(request)
        except BaseException:
            self.stopping.set()
            raise

    def _fetch(self, request: Request) -> None:
        """One request, from the queue to the recorded file."""
        for again in range(_REPEATS + 1):
            try:
                results = self._results(request)
                break
            except JobError as error:
                self._remember(request, None)
                if again == _REPEATS or self.stopping.is_set():
                    raise self._fault(request, error) from None
                say(f"fetch: the CDS failed on {request} ({error}); asking again")
        target = self.folder.path / request.file
        with files.scratch(target) as part:
            digest = self._tried(lambda: self._download(results, part), str(request)) if results is not None else None
            if digest is None:
                return
            require_fields(part, request)
            part.replace(target)
        files.sync(self.folder.path)
        entry = {"dataset": request.dataset, "inputs": request.inputs, "bytes": target.stat().st_size, "sha256": digest}
        with self.writing:
            self.recorded[request.file] = entry
            files.write_json(self.folder.manifest, self.recorded)
        self._remember(request, None)

    def _results(self, request: Request) -> Any:
        """Wait for the CDS; None when the run stops."""
        remote_job = self._submitted(request)
        pause = min(1.0, self.source.poll_s)
        while not self.stopping.is_set():
            status = self._tried(lambda: remote_job.status, str(request))
            if status == "successful":
                return self._tried(remote_job.get_results, str(request))
            if status not in ("accepted", "running"):
                raise JobError(self._reason(remote_job, status))
            self.stopping.wait(pause)
            pause = min(1.5 * pause, self.source.poll_s)
        return None

    def _submitted(self, request: Request) -> Any:
        """The request in the CDS's queue: the one of an earlier run, or a new one."""
        number = self.jobs.get(request.file)
        if number is not None:
            try:
                return self._tried(lambda: self.client.get_remote(number), str(request))
            except ValueError:
                say(f"fetch: the CDS no longer knows {request} ({number}); asking again")
        job = self._tried(lambda: self.client.submit(request.dataset, request.inputs), str(request))
        self._remember(request, job.request_id)
        return job

    def _reason(self, job: Any, status: str) -> str:
        """Why the CDS gave up, as it says."""
        try:
            job.get_results()
        except Exception as error:
            return remote.describe(error)
        return f"status {status!r}"

    def _remember(self, request: Request, number: str | None) -> None:
        with self.writing:
            self.jobs.pop(request.file, None)
            if number is not None:
                self.jobs[request.file] = number
            files.write_json(self.jobs_path, self.jobs)

    def _download(self, results: Any, path: Path) -> str | None:
        """Download and check one file; its SHA-256, or None when the run stops."""
        asset = results.asset
        sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
        session, options = self.client.session, {"timeout": self.source.timeout_s, "verify": self.client.verify}
        with session.get(results.location, stream=True, **options) as answer, path.open("wb") as file:
            answer.raise_for_status()
            for block in answer.iter_content(_BLOCK):
                if self.stopping.is_set():
                    return None
                file.write(block)
                sha256.update(block)
                md5.update(block)
                size += len(block)
            file.flush()
            os.fsync(file.fileno())
        if size != int(asset["file:size"]):
            raise remote.DamagedError(f"{size} of {asset['file:size']} bytes")
        checksum = str(asset.get("file:checksum") or "")
        if len(checksum) == 32 and checksum != md5.hexdigest():
            raise remote.DamagedError(f"checksum {md5.hexdigest()} instead of {checksum}")
        return sha256.hexdigest()

    def _tried(self, action: Callable[[], T], what: str) -> T:
        """The result of an action, tried again after passing faults."""
        import tenacity

        try:
            return tenacity.Retrying(
                stop=tenacity.stop_after_attempt(self.source.retries + 1) | tenacity.stop_when_event_set(self.stopping),
                wait=tenacity.wait_random_exponential(multiplier=remote.FIRST_WAIT_S, max=remote.LONGEST_WAIT_S),
                retry=tenacity.retry_if_exception(remote.passing),
                sleep=lambda seconds: (self.stopping.wait(seconds), None)[1],
                reraise=True,
            )(action)
        except Exception as error:  # the client has several kinds
            if type(error) is ValueError:
                raise
            raise self._fault(what, error) from error

    def _fault(self, what: object, error: Exception) -> ValueError:
        return ValueError(
            f"request for {what} must be answered by the CDS, got {remote.describe(error)}; downloads are kept: "
            "resolve this and run python -m pipeline fetch again"
        )


def require_fields(path: Path, request: Request) -> None:
    """Check that a download holds every field that was asked for.

    Raises:
        ValueError: naming the first that is not there; the file is deleted.
    """
    try:
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise ValueError(
                    f"download must be one plain file, got a ZIP archive for {request}; use data_format: grib"
                )
        pieces = open_file(path)
        times = np.array(request.times, "datetime64[ns]")
        for short in request.variables:
            for level in request.levels or (None,):
                absent = times[~np.isin(times, _times_of(pieces, short, level))]
                if absent.size:
                    where = "" if level is None else f" at {level} hPa"
                    raise ValueError(
                        f"download must hold every field that was asked for, got no {short!r}{where} at "
                        f"{stamp(absent[0])} ({absent.size} of {times.size} times) in the file of {request.dataset}; "
                        "look at the CDS for gaps, or end data.period earlier"
                    )
    except ValueError:
        path.unlink()
        raise


def _times_of(pieces: Sequence[Piece], short: str, level: int | None) -> Times:
    """Times at which some pieces hold a variable on a level."""
    axes = [np.zeros(0, "datetime64[ns]")]
    for survey in (piece.survey for piece in pieces):
        field = survey.fields.get(short)
        if field is not None and survey.times is not None and (level is None or level in field.levels):
            axes.append(survey.times)
    return np.concatenate(axes)
