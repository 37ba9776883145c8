"""The memory planner against measurement: 19 layouts on 1, 2 and 4 ranks, worst rank of a training step, float32.

Claim: the planner's peak is within 3% of the measured peak of tensors (torch's allocator, on every rank). Libraries,
what gloo and oneDNN allocate by themselves, and what the allocator of the system keeps come on top.

    python benchmarks/memory.py                   # gloo ranks on this processor, a few minutes
    python benchmarks/memory.py --device cuda     # the layouts of one rank on one GPU
"""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import MB, reset_peak, tensor_peak, warm_up, write
from benchmarks.support.process import ROOT, parser
from benchmarks.support.ranks import on_ranks
from model.parallel.mesh import build_mesh
from model.training.rehearsal import Rehearsal, footprint
from model.weather.task import Forecasting
from pipeline.config import load

ERA5 = ROOT / "workflows" / "config" / "era5.yaml"
DIRECT = (
    "model.predicts=anomaly model.network_input=state model.features=[] model.output=patches model.conditioning=token "
    "training.step_hours=[] training.rollout=[[0,1]] training.micro_batch=null training.validation_samples=8"
)
"""ClimaX's way, which the cases below are about but for the last of one rank."""
SMALL = "model.width=256 model.heads=8 model.depth=4 model.patch=4 training.batch_size=4"
FOUR_GROUPS = "model.groups.by=contiguous model.groups.count=4 model.unit=C"
CHANNEL, DATA = "training.layout.channel=2", "training.layout.data=2"
FSDP, RECOMPUTE = "training.layout.sharding=fsdp", "training.recompute=true"
TENSOR, SEQUENCE = "training.layout.trunk=tensor", "training.layout.trunk=sequence"
CASES = {
    "flat": "model.groups.by=flat model.unit=C",
    "flat, reference stage": "model.groups.by=flat model.unit=C model.channel_stage=reference",
    "D-CHAG-L, micro-batches of 1": "training.micro_batch=1",
    "D-CHAG-C, recomputed": f"{FOUR_GROUPS} {RECOMPUTE}",
    "changes through 3 steps, overlap, adaptive norm": "model.predicts=change model.network_input=anomaly "
    "model.output=overlap model.conditioning=adaptive_norm training.step_hours=[24] training.rollout=[[0,3]]",
    "2 data": f"{DATA}",
    "2 data, FSDP": f"{DATA} {FSDP}",
    "2 data, FSDP, micro-batches of 1, recomputed": f"{DATA} {FSDP} {RECOMPUTE} training.micro_batch=1",
    "2 channel": f"{FOUR_GROUPS} {CHANNEL}",
    "2 channel, reference stage": f"{FOUR_GROUPS} {CHANNEL} model.channel_stage=reference",
    "2 channel, distributed tokenisation alone": f"{FOUR_GROUPS} {CHANNEL} model.tree=none",
    "2 channel, tensor": f"{FOUR_GROUPS} {CHANNEL} {TENSOR}",
    "2 channel, sequence, recomputed": f"{FOUR_GROUPS} {CHANNEL} {SEQUENCE} {RECOMPUTE}",
    "4 data, FSDP": f"training.layout.data=4 {FSDP}",
    "4 channel, tensor": f"{FOUR_GROUPS} training.layout.channel=4 {TENSOR}",
    "2 data x 2 channel, tensor": f"{FOUR_GROUPS} {CHANNEL} {DATA} {TENSOR}",
    "2 data x 2 channel, FSDP": f"{FOUR_GROUPS} {CHANNEL} {DATA} {FSDP}",
    "2 data x 2 channel, FSDP, sequence, recomputed": f"{FOUR_GROUPS} {CHANNEL} {DATA} {FSDP} {SEQUENCE} {RECOMPUTE}",
    "2 data x 2 channel, FSDP, recomputed, width 512": f"{FOUR_GROUPS} {CHANNEL} {DATA} {FSDP} {RECOMPUTE} "
    "model.width=512 model.depth=6 model.patch=2",
}
"""Settings of each case, beside those that all have."""


def settings(text: str) -> list[str]:
    return ["training.precision=float32", *DIRECT.split(), *SMALL.split(), *text.split()]


def measured(texts: list[str], device_type: str) -> dict[str, Any]:
    """Peak of the tensors of one rank that really runs each case [MB]."""
    torch.manual_seed(0)
    warm_up(device_type)
    return {text: _one(text, device_type) for text in texts}


def _one(text: str, device_type: str) -> dict[str, float]:
    config = load(ERA5, settings(text))
    task = Forecasting.planned(config)
    device = torch.device(device_type, 0) if device_type == "cuda" else torch.device(device_type)
    mesh = build_mesh(channel=config.training.layout.channel, device_type=device_type)

    def run() -> None:
        Rehearsal(task, config.training, mesh=mesh, device=device).run()

    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        reset_peak(True)
        run()
        return {"tensors_MB": (torch.cuda.max_memory_allocated() - before) / MB}
    run()
    gc.collect()  # leftovers of the first run, freed during the second, would lower its peak
    return {"tensors_MB": tensor_peak(run) / MB}


def rows_of(world: int, cases: dict[str, str], device: str) -> list[dict[str, Any]]:
    """Every case of some number of ranks, planned and measured."""
    of_ranks = on_ranks(measured, list(cases.values()), device, ranks=world, device=device)
    rows = []
    for name, text in cases.items():
        config = load(ERA5, settings(text))
        start = time.perf_counter()
        planned = footprint(Forecasting.planned(config), config.training, device_type=device)
        row: dict[str, Any] = {"case": name, "ranks": world, "planning_s": round(time.perf_counter() - start, 1)}
        row["planned_MB"] = round(planned.peak / MB, 2)
        row |= {key: round(max(rank[text][key] for rank in of_ranks), 2) for key in of_ranks[0][text]}
        row["planned_over_tensors"] = round(row["planned_MB"] / row["tensors_MB"], 4)
        row["parts_MB"] = {part: round(value / MB, 2) for part, value in planned.parts.items()}
        rows.append(row)
        print(
            f"{name:60} {row['planned_MB']:9.2f} {row['tensors_MB']:9.2f} {row['planned_over_tensors']:7.3f}",
            flush=True,
        )
    return rows


def main() -> None:
    """Plan and measure every case."""
    command = parser(__doc__)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--ranks", type=int, action="append", help="only cases of so many ranks; all by default")
    chosen = command.parse_args()
    worlds: dict[int, dict[str, str]] = {}
    for name, text in CASES.items():
        worlds.setdefault(load(ERA5, settings(text)).training.layout.world_size, {})[name] = text
    rows = []
    print(f"{'case':60} {'planned':>9} {'measured':>9} {'ratio':>7}")
    for world, cases in worlds.items():
        if world in (chosen.ranks or worlds) and (world == 1 or chosen.device == "cpu"):
            rows += rows_of(world, cases, chosen.device)
    largest = max(abs(row["planned_over_tensors"] - 1) for row in rows)
    print(f"largest departure from the measured peak of tensors: {100 * largest:.2f}%")
    if not chosen.ranks:
        about = {"what": "two steps and a validation, worst rank, float32, one thread per rank", "config": ERA5.name}
        print(write(f"memory_{chosen.device}", {**about, "largest_departure": round(largest, 4), "rows": rows}))


if __name__ == "__main__":
    main()
