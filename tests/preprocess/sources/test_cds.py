"""Downloads from the Climate Data Store: nothing asked twice, nothing half counted, every fault with its name."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline import config as configuration
from pipeline.config import Config
from pipeline.weather.sections import ArcoSource
from preprocess.cds_requests import Folder, needed_requests
from preprocess.ingest.stage import run_regrid
from preprocess.sources import open_source, remote
from preprocess.sources.fetch import run_fetch
from tests import forked
from tests.preprocess.servers.cds import Cds, pretending, value_of
from tests.preprocess.servers.web import Faults
from tests.preprocess.stores import experiment

pytestmark = pytest.mark.slow


def make(url: str, folder: Path, *, source: dict[str, Any] | None = None, **data: Any) -> Config:
    """A small experiment over the turn of a month."""
    settings: dict[str, Any] = {
        "channels": {"variables": ["z", "t", "t2m", "u10"], "levels": [500, 850], "statics": ["lsm", "orog"]},
        "period": {"start": "2001-01-30T12:00", "end": "2001-02-02"},
        "step_hours": 12,
        "regrid": {"resolution": 22.5, "method": "nearest"},
        "splits": {
            "train": {"start": "2001-01-30T12:00", "end": "2001-01-31"},
            "test": {"start": "2001-02-01", "end": "2001-02-02"},
        },
    }
    access = {"kind": "cds", "url": url, "timeout_s": 1.0, "poll_s": 0.01}
    return experiment("cds", folder, source=access | (source or {}), data=settings | data)


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A key for the pretended service, and no real waits."""
    pytest.importorskip("cdsapi", reason="needs the extra 'cloud'")
    monkeypatch.setenv("CDSAPI_KEY", "secret")
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "absent"))
    monkeypatch.delenv("CDSAPI_URL", raising=False)
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.002)


def held(config: Config) -> dict[str, Any]:
    return Folder.of(config).recorded()


def test_requests_cover_each_field_once() -> None:
    """Catches days of one month asked in the next, hours outside the period, and requests above the limit."""
    config = make("x", Path("here"))
    requests = needed_requests(config)
    asked = [
        (v, p, str(t)[:13])
        for r in requests
        for v in r.variables
        for p in r.levels or (None,)
        for t in r.times
        if r.title != "constants"
    ]
    times = np.arange("2001-01-30T12", "2001-02-03", np.timedelta64(12, "h"), dtype="datetime64[h]")
    dynamic = config.data.channels.dynamic
    assert len(asked) == len(set(asked)) == times.size * len(dynamic)
    for request in requests:  # the CDS takes every day with every hour
        assert len(request.inputs["day"]) * len(request.inputs["time"]) == len(request.times)
        assert len(request.inputs["month"]) == 1
    assert {r.title for r in requests} >= {"constants", "z_2001-01", "t_2001-02", "single_2001-02"}
    assert requests[0].inputs["variable"] == ["land_sea_mask", "geopotential"]
    small = needed_requests(make("x", Path("here"), source={"max_fields": 4}))
    assert max(r.fields for r in small) == 4
    assert sum(r.fields for r in small) == sum(r.fields for r in requests)
    with pytest.raises(ValueError, match="max_fields must allow one day"):
        needed_requests(make("x", Path("here"), source={"max_fields": 3}))


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_fetch_and_regrid(rate: float, tmp_path: Path) -> None:
    """Catches fields in the wrong place or changed on the way, also by a network that fails; and a second download."""
    service = Cds()
    with pretending(service, tmp_path, Faults(rate=rate, seed=1, stall_s=0.5)) as web:
        config = make(f"{web.url}/api", tmp_path, source={"retries": 20, "timeout_s": 0.3, "parallel_requests": 2})
        with pytest.raises(ValueError, match=r"got 0 of 10 files .* run python -m pipeline fetch"):
            open_source(config)
        run_fetch(config)
        assert service.most_queued <= 2
        assert not rate or sum(web.befell.values()) >= 8, web.befell
        asked = web.requests
        run_fetch(config)
        run_regrid(config)
        assert web.requests == asked, "what is here was asked for again"
    found = xr.open_zarr(config.paths.store, consolidated=False).load()
    assert found.sizes["time"] == 7
    assert found.attrs["contract"]["source"] == {
        "kind": "cds",
        "label": "ERA5",
        "preliminary": False,
        "version": "ERA5",
    }
    for channel, name, level in (("t850", "temperature", 850), ("t2m", "2m_temperature", None)):
        for when in found["time"].values:
            cells = found["state"].sel(channel=channel, time=when).values
            first = value_of(name, level, when)
            assert first - 0.01 <= cells.min() < cells.max() <= first + 83 / 64 + 0.01, (channel, when)
    for name, entry in held(config).items():
        body = (config.paths.downloads / name).read_bytes()
        assert (len(body), hashlib.sha256(body).hexdigest()) == (entry["bytes"], entry["sha256"])
    leftovers = [p.name for p in config.paths.downloads.iterdir() if p.name.startswith(".")]
    assert not leftovers


