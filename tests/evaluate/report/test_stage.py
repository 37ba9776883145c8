"""The report: complete, self-contained, honest about its data, and whole in a real browser."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from evaluate import text
from evaluate.report import animation, stage
from evaluate.report import page as report_page
from evaluate.report.results import Results
from evaluate.report.stage import run_report
from evaluate.scoring import print_scores
from evaluate.scoring.facts import ScoreFacts
from evaluate.scoring.score_table import read_scores
from evaluate.scoring.stage import run_score
from pipeline import provenance
from pipeline.config import Config
from pipeline.store import open_store
from pipeline.weather.climatology import Normals
from tests.evaluate.conftest import second_year_until
from tests.evaluate.report.browser import browse
from tests.evaluate.report.outline import outline

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]


@pytest.fixture(scope="module")
def page(reported: Config) -> str:
    """Its report."""
    return reported.paths.report.read_text()


def test_page_is_self_contained(page: str) -> None:
    """No address outside the page, every picture inlined and described, under 10 MB."""
    tags = outline(page).tags
    addresses = [a[key] or "" for _, a in tags for key in ("src", "href", "srcset", "action") if key in a]
    assert addresses
    assert not [a for a in addresses if not a.startswith(("data:", "#"))]
    assert "@import" not in page
    assert "url(" not in page
    assert not any(tag in ("script", "iframe", "object") for tag, _ in tags)
    images = [a for tag, a in tags if tag == "img"]
    assert len(images) >= 2 * (4 * 2 + 4) + 1 + 12
    assert all(len(a["alt"] or "") > 30 and a["width"] and a["height"] for a in images)
    assert len(page.encode()) < 10_000_000
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a[1:] for a in addresses if a.startswith("#")} <= set(ids)


def test_every_figure_stands_between_climatology_and_ceiling(page: str, reported: Config) -> None:
    """Every figure but those of the training has a caption with the ceiling, on the init times that it has, and the
    headline table its row; shares of the page are those of shares.csv. Catches a kind of figure left without."""
    figures = re.findall(r"<figure.*?</figure>", page[: page.index('id="training"')], flags=re.S)
    assert len(figures) == 2 + 1 + 2 * (3 + 4 * 2) + 2 * 2 * 2 * 3 + 2 * 2
    for figure in figures:
        caption = re.search(r"<figcaption>(.*?)</figcaption>", figure, flags=re.S)
        assert caption, figure[-300:]
        assert "ceiling" in caption[1]
        assert "12 common init times" in caption[1] or "this forecast" in caption[1].lower()
    shares = pd.read_csv(reported.paths.scores / "shares.csv").query("model == 'tiny' and metric == 'acc'")
    assert set(shares["n_init"]) == {12}
    value = shares.query("variable == 't2m' and lead == 168 and region == 'globe'")["value"].item()
    assert 0 < value < 1
    assert f">{text.percent(value)}<span" in page
    assert re.search(rf"gap between climatology and ceiling by [^;<]*\b{text.percent(value)} at 7 days", page)
    assert page.count('<tr class="reference">') == 2 * 2
    assert "share of ceiling</th>" in page
    with xr.open_dataset(reported.paths.figures / "spectra" / "z500.nc") as ds:
        assert ds["spectrum_model"].values.tolist() == ["tiny", "truth", "ceiling", "climatology"]
    with xr.open_dataset(reported.paths.figures / "power" / "z500.nc") as ds:
        assert ds["spectrum_model"].values.tolist() == ["tiny", "ceiling"]
    power = pd.read_csv(reported.paths.scores / "power.csv").groupby("model")["n_init"].unique()
    assert set(power.index) > {"tiny", "linear", "ceiling"}
    assert (power["ceiling"].tolist(), power["tiny"].item() > 12) == ([12], True)
    assert set(pd.read_csv(reported.paths.scores / "edges.csv")["patch"]) == {2}
    assert set(pd.read_csv(reported.paths.scores / "tropics.csv")["model"]) >= {"tiny", "persistence"}


def test_typical_case_is_one_that_the_ceiling_has(reported: Config, page: str) -> None:
    """Catches a chosen forecast beside which no ceiling can stand, while there are others."""
    sums, model = reported.paths.scores / "sums.nc", "tiny"
    ceiling = open_store(reported.paths.twins["ceiling"])["init_time"].values
    cases = [{"channel": c, "lead": h} for c in ("z500", "t2m") for h in (24, 168)]
    anywhere = [stage.typical_init(sums, model=model, **case) for case in cases]
    assert not set(anywhere) <= set(ceiling)
    among = stage.typical_init(sums, model=model, **cases[0], among=ceiling)
    assert among in ceiling
    assert "among the ceiling's" in page
    assert f"z500_24h_{np.datetime_as_string(among, unit='h')}_" in " ".join(
        p.name for p in (reported.paths.figures / "cases").iterdir()
    )


def test_simulated_data_cannot_be_mistaken(page: str, reported: Config, build_experiment, tmp_path: Path) -> None:
    """The banner and every map and curve say "simulated"; a real source gets neither, and its label is escaped."""
    assert "SIMULATED ATMOSPHERE" in page
    images = [a["alt"] or "" for tag, a in outline(page).tags if tag == "img"]
    drawn = [alt for alt in images if not alt.startswith(("Training", "Validation skill", "Zonal"))]
    assert all("simulated atmosphere" in alt for alt in drawn)
    facts = ScoreFacts.from_json(provenance.read_receipt(reported, stage="score")["facts"])
    assert facts.label == "simulated"
    real = dataclasses.replace(facts, label="<b>ERA5 & more</b>")
    results = Results(read_scores(reported.paths.scores)[0], "tiny", ["z500", "t2m"], [24, 168])
    empty = report_page.Figures(np.datetime64("2002-02-01"), "z500 at 1 day")
    other = report_page.render(reported, results, real, empty)
    assert "SIMULATED" not in other
    assert "&lt;b&gt;ERA5 &amp; more&lt;/b&gt;" in other
    assert "<b>ERA5" not in other


def test_headline_numbers_are_those_of_the_table(page: str, reported: Config) -> None:
    """Each RMSE and skill of the page stands in scores.csv: catches a column or a lead mixed up."""
    scores, _ = read_scores(reported.paths.scores)
    table = page[page.index('id="headline"') : page.index('id="curves"')]
    for channel in reported.evaluation.variables:
        for lead in reported.forecast.lead_hours:
            for model in ("tiny", "persistence", "climatology"):
                assert text.number(scores.score(model, channel, lead, "rmse").value) in table
            assert f">{text.score(scores.score('tiny', channel, lead, 'skill').value)}<" in table
    assert f"same {scores.frame['n_init'].iloc[0]} init times" in table


def test_figures_are_written_as_png_and_pdf(reported: Config) -> None:
    """Every panel on disk in both forms, and the receipt names the report."""
    png = {p.relative_to(reported.paths.figures).with_suffix("") for p in reported.paths.figures.rglob("*.png")}
    pdf = {p.relative_to(reported.paths.figures).with_suffix("") for p in reported.paths.figures.rglob("*.pdf")}
    assert png == pdf
    assert all((reported.paths.figures / f"{p}{s}").stat().st_size > 0 for p in png for s in (".csv", ".nc"))
    wanted = {
        "skill_maps",
        "headline_acc",
        "headline_skill",
        "power/t2m",
        "maps/z500_skill_168h",
        "curves/t2m_acc",
        "spectra/z500",
        "cases/z500_24h_2002-02-07T00_error",
        "training_loss",
    }
    assert wanted <= set(map(str, png))
    receipt = provenance.read_receipt(reported, stage="report")
    assert receipt["outputs"][0] == str(reported.paths.report)
    assert receipt["facts"]["bytes"] == reported.paths.report.stat().st_size


def test_numbers_beside_a_figure_are_those_drawn(reported: Config) -> None:
    """CSV and NetCDF of a map, a curve and a case against scores and stores; catches another lead's or model's."""
    folder = reported.paths.figures
    table_read, scores = read_scores(reported.paths.scores)
    wanted = scores["rmse"].sel(model="tiny", channel="t2m", lead=168)
    with xr.open_dataset(folder / "maps" / "t2m_rmse_168h.nc") as ds:
        np.testing.assert_array_equal(ds["rmse"].values, wanted.values)
        assert ds["rmse"].attrs["units"] == "K"
        assert "simulated atmosphere" in ds.attrs["data"]
    table = pd.read_csv(folder / "maps" / "t2m_rmse_168h.csv")
    np.testing.assert_allclose(table["rmse"], wanted.values.ravel(), rtol=1e-6)
    assert np.array_equal(table["latitude"], np.repeat(wanted["latitude"], wanted["longitude"].size))
    curve = pd.read_csv(folder / "curves" / "t2m_acc.csv")
    rows = table_read.rows("t2m")
    assert set(curve["model"]) == set(table_read.models) >= {"tiny", "persistence", "climatology"}
    both = curve.merge(rows[rows["metric"] == "acc"], on=["model", "lead"], suffixes=("", "_scored"))
    np.testing.assert_allclose(both["value"], both["value_scored"], rtol=1e-6)
    forecast = open_store(reported.paths.forecast)["state"]
    with xr.open_dataset(folder / "cases" / "z500_24h_2002-02-07T00_forecast.nc") as ds:
        drawn = forecast.sel(init_time="2002-02-07", channel="z500").isel(lead_time=0)
        np.testing.assert_array_equal(ds["field"].values, drawn.values)


def test_chosen_case_must_be_an_init_time(reported: Config) -> None:
    """A date that was not forecast is refused with the nearest that was, before anything is drawn."""
    wrong = reported.model_copy(
        update={"evaluation": reported.evaluation.model_copy(update={"cases": [dt.datetime(2002, 2, 7, 5)]})}
    )
    with pytest.raises(ValueError, match="the nearest is 2002-02-07T00"):
        run_report(wrong)


def test_animation_shows_forecast_and_truth_frame_by_frame(reported: Config, page: str) -> None:
    """As many frames as asked for, each another picture, named in the page; catches a film of one frame."""
    path = animation.path_of(reported.paths.figures, channel="t2m", lead=24)
    assert path.stat().st_size < 3_000_000
    with Image.open(path) as film:
        assert film.n_frames == 5
        frames = []
        for i in range(5):
            film.seek(i)
            frames.append(np.asarray(film.convert("RGB")))
    assert len({f.tobytes() for f in frames}) == 5
    link = re.search(r"<code>([^<]*\.gif)</code>", page)
    assert link
    assert (reported.paths.report.parent / link[1]).samefile(path)
    forecast, truth = open_store(reported.paths.forecast), open_store(reported.paths.store)
    normals = Normals.open(reported.paths.normals)
    found = animation.collect(forecast, truth, normals, channel="t2m", lead=168, frames=3)
    came = truth["state"].sel(channel="t2m", time=found.init_times[2] + np.timedelta64(7, "D")).values
    issued = forecast["state"].sel(channel="t2m").isel(init_time=2, lead_time=1).values
    np.testing.assert_allclose(found.forecast[2] - found.truth[2], issued - came, atol=1e-3)
    with pytest.raises(ValueError, match="lead must be one of"):
        animation.run_animate(reported, lead="3d")


def test_some_scores_are_printed_without_a_table(reported: Config, tmp_path: Path, capsys) -> None:
    """--lead and --variable: the rows of scores.csv, and the same numbers scored anew where there is no table."""
    kept = print_scores.run_print_scores(reported, lead="7d", variable="z500")
    assert "Geopotential at 500 hPa [m² s⁻²], 7 days, Globe" in capsys.readouterr().out
    table = print_scores._scores(reported, leads=[168], channels=["z500"])[0]
    assert table.frame.equals(read_scores(reported.paths.scores)[0].frame)
    hidden = reported.paths.receipt("score").rename(tmp_path / "score.json")
    try:
        fresh = print_scores.run_print_scores(reported, lead="168h", variable="z500")
    finally:
        hidden.rename(reported.paths.receipt("score"))
    assert "scored now" in capsys.readouterr().out
    for frame in (kept, fresh):
        assert set(frame["lead"]) == {168}
    pair = fresh.merge(kept, on=["model", "metric"], suffixes=("", "_kept"))
    pair = pair[pair["model"].isin(["tiny", "persistence"])].dropna(subset=["value"])
    assert len(pair) >= 18
    np.testing.assert_allclose(pair["value"], pair["value_kept"], rtol=1e-5, atol=1e-6)
    for wrong, message in (({"lead": "3d"}, "must be one of forecast.lead_hours"), ({"variable": "z70"}, "z70")):
        with pytest.raises(ValueError, match=message):
            print_scores.run_print_scores(reported, **wrong)


def test_provenance_and_methods_are_there(page: str) -> None:
    """Receipts of all stages with the commit, the resolved configuration, the formulas and the sample."""
    for name in ("regrid", "normals", "train", "forecast", "score"):
        assert f"<summary>{name}" in page
    assert "learning_rate: 0.0005" in page
    assert "moving-block bootstrap" in page
    assert "√(Σ w f′² · Σ w o′²)" in page
    assert provenance.commit().removesuffix("+changes") in page


def test_complete_report_is_not_drawn_again(reported: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run again with nothing changed: returns at once."""
    monkeypatch.setattr(stage, "Gallery", None)
    run_report(reported)


