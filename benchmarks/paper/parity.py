"""Figure f of the paper, trained here: forecasts of a flat network and of D-CHAG on two and on four ranks.

The demo's planet and recipe, shortened; only the channel stage differs: one group with cross-attention (flat), two and
four groups with linear units, one for each rank. Every setting is trained with the same seeds and forecasts the same
init times. The ranks of seed 0 are real ones; since results do not depend on the layout (which that seed shows again),
the others are trained on one rank. The table is the change against flat in MSE, RMSE and ACC; its intervals draw seeds
and blocks of neighbouring init times together, both paired. Needs the demo's store: `make demo` first. No time is
measured, so runs may share the machine; finished ones are not repeated.

    python benchmarks/paper/parity.py                 # 17 trainings; an hour or two on two cores
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.measure import RESULTS, write
from benchmarks.support.paper import PICTURES, plain, point, results
from benchmarks.support.process import ROOT, parser
from benchmarks.support.training import train
from evaluate import bootstrap
from evaluate.scoring.stage import score_now
from pipeline.config import load
from pipeline.weather.config import WeatherConfig

Array = NDArray[np.float64]

DEMO = ROOT / "workflows" / "config" / "demo.yaml"
RANKS = {"flat": 1, "D-CHAG on 2 ranks": 2, "D-CHAG on 4 ranks": 4}
"""Channel ranks, which is the number of groups."""
SHOWN = ("z500", "t850", "u10")
LEADS = (168, 336, 720)
WINDOW = 50
"""Steps over which the last training loss is taken."""
DRAWS = 1000
SHORTER = [
    "model.width=256",
    "training.steps=300",
    "training.rollout=[[0, 1], [0.5, 2], [0.75, 3]]",
    "training.validate_every=300",
    "training.checkpoint_every=100",
    "forecast.lead_hours=[168, 336, 720]",
    "forecast.init_step_hours=48",
    "evaluation.twins.models=[]",
]


def settings(folder: Path, name: str, *, seed: int, ranks: int) -> list[str]:
    """Of one training."""
    groups = RANKS[name]
    stage = "{by: flat}" if groups == 1 else f"{{by: contiguous, count: {groups}}}"
    form = ["model.tree=none", "model.unit=C"] if groups == 1 else ["model.tree=Tree0", "model.unit=L"]
    home = folder / f"{name.replace(' ', '-')}-{ranks}-{seed}"
    layout = [f"training.layout.channel={ranks}", f"training.seed={seed}"]
    return [f"directory={home}", f"model.groups={stage}", *form, *SHORTER, *layout]


def losses(records: list[dict[str, Any]]) -> Array:
    """Of every training step."""
    return np.array([record["loss"] for record in records if record["kind"] == "train"])


def per_init(overrides: list[str]) -> tuple[dict[str, Array], int]:
    """Forecast, and give MSE and ACC, (init time, lead, channel), and the block length in init times."""
    words = [word for item in overrides for word in ("--set", item)]
    command = [sys.executable, "-m", "pipeline", "forecast", "--config", str(DEMO), *words]
    subprocess.run(command, check=True, cwd=ROOT)
    config = load(DEMO, overrides)
    assert isinstance(config, WeatherConfig)
    result = score_now(config, leads=LEADS, channels=SHOWN)
    means = result.scored.sums.regional.means()
    of = {}
    for name in ("squared_error", "anomaly_product", "forecast_anomaly_squared", "truth_anomaly_squared"):
        values = means[name].sel(region="globe")
        values = values.sel(model=config.name) if "model" in values.dims else values
        of[name] = values.sel(lead=list(LEADS), channel=list(SHOWN)).transpose("init_time", "lead", "channel").values
    acc = of["anomaly_product"] / np.sqrt(of["forecast_anomaly_squared"] * of["truth_anomaly_squared"])
    return {"mse": of["squared_error"], "acc": acc}, result.facts.bootstrap.block_init_times


def scores(mse: Array, acc: Array) -> dict[str, Array]:
    """MSE, RMSE and ACC of every seed, (..., seed, lead, channel), from means over init times."""
    return {"MSE": mse, "RMSE": np.sqrt(mse), "wACC": acc}


def change(flat: dict[str, Array], other: dict[str, Array], *, block: int) -> dict[str, tuple[Array, Array, Array]]:
    """Change of each score with its 95% interval, (lead, channel): in percent of flat's; of the ACC as it is.

    Args:
        flat: "mse" and "acc", (seed, init time, lead, channel).
        other: the same of another channel stage, of the same seeds and init times.
        block: init times that are drawn together.
    """
    seeds, num = flat["mse"].shape[:2]
    weights = bootstrap.resample_weights(num, block=block, resamples=DRAWS)
    drawn = np.random.default_rng(1).integers(0, seeds, size=(DRAWS, seeds))

    def means(of: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        whole = scores(*(of[k].mean(axis=1) for k in ("mse", "acc")))
        each = [np.einsum("dn,snlc->dslc", weights, of[k]) for k in ("mse", "acc")]
        rows = np.arange(DRAWS)[:, None]
        draws = {k: v[rows, drawn].mean(axis=1) for k, v in scores(*each).items()}
        return {k: v.mean(axis=0) for k, v in whole.items()}, draws

    (ours, our_draws), (base, base_draws) = means(other), means(flat)
    found = {}
    for name in ours:
        if name == "wACC":
            value, draws = ours[name] - base[name], our_draws[name] - base_draws[name]
        else:
            value = 100 * (ours[name] / base[name] - 1)
            draws = 100 * (our_draws[name] / base_draws[name] - 1)
        low, high = np.quantile(draws, (0.025, 0.975), axis=0)
        found[name] = value, low, high
    return found


def collect(folder: Path, *, seeds: int, made: list[str]) -> dict[str, Any]:
    """Train, forecast and score everything."""
    curves: dict[str, list[Array]] = {name: [] for name in RANKS}
    found: dict[str, list[dict[str, Array]]] = {name: [] for name in RANKS}
    on_ranks: dict[str, dict[str, float]] = {}
    block = 1
    for seed in range(seeds):
        for name, ranks in RANKS.items():
            overrides = settings(folder, name, seed=seed, ranks=1)
            curves[name].append(losses(train(DEMO, overrides, made=made, ranks=1)))
            of, block = per_init(overrides)
            found[name].append(of)
            if seed == 0 and ranks > 1:
                real = losses(train(DEMO, settings(folder, name, seed=0, ranks=ranks), made=made, ranks=ranks))
                apart = np.abs(real / curves[name][0] - 1)
                on_ranks[name] = {"first_10_steps": float(apart[:10].max()), "all_steps": float(apart.max())}
            print(f"{name}, seed {seed}: loss {curves[name][-1][-WINDOW:].mean():.4f}", flush=True)
    stacked = {name: {k: np.stack([of[k] for of in each]) for k in ("mse", "acc")} for name, each in found.items()}
    rows = []
    for name in list(RANKS)[1:]:
        for score, (value, low, high) in change(stacked["flat"], stacked[name], block=block).items():
            rows += [
                {"setting": name, "score": score, "channel": c, "lead": lead, "change": round(float(value[i, j]), 4),
                 "low": round(float(low[i, j]), 4), "high": round(float(high[i, j]), 4)}
                for i, lead in enumerate(LEADS) for j, c in enumerate(SHOWN)
            ]  # fmt: skip
    last = {name: np.array([c[-WINDOW:].mean() for c in each]) for name, each in curves.items()}
    return {
        "seeds": seeds,
        "init_times": stacked["flat"]["mse"].shape[1],
        "block_init_times": block,
        "largest_relative_difference_of_loss_on_real_ranks": on_ranks,
        "last_loss": {name: [round(float(x), 5) for x in values] for name, values in last.items()},
        "flat": {k: np.round(stacked["flat"][k].mean(axis=(0, 1)), 5).tolist() for k in ("mse", "acc")},
        "losses": {name: [np.round(c, 5).tolist() for c in each] for name, each in curves.items()},
        "rows": rows,
    }


def draw(content: dict[str, Any]) -> Figure:
    """Training losses on the left, changes in RMSE on the right."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    for number, (name, curves) in enumerate(content["losses"].items()):
        for seed, curve in enumerate(curves):
            smooth = np.convolve(curve, np.ones(20) / 20, mode="valid")
            left.plot(smooth, color=f"C{number}", linewidth=0.9, alpha=0.6, label=name if seed == 0 else None)
    left.set(xlabel="step", ylabel="training loss, mean of 20 steps", yscale="log")
    left.legend(frameon=False, fontsize=8)
    labels = [f"{c}, {lead // 24} d" for c in SHOWN for lead in LEADS]
    for number, name in enumerate(list(RANKS)[1:], 1):
        of = {(r["channel"], r["lead"]): r for r in content["rows"] if r["setting"] == name and r["score"] == "RMSE"}
        each = [of[c, lead] for c in SHOWN for lead in LEADS]
        value = np.array([r["change"] for r in each])
        bars = [value - [r["low"] for r in each], [r["high"] for r in each] - value]
        at = np.arange(len(each)) + 0.2 * (number - 1.5)
        right.errorbar(at, value, yerr=np.maximum(bars, 0), fmt="o", markersize=4, color=f"C{number}", label=name)
    right.axhspan(-1, 1, color="#f0c46b", alpha=0.4, label="published: within 1%")
    right.axhline(0, color="0.4", linewidth=0.8)
    right.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    right.set_ylabel("RMSE against flat [%]")
    right.legend(frameon=False, fontsize=8)
    plain(left)
    plain(right)
    figure.suptitle(f"Flat and D-CHAG trained here, simulated atmosphere, {content['seeds']} seeds")
    return figure


