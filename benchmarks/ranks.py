"""D-CHAG against tensor parallelism alone: memory by kind and time of a training step, per rank, on gloo ranks.

Tensor parallelism alone is the published baseline: every rank reads and tokenises every channel, one
cross-attention over all of them and the trunk are cut by heads. D-CHAG ranks read and tokenise their channels only;
their trunk is cut in the same way.

    python benchmarks/ranks.py                    # 2 and 4 ranks, 512 channels, some minutes
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
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from benchmarks.support.measure import MB, peak_bytes, reset_peak, resident_bytes, write
from model.dchag import DCHAG, DCHAGConfig
from model.parallel.mesh import CHANNEL, build_mesh
from model.parallel.wrap import Layout, cut, distribute, parameter_groups, plan_for
from model.weather.loss import weighted_mse

WIDTH, DEPTH, HEADS, PATCH, IMAGE = 512, 4, 8, 2, (32, 64)
VARIANTS: dict[str, dict[str, Any]] = {
    "TP only": {"groups": 4, "tree": "none", "channel_stage": "reference"},
    "D-CHAG-C reference": {"groups": 4, "unit": "C", "channel_stage": "reference"},
    "D-CHAG-C fused": {"groups": 4, "unit": "C", "channel_stage": "fused"},
    "D-CHAG-L reference": {"groups": 4, "unit": "L", "channel_stage": "reference"},
    "D-CHAG-L fused": {"groups": 4, "unit": "L", "channel_stage": "fused"},
}


class CutCrossAttention(nn.Module):
    """One learned query over all channels' tokens, heads cut over ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens_1CND: Tensor, rows: object) -> Tensor:  # noqa: ARG002
        _, C, N, _ = tokens_1CND.shape
        tokens = tokens_1CND.view(C, N, WIDTH)
        width = WIDTH // HEADS
        k, v = (layer(tokens).view(C, N, -1, width).permute(1, 2, 0, 3) for layer in (self.k, self.v))
        q = self.q(self.query).view(1, -1, 1, width).expand(N, -1, 1, width)
        out = nn.functional.scaled_dot_product_attention(q, k, v).reshape(1, N, -1)
        return self.out(out)


def build(variant: str, channels: int) -> DCHAG:
    names = tuple(f"c{i}x" for i in range(channels))
    config = DCHAGConfig(
        channels=names, out_channels=names[:8], image=IMAGE, patch=PATCH, width=WIDTH, depth=DEPTH, heads=HEADS,
        dropout=0.0, **VARIANTS[variant],
    )  # fmt: skip
    mesh = build_mesh(channel=dist.get_world_size())
    layout = Layout(trunk="tensor", data="ddp")
    if variant != "TP only":
        return distribute(config, mesh=mesh, layout=layout)
    model = DCHAG(config)
    cut(model, plan=plan_for(config, ranks=dist.get_world_size()), mesh=mesh, layout=layout)
    model.gather = lambda tokens: tokens  # every rank has every channel
    heads = {"q": ColwiseParallel(), "k": ColwiseParallel(), "v": ColwiseParallel(), "out": RowwiseParallel()}
    model.merge = parallelize_module(CutCrossAttention(), mesh[CHANNEL], heads)  # type: ignore[assignment]
    return model


def local_bytes(tensors: list[Tensor]) -> float:
    return sum((t.to_local() if isinstance(t, DTensor) else t).nbytes for t in tensors) / MB


def work(variant: str, channels: int, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    before = resident_bytes()
    model = build(variant, channels)
    optimizer = torch.optim.AdamW([{"params": group} for group in parameter_groups(model)], lr=1e-4)
    rows = [model.config.channels.index(name) for name in model.channels_held]
    x = torch.randn(1, channels, *IMAGE)[:, rows].clone()
    target, area = torch.randn(1, 8, *IMAGE), torch.rand(IMAGE) + 0.5
    times = []
    for step in range(repeats + 1):
        if step == 1:
            reset_peak(False)
        dist.barrier()
        start = time.perf_counter()
        optimizer.zero_grad()
        weighted_mse(model(x, torch.tensor([168.0])), target, area_HW=area).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    parameters = list(model.parameters())
    state = [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]
    found = {
        "step_s": min(times[1:]),
        "parameters_MB": local_bytes(parameters),
        "gradients_MB": local_bytes([p.grad for p in parameters if p.grad is not None]),
        "optimizer_MB": local_bytes(state),
        "peak_MB": (peak_bytes() - before) / MB,
    }
    found["activations_MB"] = found["peak_MB"] - sum(
        found[k] for k in ("parameters_MB", "gradients_MB", "optimizer_MB")
    )
    return {name: round(value, 3) for name, value in found.items()}


def rank_main(rank: int, world: int, variant: str, channels: int, repeats: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world, timeout=timedelta(minutes=20)
    )
    try:
        Path(folder, f"{rank}.json").write_text(json.dumps(work(variant, channels, repeats)))
    finally:
        dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    for world in arguments.ranks:
        for variant in VARIANTS:
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(rank_main, (world, variant, arguments.channels, arguments.repeats, folder), nprocs=world)
                ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(world)]
            row = {"ranks": world, "variant": variant, **{key: max(r[key] for r in ranks) for key in ranks[0]}}
            row["peak_over_tp"] = round(
                row["peak_MB"] / (rows[-1]["tp_peak"] if variant != "TP only" else row["peak_MB"]), 3
            )
            row["tp_peak"] = row["peak_MB"] if variant == "TP only" else rows[-1]["tp_peak"]
            rows.append(row)
            print(json.dumps(row), flush=True)
    for row in rows:
        del row["tp_peak"]
    about = {
        "what": "worst rank of a training step, float32, one thread a rank", "batch": 1, "width": WIDTH,
        "depth": DEPTH, "heads": HEADS, "image": IMAGE, "channels": arguments.channels,
    }  # fmt: skip
    name = "ranks_cpu" if arguments.channels == 512 else f"ranks_cpu_{arguments.channels}"
    print(write(name, {**about, "rows": rows}))


if __name__ == "__main__":
    main()