def test_missing_scores_say_what_to_run(build_experiment, tmp_path: Path) -> None:
    """A report without scores is an error with the command, and so is a deleted table."""
    from evaluate.report.stage import run_report

    config = experiment_without_scores(tmp_path)
    with pytest.raises(ValueError, match="run python -m pipeline score"):
        run_report(config)
    with pytest.raises(ValueError, match=r"scores must exist, got no .*scores.csv"):
        read_scores(tmp_path)


def experiment_without_scores(directory: Path) -> Config:
    """Only a configuration."""
    from pipeline import config as configuration

    splits = {
        "train": {"start": "2001-01-01", "end": "2001-06-30"},
        "test": {"start": "2001-08-01", "end": "2001-12-31"},
    }
    data = {"period": {"start": "2001-01-01", "end": "2001-12-31"}, "splits": splits}
    raw = {"name": "none", "directory": str(directory), "source": {"kind": "simulation"}, "data": data}
    return configuration.parse(raw)


def test_few_init_times_make_no_claims(build_experiment, tmp_path: Path) -> None:
    """Eight init times, leads in hours, no land-sea regions lost: no interval, no "beats", and the page says why."""
    forecast = {"lead_hours": [24, 72], "init_step_hours": 24}
    short = second_year_until("2002-01-14")
    config = build_experiment(tmp_path, **short, forecast=forecast, evaluation={"variables": ["u10"]})
    run_score(config)
    facts = provenance.read_receipt(config, stage="score")["facts"]
    assert facts["n_init"] < 12
    assert facts["bootstrap"]["intervals"].startswith("none")
    run_report(config)
    page = config.paths.report.read_text()
    assert "No confidence intervals are given" in page
    assert "Too few init times for a significance test" in page
    assert "hatched" not in page.lower()
    assert " beats climatology" not in page
    assert "at 1 day" in page
    assert "3 days" in page
    assert "SIMULATED" not in page
    assert "ceiling" not in page.lower()
    assert browse(page, tmp_path, width=390)["images"] > 10


@pytest.mark.parametrize("width", [390, 1280])
def test_report_in_a_browser(page: str, tmp_path: Path, width: int) -> None:
    """In headless Chromium: every image loads, nothing is requested, no console message, no sideways scrolling."""
    assert browse(page, tmp_path, width=width)["images"] > 30
