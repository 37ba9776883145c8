"""A job queue that speaks as the Climate Data Store does: a request becomes a job, is accepted, runs, and succeeds.

Fields are GRIB messages made from a formula, so a test knows what to expect.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import eccodes
import numpy as np

from pipeline.weather.variables import CATALOGUE, standard_geopotential
from preprocess.sources.grib_messages import DECODING
from tests.preprocess.servers.web import Faults, Handler, Web, serving
from tests.preprocess.stores import global_grid

ROWS, COLUMNS = 7, 12
PARAMETERS = {v.long: v.param_id for v in CATALOGUE}
Job = dict[str, Any]


class Cds:
    """The state of the pretended service.

    Args:
        looks: how often a job is looked at before it succeeds.
        failing: title of a parameter -> how many of its first jobs fail.
        preliminary: times from here on are ERA5T.
        lacking: a time no file holds.
        key: the only one that is let in.
    """

    def __init__(
        self,
        *,
        looks: int = 2,
        failing: dict[str, int] | None = None,
        preliminary: str = "9999",
        lacking: str = "",
        key: str = "secret",
    ) -> None:
        self.looks = looks
        self.failing = failing or {}
        self.preliminary = preliminary
        self.lacking = lacking
        self.key = key
        self.jobs: dict[str, Job] = {}
        self.submitted: Counter[str] = Counter()
        self.most_queued = 0

    def submit(self, dataset: str, inputs: dict[str, Any]) -> str:
        number = f"job-{len(self.jobs)}"
        title = inputs["variable"][0]
        self.submitted[title] += 1
        fails = self.submitted[title] <= self.failing.get(title, 0)
        self.jobs[number] = {"dataset": dataset, "inputs": inputs, "looks": 0, "fails": fails, "done": False}
        self.most_queued = max(self.most_queued, sum(not job["done"] for job in self.jobs.values()))
        return number

    def status(self, job: Job) -> str:
        job["looks"] += 1
        if job["looks"] == 1:
            return "accepted"
        if job["looks"] <= self.looks:
            return "running"
        return "failed" if job["fails"] else "successful"

    def file(self, job: Job) -> bytes:
        if "body" not in job:
            with DECODING:  # ecCodes is used by the threads of the code under test too
                job["body"] = self.messages(job["inputs"])
        return job["body"]

    def messages(self, inputs: dict[str, Any]) -> bytes:
        """The GRIB file of a request."""
        body = b""
        asked = itertools.product(inputs["year"], inputs["month"], inputs["day"], inputs["time"])
        levels = [int(p) for p in inputs.get("pressure_level", [])]
        for year, month, day, clock in asked:
            time = f"{year}-{month}-{day}T{clock}"
            if time == self.lacking:
                continue
            for name in inputs["variable"]:
                for level in levels or [None]:
                    body += self.message(name, level, np.datetime64(time), era5t=time >= self.preliminary)
        return body

    @staticmethod
    def message(name: str, level: int | None, time: np.datetime64, *, era5t: bool) -> bytes:
        handle = eccodes.codes_grib_new_from_samples(f"regular_ll_{'sfc' if level is None else 'pl'}_grib1")
        text = str(time.astype("datetime64[m]"))
        keys = {
            **global_grid(ROWS, COLUMNS),
            "bitsPerValue": 24,
            "setLocalDefinition": 1,
            "localDefinitionNumber": 1,
            "experimentVersionNumber": "0005" if era5t else "0001",
            "dataDate": int(text[:10].replace("-", "")),
            "dataTime": int(text[11:13] + text[14:16]),
            "paramId": PARAMETERS[name],
        }
        if level is not None:
            keys["level"] = level
        for key, value in keys.items():
            eccodes.codes_set(handle, key, value)
        spread = 0.01 if name == "land_sea_mask" else 1 / 64
        eccodes.codes_set_values(handle, value_of(name, level, time) + np.arange(ROWS * COLUMNS) * spread)
        try:
            return bytes(eccodes.codes_get_message(handle))
        finally:
            eccodes.codes_release(handle)


def value_of(name: str, level: int | None, time: np.datetime64) -> float:
    """What the first cell of a field holds."""
    hours = (time - np.datetime64("2001-01-01T00")) / np.timedelta64(1, "h")
    base = {"temperature": 250.0, "2m_temperature": 280.0}.get(name, 5.0)
    if level is not None and name == "geopotential":
        base = standard_geopotential(level)
    if name == "land_sea_mask":
        return 0.0
    return base + 0.01 * (level or 0) + 0.05 * float(hours)


class CdsHandler(Handler):
    """The retrieve and catalogue interfaces of the CDS's engine."""

    service: Cds

    def say(self, path: str, content: Any, *, status: int = 200) -> None:
        body = json.dumps(content).encode()
        if status == 200:
            self.deliver(path, body, kind="application/json")
        else:
            self.answer(status, body, kind="application/json")

    def allowed(self) -> bool:
        if self.headers.get("PRIVATE-TOKEN") == self.service.key:
            return True
        self.answer(401, json.dumps({"title": "Unauthorized", "detail": "wrong key"}).encode())
        return False

    def do_POST(self) -> None:  # noqa: N802
        path = urlsplit(self.path).path
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        with self.server.guard:
            self.server.asked[path] += 1
        if self.server.faults.at(path, self.server.asked[path]) is not None:
            with self.server.guard:
                self.server.befell["submit"] += 1
            self.answer(503, b"{}")
            return
        with self.server.guard:
            number = self.service.submit(path.split("/")[-2], content["inputs"])
        job = f"{self.server.url}/api/retrieve/v1/jobs/{number}"
        links = [{"rel": "monitor", "href": job}, {"rel": "self", "href": job}]
        reply = {"jobID": number, "status": "accepted", "links": links}
        self.answer(201, json.dumps(reply).encode(), kind="application/json")

    def serve(self, path: str) -> None:
        parts = path.strip("/").split("/")
        if path.startswith("/cache/"):
            self.deliver(path, self.service.file(self.service.jobs[parts[1]]))
        elif parts[-1] == "messages":
            self.say(path, {"messages": []})
        elif not self.allowed():
            return
        elif parts[3] == "processes":
            self.say(path, {"id": parts[4]})
        elif parts[4] not in self.service.jobs:
            self.say(path, {"title": "job not found", "detail": parts[4]}, status=404)
        elif parts[-1] == "results":
            self.results(path, parts[4])
        else:
            with self.server.guard:
                status = self.service.status(self.service.jobs[parts[4]])
            link = {"rel": "self", "href": f"{self.server.url}{path}"}
            self.say(path, {"jobID": parts[4], "status": status, "processID": "x", "links": [link]})

    def results(self, path: str, number: str) -> None:
        job = self.service.jobs[number]
        with self.server.guard:
            job["done"] = True
        if job["fails"]:
            self.say(path, {"title": "The job has failed", "detail": "MARS returned no data"}, status=400)
            return
        body = self.service.file(job)
        asset = {
            "type": "application/x-grib",
            "href": f"{self.server.url}/cache/{number}",
            "file:size": len(body),
            "file:checksum": hashlib.md5(body).hexdigest(),
        }
        self.say(path, {"asset": {"value": asset}})


def pretending(service: Cds, folder: Path, faults: Faults | None = None) -> AbstractContextManager[Web]:
    """A web server of the pretended service; its interface is at `url`/api."""
    handler: Callable[..., Any] = type("Bound", (CdsHandler,), {"service": service})
    return serving(folder, faults, handler=handler)  # type: ignore[arg-type]
