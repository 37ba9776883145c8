"""The share of the way from climatology to ceiling: by hand, with its interval, and empty where it means nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evaluate import metrics
from evaluate.aggregation import AggregationState
from evaluate.report import gauge
from evaluate.report.ceiling import Comparison, Fields
from evaluate.scoring import ceiling_share
from evaluate.scoring.kernel import Sums
from evaluate.scoring.score_table import Score
from evaluate.scoring.tables import Sample

MODELS = ("mine", "climatology", "ceiling")
AREA = np.array([0.4, 1.6])


def sums(num: int, *, knows: dict[str, float], noise: dict[str, float], cells: int = 400) -> Sums:
    """Sums of forecasts knows * anomaly + noise, of one channel, lead and region."""
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((num, cells))
    weights = np.resize(AREA, cells)
    means = {"error": [], "squared_error": [], "forecast_anomaly_squared": [], "anomaly_product": []}
    for name in MODELS:
        f = knows.get(name, 0.0) * truth + noise.get(name, 0.0) * rng.standard_normal((num, cells))
        products = {"forecast_anomaly_squared": f * f, "anomaly_product": f * truth}
        for key, values in {"error": f - truth, "squared_error": (f - truth) ** 2, **products}.items():
            means[key].append((values * weights).sum(-1))
    axes = {"init_time": np.arange(num), "lead": [168], "channel": ["t850"], "region": ["globe"]}
    ours = {"model": list(MODELS), **axes}
    of_truth = {"truth_anomaly": truth, "truth_anomaly_squared": truth**2}
    arrays = {k: (tuple(ours), np.array(v)[:, :, None, None, None]) for k, v in means.items()}
    arrays |= {k: (tuple(axes), (v * weights).sum(-1)[:, None, None, None]) for k, v in of_truth.items()}
    ds = xr.Dataset(arrays, ours)
    state = AggregationState(ds, xr.DataArray([weights.sum()], {"region": ["globe"]}, ["region"]))
    return Sums(state, *[dataclasses.replace(state)] * 3)


def table(found: Sums) -> pd.DataFrame:
    """Shares by score."""
    return ceiling_share.share_table(Sample(found, 1, resamples=200)).set_index("metric")


def test_share_is_the_part_of_the_way_gone() -> None:
    """Model at 0.5 of the anomaly, ceiling at 0.8 with noise: the three shares by hand, each inside its interval;
    catches an upside-down RMSE, a climatology that is not the start, and a share of another model."""
    found = sums(40, knows={"mine": 0.5, "ceiling": 0.8}, noise={"mine": 0.6, "ceiling": 0.2})
    rows = table(found)
    assert set(rows["model"]) == {"mine"}
    regional = found.regional.means()
    mse = {m: float(regional["squared_error"].sel(model=m).mean()) for m in MODELS}
    product, size = (regional[k] for k in ("anomaly_product", "forecast_anomaly_squared"))
    acc = {
        m: float((product / np.sqrt(size * regional["truth_anomaly_squared"])).sel(model=m).mean())
        for m in ("mine", "ceiling")
    }
    root = {m: math.sqrt(v) for m, v in mse.items()}
    expected = {
        "acc": acc["mine"] / acc["ceiling"],
        "skill": (1 - mse["mine"] / mse["climatology"]) / (1 - mse["ceiling"] / mse["climatology"]),
        "rmse": (root["climatology"] - root["mine"]) / (root["climatology"] - root["ceiling"]),
    }
    for metric, value in expected.items():
        assert rows.loc[metric, "value"] == pytest.approx(value)
        assert rows.loc[metric, "ci_low"] < value < rows.loc[metric, "ci_high"]
    assert rows.loc["rmse", "climatology"] == pytest.approx(root["climatology"])
    assert rows.loc["rmse", "ceiling"] == pytest.approx(root["ceiling"])
    assert rows.loc["acc", "ceiling"] == pytest.approx(acc["ceiling"])
    assert metrics.METRICS["acc"].name in expected


def test_no_share_where_the_ceiling_knows_nothing_or_says_too_much() -> None:
    """An undamped run beyond predictability: below the climatology in RMSE and skill, so no share there, but one in
    ACC; a run without any knowledge has none at all; catches the nonsense percentage of a negative way."""
    loud = table(sums(40, knows={"mine": 0.1, "ceiling": 0.5}, noise={"mine": 0.1, "ceiling": 1.0}))
    assert loud["value"].isna().to_dict() == {"acc": False, "skill": True, "rmse": True}
    assert loud.loc["rmse", "ceiling"] > loud.loc["rmse", "climatology"]
    assert loud["ci_low"].isna().to_dict() == loud["value"].isna().to_dict()
    empty = table(sums(40, knows={"mine": 0.5}, noise={"mine": 0.5, "ceiling": 1.0}))
    assert empty["value"].isna().all()
    few = table(sums(3, knows={"mine": 0.5, "ceiling": 0.9}, noise={"mine": 0.5, "ceiling": 0.1}))
    assert few["value"].notna().all()
    assert few["ci_low"].isna().all()


def test_sentence_of_a_comparison() -> None:
    """What figures and captions say, with and without a share; catches "closes −3% of the gap" said of a ceiling that
    is below the climatology."""
    good = Comparison("rmse", "K", 3.2, 3.4, 0.9, Score(0.08, 0.05, 0.11), "15 common init times")
    assert good.sentence == (
        "15 common init times: model 3.20, climatology 3.40, ceiling 0.900 K: closes 8% [5%, 11%] of the gap to the "
        "ceiling."
    )
    below = Comparison("rmse", "K", 3.4, 3.4, 4.5, sample="15 common init times")
    assert "ceiling is worse than climatology here (a single, undamped run)" in below.sentence
    assert "%" not in below.sentence
    strip = gauge.Strip.of(below)
    assert strip.title == "Ceiling is worse than climatology here"
    assert math.isnan(strip.share.value)
    assert "not significantly better" in Comparison("skill", "", 0.1, 0.0, 0.01).verdict
    assert "worse" in Comparison("skill", "", 0.1, 0.0, -0.3).verdict
    assert "no significant ACC" in Comparison("acc", "", 0.1, 0.0, 0.02).verdict
    assert Comparison("bias", "K", 0.1, 0.2, 0.0, sample="all").sentence.endswith("ceiling 0 K.")


def test_one_forecast_beside_the_ceilings() -> None:
    """RMSE and ACC of single fields, weighted; catches an unweighted mean and an ACC of fields for anomalies."""
    rng = np.random.default_rng(5)
    climatology = 280 + rng.standard_normal((6, 9))
    truth = climatology + rng.standard_normal((6, 9))
    weights = np.repeat(np.linspace(0.2, 1.8, 6)[:, None], 9, axis=1)
    fields = Fields(climatology + 0.5 * (truth - climatology), truth, climatology, truth + 0.1)
    rmse, acc = (fields.compare(metric, "K", weights) for metric in ("rmse", "acc"))
    base = math.sqrt(float((weights * (truth - climatology) ** 2).sum() / weights.sum()))
    assert rmse.climatology == pytest.approx(base)
    assert rmse.model == pytest.approx(base / 2)
    assert rmse.ceiling == pytest.approx(0.1)
    assert rmse.share.value == pytest.approx((base / 2) / (base - 0.1))
    assert acc.model == pytest.approx(1.0)
    assert acc.share.value > 1.0
