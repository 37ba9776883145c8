"""Regridding of labelled data: laziness, order, types, NaNs, errors and weights kept on disk."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from pipeline.grid import Grid
from preprocess import regrid as module
from preprocess.regrid import cached_weights, regrid, regrid_weights, weighted_dtype
from preprocess.regridding.weights import METHODS
from preprocess.regridding.weights_file import load_weights

SOURCE = Grid(np.linspace(90, -90, 19), 15.0 * np.arange(24))
TARGET = Grid.regular(22.5)


def fields(dtype: str = "float32", seed: int = 3) -> xr.Dataset:
    values = np.random.default_rng(seed).normal(250, 20, (5, 3, *SOURCE.shape)).astype(dtype)
    return xr.Dataset(
        {
            "temperature": (("time", "level", "latitude", "longitude"), values, {"units": "K", "long_name": "T"}),
            "count": (("time",), np.arange(5), {"units": "1"}),
            "mask": (("latitude", "longitude"), values[0, 0] > 250),
        },
        coords={
            "time": np.datetime64("2020-01-01T00", "ns") + np.arange(5) * np.timedelta64(6, "h"),
            "level": ("level", [300, 500, 850], {"units": "hPa"}),
            "latitude": ("latitude", SOURCE.latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", SOURCE.longitude, {"units": "degrees_east"}),
            "model": "simulated",
        },
        attrs={"title": "test", "history": "made"},
    )


def product(values: np.ndarray, method: str) -> np.ndarray:
    """The plain matrix product in float64, rounded once."""
    weights = regrid_weights(SOURCE, TARGET, method=method, engine="builtin").toarray()
    lead = values.shape[:-2]
    out = values.reshape(*lead, -1).astype(np.float64) @ weights.T
    return out.reshape(*lead, *TARGET.shape)


@pytest.mark.parametrize("method", METHODS)
def test_values_names_attributes_and_coordinates(method: str) -> None:
    """Catches swapped axes, and lost or stale metadata."""
    ds = fields()
    out = regrid(ds, target=TARGET, method=method, engine="builtin")
    assert list(out.data_vars) == ["temperature", "count", "mask"]
    assert out["temperature"].dims == ("time", "level", "latitude", "longitude")
    np.testing.assert_allclose(out["temperature"], product(ds["temperature"].values, method), rtol=2e-7)
    assert out.attrs == ds.attrs
    assert out["temperature"].attrs == ds["temperature"].attrs
    xr.testing.assert_identical(out["count"].drop_vars("model"), ds["count"].drop_vars("model"))
    assert np.array_equal(out["latitude"], TARGET.latitude)
    assert np.array_equal(out["longitude"], TARGET.longitude)
    assert out["latitude"].attrs == {"units": "degrees_north"}
    assert out["level"].attrs == {"units": "hPa"}
    assert out["model"].item() == "simulated"
    assert Grid.from_dataset(out) == TARGET


def counted(values: np.ndarray, reads: list[Any], chunks: tuple[Any, ...]) -> da.Array:
    """A Dask array that notes each block that is read."""
    blocks = da.from_array(values, chunks=chunks)

    def note(block: np.ndarray, block_id: tuple[int, ...] | None = None) -> np.ndarray:
        reads.append(block_id)
        return block

    return da.map_blocks(note, blocks, dtype=values.dtype, meta=np.empty((0,) * values.ndim, values.dtype))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunks", [(2, 3, 19, 24), (1, 2, 7, 24), (5, 3, 19, 5)])
def test_lazy_read_once_and_independent_of_chunks(method: str, chunks: tuple[int, ...]) -> None:
    """Catches a hidden compute, a block read twice, and results that depend on how blocks are cut."""
    ds = fields()
    values = ds["temperature"].values
    reads: list[Any] = []
    lazy = ds.assign(temperature=ds["temperature"].copy(data=counted(values, reads, chunks)))
    out = regrid(lazy, target=TARGET, method=method, engine="builtin")
    assert reads == []
    assert out["temperature"].chunks is not None
    assert out["temperature"].chunks[0] == lazy["temperature"].chunks[0]
    assert out["temperature"].dtype == np.float32
    with dask.config.set(scheduler="threads", num_workers=2):
        computed = out.compute()
    assert len(reads) == len(set(reads)) == np.prod([-(-n // c) for n, c in zip(values.shape, chunks)])
    xr.testing.assert_identical(computed, regrid(ds, target=TARGET, method=method, engine="builtin"))


def test_one_field_alone_is_bit_identical() -> None:
    """Catches sums whose order or precision depends on how many fields are done together."""
    ds = fields()
    whole = regrid(ds, target=TARGET, method="conservative", engine="builtin")["temperature"]
    single = regrid(ds.isel(time=[3], level=[1]), target=TARGET, method="conservative", engine="builtin")["temperature"]
    assert np.array_equal(single.values, whole.isel(time=[3], level=[1]).values)


def test_weights_are_made_once_for_all_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches weights built per variable."""
    built: list[str] = []
    original = module.builtin_weights
    monkeypatch.setattr(module, "builtin_weights", lambda *a, **k: built.append("x") or original(*a, **k))
    regrid(fields(), target=TARGET, method="bilinear", engine="builtin")
    assert built == ["x"]


