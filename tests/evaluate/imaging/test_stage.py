"""The score stage on small stores: what it writes, what it refuses, and that a kill changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from evaluate.imaging import stage, sums
from evaluate.imaging.baselines.models import Baselines
from evaluate.imaging.facts import ScoreFacts
from evaluate.imaging.reading import Reconstructions, draw_patches, draw_window, training_tiles
from evaluate.imaging.stage import run_score
from pipeline import provenance
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore
from pipeline.imaging.normals import ImageNormals
from pipeline.imaging.sections_model import Masking
from tests.evaluate.imaging.made import (
    build,
    imaging_config,
    made_image,
    write_images,
    write_normals,
    write_reconstructions,
)

pytestmark = pytest.mark.slow


def test_scores_of_known_noise(scored: ImagingConfig) -> None:
    """The made-up network is the truth with noise of 0.01: its RMSE says so in every region, and it beats every
    baseline on hidden patches. Catches a reconstruction beside another tile, or one repeat read twice."""
    scores = pd.read_csv(scored.paths.scores / "scores.csv").set_index(["model", "metric", "band", "region"])
    for region in ("hidden", "window", "both"):
        assert scores.loc[("network", "rmse", "all", region), "value"] == pytest.approx(0.01, rel=0.06)
    differences = pd.read_csv(scored.paths.scores / "differences.csv")
    rows = differences.query("metric == 'rmse' and band == 'all' and region == 'hidden'")
    assert len(rows) == 4
    assert (rows["ci_high"] < 0).all()
    assert len(scores.loc[("low_rank", "mae")].xs("hidden", level="region")) == 24


def test_reconstructions_are_read_with_their_tile(scored: ImagingConfig) -> None:
    """Rows of the two repeats of a tile belong to its image, each with its own mask."""
    made = Reconstructions(scored.paths.reconstruct, ImageStore.of(scored))
    assert sum(map(len, made.by_image.values())) == len(made.tiles)
    assert len(np.unique(made.tiles)) * 2 == len(made.tiles)
    first, second = np.flatnonzero(made.tiles == made.tiles[0])
    assert not np.array_equal(made.hidden(first), made.hidden(second))
    sample = made.read(second)
    error = (sample.guess - sample.seen.truth)[sample.seen.valid]
    assert error.std() == pytest.approx(0.01, rel=0.1)
    window = ImageStore.of(scored).wavelengths[made.window(0)]
    assert 0 < window[-1] - window[0] <= 80


def test_facts_say_what_was_scored(scored: ImagingConfig) -> None:
    """The receipt comes back, and names sample, masks, baselines and traits."""
    content = provenance.read_receipt(scored, stage="score")["facts"]
    facts = ScoreFacts.from_json(content)
    assert facts.to_json() == content
    assert facts.hidden_share == pytest.approx(0.75)
    assert (len(facts.images), facts.samples, facts.window_nanometres) == (4, 32, 80.0)
    assert facts.traits.names == ["chlorophyll", "water"]
    assert "970 nm, and the bands are 450 to 860 nm" in facts.traits.left_out["water_index"]
    with pytest.raises(ValueError, match="run python -m pipeline score again"):
        ScoreFacts.from_json({k: v for k, v in content.items() if k != "bands"})


def test_traits_are_read_from_features_that_hold_them(scored: ImagingConfig) -> None:
    """Features are smooth projections of the spectrum, in which chlorophyll shapes the red edge: the probe finds it, on
    images that it never saw, and the truth stands beside it. Catches features of other patches."""
    traits = pd.read_csv(scored.paths.scores / "traits.csv").set_index(["method", "trait", "labelled_images"])
    most = traits.index.get_level_values("labelled_images").max()
    assert traits.loc[("probe", "chlorophyll", most), "r2"] > 0.6
    assert set(traits.index.get_level_values("labelled_images")) == {3, most}
    patches = pd.read_csv(scored.paths.scores / "trait_patches.csv")
    known = patches[["chlorophyll", "chlorophyll_probe"]].to_numpy()
    assert np.corrcoef(known.T)[0, 1] > 0.75
    splits = ImageNormals.open(scored.paths.normals).splits
    assert set(patches["image"]) <= set(splits.test)


def test_a_killed_run_ends_the_same(scored: ImagingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after one slab of images, then resumed: the same bits, and the first slab is not summed again."""
    images, normals = ImageStore.of(scored), ImageNormals.open(scored.paths.normals)
    made = Reconstructions(scored.paths.reconstruct, images)
    tiles = list(training_tiles(scored, images, normals, most=4, seed=0))
    baselines = Baselines.fit(tiles, wavelengths=images.wavelengths, mean=normals.mean, seed=0)
    rendering = stage.Rendering.of(images.wavelengths, mean=normals.mean, std=normals.std)
    monkeypatch.setattr(sums, "SLAB_IMAGES", 1)
    judge, done = sums.Judge(baselines, rendering), []

    def stop_after_two(count: int) -> None:
        done.append(count)
        if len(done) == 4:
            raise KeyboardInterrupt

    whole = sums.write_sums(tmp_path / "whole.zarr", made, judge, contract={}, tick=lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        sums.write_sums(tmp_path / "killed.zarr", made, judge, contract={}, tick=stop_after_two)
    ticks: list[int] = []
    again = sums.write_sums(tmp_path / "killed.zarr", made, judge, contract={}, tick=ticks.append)
    assert ticks[0] == 2
    assert again.identical(whole)


def test_complete_scores_are_not_computed_again(
    scored: ImagingConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Returns at once."""
    monkeypatch.setattr(stage, "judged", None)
    run_score(scored)
    assert "score: complete" in capsys.readouterr().err


def test_images_without_trait_maps_are_scored_all_the_same(tmp_path: Path) -> None:
    """No features, no maps, no hidden bands, three images: no interval, no traits, and the reason is said."""
    config = imaging_config(tmp_path, masking={"patches": 0.5, "bands": None}, reconstruct={"features": False})
    config = config.model_copy(update={"source": config.source})
    store = write_images(config, [made_image(i, size=(16, 16)) for i in range(8)], traits=())
    write_normals(config, store)
    write_reconstructions(config, store)
    run_score(config)
    facts = ScoreFacts.from_json(provenance.read_receipt(config, stage="score")["facts"])
    assert facts.traits.reason == "the images have no trait maps"
    assert not (config.paths.scores / "traits.csv").exists()
    assert facts.window_nanometres is None
    assert facts.intervals.startswith("none: 2 images")
    scores = pd.read_csv(config.paths.scores / "scores.csv")
    assert set(scores["region"]) == {"hidden"}
    assert scores["ci_low"].isna().all()


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    """No reconstructions; reconstructions of other images: one message with the command."""
    config = build(tmp_path, images=8)
    other = config.model_copy(update={"reconstruct": config.reconstruct.model_copy(update={"seed": 5})})
    with pytest.raises(ValueError, match="run python -m pipeline reconstruct"):
        run_score(other)
    contract = ImageStore.of(config)
    stranger = ImageStore(contract.path, {**contract.contract, "source": {"kind": "images", "label": "others"}})
    with pytest.raises(ValueError, match=r"must be of the images .* run python -m pipeline reconstruct again"):
        Reconstructions(config.paths.reconstruct, stranger)


def test_masks_of_the_fit_are_as_configured() -> None:
    """The share, one visible patch at least, a window of the width asked for that fits; catches a wider one."""
    generator, known = np.random.default_rng(0), np.arange(400.0, 900.0, 5.0)
    assert draw_patches(0.75, side=4, generator=generator).sum() == 12
    assert draw_patches(0.99, side=2, generator=generator).sum() == 3
    masking = Masking.model_validate({"bands": {"share": 1.0, "nanometres": 100}})
    for _ in range(50):
        window = known[draw_window(masking, known, generator=generator)]
        assert len(window) == 21
    assert not draw_window(Masking(), known, generator=generator).any()
    whole = Masking.model_validate({"bands": {"share": 1.0, "nanometres": 900}})
    assert not draw_window(whole, known, generator=generator).all()
