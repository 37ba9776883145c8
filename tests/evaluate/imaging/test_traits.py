"""Predictions of traits: fits against another program, images held out whole, patches cut as loops would."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge

from evaluate.imaging.reading import Tiles
from evaluate.imaging.traits import indices, regressions
from evaluate.imaging.traits.regressions import PARTIAL_LEAST_SQUARES, POLYNOMIAL, RIDGE, STRENGTHS, Method
from evaluate.imaging.traits.samples import Features, Patches, read_patches
from evaluate.imaging.traits.stage import PROBE, Judgement, Trial, inputs_of, label_draws, run_trials
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.image_store import ImageStore

RANDOM = np.random.default_rng(8)
X = RANDOM.standard_normal((60, 7)) * np.arange(1, 8) + 3
Y = X @ RANDOM.standard_normal(7) + 0.5 * RANDOM.standard_normal(60)
OTHER = RANDOM.standard_normal((11, 7)) * np.arange(1, 8) + 3
GROUPS = np.repeat(np.arange(12), 5)


def test_ridge_is_that_of_another_program() -> None:
    """Every strength, against scikit-learn on scaled inputs; catches a strength that is not per patch, or no mean."""
    mean, std = X.mean(axis=0), X.std(axis=0)
    for strength, found in zip(STRENGTHS[::-1], regressions._ridge(X, Y, OTHER), strict=True):
        other = Ridge(alpha=strength * 60).fit((X - mean) / std, Y)
        np.testing.assert_allclose(found, other.predict((OTHER - mean) / std), rtol=1e-6)


def test_partial_least_squares_is_that_of_another_program() -> None:
    """Every number of components from one fit; catches scores that are not those of fewer components."""
    path = regressions._partial_least_squares(X, Y, OTHER)
    assert len(path) == 7
    for count, found in enumerate(path, start=1):
        other = PLSRegression(count, scale=False).fit(X, Y)
        np.testing.assert_allclose(found, other.predict(OTHER).ravel(), rtol=1e-8)


def test_a_polynomial_is_found_and_stays_at_its_ends() -> None:
    """A square law is fitted exactly with degree 2 or 3, and goes nowhere outside what was seen."""
    x = np.linspace(0.5, 2.0, 60)[:, None]
    fitted = POLYNOMIAL.fit(x, x[:, 0] ** 2, groups=np.arange(60) % 12)
    assert fitted.setting in (2, 3)
    np.testing.assert_allclose(fitted.predict(np.array([[1.0], [2.0], [9.0], [0.0]])), [1, 4, 4, 0.25], atol=1e-8)


def test_an_image_is_never_split() -> None:
    """No image on both sides of a fold, every image judged once, the best setting chosen; catches cross-validation over
    patches, whose neighbours give them away."""
    seen: list[set[float]] = []

    def path(x: np.ndarray, _y: np.ndarray, other: np.ndarray) -> np.ndarray:
        assert not set(x[:, 0]) & set(other[:, 0]) or len(x) == len(GROUPS)
        seen.append(set(other[:, 0]))
        return np.stack([np.full(len(other), guess) for guess in (3.0, 2.0, 1.0)])

    fitted = Method(path, (10, 20, 30)).fit(GROUPS[:, None].astype(float), np.full(60, 2.1), groups=GROUPS)
    assert fitted.setting == 20
    assert sorted(image for fold in seen for image in fold) == list(range(12))
    assert len(seen) == regressions.FOLDS


def test_few_patches_leave_the_last_components_out() -> None:
    """Three patches of two images: catches settings that do not belong to their errors."""
    fitted = PARTIAL_LEAST_SQUARES.fit(X[:3], Y[:3], groups=np.array([0, 1, 1]))
    assert np.isfinite(fitted.predict(OTHER)).all()
    assert fitted.setting == 1


def test_indices_are_their_formulas() -> None:
    """Known reflectances; the water index needs bands that a scanner up to 899 nm lacks, and the reason is said."""
    wavelengths = np.arange(400.0, 900.0)
    spectrum = (wavelengths / 1000)[None]
    assert indices.index_values("ci_re", spectrum, wavelengths)[0] == pytest.approx(0.78 / 0.71 - 1)
    assert indices.index_values("ndvi", spectrum, wavelengths)[0] == pytest.approx((0.8 - 0.67) / (0.8 + 0.67))
    assert indices.index_values("pri", spectrum, wavelengths)[0] == pytest.approx((0.531 - 0.57) / (0.531 + 0.57))
    assert np.isnan(indices.index_values("ci_re", 0 * spectrum, wavelengths)[0])
    methods, left_out = inputs_of(wavelengths, ["features"])
    assert "water_index" not in methods
    assert left_out == {"water_index": "needs 970 nm, and the bands are 400 to 899 nm"}
    assert set(methods) == {"probe", "pls", "ci_re", "ndvi", "pri"}


def test_patches_are_cut_as_by_loops(scored: ImagingConfig) -> None:
    """Means over leaf pixels of patches that are mostly leaf, with the features of the same patch; catches a patch grid
    that is transposed, ground among the leaf, padding taken for a leaf."""
    store = ImageStore.of(scored)
    features = Features(scored.paths.features, store)
    name, patch = store.images[2].name, scored.model.patch
    found = read_patches(store, features, images=[name], patch=patch, traits=["water", "chlorophyll"])
    rows = []
    for tile in store.tiles_of([name]):
        reflectance, valid = Tiles(store).read(tile)
        maps = store.reader("traits").read(slice(tile, tile + 1))[0]
        for row in range(store.tile // patch):
            for column in range(store.tile // patch):
                there = np.s_[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
                leaf = np.isfinite(maps[there]).all(axis=0) & valid[there].all(axis=0)
                if leaf.sum() >= 12.5:
                    mean = reflectance[there][:, leaf].mean(axis=1), maps[there][:, leaf].mean(axis=1)
                    rows.append((tile, row, column, *mean, features.read(tile)["features"][row, column]))
    assert len(rows) == len(found.image) > 5
    for i, (tile, row, column, spectrum, traits, tokens) in enumerate(rows):
        assert (found.tile[i], *found.place[i]) == (tile, row, column)
        np.testing.assert_allclose(found.inputs["spectra"][i], spectrum, rtol=1e-4)
        np.testing.assert_allclose([found.traits["chlorophyll"][i], found.traits["water"][i]], traits, rtol=1e-5)
        np.testing.assert_array_equal(found.inputs["features"][i], tokens)


def patches(images: int, each: int = 6) -> Patches:
    """Features that know the trait, and others that hardly do."""
    number = np.repeat(np.arange(images), each)
    trait = RANDOM.random(len(number)) + RANDOM.random(images)[number]
    known = np.stack([trait, RANDOM.random(len(trait))], axis=1) + 0.05 * RANDOM.standard_normal((len(trait), 2))
    noise = known + 1.5 * RANDOM.standard_normal(known.shape)
    inputs = {"features": known.astype(np.float32), "features_untrained": noise.astype(np.float32)}
    return Patches(number, number, np.zeros((len(number), 2), int), inputs, {"water": trait})


def test_scores_of_traits_and_their_differences() -> None:
    """R2 and RMSE against their formulas, means over draws, and a sure difference of a good probe from a bad one."""
    training, held_out = patches(20), patches(8)
    methods = {PROBE: ("features", RIDGE), "probe_untrained": ("features_untrained", RIDGE)}
    draws = label_draws(training.images, [1, 4, 20, 99], seed=0)
    assert list(draws) == [4, 20]
    assert [len(sets) for sets in draws.values()] == [5, 1]
    assert all(len(set(images.tolist())) == 4 for images in draws[4])
    trials = run_trials(training, held_out, methods, draws=draws)
    judgement = Judgement(held_out, resamples=80, seed=0)
    table = judgement.rows(trials).set_index(["method", "labelled_images"])
    few = next(t for t in trials if t.method == PROBE and t.labelled == 4)
    y = held_out.traits["water"]
    errors = ((few.predictions - y) ** 2).sum(axis=1)
    row = table.loc[(PROBE, 4)]
    assert row["r2"] == pytest.approx(np.mean(1 - errors / ((y - y.mean()) ** 2).sum()))
    assert row["rmse"] == pytest.approx(np.mean(np.sqrt(errors / len(y))))
    assert row["r2_lowest_draw"] <= row["r2"] <= row["r2_highest_draw"]
    assert row["r2_ci_low"] < row["r2"] < row["r2_ci_high"] <= 1
    difference = judgement.differences(trials).set_index("labelled_images").loc[20]
    expected = table.loc[(PROBE, 20), "r2"] - table.loc[("probe_untrained", 20), "r2"]
    assert difference["value"] == pytest.approx(expected)
    assert difference["ci_low"] > 0


def test_a_perfect_prediction_has_an_r2_of_one() -> None:
    """And the mean has zero."""
    held_out = patches(5)
    y = held_out.traits["water"]
    judgement = Judgement(held_out, resamples=10, seed=0)
    trials = [Trial("a", "water", 3, guess[None], 1.0) for guess in (y, np.full_like(y, y.mean()))]
    assert judgement.rows(trials)["r2"].tolist() == pytest.approx([1.0, 0.0])