def test_sum_is_taken_in_float64() -> None:
    """Catches float32 sums: geopotential of 5e5 would lose its last digits in a mean of 100 cells."""
    fine, coarse = Grid(np.arange(-88, 90, 4.0), 4.0 * np.arange(90)), Grid.regular(60.0)
    values = (5e5 + np.random.default_rng(1).uniform(0, 1, fine.shape)).astype(np.float32)
    ds = xr.Dataset(
        {"z": (("latitude", "longitude"), values)}, {"latitude": fine.latitude, "longitude": fine.longitude}
    )
    weights = regrid_weights(fine, coarse, method="conservative", engine="builtin")
    expected = (weights @ values.astype(np.float64).ravel()).astype(np.float32).reshape(coarse.shape)
    out = regrid(ds, target=coarse, method="conservative", engine="builtin")["z"].values
    assert np.array_equal(out, expected)
    assert not np.array_equal((weights.astype(np.float32) @ values.ravel()).reshape(coarse.shape), expected)


def test_order_of_dimensions_and_of_coordinates() -> None:
    """Catches files with (longitude, latitude), south first or longitudes from -180: the field is the same."""
    ds = fields().drop_vars("mask")
    out = regrid(ds, target=TARGET, method="bilinear", engine="builtin")
    turned = ds.transpose("longitude", "level", "latitude", "time")
    other = regrid(turned, target=TARGET, method="bilinear", engine="builtin")["temperature"]
    assert other.dims == ("level", "time", "latitude", "longitude")
    assert np.array_equal(other.transpose(*out["temperature"].dims).values, out["temperature"].values)
    moved = ds.isel(latitude=slice(None, None, -1))
    moved = moved.assign_coords(longitude=(moved["longitude"] + 180) % 360 - 180).sortby("longitude")
    again = regrid(moved, target=TARGET, method="bilinear", engine="builtin")["temperature"]
    np.testing.assert_allclose(again.values, out["temperature"].values, rtol=2e-7)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bool", "f4"), ("int8", "f4"), ("uint16", "f4"), ("int32", "f8"), ("float16", "f4"), (">f4", "f4"), ("f8", "f8")],
)
def test_types(dtype: str, expected: str) -> None:
    """Catches integer results (a land-sea mask of 0s), upcast float32, and values that float32 cannot hold."""
    ds = fields()[["mask"]].astype(dtype)
    weighted = regrid(ds, target=TARGET, method="conservative", engine="builtin")["mask"]
    assert weighted.dtype == weighted_dtype(dtype) == np.dtype(expected)
    assert float((weighted % 1 != 0).mean()) > 0.1
    copied = regrid(ds, target=TARGET, method="nearest", engine="builtin")["mask"]
    assert copied.dtype == np.dtype(dtype)
    assert set(np.unique(copied)) <= set(np.unique(ds["mask"]))


@pytest.mark.parametrize("method", METHODS)
def test_nan_reaches_the_cells_that_read_it_and_no_other(method: str) -> None:
    """Catches NaNs filled from neighbours, and NaNs spread by weights of zero."""
    ds = fields().drop_vars("mask")
    ds["temperature"][2, 1, 5, 0] = np.nan
    ds["temperature"][2, 1, 0, 3] = np.nan
    out = regrid(ds.chunk(time=2), target=TARGET, method=method, engine="builtin")["temperature"].values
    weights = regrid_weights(SOURCE, TARGET, method=method, engine="builtin").toarray()
    reads = (weights[:, [5 * 24, 3]] > 0).any(axis=1).reshape(TARGET.shape)
    assert np.array_equal(np.isnan(out[2, 1]), reads)
    assert np.isnan(out).sum() == reads.sum()
    same = regrid(ds, target=SOURCE, method=method, engine="builtin")["temperature"].values
    assert np.array_equal(same, ds["temperature"].values, equal_nan=True)


