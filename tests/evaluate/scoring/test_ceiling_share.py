"""The share of the way from climatology to ceiling: by hand, with its interval, and empty where it means nothing."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from evaluate import metrics
from evaluate.report import gauge
from evaluate.report.ceiling import Stand, case
from evaluate.scoring import ceiling_share
from evaluate.scoring.aggregation import AggregationState
from evaluate.scoring.kernel import Sums

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
        made = {"error": f - truth, "squared_error": (f - truth) ** 2, "forecast_anomaly_squared": f * f,
                "anomaly_product": f * truth}  # fmt: skip
        for key, values in made.items():
            means[key].append((values * weights).sum(-1))
    axes = {"init_time": np.arange(num), "lead": [168], "channel": ["t850"], "region": ["globe"]}
    ours = {"model": list(MODELS), **axes}
    ds = xr.Dataset(
        {k: (tuple(ours), np.array(v)[:, :, None, None, None]) for k, v in means.items()}
        | {k: (tuple(axes), (v * weights).sum(-1)[:, None, None, None])
           for k, v in {"truth_anomaly": truth, "truth_anomaly_squared": truth**2}.items()},
        ours,
    )  # fmt: skip
    state = AggregationState(ds, xr.DataArray([weights.sum()], {"region": ["globe"]}, ["region"]))
    return Sums(state, *[dataclasses.replace(state)] * 3)


def table(found: Sums) -> pd.DataFrame:
    """Shares by score."""
    return ceiling_share.share_table(found, block=1, resamples=200).set_index("metric")


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


def test_words_of_a_stand() -> None:
    """What figures and captions say, with and without a share; catches "−3% of the way" said of a ceiling that is
    below the climatology."""
    good = Stand("rmse", "K", 3.2, 3.4, 0.9, 0.08, 0.05, 0.11, "15 common init times")
    assert good.sentence == (
        "15 common init times: model 3.20, climatology 3.40, ceiling 0.900 K: 8% [5%, 11%] of the way to the ceiling."
    )
    below = Stand("rmse", "K", 3.4, 3.4, 4.5, sample="15 common init times")
    assert "ceiling is below climatology here (a single run that is not damped)" in below.sentence
    assert "%" not in below.sentence
    strip = gauge.strip(below)
    assert strip.title == "Ceiling is below climatology here"
    assert math.isnan(strip.share)
    assert "cannot be told" in Stand("skill", "", 0.1, 0.0, 0.01).way
    assert "below" in Stand("skill", "", 0.1, 0.0, -0.3).way
    assert "knows nothing" in Stand("acc", "", 0.1, 0.0, 0.02).way
    assert Stand("bias", "K", 0.1, 0.2, 0.0, sample="all").sentence.endswith("ceiling 0 K.")


def test_one_forecast_beside_the_ceilings() -> None:
    """RMSE and ACC of single fields, weighted; catches an unweighted mean and an ACC of fields for anomalies."""
    rng = np.random.default_rng(5)
    climatology = 280 + rng.standard_normal((6, 9))
    truth = climatology + rng.standard_normal((6, 9))
    weights = np.repeat(np.linspace(0.2, 1.8, 6)[:, None], 9, axis=1)
    fields = {"mine": climatology + 0.5 * (truth - climatology), "ceiling": truth + 0.1}
    told = {
        m: case(m, "K", fields=fields, truth=truth, climatology=climatology, weights=weights, sample="", model="mine")
        for m in ("rmse", "acc")
    }
    base = math.sqrt(float((weights * (truth - climatology) ** 2).sum() / weights.sum()))
    assert told["rmse"].climatology == pytest.approx(base)
    assert told["rmse"].model == pytest.approx(base / 2)
    assert told["rmse"].ceiling == pytest.approx(0.1)
    assert told["rmse"].share == pytest.approx((base / 2) / (base - 0.1))
    assert told["acc"].model == pytest.approx(1.0)
    assert told["acc"].share > 1.0
