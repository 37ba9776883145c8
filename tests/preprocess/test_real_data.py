"""Real analyses and reanalyses become stores whose values, times and orientation are right.

The data are kept outside the repository (../shared/reference/real); without them these tests skip.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import pytest
import xarray as xr

from pipeline import store
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.weather.climatology import Normals
from pipeline.weather.sections import Channels, FilesSource
from preprocess.ingest.stage import run_regrid
from preprocess.normals.stage import run_normals
from preprocess.regrid import regrid
from preprocess.sources.local_files import open_files

pytestmark = pytest.mark.slow

Configure = Callable[..., Config]
TARGET = Grid.regular(5.625)


@pytest.fixture
def real(shared_reference: Path) -> Path:
    """Folder of the real data."""
    return shared_reference / "real"


def anomaly(field: np.ndarray) -> np.ndarray:
    """Departure from the mean of the row, weighted by the root of the area."""
    return (field - field.mean(axis=1, keepdims=True)) * np.sqrt(TARGET.area_weights)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = anomaly(a), anomaly(b)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def snapshot(configure: Configure, path: Path, time: str, **data: Any) -> Config:
    """A store of one time."""
    day = np.datetime64(time, "D")
    settings: dict[str, Any] = {
        "period": {"start": f"{day}T00:00", "end": f"{day + 1}T18:00"},
        "regrid": {"resolution": 5.625},
        "splits": {
            "train": {"start": f"{day}T00:00", "end": f"{day}T18:00"},
            "test": {"start": f"{day + 1}T00:00", "end": f"{day + 1}T18:00"},
        },
    }
    return configure([path], **(settings | data))


def test_a_snapshot_of_era5(real: Path, configure: Configure) -> None:
    """Catches Gaussian rows, odd dimension order, 37 levels or statics of 0.25 degrees not understood."""
    source = real / "era5_tl31_19590102T00.nc"
    config = snapshot(
        configure,
        source,
        "1959-01-02",
        constants=[real / "era5_static_0p25.nc"],
        channels={"variables": ["z", "t", "u", "v", "q"]},
    )
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    assert ds["state"].shape == (1, 75, 32, 64)
    assert ds["static_channel"].values.tolist() == ["lsm", "orog"]
    assert str(ds["time"].values[0])[:13] == "1959-01-02T00"
    raw = xr.open_dataset(source)
    gaussian, area = Grid.from_dataset(raw), TARGET.area_weights
    with xr.open_dataset(real / "era5_level_statistics" / "mean_by_level.nc") as means:
        mean = means.load()
    with xr.open_dataset(real / "era5_level_statistics" / "stddev_by_level.nc") as spreads:
        spread = spreads.load()
    long = {"z": "geopotential", "t": "temperature", "u": "u_component_of_wind", "q": "specific_humidity"}
    for short, name in long.items():
        for level in (50, 500, 850) if short != "q" else (500, 850):
            found = ds["state"].sel(channel=f"{short}{level}").values[0]
            before = raw[name].sel(level=level).transpose("latitude", "longitude").values
            # Both grids have 32 rows and the same columns: global means agree closely, extremes do not grow.
            assert before.min() <= found.min()
            assert found.max() <= before.max()
            source_mean = (before * gaussian.area_weights).mean()
            assert (found * area).mean() == pytest.approx(source_mean, rel=0.02, abs=0.02 * float(before.std()))
            place, size = float(mean[name].sel(level=level)), float(spread[name].sel(level=level))
            assert abs(found.mean() - place) < size
            assert 0.3 * size < found.std() < 2 * size
    lsm, orog = ds["static"].values
    assert 0.28 < (lsm * area).mean() < 0.30  # land covers 29% of the globe
    assert lsm[np.argmin(abs(TARGET.latitude - 25)), np.argmin(abs(TARGET.longitude - 10))] > 0.99  # Sahara
    assert lsm[np.argmin(abs(TARGET.latitude + 40)), np.argmin(abs(TARGET.longitude - 220))] == 0.0  # South Pacific
    assert orog[np.argmin(abs(TARGET.latitude - 32)), np.argmin(abs(TARGET.longitude - 88))] > 4e4  # Tibet


def test_a_snapshot_without_t2m(real: Path, configure: Configure) -> None:
    """Catches a message that does not list what the file has instead."""
    config = snapshot(
        configure,
        real / "era5_tl31_19590102T00.nc",
        "1959-01-02",
        constants=[real / "era5_static_0p25.nc"],
        channels={"variables": ["z", "t", "u", "v", "q", "t2m"]},
    )
    with pytest.raises(ValueError, match=r"got none of: variable 't2m' \(2m_temperature\)\.") as error:
        run_regrid(config)
    text = str(error.value)
    for phrase in (
        "z (as 'geopotential') at 37 levels, 1, 2, 3 .. 1000 hPa",
        "'sea_surface_temperature'",
        "orog (as 'z')",
    ):
        assert phrase in text
    assert not config.paths.store.exists()


@pytest.mark.parametrize(
    ("name", "time"), [("era5_t2m_0p25_20170101T12.nc", "2017-01-01"), ("era5_t2m_0p25_20221001T00.grib", "2022-10-01")]
)
def test_orientation_against_the_land_sea_mask(real: Path, configure: Configure, name: str, time: str) -> None:
    """Catches a field turned, flipped or shifted: of all 128 placings of the mask only the true one fits best.

    In both months land is colder than the sea of its latitude, on the whole: the correlation is lowest.
    """
    config = snapshot(
        configure,
        real / name,
        time,
        constants=[real / "era5_static_0p25.nc"],
        channels={"variables": ["t2m"], "levels": [], "statics": ["lsm"]},
        regrid={"resolution": 5.625, "method": "conservative"},
    )
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    field, lsm = ds["state"].values[0, 0], ds["static"].values[0]
    assert 273 < (field * TARGET.area_weights).mean() < 290
    true = correlation(field, lsm)
    turned = {k: correlation(field, np.roll(lsm, k, axis=1)) for k in range(1, 64)}
    flipped = [correlation(field, np.roll(lsm[::-1], k, axis=1)) for k in range(64)]
    assert true < min(turned.values())
    assert true < min(c for k, c in turned.items() if 8 <= k <= 56) - 0.05
    assert true < min(flipped) - 0.05


def test_both_conventions_in_one_store(real: Path, configure: Configure) -> None:
    """Catches fields of opposite conventions stacked as they lie in their files."""
    both = configure(
        [real / "era5_t2m_0p25_20170101T12.nc", real / "era5_t2m_0p25_20221001T00.grib"],
        channels={"variables": ["t2m"], "levels": [], "statics": []},
        period={"start": "2017-01-01T00:00", "end": "2022-10-01T12:00"},
        regrid={"resolution": 5.625},
        step_hours=12,
        splits={
            "train": {"start": "2017-01-01T00:00", "end": "2017-12-31T12:00"},
            "test": {"start": "2022-01-01T00:00", "end": "2022-10-01T12:00"},
        },
    )
    run_regrid(both)
    ds = store.open_store(both.paths.store)
    assert ds.sizes["time"] == 2
    assert len(store.read_manifest(both.paths.store)["facts"]["missing_times"]) == 4200 - 2
    a, b = ds["state"].values[:, 0]
    # The two seasons differ, land and sea do not: turned by half a circle or flipped they have nothing in common.
    assert correlation(a, b) > 0.6
    assert abs(correlation(a, np.roll(b, 32, axis=1))) < 0.2
    assert abs(correlation(a, b[::-1])) < 0.2


def wind(configure: Configure, real: Path, *, name: str = "gfs", step: int = 6) -> Config:
    return configure(
        [real / "gfs_10m_wind_1deg" / "*" / "*"],
        name=name,
        channels={"variables": ["u10", "v10"], "levels": [], "statics": []},
        period={"start": "2018-09-14T18:00", "end": "2018-10-16T21:00"},
        step_hours=step,
        regrid={"resolution": 5.625},
        splits={
            "train": {"start": "2018-09-14T18:00", "end": "2018-10-11T18:00"},
            "test": {"start": "2018-10-12T00:00", "end": "2018-10-16T21:00"},
        },
    )


@pytest.mark.slow
def test_gfs_winds(real: Path, configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches times taken from file names, forecasts dated by their start, and a gap filled or forgotten."""
    config = wind(configure, real, step=3)
    run_regrid(config)
    ds = store.open_store(config.paths.store)
    facts = store.read_manifest(config.paths.store)["facts"]
    assert ds.sizes["time"] == 101
    assert facts["times_by_lead_hours"] == {"0": 61, "3": 40}
    assert facts["source"]["times_held_more_than_once"] == 14
    missing = np.array(facts["missing_times"], "datetime64[m]")
    october = missing[missing > np.datetime64("2018-10-07")]
    assert [str(t) for t in october] == ["2018-10-10T18:00", "2018-10-10T21:00"]
    assert np.intersect1d(missing, ds["time"].values).size == 0
    assert missing.size + 101 == 32 * 8 + 2
    assert "which stay absent" in capsys.readouterr().err
    # One message decoded by hand: file name says f000, its header 3 hours later.
    path = real / "gfs_10m_wind_1deg" / "raw-data-f" / "gfs.t00z.pgrb2.1p00.f000.2018101300f3"
    with path.open("rb") as file:
        handle = eccodes.codes_grib_new_from_file(file)
        values = eccodes.codes_get_values(handle).reshape(181, 360)
        assert eccodes.codes_get(handle, "shortName") == "10u"
        assert eccodes.codes_get(handle, "validityTime") == 300
        eccodes.codes_release(handle)
    by_hand = xr.Dataset(
        {"u10": (("latitude", "longitude"), values.astype(np.float32))},
        coords={"latitude": 90.0 - np.arange(181), "longitude": np.arange(360.0)},
    )
    expected = regrid(by_hand, target=TARGET, method="bilinear")["u10"].values
    found = ds["state"].sel(channel="u10", time="2018-10-13T03:00").values
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_gfs_normals(real: Path, configure: Configure) -> None:
    """Catches a climatology by day invented from some days of autumn."""
    config = wind(configure, real)
    run_regrid(config)
    run_normals(config)
    found = Normals.open(config.paths.normals)
    assert found.kind.startswith("mean by hour of day (training covers only ")
    assert found.hours == (0, 6, 12, 18)
    # Bounds from ERA5's own spread: 5.5 and 4.7 m/s.
    assert 4.0 < found.std[0] < 7.0
    assert 3.5 < found.std[1] < 6.0
    field = found.climatology_at(np.array(["2018-10-14T06"], "datetime64[h]"))[0, 0]
    trades = (np.abs(TARGET.latitude) < 20) & (np.abs(TARGET.latitude) > 8)
    westerlies = (TARGET.latitude < -40) & (TARGET.latitude > -60)
    assert field[trades].mean() < -2.0
    assert field[westerlies].mean() > 4.0


