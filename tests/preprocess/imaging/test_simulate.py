"""Simulated plants as a store, and what validation and the plan say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from pipeline.imaging.image_store import TRAIT_UNITS
from preprocess.imaging import plan
from preprocess.imaging.simulate import run_simulate, scene_settings
from preprocess.imaging.simulation.scene import simulate_image
from preprocess.imaging.validate import run_validate
from tests.preprocess.imaging.scans import by_image, killed_at_every_slab, simulation
from tests.preprocess.imaging.test_ingest import tree


def test_the_store_holds_the_simulated_images_and_their_traits(tmp_path: Path) -> None:
    """Catches images in the wrong order, traits of another image, and padding that looks like soil."""
    config = simulation(tmp_path)
    run_simulate(config)
    settings = scene_settings(config.source)  # type: ignore[arg-type]
    for i in range(3):
        np.testing.assert_array_equal(
            by_image(config.paths.store, f"plants{i:04d}"), simulate_image(settings, index=i).reflectance
        )
    with xr.open_zarr(config.paths.store, chunks=None, consolidated=False) as ds:
        assert ds["trait"].values.tolist() == list(TRAIT_UNITS)
        assert ds["trait_unit"].values.tolist() == list(TRAIT_UNITS.values())
        traits = ds["traits"].values
        assert ds.attrs["contract"]["source"]["label"] == "simulated"
    truth = simulate_image(settings, index=1).traits
    np.testing.assert_array_equal(traits[9 + 4], truth[:, 4:8, 4:8])
    assert np.isnan(traits[8, :, 2:]).all(), "below the last row of pixels"


def test_bands_are_resampled_as_those_of_files(tmp_path: Path) -> None:
    """Catches data.bands that simulated images pass over."""
    config = simulation(tmp_path, data={"bands": {"wavelengths": [500, 700], "method": "averaged"}})
    run_simulate(config)
    full = simulate_image(scene_settings(config.source), index=1).reflectance.astype(np.float64)  # type: ignore[arg-type]
    found = by_image(config.paths.store, "plants0001")
    expected = [(full[0] + full[1]) / 2, (full[2] + full[3]) / 2]  # 450, 550 of 400 .. 600; 650, 750 of 600 .. 800
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an image that depends on those made before it, or on the thread that makes it."""
    whole, cut = simulation(tmp_path / "whole"), simulation(tmp_path / "cut")
    run_simulate(whole)
    assert killed_at_every_slab(run_simulate, cut, monkeypatch) > 1
    assert tree(cut) == tree(whole)


def test_the_plan_counts_what_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a plan that promises other bytes than a run writes, and one that says nothing of its guesses."""
    config = simulation(tmp_path)
    plan.run_plan(config)
    content = json.loads((config.root / "plan-ingest.json").read_text())
    tiles, pixels, bands = 3 * 9, 16, 5
    assert content["tiles"] == content["tiles_left"] == tiles
    assert content["bytes_written"] == tiles * pixels * (bands * 4 + bands + 7 * 4)
    assert content["padded_share"] == pytest.approx(1 - 100 / 144, abs=1e-4)
    assert "not a measured run" in content["estimate"]["what"]
    assert not config.paths.store.exists()
    run_simulate(config)
    group = xr.open_zarr(config.paths.store, chunks=None, consolidated=False)
    assert sum(group[name].nbytes for name in ("reflectance", "valid", "traits")) == content["bytes_written"]
    plan.run_plan(config)
    assert json.loads((config.root / "plan-ingest.json").read_text())["tiles_left"] == 0


def test_validation_finds_each_departure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a check that passes whatever the store holds."""
    import zarr

    config = simulation(tmp_path)
    run_simulate(config)
    run_validate(config, [])
    assert "keeps the contract" in capsys.readouterr().err
    group: Any = zarr.open_group(config.paths.store, mode="r+")
    values, valid = group["reflectance"][:], group["valid"][:]
    values[2, 1, 0, 0], values[0, 0, 0, 0], valid[1, 0, 0, 0] = np.nan, 40.0, False
    group["reflectance"][:], group["valid"][:] = values, valid
    group["image"][3] = "nobody"
    with pytest.raises(ValueError, match="must keep the contract of docs/hyperspectral") as error:
        run_validate(None, [config.paths.store])
    assert "tiles must be those of the contract's images" in str(error.value)
    group["image"][3] = "plants0000"
    with pytest.raises(ValueError, match="must keep the contract") as error:
        run_validate(None, [config.paths.store])
    for line in (
        "valid values must be finite, got 1 that is not",
        "values that are not valid must be NaN, got 1 that is filled",
        "reflectance must lie within -1 .. 10, got",
        "slab 0 (tile 0 .. 3) must match its recorded digest",
        "run python -m pipeline simulate --verify",
    ):
        assert line in str(error.value), line
