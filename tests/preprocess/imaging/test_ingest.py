"""From scans to the store: values, what is masked, bands, blocks, and runs that are killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from pipeline import store
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from preprocess.imaging.ingest import run_ingest
from tests.preprocess.imaging.scans import WAVELENGTHS, by_image, cube, experiment, killed_at_every_slab, write_envi


def two_scans(folder: Path, **header: Any) -> tuple[list[Path], list[NDArray[np.float64]]]:
    """Two images of different sizes in integers, ten thousand times their reflectance."""
    values = [cube(9, 7, seed=1), cube(4, 11, seed=2)]
    said = {"reflectance scale factor": 10000, **header}
    paths = [
        write_envi(folder / f"{name}.hdr", v * 10000, data_type=2, header=said, interleave=way)
        for name, v, way in zip("ab", values, ("bil", "bsq"), strict=True)
    ]
    return paths, values


def tree(config: ImagingConfig) -> dict[str, bytes]:
    """Every byte of the store and its manifest."""
    path = config.paths.store
    files = {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}
    return files | {"manifest": store.manifest_path(path).read_bytes()}


def test_images_of_different_sizes_come_back_from_their_tiles(tmp_path: Path) -> None:
    """Catches tiles in the wrong place, a scale taken for its inverse, and padding that counts as valid."""
    paths, values = two_scans(tmp_path)
    config = experiment(tmp_path, paths)
    run_ingest(config)
    for name, expected in zip("ab", values, strict=True):
        np.testing.assert_allclose(by_image(config.paths.store, name), expected, rtol=1e-6)
    with xr.open_zarr(config.paths.store, chunks=None, consolidated=False) as ds:
        valid, reflectance = ds["valid"].values, ds["reflectance"].values
        np.testing.assert_array_equal(ds["wavelength"].values, WAVELENGTHS)
        assert ds["band"].values[2] == "b0421.0"
        places = list(zip(ds["image"].values, ds["row"].values, ds["column"].values, strict=True))
    assert places[:3] == [("a", 0, 0), ("a", 0, 4), ("a", 4, 0)]
    assert places[6:] == [("b", 0, 0), ("b", 0, 4), ("b", 0, 8)]
    np.testing.assert_array_equal(valid, np.isfinite(reflectance))
    assert valid.sum() == 6 * (9 * 7 + 4 * 11)


def test_what_is_not_valid_is_masked_and_not_filled(tmp_path: Path) -> None:
    """Catches no data scaled to a reflectance, a saturated pixel kept, and a masked band that masks its neighbours."""
    values = cube(6, 5) * 1000
    values[1, 2, 3], values[2, 0, 0], values[5, 5, 4] = -99, 4095, 5000
    floats = cube(6, 5, seed=3)
    floats[0, 1, 1] = np.nan
    paths = [
        write_envi(tmp_path / "a.hdr", values, data_type=2, header={"data ignore value": -99}),
        write_envi(tmp_path / "b.hdr", floats * 1000, data_type=4),
    ]
    config = experiment(tmp_path, paths, saturation=4095, scale=0.001)
    run_ingest(config)
    expected = values / 1000
    expected[1, 2, 3] = expected[2, 0, 0] = expected[5, 5, 4] = np.nan
    np.testing.assert_allclose(by_image(config.paths.store, "a"), expected, rtol=1e-6)
    np.testing.assert_allclose(by_image(config.paths.store, "b"), floats, rtol=1e-6)


def test_the_largest_number_of_a_type_is_saturated(tmp_path: Path) -> None:
    """Catches a clipped count that is taken for a measurement where nobody gave the camera's limit."""
    values = cube(4, 4) * 100
    values[3, 1, 2] = 255
    config = experiment(
        tmp_path, [write_envi(tmp_path / n, values, data_type=1) for n in ("a.hdr", "b.hdr")], scale=0.01
    )
    run_ingest(config)
    assert np.argwhere(np.isnan(by_image(config.paths.store, "a"))).tolist() == [[3, 1, 2]]


def test_dark_and_white_references(tmp_path: Path) -> None:
    """Catches references averaged over columns instead of lines, dark and white exchanged, and a panel taken for 1."""
    rng = np.random.default_rng(5)
    truth = cube(6, 7)
    dark = np.round(rng.uniform(50, 90, size=(6, 1, 7)))
    white = np.round(rng.uniform(2000, 3000, size=(6, 1, 7)))
    noise = np.array([-3, 1, 2])[None, :, None]  # of the three lines of a reference, which cancels
    counts = dark + truth / 0.9 * (white - dark)
    write_envi(tmp_path / "d.hdr", dark + noise, data_type=12)
    write_envi(tmp_path / "w.hdr", white + noise, data_type=12, interleave="bip")
    for name in "pq":
        write_envi(tmp_path / f"{name}.hdr", counts, data_type=4)
    references = {"dark": "{folder}/d.hdr", "white": str(tmp_path / "w.hdr"), "white_reflectance": 0.9}
    config = experiment(tmp_path, [tmp_path / "*.hdr"], references=references)
    run_ingest(config)
    assert [image.name for image in ImageStore.of(config).images] == ["p", "q"], "references are no images"
    np.testing.assert_allclose(by_image(config.paths.store, "q"), truth, rtol=1e-5)


