"""Training throughput: samples per second, model FLOP/s, and their share of a matrix product measured in the same run.

Whole steps (forward, backward, clipping over the mesh, AdamW) of the demo's model and of the 108M-parameter one
(width 1024, depth 8, 80 channels of 32 x 64 cells), on 1 rank and on 2. Model FLOP are those that one rank carries
out for a sample, counted by torch (products only) and without recomputation; work that two channel ranks do twice
counts once. The peak is the best of square products in the type of the training, on all ranks at once.

    python benchmarks/train.py                    # on this processor, some minutes
    python benchmarks/train.py --device cuda      # bfloat16, with and without torch.compile, one GPU
"""

from __future__ import annotations

import argparse
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
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.support.measure import write
from model.dchag import DCHAG, DCHAGConfig
from model.parallel.mesh import build_mesh
from model.parallel.wrap import Layout, distribute, gradient_norm, parameter_groups, scale_gradients
from model.weather.architecture import model_config
from model.weather.loss import weighted_mse
from pipeline.config import load

IMAGE = (32, 64)
MODELS = ("demo", "108M")
LAYOUTS: dict[str, tuple[int, int, str]] = {  # data ranks, channel ranks, trunk
    "1 rank": (1, 1, "replicated"), "2 data": (2, 1, "replicated"), "2 channel": (1, 2, "replicated"),
    "2 channel, tensor trunk": (1, 2, "tensor"),
}  # fmt: skip


def shape(name: str, demo: str) -> DCHAGConfig:
    """The demo's model, or the 108M one."""
    if name == "demo":
        config = load(demo)
        channels = [c.name for c in config.data.channels.dynamic]
        static = [c.name for c in config.data.channels.static]
        return model_config(config.model, channels=channels, static_channels=static, image=IMAGE)
    names = tuple(f"c{i}x" for i in range(80))
    return DCHAGConfig(
        channels=names, out_channels=names, image=IMAGE, patch=2, width=1024, depth=8, heads=16, groups=8,
        tree="Tree0", unit="L", dropout=0.0,
    )  # fmt: skip


def matmul_peak(*, dtype: torch.dtype, device: str, seconds: float = 1.5) -> float:
    """FLOP/s of the best square product on this rank."""
    best = 0.0
    for n in (4096, 8192) if device == "cuda" else (1024, 2048):
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        a @ b
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            _wait(device)
            began = time.perf_counter()
            for _ in range(10 if device == "cuda" else 1):
                a @ b
            _wait(device)
            took = (time.perf_counter() - began) / (10 if device == "cuda" else 1)
            best = max(best, 2.0 * n**3 / took)
    return best


def work(case: dict[str, Any]) -> dict[str, float]:
    """This rank's figures."""
    device, batch = case["device"], case["batch"]
    data, channel, trunk = LAYOUTS[case["layout"]]
    config = shape(case["model"], case["config"])
    mesh = build_mesh(channel=channel, device_type=device)
    bfloat16 = case["precision"] == "bfloat16"
    dist.barrier()
    peak = matmul_peak(dtype=torch.bfloat16 if bfloat16 else torch.float32, device=device)
    model = distribute(config, mesh=mesh, layout=Layout(trunk=trunk, data="ddp"), device=torch.device(device))
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
        _wait(device)
        began = time.perf_counter()
        step()
        _wait(device)
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


def rank_main(rank: int, case: dict[str, Any], folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(max(1, case["threads"] // case["ranks"]))
    dist.init_process_group(
        "nccl" if case["device"] == "cuda" else "gloo", init_method=f"file://{folder}/rendezvous", rank=rank,
        world_size=case["ranks"], timeout=timedelta(minutes=20),
    )  # fmt: skip
    try:
        found = work(case)
        if rank == 0:
            found["flops_per_sample"] = flops_per_sample(shape(case["model"], case["config"]), case["device"])
        Path(folder, f"{rank}.json").write_text(json.dumps(found))
    finally:
        dist.destroy_process_group()


def measure_case(case: dict[str, Any]) -> dict[str, Any]:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(rank_main, (case, folder), nprocs=case["ranks"])
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(case["ranks"])]
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


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """What to measure."""
    common = {"device": options.device, "config": options.config, "threads": options.threads,
              "repeats": options.repeats, "warmups": 2}  # fmt: skip
    if options.device == "cuda":
        batches = {"demo": 256, "108M": 64}
        return [
            {**common, "model": m, "layout": "1 rank", "ranks": 1, "batch": batches[m], "precision": "bfloat16",
             "compile": on, "warmups": 5}
            for m in MODELS for on in (False, True)
        ]  # fmt: skip
    batches = {"demo": 16, "108M": 2}
    return [
        {**common, "model": m, "layout": name, "ranks": data * channel, "batch": batches[m], "precision": "float32",
         "compile": False}
        for m in options.models for name, (data, channel, trunk) in LAYOUTS.items()
        if trunk == "replicated" or m == "108M"
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--config", default="workflows/config/demo.yaml")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of all ranks together")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for case in cases(options):
        rows.append(measure_case(case))
        print(json.dumps(rows[-1]), flush=True)
    print(write(f"train_{options.device}", {"threads": options.threads, "image": IMAGE, "rows": rows}))


if __name__ == "__main__":
    main()
