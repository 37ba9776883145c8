"""Predicted against measured time of a training step: layouts, channels, widths and depths on 1, 2 and 4 ranks.

Goals: median error at most 10%, worst 25%, and of two layouts of the same network on as many ranks the faster one known
in 90% of the pairs. Ranks measure the classes of operations that the settings have, together, and the links between
them (`model.costs.calibrate`); the time of a step is then what the roofline and the rings give. Measured is the least
of several steps of the slowest rank, one thread per rank. A machine is not as fast in every minute: the calibration for
a network and its steps take turns, several rounds of them, and the least of the rounds counts on both sides.

    nice -n -15 python benchmarks/step_time.py --ranks 1   # 2 and 4 likewise; on a quiet machine
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import torch.distributed as dist
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.memory import DIRECT, ERA5
from benchmarks.support.measure import RESULTS, write
from benchmarks.support.process import ROOT, parser
from benchmarks.support.ranks import on_ranks
from model.costs import calibrate
from model.costs.hardware import from_dict
from model.costs.operators import Work
from model.costs.roofline import step_time
from model.parallel.mesh import build_mesh
from model.training.rehearsal import Rehearsal, Rehearsed, rehearse
from model.weather.task import Forecasting
from pipeline.config import load

PICTURE = ROOT / "docs" / "images" / "step_time.png"
SIZE = "model.patch=4 model.heads=8 training.batch_size=4"
GROUPS = "model.groups.by=contiguous model.groups.count=4"
NETWORKS = {
    "80 channels, width 256, depth 4, C": f"{GROUPS} model.unit=C model.width=256 model.depth=4",
    "80 channels, width 512, depth 2, L": f"{GROUPS} model.unit=L model.width=512 model.depth=2",
    "80 channels, width 256, depth 2, reference": f"{GROUPS} model.unit=C model.width=256 model.depth=2 "
    "model.channel_stage=reference",
    "640 channels, width 256, depth 2, C": f"{GROUPS} model.unit=C model.width=256 model.depth=2 "
    "model.history_hours=[6,12,18,24,30,36,42]",
}
MORE_ALONE = {
    "80 channels, width 128, depth 8, flat": "model.groups.by=flat model.unit=C model.width=128 model.depth=8",
    "80 channels, width 1024, depth 1, flat": "model.groups.by=flat model.unit=C model.width=1024 model.depth=1",
    "1024 channels, width 256, depth 2, flat": "model.groups.by=flat model.unit=C model.width=256 model.depth=2 "
    "model.history_hours=[6,12,18,24,30,36,42,48,54,60,66,72]",
    "320 channels, width 256, depth 2, L, recomputed": f"{GROUPS} model.unit=L model.width=256 model.depth=2 "
    "model.history_hours=[6,12,18] training.recompute=true",
}
LAYOUTS = {
    1: {"1 rank": ""},
    2: {
        "2 data": "training.layout.data=2",
        "2 data, FSDP": "training.layout.data=2 training.layout.sharding=fsdp",
        "2 channel": "training.layout.channel=2",
        "2 channel, tensor": "training.layout.channel=2 training.layout.trunk=tensor",
    },
    4: {
        "4 data": "training.layout.data=4",
        "2 x 2": "training.layout.data=2 training.layout.channel=2",
        "2 x 2, tensor": "training.layout.data=2 training.layout.channel=2 training.layout.trunk=tensor",
        "4 channel, tensor": "training.layout.channel=4 training.layout.trunk=tensor",
    },
}
ROUNDS = 3
_STEPS = 3
"""Of a setting in a round; the first does not count."""
OF_FOUR = ("80 channels, width 256, depth 4, C", "640 channels, width 256, depth 2, C")


def cases(ranks: int) -> dict[tuple[str, str], list[str]]:
    """Settings by network and layout."""
    networks = NETWORKS | MORE_ALONE if ranks == 1 else NETWORKS
    chosen = OF_FOUR if ranks == 4 else tuple(networks)
    common = ["training.precision=float32", *DIRECT.split(), *SIZE.split()]
    return {
        (network, layout): [*common, *networks[network].split(), *text.split()]
        for network in chosen
        for layout, text in LAYOUTS[ranks].items()
    }


def measured(works: dict[str, list[Work]], settings: dict[str, list[list[str]]]) -> dict[str, dict[str, Any]]:
    """By network: this machine by the micro-benchmark, once a round, and the least time of a step of every setting."""
    cpu, cores = torch.device("cpu"), len(os.sched_getaffinity(0))
    running: dict[str, list[Rehearsal[Any]]] = {network: [] for network in settings}
    for network, several in settings.items():
        for chosen in several:
            config = load(ERA5, chosen)
            mesh = build_mesh(channel=config.training.layout.channel)
            running[network].append(Rehearsal(Forecasting.planned(config), config.training, mesh=mesh, device=cpu))
    found: dict[str, dict[str, Any]] = {
        network: {"machines": [], "seconds": [float("inf")] * len(several)} for network, several in settings.items()
    }
    for _, (network, ranks) in itertools.product(range(ROUNDS), running.items()):
        machine = calibrate.measure(works[network], device=cpu, ranks=dist.get_world_size(), cores=cores)
        found[network]["machines"].append(machine.to_dict())
        seconds = found[network]["seconds"]
        for i, rank in enumerate(ranks):
            for attempt in range(_STEPS):
                dist.barrier()
                start = time.perf_counter()
                rank.step()
                if attempt:
                    seconds[i] = min(seconds[i], time.perf_counter() - start)
    return found


def rows_of(ranks: int) -> list[dict[str, Any]]:
    """Every setting of some number of ranks, predicted and measured."""
    settings: dict[str, list[list[str]]] = {}
    rehearsed: dict[str, list[tuple[str, Rehearsed]]] = {}
    for (network, layout), chosen in cases(ranks).items():
        config = load(ERA5, chosen)
        settings.setdefault(network, []).append(chosen)
        rehearsed.setdefault(network, []).append((layout, rehearse(Forecasting.planned(config), config.training)))
    works = {network: [one.work for _, one in several] for network, several in rehearsed.items()}
    of_ranks = on_ranks(measured, works, settings, ranks=ranks)
    rows = []
    for network, several in rehearsed.items():
        machines = [from_dict(machine) for machine in of_ranks[0][network]["machines"]]
        for i, (layout, one) in enumerate(several):
            real = max(rank[network]["seconds"][i] for rank in of_ranks)
            assert one.work is not None
            times = [step_time(one.work, machine, ranks=ranks, data=one.data) for machine in machines]
            modelled = min(times, key=lambda time: time.total)
            row = {"network": network, "ranks": ranks, "layout": layout, "measured_s": round(real, 4)}
            row |= {"predicted_s": round(modelled.total, 4), "error": round(modelled.total / real - 1, 4)}
            row |= {"operations_s": modelled.operations, "host_s": modelled.host, "waiting_s": modelled.communication}
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Errors over all settings, and how often the faster of two layouts is known."""
    errors = [abs(row["error"]) for row in rows]
    pairs = [
        (a, b) for a, b in itertools.combinations(rows, 2) if (a["network"], a["ranks"]) == (b["network"], b["ranks"])
    ]
    right = [(a["predicted_s"] < b["predicted_s"]) == (a["measured_s"] < b["measured_s"]) for a, b in pairs]
    return {
        "settings": len(rows),
        "median_error": round(statistics.median(errors), 4),
        "worst_error": round(max(errors), 4),
        "pairs": len(pairs),
        "pairs_right": round(sum(right) / max(1, len(right)), 4),
    }