def test_a_column_that_references_cannot_calibrate_is_masked(tmp_path: Path) -> None:
    """Catches infinite reflectance where the white reference is no brighter than the dark one."""
    white = np.full((6, 2, 7), 500.0)
    white[4, :, 3] = 20
    write_envi(tmp_path / "d.hdr", np.full((6, 2, 7), 20.0), data_type=12)
    write_envi(tmp_path / "w.hdr", white, data_type=12)
    scans = [write_envi(tmp_path / f"{name}.hdr", cube(6, 7) * 400 + 20) for name in "pq"]
    references = {"dark": str(tmp_path / "d.hdr"), "white": str(tmp_path / "w.hdr")}
    config = experiment(tmp_path, scans, references=references)
    run_ingest(config)
    masked = np.argwhere(np.isnan(by_image(config.paths.store, "p")))
    assert masked.tolist() == [[4, row, 3] for row in range(6)]


def test_bad_bands_of_any_header_are_left_out_and_listed(tmp_path: Path) -> None:
    """Catches images with different bands, bands left out silently, and values of a neighbour's."""
    values = [cube(4, 4, seed=1), cube(4, 4, seed=2)]
    for name, v, good in zip("ab", values, ([1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 1]), strict=True):
        write_envi(tmp_path / f"{name}.hdr", v, header={"bbl": good, "fwhm": [1, 2, 3, 4, 5, 6]})
    config = experiment(tmp_path, [tmp_path / "*.hdr"])
    run_ingest(config)
    np.testing.assert_allclose(by_image(config.paths.store, "b"), values[1][[0, 2, 3, 5]], rtol=1e-6)
    opened = ImageStore.of(config)
    assert [entry["wavelength"] for entry in opened.contract["left_out"]] == [410.0, 446.0]
    assert "bbl" in opened.contract["left_out"][0]["reason"]
    with xr.open_zarr(config.paths.store, chunks=None, consolidated=False) as ds:
        assert ds["fwhm"].values.tolist() == [1, 3, 4, 6]


def test_files_of_two_instruments_are_brought_to_the_bands_asked_for(tmp_path: Path) -> None:
    """Catches two files joined by the number of a band instead of its wavelength."""
    first, second = cube(4, 4, seed=1), cube(4, 4, 3, seed=2)
    write_envi(tmp_path / "a.hdr", first)
    write_envi(tmp_path / "b.hdr", second, wavelengths=(405.0, 425.0, 450.0))
    config = experiment(
        tmp_path, [tmp_path / "*.hdr"], data={"bands": {"wavelengths": [405, 450], "method": "nearest"}}
    )
    run_ingest(config)
    np.testing.assert_allclose(by_image(config.paths.store, "a"), first[[0, 4]], rtol=1e-6)  # 405 is as near to 400
    np.testing.assert_allclose(by_image(config.paths.store, "b"), second[[0, 2]], rtol=1e-6)


def test_a_scene_is_cut_into_blocks_with_gaps(tmp_path: Path) -> None:
    """Catches blocks that overlap, pixels of the gap that are used, and a rest without pixels that stops everything."""
    values = cube(9, 13)
    values[:, :, 10:] = np.nan
    path = write_envi(tmp_path / "s.hdr", values)
    config = experiment(tmp_path, [path], data={"blocks": {"rows": 4, "columns": 4, "gap": 1}})
    run_ingest(config)
    images = {image.name: (image.rows, image.columns) for image in ImageStore.of(config).images}
    assert images == {f"s-r0000{r}-c0000{c}": (4, 4) for r in (0, 5) for c in (0, 5)}
    np.testing.assert_allclose(by_image(config.paths.store, "s-r00005-c00000"), values[:, 5:9, 0:4], rtol=1e-6)
    facts = json.loads(config.paths.receipt("ingest").read_text())["facts"]
    assert [text.split()[0] for text in facts["blocks_left_out"]] == ["s-r00000-c00010", "s-r00005-c00010"]


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a slab that is lost or made twice, and bytes that depend on where a run was cut."""
    paths, _ = two_scans(tmp_path)
    whole = experiment(tmp_path / "whole", paths)
    run_ingest(whole)
    cut = experiment(tmp_path / "cut", paths)
    assert killed_at_every_slab(run_ingest, cut, monkeypatch) > 1
    assert tree(cut) == tree(whole)


def test_a_damaged_slab_is_written_again(tmp_path: Path) -> None:
    """Catches --verify that finds nothing, or a damaged store that is taken for complete."""
    paths, _ = two_scans(tmp_path)
    config = experiment(tmp_path, paths)
    run_ingest(config)
    before = tree(config)
    shard = next(p for p in sorted((config.paths.store / "reflectance" / "c" / "1").rglob("*")) if p.is_file())
    content = bytearray(shard.read_bytes())
    content[10] ^= 255
    shard.write_bytes(content)
    run_ingest(config, verify=True)
    assert tree(config) == before


def test_names_are_as_long_as_they_must_be(tmp_path: Path) -> None:
    """Catches two scans of one name in different folders that become one image."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        write_envi(tmp_path / folder / "scan.hdr", cube(4, 4))
    config = experiment(tmp_path, [tmp_path / "*" / "scan.hdr"])
    run_ingest(config)
    assert [image.name for image in ImageStore.of(config).images] == ["x-scan", "y-scan"]
