"""Archives behind a network: what a disturbed network gives is what an undisturbed one gives, or a named fault."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import config as configuration
from pipeline import store
from pipeline.config import Config
from preprocess.ingest.stage import run_regrid
from preprocess.sources import open_source, remote
from preprocess.sources.cloud import arco_version
from preprocess.sources.remote import open_zarr, passing
from tests.preprocess.servers.layouts import edit_attributes, write_archive
from tests.preprocess.servers.web import KINDS, Faults, Web, serving
from tests.preprocess.stores import experiment
from tests.stores import SMALL_STEPS, data_block

pytestmark = pytest.mark.slow

LATITUDE = np.linspace(90.0, -90.0, 19)
LONGITUDE = np.arange(36) * 10.0
VALID = {"valid_time_start": "2001-01-01", "valid_time_stop": "2001-01-03", "valid_time_stop_era5t": "2001-01-04"}
LEVELS = (100, 500, 850)
ONE_WIND: dict[str, Any] = {
    "variables": ("u10",),
    "levels": LEVELS,
    "latitude": LATITUDE,
    "longitude": LONGITUDE,
    "times": np.arange("2001-01-01", "2001-01-03", np.timedelta64(6, "h"), dtype="datetime64[ns]"),
}
"""An archive of one variable."""
Truth = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory, expected: Truth) -> Path:
    """A folder with the two layouts: 2001-01-01 .. 2001-01-04, ARCO's padded by four days on both sides."""
    folder = tmp_path_factory.mktemp("archives")
    hourly = np.arange("2001-01-01", "2001-01-05", np.timedelta64(3, "h"), dtype="datetime64[ns]")
    common: dict[str, Any] = {"truth": expected, "variables": ("z", "t", "t2m", "u10"), "levels": LEVELS}
    write_archive(
        folder / "arco", latitude=LATITUDE, longitude=LONGITUDE, times=hourly, padding=32, attrs=VALID, **common
    )
    centres = -90 + (np.arange(8) + 0.5) * 22.5
    write_archive(
        folder / "ready",
        latitude=centres,
        longitude=np.arange(16) * 22.5,
        times=hourly[::2],
        chunk_times=5,
        transposed=True,
        **common,
    )
    # WeatherBench 2 has fields made from others, which may still bear their attributes.
    derived = folder / "ready" / "10m_u_component_of_geostrophic_wind"
    shutil.copytree(folder / "ready" / "10m_u_component_of_wind", derived)
    attributes = json.loads((derived / ".zattrs").read_text())
    (derived / ".zattrs").write_text(json.dumps(attributes | {"short_name": "u10"}))
    zarr.consolidate_metadata(folder / "ready", zarr_format=2)
    return folder


@pytest.fixture
def web(archives: Path) -> Iterator[Web]:
    with serving(archives) as server:
        yield server


def make(url: str, folder: Path, *, kind: str = "arco", source: dict[str, Any] | None = None, **data: Any) -> Config:
    """A small experiment that reads an address and writes below a folder."""
    settings = data_block(
        ("2001-01-01", "2001-01-02"),
        train=("2001-01-01", "2001-01-01T12:00"),
        test=("2001-01-01T18:00", "2001-01-02"),
        **SMALL_STEPS,
        statics=["lsm", "orog"],
    )
    access = {"kind": kind, "url": url, "timeout_s": 0.4}
    return experiment("cloud", folder, source=access | (source or {}), data=settings | data)


def until(end: str, *, start: str = "2001-01-01") -> dict[str, Any]:
    return {"period": {"start": start, "end": end}}


def only(variable: str, *levels: int) -> dict[str, Any]:
    return {"channels": {"variables": [variable], "levels": list(levels), "statics": []}}


