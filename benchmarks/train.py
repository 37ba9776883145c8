"""Training throughput: samples per second, model FLOP/s, and their share of a matrix product measured in the same run.

Whole steps (forward, backward, clipping over the mesh, AdamW) of the demo's model and of the 108M-parameter one
(width 1024, depth 8, 80 channels of 32 x 64 cells), on 1 rank and on 2. Model FLOP are those that one rank performs
for a sample, counted by torch (matrix products only) and without recomputation; work that two channel ranks do twice
counts once. The peak is that of the fastest square product in the precision of the training, on all ranks at once.

    python benchmarks/train.py                    # on this processor, some minutes
    python benchmarks/train.py --device cuda      # bfloat16, with and without torch.compile, one GPU
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import synchronize, write
from benchmarks.support.process import parser
from benchmarks.support.ranks import on_ranks
from model.dchag import DCHAG, DCHAGConfig
from model.parallel.mesh import build_mesh
from model.parallel.wrap import Placement, distribute, gradient_norm, parameter_groups, scale_gradients
from model.weather.architecture import planned_network
from model.weather.loss import weighted_mse
from pipeline.config import load

IMAGE = (32, 64)
MODELS = ("demo", "108M")
LAYOUTS: dict[str, tuple[int, int, str]] = {
    "1 rank": (1, 1, "replicated"),
    "2 data": (2, 1, "replicated"),
    "2 channel": (1, 2, "replicated"),
    "2 channel, tensor trunk": (1, 2, "tensor"),
}
"""Data ranks, channel ranks, trunk."""
LARGE: dict[str, Any] = {"patch": 2, "width": 1024, "depth": 8, "heads": 16, "groups": 8, "tree": "Tree0", "unit": "L"}


def shape(name: str, demo: str) -> DCHAGConfig:
    """The demo's model, or the 108M one."""
    if name == "demo":
        network = planned_network(load(demo))
        assert isinstance(network, DCHAGConfig)
        return network
    names = tuple(f"c{i}x" for i in range(80))
    return DCHAGConfig(channels=names, out_channels=names, image=IMAGE, dropout=0.0, **LARGE)


def matmul_peak(*, dtype: torch.dtype, device: str, seconds: float = 1.5) -> float:
    """FLOP/s of the best square product on this rank."""
    best = 0.0
    for n in (4096, 8192) if device == "cuda" else (1024, 2048):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            synchronize(device)
            began = time.perf_counter()
            for _ in range(10 if device == "cuda" else 1):
                a @ b
            synchronize(device)
            took = (time.perf_counter() - began) / (10 if device == "cuda" else 1)
            best = max(best, 2.0 * n**3 / took)
    return best


def work(case: dict[str, Any]) -> dict[str, float]:
    """Median time of a step on this rank, and the peak of its products."""
    device, batch = case["device"], case["batch"]
    data, channel, trunk = LAYOUTS[case["layout"]]
    config = shape(case["model"], case["config"])
    mesh = build_mesh(channel=channel, device_type=device)
    bfloat16 = case["precision"] == "bfloat16"
    dist.barrier()
    peak = matmul_peak(dtype=torch.bfloat16 if bfloat16 else torch.float32, device=device)
    model = distribute(config, mesh=mesh, placement=Placement(trunk=trunk, data="ddp"), device=torch.device(device))
    if case["compile"]:
        model.compile()
    groups = [{"params": group} for group in parameter_groups(model)]
    optimiser = torch.optim.AdamW(groups, lr=1e-4, fused=device == "cuda")
    rows = [config.channels.index(name) for name in model.channels_held]
    x = torch.randn(batch // data, len(config.channels), *IMAGE)[:, rows].to(device)
    target = torch.randn(batch // data, len(config.out_channels), *IMAGE, device=device)
    lead, area = torch.full((len(x),), 168.0, device=device), torch.rand(IMAGE, device=device) + 0.5

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
            y = model(x, lead)
        weighted_mse(y, target, area_HW=area).backward()
        scale_gradients(model, 1.0 / max(1.0, gradient_norm(model, mesh=mesh).item()))
        optimiser.step()

    times = []
    for number in range(case["repeats"] + case["warmups"]):
        dist.barrier()
        synchronize(device)
        began = time.perf_counter()
        step()
        synchronize(device)
        dist.barrier()
        if number >= case["warmups"]:
            times.append(time.perf_counter() - began)
    return {"step_s": sorted(times)[len(times) // 2], "peak_flops": peak}


def flops_per_sample(config: DCHAGConfig, device: str) -> float:
    """Products of forward and backward of one sample on one rank."""
    model = DCHAG(config).to(device)
    x = torch.randn(1, len(config.channels), *IMAGE, device=device)
    with FlopCounterMode(display=False) as counter:
        y: Tensor = model(x, torch.tensor([168.0], device=device))
        y.sum().backward()
    return float(counter.get_total_flops())


def on_this_rank(case: dict[str, Any]) -> dict[str, float]:
    """Time and peak of one rank, and on rank 0 the operations of a sample."""
    measured = work(case)
    if dist.get_rank() == 0:
        measured["flops_per_sample"] = flops_per_sample(shape(case["model"], case["config"]), case["device"])
    return measured


def measure_case(case: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    data, channel, _ = LAYOUTS[case["layout"]]
    count = data * channel
    threads = max(1, case["threads"] // count)
    ranks = on_ranks(on_this_rank, case, ranks=count, device=case["device"], threads=threads)
    seconds, peak = max(r["step_s"] for r in ranks), sum(r["peak_flops"] for r in ranks)
    rate = case["batch"] * ranks[0]["flops_per_sample"] / seconds
    return {
        **{k: case[k] for k in ("model", "layout", "batch", "precision", "compile")},
        "step_s": round(seconds, 4),
        "samples_per_second": round(case["batch"] / seconds, 3),
        "model_GFLOP_per_sample": round(ranks[0]["flops_per_sample"] / 1e9, 3),
        "model_GFLOP_per_second": round(rate / 1e9, 1),
        "matmul_peak_GFLOP_per_second": round(peak / 1e9, 1),
        "share_of_peak": round(rate / peak, 3),
    }


def cases(given: argparse.Namespace) -> list[dict[str, Any]]:
    """What to measure."""
    common = {name: getattr(given, name) for name in ("device", "config", "threads", "repeats")}
    if given.device == "cuda":
        common |= {"layout": "1 rank", "precision": "bfloat16", "warmups": 5}
        batches = {"demo": 256, "108M": 64}
        return [common | {"model": m, "batch": batches[m], "compile": on} for m in MODELS for on in (False, True)]
    common |= {"precision": "float32", "compile": False, "warmups": 2}
    batches = {"demo": 16, "108M": 2}
    kept = [(m, name) for m in given.models for name in LAYOUTS if LAYOUTS[name][2] == "replicated" or m == "108M"]
    return [common | {"model": model, "layout": layout, "batch": batches[model]} for model, layout in kept]


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--config", default="workflows/config/demo.yaml")
    command.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    command.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all ranks together")
    command.add_argument("--repeats", type=int, default=5)
    given = command.parse_args()
    rows = []
    for case in cases(given):
        rows.append(measure_case(case))
        print(json.dumps(rows[-1]), flush=True)
    print(write(f"train_{given.device}", {"threads": given.threads, "image": IMAGE, "rows": rows}))


if __name__ == "__main__":
    main()