def points(content: dict[str, Any]) -> list[dict[str, str]]:
    """Published claims beside ours."""
    found = []
    for name in list(RANKS)[1:]:
        last = content["last_loss"]
        ratio = 100 * (np.array(last[name]) / np.array(last["flat"]) - 1)
        apart = content["largest_relative_difference_of_loss_on_real_ranks"][name]["all_steps"]
        found.append(
            point(
                f"Training loss, {name}",
                "as on one GPU",
                f"{ratio.mean():+.1f}% against flat ({ratio.min():+.1f} to {ratio.max():+.1f} by seed)",
                f"At most {apart:.0e} from the same network on one rank over all steps; the rest is another network",
            )
        )
        for score in ("MSE", "RMSE", "wACC"):
            of = [r for r in content["rows"] if r["setting"] == name and r["score"] == score]
            unit = "" if score == "wACC" else "%"
            form = "{:+.3f} [{:+.3f}, {:+.3f}]" if score == "wACC" else "{:+.1f}% [{:+.1f}, {:+.1f}]"
            cells = "; ".join(
                f"{r['channel']} {r['lead'] // 24} d " + form.format(r["change"], r["low"], r["high"]) for r in of
            )
            worst = max(abs(r["change"]) for r in of)
            sure = sum(r["low"] > 0 or r["high"] < 0 for r in of)
            why = f"At most {worst:.3g}{unit}; {sure} of {len(of)} intervals exclude zero"
            found.append(point(f"{score}, {name} against flat", "within 1%", cells, why))
    return found