def command(config: Config, folder: Path, root: Path, stage: str = "regrid") -> subprocess.CompletedProcess[str]:
    path = folder / "experiment.yaml"
    path.write_text(configuration.dump(config))
    return subprocess.run(
        [sys.executable, "-m", "pipeline", stage, "--config", str(path)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def state(config: Config) -> xr.Dataset:
    return xr.open_zarr(config.paths.store, consolidated=False).load()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No real waits between tries."""
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.002)


@pytest.fixture(scope="module")
def undisturbed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """The store made from the archive on the local disk."""
    config = make(str(archives / "arco"), tmp_path_factory.mktemp("undisturbed"))
    run_regrid(config)
    return state(config)


def test_arco_is_read_as_it_is(undisturbed: xr.Dataset, expected: Truth) -> None:
    """Catches levels, times or rows of ARCO's layout taken for others (37 levels a chunk, padded time axis)."""
    assert undisturbed.sizes["time"] == 8
    assert list(undisturbed["channel"].values) == ["z500", "z850", "t500", "t850", "t2m", "u10"]
    rows, columns = undisturbed["latitude"].values, undisturbed["longitude"].values
    exact = expected("t", 850, undisturbed["time"].values, rows, columns)
    found = undisturbed["state"].sel(channel="t850").values
    assert np.abs(found - exact).max() < 0.1
    assert np.abs(found - found.mean(axis=(1, 2), keepdims=True)).max() > 2.0
    assert undisturbed.attrs["contract"]["source"]["version"] == "ERA5"


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_alone(kind: str, archives: Path, hasty: None) -> None:
    """Catches a kind of fault that is not retried, or a body cut short that is taken for a whole chunk."""
    faults = Faults(rate=0.5, kinds=(kind,), seed=3, stall_s=0.8)
    with serving(archives, faults) as web:
        config = make(f"{web.url}/arco", Path("unused"), source={"retries": 20, "timeout_s": 0.25})
        archive = open_source(config)
        found = archive.dataset(archive.times[:2])["t2m"].compute()
        assert web.befell[kind] >= 2, "nothing was tested"
    calm = open_source(make(str(archives / "arco"), Path("unused")))
    xr.testing.assert_identical(found, calm.dataset(calm.times[:2])["t2m"].compute())


def test_disturbed_equals_undisturbed(archives: Path, tmp_path: Path, undisturbed: xr.Dataset, hasty: None) -> None:
    """Catches values changed by a network that fails on a fifth of all requests; and a second run that reads it."""
    with serving(archives, Faults(rate=0.2, seed=7, stall_s=0.8)) as web:
        config = make(f"{web.url}/arco", tmp_path, source={"retries": 20, "parallel_requests": 2})
        run_regrid(config)
        assert sum(web.befell.values()) >= 5, f"hardly anything was tested: {web.befell}"
        assert web.most_together <= 2, "more requests at once than allowed"
        before = web.requests
        run_regrid(config)
        assert web.requests == before, "a finished store was made from the network again"
    found = state(config)
    xr.testing.assert_equal(found, undisturbed)
    assert found.attrs["contract"]["source"]["url"].endswith("/arco")


def test_broken_chunk_stops_and_resumes(archives: Path, tmp_path: Path, undisturbed: xr.Dataset, root: Path) -> None:
    """Catches a permanent fault that is skipped, has no name, shows a traceback, or spoils what was written."""
    faults = Faults(broken={"/arco/temperature/44.0.0.0": "unavailable"})  # 2001-01-02T12 of the padded axis
    with serving(archives, faults) as web:
        url = f"{web.url}/arco"
        config = make(url, tmp_path, source={"retries": 1})
        done = command(config, tmp_path, root)
        assert done.returncode == 2, done.stderr
        message = done.stderr.strip().splitlines()[-1]
        for part in ("'temperature'", "2001-01-02T12:00", f"{url}/temperature/44.0.0.0", "503", "2 tries"):
            assert part in message, message
        assert "Traceback" not in done.stderr
        assert "Unclosed" not in done.stderr
        read = sum(n for path, n in web.asked.items() if "/temperature/" in path)
        faults.broken.clear()
        run_regrid(config)
        again = sum(n for path, n in web.asked.items() if "/temperature/" in path) - read
        assert again == 4, "the finished slab was read again"
    xr.testing.assert_equal(state(config), undisturbed)
    assert store.read_manifest(config.paths.store)["complete"]


def test_damaged_chunk_is_named(archives: Path, tmp_path: Path, root: Path) -> None:
    """Catches bytes of the right length that cannot be decompressed, shown as a traceback or read as values."""
    with serving(archives, Faults(broken={"/arco/temperature/44.0.0.0": "damage"})) as web:
        done = command(make(f"{web.url}/arco", tmp_path, source={"retries": 1}), tmp_path, root)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    for part in ("'temperature'", "2001-01-02T12:00", "damaged bytes"):
        assert part in message, message


@pytest.mark.parametrize("fill", [None, 0.0])
def test_missing_chunk_is_no_value(fill: float | None, archives: Path, tmp_path: Path, expected: Truth) -> None:
    """Catches an absent chunk taken for the fill value, which zero winds would pass every check with."""
    path = write_archive(tmp_path / "holes", truth=expected, **ONE_WIND)
    for name in (".zmetadata", "10m_u_component_of_wind/.zarray"):
        file = path / name
        file.write_text(
            file.read_text().replace('"fill_value": "NaN"', f'"fill_value": {"null" if fill is None else fill}')
        )
    (path / "10m_u_component_of_wind" / "2.0.0").unlink()
    with serving(tmp_path) as web:
        for url in (str(path), f"{web.url}/holes"):
            archive = open_source(make(url, tmp_path, **only("u10")))
            archive.dataset(archive.times[:2]).compute()
            with pytest.raises(
                ValueError, match=r"'10m_u_component_of_wind' at 2001-01-01T12:00 must have its values, got no chunk"
            ):
                archive.dataset(archive.times).compute()


def test_ready_files_need_no_regridding(web: Web, tmp_path: Path, expected: Truth) -> None:
    """Catches WeatherBench 2's axes (longitude first, south to north, five times a chunk) put in the wrong place.

    Also a field made from another, with its attributes, taken for it.
    """
    config = make(f"{web.url}/ready", tmp_path, kind="weatherbench2")
    run_regrid(config)
    found = state(config)
    assert found.attrs["contract"]["regrid"] == {"method": "none", "engine": "none"}
    exact = expected("z", 500, found["time"].values, found["latitude"].values, found["longitude"].values)
    np.testing.assert_array_equal(found["state"].sel(channel="z500").values, exact.astype(np.float32))
    land = expected("lsm", None, found["time"].values, found["latitude"].values, found["longitude"].values)[0]
    np.testing.assert_array_equal(found["static"].sel(static_channel="lsm").values, land.astype(np.float32))


def test_google_storage_protocol(
    web: Web, monkeypatch: pytest.MonkeyPatch, hasty: None, archives: Path, tmp_path: Path
) -> None:
    """Catches gs:// addresses that need an account, or whose errors are not understood."""
    pytest.importorskip("gcsfs", reason="gs:// needs the extra 'cloud'")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
    web.faults = Faults(broken={"2m_temperature/32": "missing"})
    archive = open_source(make("gs://arco", tmp_path, source={"timeout_s": 5.0}))
    found = archive.dataset(archive.times[1:3])["u10"].compute()
    calm = open_source(make(str(archives / "arco"), tmp_path))
    xr.testing.assert_identical(found, calm.dataset(calm.times[1:3])["u10"].compute())
    with pytest.raises(ValueError, match="'2m_temperature' at 2001-01-01T00:00 must have its values"):
        archive.dataset(archive.times[:1]).compute()


@pytest.mark.parametrize(
    ("source", "data", "words"),
    [
        ({}, until("2001-01-04"), ["ERA5T until 2001-01-04T23:00", "preliminary: true"]),
        ({"preliminary": True}, until("2001-01-05"), ["2001-01-05T18:00", "change data.period"]),
        ({}, until("2001-01-02", start="2000-12-31"), ["2000-12-31T00:00", "holds ERA5 for 2001-01-01"]),
        ({}, only("q", 500), ["'q'", "specific_humidity"]),
        ({}, only("t", 500, 700), ["'t' at 700 hPa", "100, 500, 850"]),
        ({"url": "http://127.0.0.1:9/none", "retries": 0}, {}, ["http://127.0.0.1:9/none", "check the address"]),
        ({"url": "nowhere://x"}, {}, ["nowhere://x"]),
    ],
)
def test_bad_input(source: dict[str, Any], data: dict[str, Any], words: list[str], web: Web, tmp_path: Path) -> None:
    """Catches a wish that cannot be fulfilled and is fulfilled with NaN, or refused without saying why."""
    config = make(source.pop("url", f"{web.url}/arco"), tmp_path, source=source, **data)
    with pytest.raises(ValueError) as caught:
        open_source(config)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_address_without_archive(web: Web, tmp_path: Path) -> None:
    """Catches an address that is not an archive read as an empty one, or tried again and again."""
    with pytest.raises(ValueError, match="must be a Zarr archive"):
        open_source(make(f"{web.url}/nothing", tmp_path))
    assert web.requests < 10


def test_preliminary_times_are_told(archives: Path, tmp_path: Path) -> None:
    """Catches ERA5T in a store that does not say so."""
    config = make(str(archives / "arco"), tmp_path, source={"preliminary": True}, **until("2001-01-04"))
    assert open_source(config).description["version"] == "ERA5, and ERA5T from 2001-01-04T00:00 on"


def test_versions_of_arco() -> None:
    """Catches the last valid day counted for its first hour only, and archives that tell less."""
    raw = xr.Dataset(attrs=VALID)
    first, last = np.datetime64("2001-01-02", "ns"), np.datetime64("2001-01-03T23", "ns")
    hour = np.timedelta64(1, "h")
    assert arco_version(raw, first, last, preliminary=False, url="x") == "ERA5"
    assert arco_version(raw, last + hour, last + hour, preliminary=True, url="x") == "ERA5T"
    with pytest.raises(ValueError, match="ERA5T"):
        arco_version(raw, first, last + hour, preliminary=False, url="x")
    del raw.attrs["valid_time_stop_era5t"]
    with pytest.raises(ValueError, match=r"2001-01-01T00:00 .. 2001-01-03T23:00: change"):
        arco_version(raw, first, last + hour, preliminary=True, url="x")
    assert arco_version(raw.drop_attrs(), first, last, preliminary=False, url="x") is None


def test_store_travels_to_workers(web: Web, tmp_path: Path) -> None:
    """Catches a store that cannot be sent to another process, or forgets there what must exist."""
    config = make(f"{web.url}/arco", tmp_path)
    raw, patient = open_zarr(f"{web.url}/arco", patience=config.source)  # type: ignore[arg-type]
    patient.guard(raw, time="time")
    again = pickle.loads(pickle.dumps(patient))
    assert {n: f.when(1) for n, f in again.fields.items()} == {n: f.when(1) for n, f in patient.fields.items()}
    assert again.retries == patient.retries
    sent = pickle.loads(pickle.dumps(raw))
    np.testing.assert_array_equal(sent["2m_temperature"][40].values, raw["2m_temperature"][40].values)
    assert np.isfinite(sent["2m_temperature"][40].values).all()


def test_patience_is_no_part_of_the_store() -> None:
    """Catches a new store, or a refused resume, because of a longer timeout."""
    one, other = (make("https://x/y", Path("here"), source={"retries": n, "timeout_s": n}) for n in (1, 2))
    assert one.paths.store == other.paths.store
    assert one.source.identity == other.source.identity  # type: ignore[union-attr]
    assert make("https://x/z", Path("here")).paths.store != one.paths.store


def test_passing_faults() -> None:
    """Catches errors of the user's doing tried for minutes."""
    import aiohttp
    import requests

    def answered(status: int) -> list[Exception]:
        response = requests.Response()
        response.status_code = status
        info: Any = None
        return [
            requests.HTTPError(response=response),
            aiohttp.ClientResponseError(info, (), status=status),
        ]

    assert all(passing(e) for status in (408, 429, 500, 502, 503, 504) for e in answered(status))
    assert not any(passing(e) for status in (400, 401, 403, 404) for e in answered(status))
    assert passing(ConnectionResetError())
    assert passing(aiohttp.ClientPayloadError())
    assert not passing(KeyError("x"))
    assert not passing(FileNotFoundError("x"))


def test_attributes_can_move(archives: Path, tmp_path: Path, expected: Truth) -> None:
    """Catches a store that no longer resumes because ARCO's archive has grown by a month."""
    path = write_archive(tmp_path / "growing", truth=expected, attrs=VALID, **ONE_WIND)
    before = open_source(make(str(path), tmp_path, **only("u10"))).description
    edit_attributes(path, valid_time_stop="2001-02-03", valid_time_stop_era5t="2001-03-01")
    assert open_source(make(str(path), tmp_path, **only("u10"))).description == before
