"""Normals of bands: of the training images' valid pixels and of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.normals import ImageNormals
from preprocess.imaging.complete import complete_normals
from preprocess.imaging.ingest import run_ingest
from preprocess.imaging.normals import BandSums, run_normals
from tests.preprocess.imaging.scans import by_image, cube, experiment, write_envi


def prepared(folder: Path, *, offset: float = 0.0) -> ImagingConfig:
    """Three scans of different sizes, one with masked pixels, in a store."""
    for i, (name, rows, columns) in enumerate((("a", 5, 7), ("b", 4, 4), ("c", 6, 5))):
        values = cube(rows, columns, seed=i) + offset
        values[1, :2, 1] = np.nan
        write_envi(folder / f"{name}.hdr", values)
    splits = {"train": ["a", "c"], "validation": [], "test": ["b"]}
    config = experiment(folder, [folder / "*.hdr"], data={"splits": splits})
    run_ingest(config)
    return config


def test_normals_are_those_of_the_training_pixels(tmp_path: Path) -> None:
    """Catches a test image in the sums, masked or padded pixels counted, and small images weighted as large ones."""
    config = prepared(tmp_path)
    run_normals(config)
    found = ImageNormals.open(config.paths.normals)
    pixels = np.concatenate([by_image(config.paths.store, n).astype(np.float64).reshape(6, -1) for n in "ac"], axis=1)
    np.testing.assert_allclose(found.mean, np.nanmean(pixels, axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.nanstd(pixels, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.minimum, np.nanmin(pixels, axis=1))
    np.testing.assert_array_equal(found.maximum, np.nanmax(pixels, axis=1))
    assert found.count.tolist() == [65, 61, 65, 65, 65, 65]
    assert found.splits.describe() == {"train": ["a", "c"], "validation": [], "test": ["b"]}
    assert found.bands[0] == "b0400.0"


def test_other_data_under_the_same_settings_are_not_complete(tmp_path: Path) -> None:
    """Catches normals of an earlier store that are kept for a new one."""
    config = prepared(tmp_path)
    run_normals(config)
    assert complete_normals(config)
    write_envi(tmp_path / "d.hdr", cube(4, 4, seed=9))
    import shutil

    shutil.rmtree(config.paths.store)
    for path in config.paths.store.parent.glob("images-*"):
        path.unlink()
    config.paths.receipt("ingest").unlink()
    run_ingest(config)
    assert complete_normals(config) is None


@pytest.mark.parametrize(("value", "message"), [(0.25, "values that vary"), (np.nan, "valid pixels")])
def test_a_band_that_says_nothing_is_refused(value: float, message: str, tmp_path: Path) -> None:
    """Catches a division by zero or by nothing that ends as NaN in the network."""
    for i, name in enumerate("ab"):
        values = cube(4, 4, seed=i)
        values[3] = value
        write_envi(tmp_path / f"{name}.hdr", values)
    config = experiment(tmp_path, [tmp_path / "*.hdr"])
    run_ingest(config)
    with pytest.raises(ValueError, match=f"band b0433.0 must have {message} in the training images"):
        run_normals(config)
    assert not config.paths.normals.exists()


@given(st.integers(0, 2**32 - 1), st.floats(-5, 5))
def test_sums_merge(seed: int, apart: float) -> None:
    """Catches a merge that forgets how far two means lie apart, or divides by zero for a part without values."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, 2, 4, 5))
    values[1] += apart
    valid = rng.random(values.shape) < 0.6
    valid[2] = False
    parts = [BandSums.of(values[i : i + 1], valid[i : i + 1]) for i in range(3)]
    for merged in (parts[0] + parts[1] + parts[2], parts[2] + (parts[1] + parts[0])):
        for band in range(2):
            chosen = [
                values[t, band, y, x] for t in range(3) for y in range(4) for x in range(5) if valid[t, band, y, x]
            ]
            assert merged.count[band] == len(chosen)
            if chosen:
                np.testing.assert_allclose(merged.mean[band], np.mean(chosen), atol=1e-12)
                np.testing.assert_allclose(merged.std[band], np.std(chosen), atol=1e-12)
                assert merged.minimum[band] == min(chosen)
