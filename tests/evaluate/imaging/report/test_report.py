"""The report of reconstructions: complete, self-contained, honest, and whole in a real browser."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluate import text as words
from evaluate.imaging.facts import ScoreFacts
from evaluate.imaging.report import drawing, score_charts, shown, trait_figures
from evaluate.imaging.report.results import Results
from evaluate.imaging.report.sentences import findings
from evaluate.imaging.report.stage import run_report
from evaluate.imaging.stage import run_score
from evaluate.page import style
from evaluate.page.keeper import Keeper
from pipeline import provenance
from pipeline.imaging.config import ImagingConfig
from pipeline.imaging.sections_model import TrainingCurve
from tests.evaluate.imaging.made import imaging_config, write_training_log
from tests.evaluate.report.browser import browse
from tests.evaluate.report.outline import outline

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("imaging_report")]


@pytest.fixture(scope="module")
def config(scored: ImagingConfig, tmp_path_factory: pytest.TempPathFactory) -> ImagingConfig:
    """The experiment with the log of a second training beside its own."""
    log = tmp_path_factory.mktemp("logs") / "metrics.jsonl"
    write_training_log(log, seed=1)
    curves = {"training_curves": [TrainingCurve(name="two ranks", path=log)]}
    return scored.model_copy(update={"evaluation": scored.evaluation.model_copy(update=curves)})


@pytest.fixture(scope="module")
def page(config: ImagingConfig) -> str:
    """Its report."""
    run_report(config)
    return config.paths.report.read_text()


@pytest.fixture(scope="module")
def results(scored: ImagingConfig) -> Results:
    """What the score stage wrote."""
    return Results.read(
        scored.paths.scores, ScoreFacts.from_json(provenance.read_receipt(scored, stage="score")["facts"])
    )


def test_page_is_self_contained(page: str) -> None:
    """No address outside the page, every picture inlined and described, links that lead somewhere."""
    tags = outline(page).tags
    addresses = [a[key] or "" for _, a in tags for key in ("src", "href", "srcset", "action") if key in a]
    assert not [a for a in addresses if not a.startswith(("data:", "#"))]
    assert not any(tag in ("script", "iframe", "object") for tag, _ in tags)
    images = [a for tag, a in tags if tag == "img"]
    assert len(images) == 2 * 5 + 3 + 1 + 2 * 4
    assert all(len(a["alt"] or "") > 30 and a["width"] and a["height"] for a in images)
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in addresses if a.startswith("#")} <= set(ids)


def test_page_says_what_the_data_are(page: str) -> None:
    """Simulated plants are called so above everything else; methods, receipts, what was left out."""
    assert page.index("SIMULATED PLANTS") < page.index("What the scores say")
    for said in (
        "Wang et al. 2004",
        "inverse distance weighting",
        "needs 900 and 970 nm",
        "<summary>score",
        "learning_rate",
    ):
        assert said in page
    assert "name: two ranks" in page, "the resolved configuration"
    assert re.search(r'alt="Training loss by step: this training from [^"]*; two ranks from', page)


def test_numbers_lie_beside_every_figure(page: str, config: ImagingConfig) -> None:
    """PNG, PDF, CSV and NetCDF of each; catches a figure without its numbers."""
    assert page
    pictures = list(config.paths.figures.rglob("*.png"))
    assert len(pictures) == 2 * 5 + 3 + 1 + 2 * 4
    for picture in pictures:
        for suffix in (".pdf", ".csv", ".nc"):
            assert picture.with_suffix(suffix).exists(), picture
        assert Image.open(picture).size[0] > 600


def test_images_without_traits_have_a_report(scored: ImagingConfig) -> None:
    """Catches maps and numbers of traits that files of images do not have."""
    config = scored.model_copy(update={"evaluation": scored.evaluation.model_copy(update={"traits": []})})
    run_score(config)
    run_report(config)
    page = config.paths.report.read_text()
    assert "chlorophyll" not in page
    assert len([tag for tag, _ in outline(page).tags if tag == "img"]) == 2 * 5 + 3 + 1


@pytest.mark.parametrize("width", [390, 1280])
def test_report_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    """In headless Chromium: every image loads, nothing is requested, no console message, no sideways scrolling."""
    assert browse(page, tmp_path, width=width)["images"] == 22


def test_sentences_claim_what_the_intervals_allow(results: Results) -> None:
    """The made-up network is near the truth: better everywhere. Spoiled tables: worse than one baseline, unsure of
    another, with the bands where it is not better. Catches praise that does not depend on the scores."""
    good = findings(results)
    assert "lower than for every baseline" in good[0].text
    assert good[0].tone == "good"
    spoiled = results.differences.copy()
    hidden = (spoiled["region"] == "hidden") & (spoiled["metric"] == "rmse")
    spoiled.loc[hidden & (spoiled["against"] == "low_rank"), ["ci_low", "ci_high"]] = (0.01, 0.02)
    spoiled.loc[hidden & (spoiled["against"] == "band_mean"), ["ci_low", "ci_high"]] = (-0.01, 0.02)
    bad = findings(dataclasses.replace(results, differences=spoiled))
    assert "higher than for low-rank completion" in bad[0].text
    assert "not significantly different from band mean" in bad[0].text
    assert bad[0].tone == "bad"
    assert any("In 23 of 23 bands" in found.text and "450 to 860 nm" in found.text for found in bad)
    few = results.differences.assign(ci_low=np.nan, ci_high=np.nan)
    facts = dataclasses.replace(results.facts, intervals="none: 2 images")
    unsure = findings(dataclasses.replace(results, differences=few, facts=facts))
    assert "too few images" in unsure[0].text
    assert not any("lower than for every" in found.text for found in unsure)


def test_sentences_about_traits_compare(results: Results) -> None:
    """The probe beside PLS, the untrained network and the best index; catches a comparison with the wrong one."""
    text = next(found.text for found in findings(results) if found.text.startswith("Chlorophyll"))
    assert re.search(r"with all \d+ labelled images the probe has an R² of 0\.\d\d \[", text)
    for name, method in (("PLS", "pls"), ("the untrained network", "probe_untrained")):
        value = results.trait_score(method, "chlorophyll", results.label_numbers[-1]).value
        assert f"{name} ({words.score(value)})" in text
    assert "With 3 it has an R² of" in text
    worse = results.traits.copy()
    worse.loc[worse["method"] == "probe", "r2"] = -0.5
    nothing = findings(dataclasses.replace(results, traits=worse))
    assert any("It cannot predict this trait" in found.text and found.tone == "bad" for found in nothing)


def test_a_legend_of_long_names_fits_below_its_chart() -> None:
    """Catches entries cut off on both sides."""
    figure, axes = drawing.chart(style.Labels("Training", "", "", ""), x="step", y="loss [1]")
    for name in ("this training, mean of 8 steps", "this training, validation", "two ranks, mean of 8 steps", "others"):
        axes.plot([0, 1], label=name)
    drawing.legend_below(figure, axes)
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    plt.close(figure)
    assert figure.bbox.x0 <= extent.x0 < extent.x1 <= figure.bbox.x1


def test_images_are_chosen_by_rank() -> None:
    """Evenly from easy to hard, never twice, also with fewer images than asked for; NaN is no image."""
    errors = np.array([0.5, 0.1, np.nan, 0.4, 0.2, 0.3])
    assert shown.choose(errors, count=2) == [4, 3]
    assert shown.choose(errors, count=5) == [1, 4, 5, 3, 0]
    assert sorted(shown.choose(errors, count=9)) == [0, 1, 3, 4, 5]
    assert shown.choose(np.array([np.nan]), count=2) == []
    assert shown.ranked("abcdef", errors, count=2) == [("e", 2, 0.2), ("d", 4, 0.4)]


def test_patches_come_to_their_place_on_a_map() -> None:
    """Of an image of several tiles; catches rows for columns and a tile at the place of another."""
    rows = pd.DataFrame({"tile": [5, 6], "row": [1, 0], "column": [2, 1], "water": [0.1, 0.2]})
    maps = trait_figures.map_of(rows, {"truth": "water"}, shape=(4, 8), offsets={5: (0, 0), 6: (2, 4)})
    assert maps["truth"].values[1, 2] == 0.1
    assert maps["truth"].values[2, 5] == 0.2
    assert np.isfinite(maps["truth"]).sum() == 2


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """One message with the setting; without any log there is no figure."""
    keeper = Keeper(tmp_path, "made-up data")
    with pytest.raises(ValueError, match=r"evaluation\.training_curves must name logs"):
        score_charts.training_chart(keeper, tmp_path / "none", {"two": tmp_path / "absent"})
    assert score_charts.training_chart(keeper, tmp_path / "none", {}) == []


def test_missing_scores_say_what_to_run(tmp_path: Path, results: Results) -> None:
    """A report without scores is an error with the command."""
    with pytest.raises(ValueError, match="run python -m pipeline score"):
        run_report(imaging_config(tmp_path))
    with pytest.raises(ValueError, match=r"scores must exist, got no .*scores\.csv"):
        Results.read(tmp_path, results.facts)
