"""The memory planner against measurement: three models and layouts, worst rank of a training step, float32.

Claim: the planner's peak is within 10% of the measured peak of tensors (torch's allocator, on every rank). The growth
of the process is printed beside it: that includes libraries loaded meanwhile, buffers of gloo and scratch memory of
oneDNN, which the planner does not know.

    python benchmarks/memory.py                   # gloo ranks on this processor, a few minutes
    python benchmarks/memory.py --device cuda     # the layouts of one rank on one GPU
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import MB, reset_peak, resident_bytes, tensor_peak, warm_up, write
from benchmarks.support.process import ROOT, parser, peak_bytes
from benchmarks.support.ranks import on_ranks, worst
from model.parallel.mesh import build_mesh
from model.training.rehearsal import Rehearsal, footprint
from model.weather.task import Forecasting
from pipeline.config import load

ERA5 = ROOT / "workflows" / "config" / "era5.yaml"
DIRECT = (
    "model.predicts=anomaly model.network_input=state model.features=[] model.output=patches model.conditioning=token "
    "training.step_hours=[] training.rollout=[[0,1]] training.micro_batch=null"
)
"""ClimaX's way, which the cases below are about but for the last."""
SMALLER = "model.width=512 model.heads=8"
FOUR_GROUPS = "model.groups.by=contiguous model.groups.count=4 model.unit=C"
TWO_CHANNEL = "training.layout.channel=2"
FSDP = "training.layout.data=2 training.layout.sharding=fsdp"
CASES = {
    "108M fused, D-CHAG-L, 1 rank": "training.batch_size=4 training.micro_batch=2",
    "flat, reference stage, 1 rank": "model.width=256 model.depth=4 model.heads=8 model.groups.by=flat "
    "model.channel_stage=reference training.batch_size=2",
    "D-CHAG-C, 2 channel ranks, tensor trunk": f"{SMALLER} model.depth=4 {FOUR_GROUPS} training.batch_size=2 "
    f"{TWO_CHANNEL} training.layout.trunk=tensor",
    "D-CHAG-L, 2 data ranks, FSDP": f"{SMALLER} model.depth=6 training.batch_size=8 {FSDP}",
    "D-CHAG-C, 2 data x 2 channel ranks, FSDP, recomputed": f"{SMALLER} model.depth=6 {FOUR_GROUPS} "
    f"training.batch_size=4 {TWO_CHANNEL} {FSDP} training.recompute=true",
    "changes through 3 steps, overlap, adaptive norm, 1 rank": f"{SMALLER} model.depth=4 model.predicts=change "
    "model.network_input=anomaly model.output=overlap model.conditioning=adaptive_norm training.step_hours=[24] "
    "training.rollout=[[0,3]] training.batch_size=4",
}
"""Settings of each case, beside float32."""


def measured(settings: list[str], device_type: str) -> dict[str, float]:
    """Peak memory of one rank that really runs [MB]: of tensors, and of the process."""
    config = load(ERA5, settings)
    task = Forecasting.planned(config)
    device = torch.device(device_type, 0) if device_type == "cuda" else torch.device(device_type)
    mesh = build_mesh(channel=config.training.layout.channel, device_type=device_type)
    torch.manual_seed(0)
    warm_up(device_type)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        reset_peak(True)
        Rehearsal(task, config.training, mesh=mesh, device=device).run()
        return {"tensors_MB": (torch.cuda.max_memory_allocated() - before) / MB}
    before = resident_bytes()
    reset_peak(False)
    Rehearsal(task, config.training, mesh=mesh, device=device).run()
    process = (peak_bytes() - before) / MB
    gc.collect()  # leftovers of the first run, freed during the second, would lower its peak
    tensors = tensor_peak(lambda: Rehearsal(task, config.training, mesh=mesh, device=device).run()) / MB
    return {"tensors_MB": tensors, "process_MB": process}


def main() -> None:
    """Plan and measure every case."""
    command = parser(__doc__)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--case", type=int, action="append", help="number of a case; all of them by default")
    chosen = command.parse_args()
    rows = []
    for number, (name, text) in enumerate(CASES.items()):
        settings = ["training.precision=float32", *DIRECT.split(), *text.split()]
        config = load(ERA5, settings)
        world = config.training.layout.world_size
        if (chosen.case and number not in chosen.case) or (chosen.device == "cuda" and world > 1):
            continue
        start = time.perf_counter()
        planned = footprint(Forecasting.planned(config), config.training, device_type=chosen.device)
        seconds = time.perf_counter() - start
        peaks = worst(on_ranks(measured, settings, chosen.device, ranks=world, device=chosen.device))
        row: dict[str, Any] = {"case": name, "ranks": world, "planning_s": round(seconds, 1)}
        row["planned_MB"] = round(planned.peak / MB, 1)
        row |= {key: round(value, 1) for key, value in peaks.items()}
        row["planned_over_tensors"] = round(row["planned_MB"] / row["tensors_MB"], 3)
        if "process_MB" in row:
            row["planned_over_process"] = round(row["planned_MB"] / row["process_MB"], 3)
        row["kinds_MB"] = {kind: round(value / MB, 1) for kind, value in planned.to_dict().items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    largest = max(abs(row["planned_over_tensors"] - 1) for row in rows)
    print(f"largest departure from the measured peak of tensors: {100 * largest:.1f}%")
    if not chosen.case:
        about = {"what": "two steps and a validation, worst rank, float32, one thread per rank", "config": ERA5.name}
        print(write(f"memory_{chosen.device}", {**about, "largest_departure": round(largest, 4), "rows": rows}))


if __name__ == "__main__":
    main()