def test_errors_name_the_variable_or_the_extent() -> None:
    """Catches fields left on the old grid without a word."""
    ds = fields()
    with pytest.raises(ValueError, match="must cover the target grid"):
        regrid(ds.isel(longitude=slice(3, 12)), target=TARGET, method="bilinear")
    with pytest.raises(ValueError, match="'zonal' must have both latitude and longitude"):
        regrid(ds.assign(zonal=ds["mask"].mean("longitude")), target=TARGET, method="bilinear")
    with pytest.raises(ValueError, match="'mask' must not depend on latitude"):
        regrid(ds.set_coords("mask"), target=TARGET, method="bilinear")
    with pytest.raises(ValueError, match="'letter' must be numeric"):
        regrid(ds.assign(letter=xr.full_like(ds["mask"], "a", dtype="U1")), target=TARGET, method="conservative")
    with pytest.raises(ValueError, match="coordinate 'latitude'"):
        regrid(ds.rename(latitude="lat"), target=TARGET, method="bilinear")
    with pytest.raises(ValueError, match="must be a dimension"):
        regrid(ds.swap_dims(latitude="y"), target=TARGET, method="bilinear")
    with pytest.raises(ValueError, match="got 'cubic'"):
        regrid(ds, target=TARGET, method="cubic")  # type: ignore[arg-type]


# Weights on disk


def test_cached_weights_are_made_once_and_named_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a second build, and one file shared by two grids, methods or engines."""
    options: dict[str, Any] = {"engine": "builtin", "directory": tmp_path / "new"}
    path = cached_weights(SOURCE, TARGET, method="bilinear", **options)
    expected = regrid_weights(SOURCE, TARGET, method="bilinear", engine="builtin")
    stored = load_weights(path)
    assert np.array_equal(stored.toarray(), expected.toarray())
    others = {
        cached_weights(SOURCE, TARGET, method="nearest", **options),
        cached_weights(TARGET, SOURCE, method="bilinear", **options),
        cached_weights(Grid(SOURCE.latitude[::-1], SOURCE.longitude), TARGET, method="bilinear", **options),
    }
    assert len(others | {path}) == 4
    assert {p.name for p in path.parent.iterdir()} == {p.name for p in others | {path}}
    monkeypatch.setattr(module, "builtin_weights", lambda *_, **__: pytest.fail("built again"))
    assert cached_weights(SOURCE, TARGET, method="bilinear", **options) == path


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other content"])
def test_damaged_weights_are_refused_and_made_again(tmp_path: Path, damage: str) -> None:
    """Catches a flipped byte or a file cut short being used as weights."""
    path = cached_weights(SOURCE, TARGET, method="bilinear", engine="builtin", directory=tmp_path)
    whole = path.read_bytes()
    if damage == "other content":
        with np.load(path) as file:
            arrays = dict(file)
        arrays["data"] = arrays["data"] * 1.0001
        np.savez(path, **arrays)
    else:
        middle = whole.index(b"data.npy") + 200  # among the weights, where nothing is padding
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes({"flip": flipped, "cut": whole[:middle], "empty": b""}[damage])
    with pytest.raises(ValueError, match=r"weights file must .*bilinear.*delete it"):
        load_weights(path)
    with pytest.warns(RuntimeWarning, match="computed again"):
        assert cached_weights(SOURCE, TARGET, method="bilinear", engine="builtin", directory=tmp_path) == path
    assert path.read_bytes() == whole


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches half a file under the final name, or litter beside it."""

    def full_disk(file: Any, *_: Any, **__: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cached_weights(SOURCE, TARGET, method="bilinear", engine="builtin", directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_graph_holds_a_path_instead_of_the_matrix(tmp_path: Path) -> None:
    """Catches weights shipped to every worker: the graph must stay small and give the same result."""
    fine = Grid.regular(2.0)
    values = da.random.default_rng(0).random((4, *fine.shape), chunks=(1, -1, -1), dtype=np.float32)
    ds = xr.Dataset(
        {"t": (("time", "latitude", "longitude"), values)}, {"latitude": fine.latitude, "longitude": fine.longitude}
    )
    kept = regrid(ds, target=TARGET, method="conservative", engine="builtin", weights_directory=tmp_path)
    held = regrid(ds, target=TARGET, method="conservative", engine="builtin")
    assert len(pickle.dumps(held["t"].data.dask)) > 200_000 > 20_000 > len(pickle.dumps(kept["t"].data.dask))
    assert np.array_equal(kept["t"].compute(scheduler="threads").values, held["t"].compute(scheduler="threads").values)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_preprocess_regrid_loads_no_torch() -> None:
    """Catches an import that makes every Dask worker load a training library."""
    code = "import sys, preprocess.regrid; sys.exit('torch' in sys.modules or 'jax' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
