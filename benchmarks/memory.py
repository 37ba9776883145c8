"""The memory planner against measurement: three models and layouts, worst rank of a training step, float32.

Claim: the planner's peak is within 10% of the measured peak of tensors (torch's allocator, on every rank). The growth
of the process is printed beside it: that also counts libraries loaded on the way, buffers of gloo and scratch of
oneDNN, which the planner does not know of.

    python benchmarks/memory.py                   # gloo ranks on this processor, a few minutes
    python benchmarks/memory.py --device cuda     # the layouts of one rank on one GPU
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.support.measure import MB, peak_bytes, reset_peak, resident_bytes, tensor_peak, warm_up, write
from model.parallel.mesh import build_mesh
from model.training.rehearsal import Rehearsal, footprint
from pipeline.config import Config, load

ERA5 = Path(__file__).resolve().parent.parent / "workflows" / "config" / "era5.yaml"
FLOAT32 = ["training.precision=float32"]
CASES: dict[str, list[str]] = {
    "108M fused, D-CHAG-L, 1 rank": ["training.batch_size=4", "training.micro_batch=2"],
    "flat, reference stage, 1 rank": [
        "model.width=256", "model.depth=4", "model.heads=8", "model.groups.by=flat", "model.channel_stage=reference",
        "training.batch_size=2",
    ],
    "D-CHAG-C, 2 channel ranks, tensor trunk": [
        "model.width=512", "model.depth=4", "model.heads=8", "model.groups={by: contiguous, count: 4}",
        "model.unit=C", "training.batch_size=2", "training.layout.channel=2", "training.layout.trunk=tensor",
    ],
    "D-CHAG-L, 2 data ranks, FSDP": [
        "model.width=512", "model.depth=6", "model.heads=8", "training.batch_size=8", "training.layout.data=2",
        "training.layout.sharding=fsdp",
    ],
    "D-CHAG-C, 2 data x 2 channel ranks, FSDP, recomputed": [
        "model.width=512", "model.depth=6", "model.heads=8", "model.groups={by: contiguous, count: 4}",
        "model.unit=C", "training.batch_size=4", "training.layout.data=2", "training.layout.channel=2",
        "training.layout.sharding=fsdp", "training.recompute=true",
    ],
}  # fmt: skip


def measured(config: Config, *, device: torch.device) -> dict[str, float]:
    """Peaks of one rank that really works [MB]: of tensors, and of the process."""
    mesh = build_mesh(channel=config.training.layout.channel, device_type=device.type)
    torch.manual_seed(0)
    warm_up(device.type)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        reset_peak(True)
        Rehearsal(config, mesh=mesh, device=device).run()
        return {"tensors_MB": (torch.cuda.max_memory_allocated() - before) / MB}
    before = resident_bytes()
    reset_peak(False)
    Rehearsal(config, mesh=mesh, device=device).run()
    process = (peak_bytes() - before) / MB
    gc.collect()  # of the first run nothing may be left whose end the second would be credited with
    tensors = tensor_peak(lambda: Rehearsal(config, mesh=mesh, device=device).run()) / MB
    return {"tensors_MB": tensors, "process_MB": process}


def rank_main(rank: int, world: int, settings: list[str], device: str, folder: str) -> None:
    """Joins the ranks, measures, and leaves a file."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", init_method=f"file://{folder}/rendezvous", rank=rank,
        world_size=world, timeout=timedelta(minutes=20),
    )  # fmt: skip
    try:
        found = measured(
            load(ERA5, settings), device=torch.device(device, 0) if device == "cuda" else torch.device("cpu")
        )
        Path(folder, f"{rank}.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def main() -> None:
    """Plans and measures every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--case", type=int, action="append", help="number of a case; all of them by default")
    arguments = parser.parse_args()
    rows = []
    for number, (name, given) in enumerate(CASES.items()):
        settings = [*FLOAT32, *given]
        config = load(ERA5, settings)
        world = config.training.layout.world_size
        if (arguments.case and number not in arguments.case) or (arguments.device == "cuda" and world > 1):
            continue
        start = time.perf_counter()
        planned = footprint(config, device_type=arguments.device)
        seconds = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(rank_main, (world, settings, arguments.device, folder), nprocs=world)
            ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
        row: dict[str, Any] = {"case": name, "ranks": world, "planning_s": round(seconds, 1)}
        row["planned_MB"] = round(planned.peak / MB, 1)
        row |= {key: round(max(r[key] for r in ranks), 1) for key in ranks[0]}
        row["planned_over_tensors"] = round(row["planned_MB"] / row["tensors_MB"], 3)
        if "process_MB" in row:
            row["planned_over_process"] = round(row["planned_MB"] / row["process_MB"], 3)
        row["kinds_MB"] = {kind: round(value / MB, 1) for kind, value in planned.to_dict().items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    worst = max(abs(row["planned_over_tensors"] - 1) for row in rows)
    print(f"largest departure from the measured peak of tensors: {100 * worst:.1f}%")
    if not arguments.case:
        about = {"what": "two steps and a validation, worst rank, float32, one thread a rank", "config": ERA5.name}
        print(write(f"memory_{arguments.device}", {**about, "largest_departure": round(worst, 4), "rows": rows}))


if __name__ == "__main__":
    main()
