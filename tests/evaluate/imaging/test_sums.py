"""Sums of errors, and the scores made from them, against loops over pixels and bands."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evaluate.imaging import sums, tables
from evaluate.imaging.baselines.models import Seen
from evaluate.imaging.sums import MODELS, Truth

RANDOM = np.random.default_rng(3)


def seen() -> Seen:
    """A tile with hidden patches, two hidden bands, and values that are not valid."""
    truth = RANDOM.random((5, 4, 6)).astype(np.float32)
    valid = RANDOM.random(truth.shape) < 0.9
    hidden = np.zeros((4, 6), bool)
    hidden[:, :2] = hidden[2:, 4:] = True
    return Seen(np.where(valid, truth, np.nan), valid, hidden, np.array([False, True, True, False, False]))


def in_region(tile: Seen, region: str, band: int, y: int, x: int) -> bool:
    """Whether a value counts."""
    hidden, window = tile.hidden[y, x], tile.window[band]
    there = {"hidden": hidden and not window, "window": window and not hidden, "both": hidden and window}[region]
    return bool(there and tile.valid[band, y, x])


def test_sums_of_a_tile_are_those_of_loops() -> None:
    """Every region, with values that are not valid; catches pixels that the network saw, and swapped regions."""
    tile = seen()
    guess = RANDOM.random(tile.truth.shape).astype(np.float32)
    found = Truth.of(tile).errors(guess) | Truth.of(tile).counts()
    for r, region in enumerate(sums.REGIONS):
        squared, absolute, count = np.zeros(5), np.zeros(5), np.zeros(5)
        angles = []
        for y, x in itertools.product(range(4), range(6)):
            bands = [b for b in range(5) if in_region(tile, region, b, y, x)]
            error = guess[bands, y, x].astype(float) - tile.truth[bands, y, x]
            squared[bands] += error**2
            absolute[bands] += abs(error)
            count[bands] += 1
            if bands:
                a, b = guess[bands, y, x].astype(float), tile.truth[bands, y, x].astype(float)
                angles.append(np.degrees(np.arccos(np.clip(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -1, 1))))
        np.testing.assert_allclose(found["squared"][r], squared, rtol=1e-6)
        np.testing.assert_allclose(found["absolute"][r], absolute, rtol=1e-6)
        np.testing.assert_array_equal(found["count"][r], count)
        np.testing.assert_allclose(found["angle"][r], sum(angles), rtol=1e-4)
        assert found["pixels"][r] == len(angles)


def made_sums(images: int = 9, bands: int = 4) -> xr.Dataset:
    """Sums of images with different numbers of pixels; some have no hidden bands."""
    models, regions = len(MODELS), len(sums.REGIONS)
    count = RANDOM.integers(5, 50, (images, regions, bands)).astype(float)
    count[::2, 1:] = 0
    level = np.linspace(1, 2, models)[:, None, None] * (1 + 0.1 * RANDOM.random((images, models, regions, bands)))
    return xr.Dataset(
        {
            "squared": (("image", "model", "region", "band"), 0.01 * level**2 * count[:, None]),
            "absolute": (("image", "model", "region", "band"), 0.08 * level * count[:, None]),
            "count": (("image", "region", "band"), count),
            "angle": (("image", "model", "region"), 3 * level[..., 0] * count[:, None, :, 0]),
            "pixels": (("image", "region"), count[..., 0]),
            "similarity": (("image", "model"), (1 - level[..., 0, 0] / 4) * count[:, :1, 0]),
            "smallest": ("image", np.full(images, -0.1)),
            "largest": ("image", 0.5 + 0.01 * np.arange(images)),
        },
        coords={"model": list(MODELS), "region": list(sums.REGIONS), "band": list("abcd"),
                "wavelength": ("band", [400.0, 500.0, 600.0, 700.0])},
    )  # fmt: skip


def test_scores_take_the_root_last() -> None:
    """Sums over images first, then ratios and roots; PSNR with the range of all images. Catches means of roots, and
    images with few pixels that count as much as others."""
    ds = made_sums()
    table = tables.score_table(tables.Sample(ds, 40, 0)).set_index(["model", "metric", "band", "region"])["value"]
    at = ds.sel(model="low_rank", region="window")
    mse = float(at["squared"].sum() / at["count"].sum())
    assert table["low_rank", "rmse", "all", "window"] == pytest.approx(np.sqrt(mse))
    assert table["low_rank", "psnr", "all", "window"] == pytest.approx(10 * np.log10(0.68**2 / mse))
    assert table["low_rank", "mae", "c", "window"] == pytest.approx(
        float((at["absolute"].sum("image") / at["count"].sum("image"))[2])
    )
    hidden = ds.sel(model="network", region="hidden")
    assert table["network", "ssim", "all", "hidden"] == pytest.approx(
        float(hidden["similarity"].sum() / hidden["pixels"].sum())
    )
    angle = float(hidden["angle"].sum() / hidden["pixels"].sum())
    assert table["network", "spectral_angle", "all", "hidden"] == pytest.approx(angle)
    assert ("network", "ssim", "all", "window") not in table.index


def test_intervals_are_of_the_images_that_have_a_region() -> None:
    """Four of nine images have hidden bands; an interval holds its score and never an error below zero."""
    table = tables.score_table(tables.Sample(made_sums(), 60, 0))
    assert set(table.loc[table["region"] == "window", "n_images"]) == {4}
    assert set(table.loc[table["region"] == "hidden", "n_images"]) == {9}
    assert ((table["ci_low"] <= table["value"]) & (table["value"] <= table["ci_high"])).all()
    assert (table.loc[table["metric"] != "psnr", "ci_low"] >= 0).all()
    few = tables.score_table(tables.Sample(made_sums(images=3), 60, 0))
    assert few["ci_low"].isna().all()


def test_differences_are_paired() -> None:
    """The network's score minus each baseline's, band by band; its interval is narrower than if images were drawn
    apart. Catches a difference along the wrong axis, also where there are as many bands as models."""
    ds = made_sums(bands=4)
    common = 0.02 * RANDOM.random(9)[:, None, None, None] * ds["count"].values[:, None]  # hard images are hard for all
    ds["squared"] = ds["squared"] + common
    sample = tables.Sample(ds, 60, 0)
    scores = tables.score_table(sample).set_index(["model", "metric", "band", "region"])
    for _, row in tables.difference_table(sample).iterrows():
        key = (row["metric"], row["band"], row["region"])
        apart = scores.loc[("network", *key)], scores.loc[(row["against"], *key)]
        assert row["value"] == pytest.approx(apart[0]["value"] - apart[1]["value"], abs=1e-12)
        if row["metric"] == "rmse" and row["band"] == "all" and row["region"] == "hidden":
            assert row["ci_high"] - row["ci_low"] < sum(s["ci_high"] - s["ci_low"] for s in apart)
            assert row["ci_high"] < 0


def test_bands_that_were_never_hidden_have_no_row() -> None:
    """Catches rows without a value, and a table that ends at them."""
    ds = made_sums()
    for name in ("count", "squared", "absolute"):
        ds[name].loc[{"region": "window", "band": "b"}] = 0
    table = tables.score_table(tables.Sample(ds, 20, 0))
    rows = table[(table["region"] == "window") & (table["metric"] == "rmse")]
    assert "b" not in set(rows["band"])
    assert {"a", "c", "d", "all"} <= set(rows["band"])


def test_tables_read_back_as_they_were(tmp_path: Path) -> None:
    """Names of columns are the contract of the files."""
    table = tables.score_table(tables.Sample(made_sums(), 20, 0))
    table.to_csv(tmp_path / "scores.csv", index=False)
    again = pd.read_csv(tmp_path / "scores.csv")
    assert tuple(again.columns) == tables.COLUMNS
    assert set(again["unit"]) == {"reflectance", "dB", "1", "degrees"}