def of_autoencoder() -> list[dict[str, str]]:
    """The second workload, where benchmarks/hyperspectral.py has trained it."""
    path = RESULTS / "hyperspectral_curves.json"
    if not path.exists():
        return []
    curves = json.loads(path.read_text())
    mean, most = (curves[f"{word}_relative_difference_of_smoothed_loss"] for word in ("mean", "largest"))
    ours = f"{mean['two ranks']:.2%} apart in the mean, {most['two ranks']:.1%} at most"
    return [
        point(
            f"Training loss, masked autoencoder, 500 bands, {curves['steps']} steps, two channel ranks",
            "as on one GPU",
            f"{ours} (smoothed loss against one rank)",
            f"The same network in {curves['precision']}, summed in another order. Another seed is "
            f"{mean['another seed']:.0%} and {most['another seed']:.0%} apart (benchmarks/hyperspectral.py --part "
            "curves)",
        )
    ]


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--seeds", type=int, default=5)
    command.add_argument("--folder", type=Path, default=ROOT / "results" / "parity", help="of the trainings")
    command.add_argument("--set", action="append", default=[], help="settings of the demo whose store is read")
    command.add_argument("--draw", action="store_true", help="only draw and word the results that are there")
    given = command.parse_args()
    if given.draw:
        content = results("parity")
    else:
        content = collect(given.folder.resolve(), seeds=given.seeds, made=given.set)
    content = {**content, "origin": "measured", "points": [*points(content), *of_autoencoder()]}
    figure = draw(content)
    PICTURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURES / "parity.png", dpi=110)
    plt.close(figure)
    print(write("paper_parity", content))


if __name__ == "__main__":
    main()