@pytest.mark.parametrize("name", ["era5_cds_norway_surface_202506.nc", "ncep_r1_iberia_daily/NCEP_2T.nc"])
def test_regions_are_refused(real: Path, configure: Configure, name: str) -> None:
    """Catches a region stretched over the globe."""
    config = snapshot(
        configure, real / name, "2025-06-01", channels={"variables": ["t2m"], "levels": [], "statics": []}
    )
    with pytest.raises(ValueError, match=r"source grid must cover the globe, got Grid.* latitude .* longitude"):
        run_regrid(config)
    assert not config.paths.store.exists()


def test_an_ensemble_is_refused(real: Path, configure: Configure) -> None:
    """Catches one of ten members taken for the analysis."""
    path = real / "era5-levels-members.grib"
    config = snapshot(configure, path, "2017-01-01", channels={"variables": ["t"], "levels": [850], "statics": []})
    with pytest.raises(
        ValueError, match=r"one member of an ensemble, got 10 \(0 .. 9\) in \S+; choose one, e.g. source."
    ):
        run_regrid(config)


def test_a_member_of_an_ensemble(real: Path) -> None:
    """Catches another member's field, by messages picked from the same file by hand."""
    path = real / "era5-levels-members.grib"
    by_hand = {}
    with path.open("rb") as file:
        while (handle := eccodes.codes_grib_new_from_file(file)) is not None:
            keys = ("shortName", "level", "number", "dataDate", "dataTime")
            by_hand[tuple(eccodes.codes_get(handle, key, ktype=str) for key in keys)] = eccodes.codes_get_values(handle)
            eccodes.codes_release(handle)
    channels = Channels(variables=["z", "t"], levels=[500, 850], statics=[])
    found = open_files(FilesSource(kind="files", paths=[str(path)], member=3), channels=channels)
    ds = found.dataset().compute()
    assert found.times.size == 4
    for short in ("z", "t"):
        values = ds[short].sel(time="2017-01-01T12:00", level=850).values
        expected = by_hand[short, "850", "3", "20170101", "1200"].reshape(values.shape)
        np.testing.assert_array_equal(values, expected.astype(np.float32))