def test_half_a_file_does_not_count(tmp_path: Path) -> None:
    """Catches a file cut short, or put there by hand, that is read as a download."""
    with pretending(Cds(), tmp_path) as web:
        config = make(f"{web.url}/api", tmp_path)
        run_fetch(config)
        path = config.paths.downloads / next(n for n in held(config) if n.startswith("t_"))
        whole = path.read_bytes()
        path.write_bytes(whole[:-100])
        with pytest.raises(ValueError, match="got 9 of 10 files"):
            open_source(config)
        run_fetch(config)
    assert path.read_bytes() == whole


def test_failed_job_is_asked_again_then_named(tmp_path: Path) -> None:
    """Catches one failure of the CDS ending the run, and failures that are tried for ever or have no name."""
    with pretending(Cds(failing={"temperature": 1}), tmp_path) as web:
        run_fetch(make(f"{web.url}/api", tmp_path / "once"))
    service = Cds(failing={"temperature": 99})
    with pretending(service, tmp_path) as web:
        config = make(f"{web.url}/api", tmp_path / "always", source={"parallel_requests": 1})
        with pytest.raises(ValueError, match=r"t at 2001-01-30T12:00.* MARS returned no data"):
            run_fetch(config)
        assert service.submitted["temperature"] == 3
        before = set(held(config))
        assert before, "what came before was not kept"
        service.failing = {}
        run_fetch(config)
        assert before < set(held(config))


def test_killed_run_takes_its_place_in_the_queue_again(tmp_path: Path, root: Path) -> None:
    """Catches requests queued for hours that are thrown away by a kill and asked for again."""
    service = Cds(looks=10**9)
    with pretending(service, tmp_path) as web:
        config = make(f"{web.url}/api", tmp_path, source={"parallel_requests": 3})
        path = tmp_path / "experiment.yaml"
        path.write_text(configuration.dump(config))
        process = forked.start(["pipeline", "fetch", "--config", str(path)], cwd=root, output=tmp_path)
        jobs = config.paths.downloads / "jobs.json"
        deadline = time.monotonic() + 400
        while not (jobs.exists() and len(json.loads(jobs.read_text())) == 3):
            assert time.monotonic() < deadline
            assert process.exitcode is None
            time.sleep(0.05)
        process.kill()
        process.join()
        queued = sum(service.submitted.values())
        assert queued == 3
        service.looks = 1
        run_fetch(config)
        assert sum(service.submitted.values()) == 10, "a queued request was asked for twice"


@pytest.mark.parametrize(
    ("service", "source", "words"),
    [
        (Cds(key="another"), {}, "401 Client Error.*wrong key"),
        (Cds(lacking="2001-02-01T12:00"), {}, "got no '.*' at .*2001-02-01T12:00"),
        (Cds(), {"folder": "/proc/nowhere"}, "nowhere"),
    ],
)
def test_permanent_faults(service: Cds, source: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Catches a wrong key, a gap in the archive or a bad folder that is tried again and again, or passed over."""
    with (
        pretending(service, tmp_path) as web,
        pytest.raises((ValueError, OSError), match=words),
    ):
        run_fetch(make(f"{web.url}/api", tmp_path, source=source))
    assert web.requests < 150


def test_who_asks_must_be_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the client's bare exception where a user forgot the key."""
    monkeypatch.delenv("CDSAPI_KEY")
    with pytest.raises(ValueError, match="cdsapirc"):
        run_fetch(make("http://127.0.0.1:9/api", tmp_path, source={"retries": 0}))


def test_preliminary_data_are_refused(tmp_path: Path) -> None:
    """Catches ERA5T that enters a store unseen."""
    with pretending(Cds(preliminary="2001-02-01T12:00"), tmp_path) as web:
        config = make(f"{web.url}/api", tmp_path)
        run_fetch(config)
        with pytest.raises(ValueError, match="ERA5T from 2001-02-01T12:00 on"):
            open_source(config)
        taken = make(f"{web.url}/api", tmp_path, source={"preliminary": True})
        run_fetch(taken)
    assert open_source(taken).description["version"] == "ERA5, and ERA5T from 2001-02-01T12:00 on"


def test_only_the_cds_is_fetched(tmp_path: Path) -> None:
    """Catches a silent success for sources that have nothing to download."""
    config = make("x", tmp_path)
    other = config.model_copy(update={"source": ArcoSource(kind="arco")})
    with pytest.raises(ValueError, match=r"source\.kind must be cds for fetch, got 'arco'"):
        run_fetch(other)
