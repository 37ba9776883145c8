"""One map in one file: the report's panels, regions of their own cells, and messages that list what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluate.report import one_map
from evaluate.report.maps import Globe
from evaluate.scoring.regions import region_weights
from evaluate.scoring.score_table import read_scores
from pipeline.config import Config
from pipeline.grid import Grid
from pipeline.store import open_store
from pipeline.weather.climatology import Normals

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Globe, Any]]:
    """Every panel that is drawn, with the globe that draws it."""
    kept: list[tuple[Globe, Any]] = []
    plain = Globe._draw_on

    def keep(self: Globe, figure: Any, panel: Any, **more: Any) -> None:
        kept.append((self, panel))
        plain(self, figure, panel, **more)

    monkeypatch.setattr(Globe, "_draw_on", keep)
    return kept


@pytest.mark.parametrize("metric", ["skill", "bias"])
def test_a_map_of_the_globe_is_the_one_in_the_report(reported: Config, tmp_path: Path, metric: str) -> None:
    """Byte for byte; catches a second way of drawing, with other titles, colours or scale."""
    out = one_map.run_map(reported, variable="t2m", lead="7d", metric=metric, out=tmp_path / "a" / "map.png")
    assert out.read_bytes() == (reported.paths.figures / "maps" / f"t2m_{metric}_168h.png").read_bytes()
    assert [p.name for p in out.parent.iterdir()] == ["map.png"]


def test_a_region_shows_its_own_cells_on_their_own_scale(reported: Config, tmp_path: Path, drawn) -> None:
    """Catches the globe's map under a region's name, a scale of cells that are not shown, and another model's score."""
    one_map.run_map(
        reported,
        variable="z500",
        lead="1d",
        metric="rmse",
        region="europe",
        model="persistence",
        out=tmp_path / "m.pdf",
    )
    ((globe, panel),) = drawn
    weights = region_weights(Grid.from_dataset(open_store(reported.paths.store)))
    inside = weights.sel(region="europe").values > 0
    np.testing.assert_array_equal(globe.shown, inside)
    wanted = read_scores(reported.paths.scores)[1]["rmse"].sel(model="persistence", channel="z500")
    np.testing.assert_array_equal(panel.values, wanted.sel(lead=24))
    assert panel.scale.high >= np.quantile(wanted.values[:, inside], 0.995)
    assert panel.scale.high < wanted.max() or panel.scale.extend == "neither"
    assert panel.labels.detail == "Europe · persistence"
    assert panel.strip is None
    assert (tmp_path / "m.pdf").read_bytes().startswith(b"%PDF")


def test_scores_that_were_not_written_are_computed(reported: Config, tmp_path: Path, drawn) -> None:
    """A channel without maps, and an experiment without scores; catches another lead, and figures of their own."""
    before = sorted(reported.paths.scores.rglob("*"))
    one_map.run_map(reported, variable="t850", lead="7d", metric="acc", out=tmp_path / "t850.png")
    hidden = reported.paths.receipt("score").rename(tmp_path / "score.json")
    try:
        one_map.run_map(reported, variable="t2m", lead="7d", metric="acc", out=tmp_path / "t2m.png")
    finally:
        hidden.rename(reported.paths.receipt("score"))
    kept = read_scores(reported.paths.scores)[1]["acc"].sel(model="tiny", channel="t2m", lead=168)
    np.testing.assert_allclose(drawn[1][1].values, kept, rtol=1e-5)
    assert "Temperature at 850 hPa" in drawn[0][1].labels.subtitle
    assert sorted(reported.paths.scores.rglob("*")) == before


def test_models_on_fewer_init_times_say_how_many(reported: Config, tmp_path: Path, drawn) -> None:
    """The ceiling's map is made from its own init times; catches the sample of the others above it."""
    one_map.run_map(reported, variable="t2m", lead="1d", metric="rmse", model="ceiling", out=tmp_path / "c.png")
    assert "12 init times" in drawn[0][1].labels.subtitle
    assert drawn[0][1].labels.detail == "ceiling"


@pytest.mark.parametrize("model", [None, "ceiling"])
def test_a_forecast_stands_beside_truth_and_error(reported: Config, tmp_path: Path, drawn, model: str | None) -> None:
    """Three panels on one scale, from the stores; catches another init time, lead or model, and a swapped sign."""
    out = one_map.run_map(reported, variable="z500", lead="7d", init="2002-02-10", model=model, out=tmp_path / "f.png")
    store = reported.paths.forecast if model is None else reported.paths.twins["ceiling"]
    issued = open_store(store)["state"].sel(init_time="2002-02-10", channel="z500").isel(lead_time=1).values
    came = open_store(reported.paths.store)["state"].sel(time="2002-02-17", channel="z500").values
    climate = Normals.open(reported.paths.normals).climatology_at(np.array(["2002-02-17"], "datetime64[ns]"))
    mean = climate[0, list(open_store(reported.paths.store)["channel"].values).index("z500")]
    for (_, panel), values in zip(drawn, (issued - mean, came - mean, issued - came), strict=True):
        np.testing.assert_allclose(panel.values, values, atol=1e-2)
        assert panel.scale == drawn[0][1].scale
        assert "issued 10 Feb 00 UTC, valid 17 Feb 2002 00 UTC" in panel.labels.subtitle
    width, height = Image.open(out).size
    assert width > 3 * height


def test_without_out_the_file_lies_beside_the_reports(reported: Config) -> None:
    """And no figure of the report is written over."""
    out = one_map.run_map(reported, region="tropics")
    try:
        assert out == reported.paths.figures / "map_z500_skill_24h_tropics.png"
    finally:
        out.unlink()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"variable": "t1000"}, "variable must be one of z500, z850, t500, t850, t2m, u10, got 't1000'"),
        ({"lead": "3d"}, "lead must be one of forecast.lead_hours, 1d, 7d; got 3d"),
        ({"lead": "soon"}, "lead must look like 7d or 168h, got 'soon'"),
        ({"metric": "crps"}, "metric must be one of rmse, acc, bias, skill, got 'crps'"),
        ({"region": "europa"}, "region must be one of globe, tropics, .*, land, sea, got 'europa'"),
        ({"model": "unet"}, "model must be one of tiny, persistence, climatology, .*, got 'unet'"),
        ({"model": "unet", "init": "2002-02-10"}, "model must be one of tiny, ceiling, got 'unet'"),
        ({"init": "2002-02-10T06"}, "2002-01-01T00 .. 2002-04-23T00, got 2002-02-10T06; the nearest is 2002-02-10T00"),
        ({"init": "February"}, "init must be a time such as 2004-01-15 or 2004-01-15T12, got 'February'"),
        ({"init": "2002-02-10", "metric": "acc"}, "--metric must be left out with --init"),
        ({"out": Path("map.jpg")}, "--out must end in .png or .pdf, got map.jpg"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_named_with_what_there_is(reported: Config, wrong: dict[str, Any], message: str) -> None:
    """Catches a traceback, or a message that leaves its user guessing."""
    before = sorted(reported.paths.figures.rglob("*"))
    with pytest.raises(ValueError, match=message):
        one_map.run_map(reported, **wrong)
    assert sorted(reported.paths.figures.rglob("*")) == before
