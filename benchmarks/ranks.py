"""D-CHAG against tensor parallelism alone: memory by kind and time of a training step, per rank, on gloo ranks.

Tensor parallelism alone is the published baseline: every rank reads and tokenises every channel, one
cross-attention over all of them and the trunk are cut by heads. D-CHAG ranks read and tokenise their channels only;
their trunk is cut in the same way.

    python benchmarks/ranks.py                    # 2 and 4 ranks, 512 channels, some minutes
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.measure import MB, reset_peak, resident_bytes, write
from benchmarks.support.process import parser, peak_bytes
from benchmarks.support.ranks import on_ranks, worst
from model.dchag import DCHAG, DCHAGConfig
from model.parallel.mesh import CHANNEL, build_mesh
from model.parallel.wrap import Placement, cut, distribute, parameter_groups, plan_for
from model.weather.loss import weighted_mse

WIDTH, DEPTH, HEADS, IMAGE = 512, 4, 8, (32, 64)
SIZES: dict[str, Any] = {"image": IMAGE, "patch": 2, "width": WIDTH, "depth": DEPTH, "heads": HEADS, "dropout": 0.0}
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
    config = DCHAGConfig(channels=names, out_channels=names[:8], **SIZES, **VARIANTS[variant])
    mesh = build_mesh(channel=dist.get_world_size())
    layout = Placement(trunk="tensor", data="ddp")
    if variant != "TP only":
        return distribute(config, mesh=mesh, placement=layout)
    model = DCHAG(config)
    cut(model, plan=plan_for(config, ranks=dist.get_world_size()), mesh=mesh, placement=layout)
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
    held = {
        "parameters_MB": local_bytes(parameters),
        "gradients_MB": local_bytes([p.grad for p in parameters if p.grad is not None]),
        "optimizer_MB": local_bytes(state),
    }
    peak = (peak_bytes() - before) / MB
    measured = {"step_s": min(times[1:]), **held, "peak_MB": peak, "activations_MB": peak - sum(held.values())}
    return {name: round(value, 3) for name, value in measured.items()}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    command.add_argument("--channels", type=int, default=512)
    command.add_argument("--repeats", type=int, default=2)
    given = command.parse_args()
    rows = []
    for world in given.ranks:
        baseline = None
        for variant in VARIANTS:
            measured = worst(on_ranks(work, variant, given.channels, given.repeats, ranks=world))
            baseline = baseline or measured["peak_MB"]  # of the first variant, TP only
            over = round(measured["peak_MB"] / baseline, 3)
            rows.append({"ranks": world, "variant": variant, **measured, "peak_over_tp": over})
            print(json.dumps(rows[-1]), flush=True)
    what = "worst rank of a training step, float32, one thread per rank"
    sizes = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "image": IMAGE, "channels": given.channels}
    name = "ranks_cpu" if given.channels == 512 else f"ranks_cpu_{given.channels}"
    print(write(name, {"what": what, "batch": 1, **sizes, "rows": rows}))


if __name__ == "__main__":
    main()