def draw(rows: list[dict[str, Any]], found: dict[str, float]) -> Path:
    """Predicted over measured time, one mark a setting."""
    figure, axes = plt.subplots(figsize=(5.2, 5), layout="constrained")
    low, high = (f(row[k] for row in rows for k in ("measured_s", "predicted_s")) for f in (min, max))
    line = [0.8 * low, 1.25 * high]
    axes.plot(line, line, color="0.4", linewidth=1)
    axes.fill_between(line, [0.75 * x for x in line], [1.25 * x for x in line], color="0.9", label="within 25%")
    for ranks, marker in ((1, "o"), (2, "s"), (4, "^")):
        of = [row for row in rows if row["ranks"] == ranks]
        label = f"{ranks} rank{'s' * (ranks > 1)}"
        axes.plot(*([row[k] for row in of] for k in ("measured_s", "predicted_s")), marker, label=label)  # type: ignore[arg-type]
    axes.set(xscale="log", yscale="log", xlabel="measured step [s]", ylabel="predicted step [s]", xlim=line, ylim=line)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(ScalarFormatter())
    axes.set_title(f"{found['settings']} settings, median error {found['median_error']:.0%}", loc="left")
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=120)
    return PICTURE


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--ranks", type=int, choices=list(LAYOUTS), nargs="+", default=list(LAYOUTS))
    chosen = command.parse_args().ranks
    path = RESULTS / "step_time_cpu.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in before if row["ranks"] not in chosen]
    for ranks in chosen:
        rows += rows_of(ranks)
    rows.sort(key=lambda row: row["ranks"])
    found = verdict(rows)
    what = "a training step, slowest rank, float32, one thread per rank; least of several"
    print(write("step_time_cpu", {"what": what, **found, "rows": rows}), draw(rows, found), json.dumps(found))


if __name__ == "__main__":
    main()
