"""A whole training step, forward, backward and AdamW, of the 108M-parameter model: fused against the baselines.

Claim: width 1024, depth 8, one sample of 32 x 64 cells, float32, 2 cores: the fused form is at least 2.7 times faster
than the usual loop over channels at 80 channels and 11 times at 512, and 512 channels cost at most 1.25 times
what 80 cost.

The baselines: `reference`, our unfused form; `loop`, per-channel convolutions and nn.MultiheadAttention before the
same trunk; `climate-learn`, its vision transformer of the same size, which mixes all channels in one convolution and
so has no channel stage: a lower bound, not a competitor.

    python benchmarks/step.py                     # on this processor, some minutes
    python benchmarks/step.py --device cuda       # bfloat16, up to 1024 channels, share of peak
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.climatelearn import import_climate_learn
from benchmarks.support.loop import LoopStage
from benchmarks.support.measure import compare, measure, write
from benchmarks.support.process import in_fresh_process, options, parser
from model.dchag import DCHAG, DCHAGConfig
from model.network.head import unpatchify
from model.weather.loss import weighted_mse

WIDTH, DEPTH, HEADS, PATCH, IMAGE = 1024, 8, 16, 2, (32, 64)
SIZES: dict[str, Any] = {"image": IMAGE, "patch": PATCH, "width": WIDTH, "depth": DEPTH, "heads": HEADS}
PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12}
"""Dense bfloat16 peak by the manufacturer's data sheets [FLOP/s]."""
FORMS = (
    ("fused", "all", "C"),
    ("reference", "all", "C"),
    ("loop", "all", "C"),
    ("climate-learn", "all", "C"),
    ("fused", 8, "C"),
    ("fused", 8, "L"),
)
"""Form, groups, unit; the first is what the others are compared with."""


class LoopModel(nn.Module):
    """The usual channel stage before our trunk and head."""

    def __init__(self, config: DCHAGConfig) -> None:
        super().__init__()
        channels = len(config.channels)
        self.stage = LoopStage(channels=channels, patch=config.patch, width=config.width, heads=config.heads)
        one = DCHAG(DCHAGConfig.from_dict(config.to_dict() | {"channels": config.channels[:1]}))
        self.position, self.lead, self.drop = one.position, one.lead, one.drop
        self.trunk, self.head = one.trunk, one.head
        self.patch, self.grid = config.patch, one.grid

    def forward(self, x_BCHW: Tensor, lead_hours_B: Tensor) -> Tensor:
        lead = self.lead(lead_hours_B[:, None] / 100)
        tokens = self.drop(self.stage(x_BCHW) + self.position + lead[:, None])
        return unpatchify(self.head(self.trunk(tokens)), patch=self.patch, grid=self.grid)


class ClimateLearn(nn.Module):
    """climate-learn's vision transformer of the same size; it knows no lead time."""

    def __init__(self, config: DCHAGConfig) -> None:
        super().__init__()
        import_climate_learn()
        from climate_learn.models.hub.vit import VisionTransformer

        sizes: dict[str, Any] = {"embed_dim": config.width, "depth": config.depth, "num_heads": config.heads}
        sizes |= {"patch_size": config.patch, "decoder_depth": config.decoder_depth, "learn_pos_emb": True}
        self.model = VisionTransformer(config.image, len(config.channels), len(config.out_channels), 1, **sizes)

    def forward(self, x_BCHW: Tensor, lead_hours_B: Tensor) -> Tensor:  # noqa: ARG002
        return self.model(x_BCHW)


def build(case: dict[str, Any]) -> nn.Module:
    names = tuple(f"c{i}x" for i in range(case["channels"]))
    form = case["form"] if case["form"] in ("fused", "reference") else "fused"
    stage = {"channel_stage": form, "groups": case["groups"], "unit": case["unit"]}
    config = DCHAGConfig(channels=names, out_channels=names, **SIZES, **stage)
    if case["form"] == "loop":
        return LoopModel(config)
    return ClimateLearn(config) if case["form"] == "climate-learn" else DCHAG(config)


def one(case: dict[str, Any]) -> dict[str, float]:
    """One variant."""
    device, batch = case["device"], case["batch"]
    model = build(case).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x = torch.randn(batch, case["channels"], *IMAGE, device=device)
    target = torch.randn_like(x)
    lead = torch.full((batch,), 168.0, device=device)
    area = torch.rand(IMAGE, device=device) + 0.5

    def work() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=case["bfloat16"]):
            y = model(x, lead)
        weighted_mse(y, target, area_HW=area).backward()
        optimizer.step()

    row = measure(work, repeats=case["repeats"], device=device)
    row["parameters_M"] = round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1)
    flops = useful_flops(case)
    row["useful_TFLOP"] = round(flops / 1e12, 4)
    if device == "cuda" and torch.cuda.get_device_name() in PEAK_FLOPS:
        row["share_of_peak"] = round(flops / row["wall_s"] / PEAK_FLOPS[torch.cuda.get_device_name()], 3)
    return row


def useful_flops(case: dict[str, Any]) -> float:
    """Operations of the fused form, forward and backward, whichever form is measured [FLOP]."""
    patches = case["batch"] * IMAGE[0] * IMAGE[1] // PATCH**2
    tokens = IMAGE[0] * IMAGE[1] // PATCH**2
    trunk = DEPTH * (12 * WIDTH**2 + 2 * tokens * WIDTH) * patches
    head = (2 * WIDTH**2 + WIDTH * PATCH**2 * case["channels"]) * patches
    pixels = case["channels"] * (PATCH**2 + 1)
    stage = pixels * WIDTH * (patches + WIDTH) + WIDTH**2 * patches
    return 3 * 2.0 * (trunk + head + stage)


def table(device: str, repeats: int) -> list[dict[str, Any]]:
    cuda = device == "cuda"
    common = {"batch": 8 if cuda else 1, "device": device, "bfloat16": cuda}
    rows = []
    for channels in (80, 512, 1024) if cuda else (80, 512):
        forms = []
        for form, groups, unit in FORMS:
            times = max(1, repeats // 2) if form in ("reference", "loop") else repeats
            case = {"form": form, "channels": channels, "groups": groups, "unit": unit, "repeats": times, **common}
            forms.append(in_fresh_process(__file__, case))
            print(json.dumps(forms[-1]), flush=True)
        rows += compare(forms, digits=2)
    return rows


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    command.add_argument("--repeats", type=int, default=4)
    given = options(command, one)
    rows = table(given.device, given.repeats)
    flat = {row["channels"]: row.get("wall_s") for row in rows if row["form"] == "fused" and row["groups"] == "all"}
    most = {f"{c}_channels_over_80": round(s / flat[80], 2) for c, s in flat.items() if c != 80 and s and flat[80]}
    about = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "image": IMAGE, "patch": PATCH, "what": "training step"}
    print(write(f"step_{given.device}", {**about, "fused_step": most, "rows": rows}))


if __name__ == "__main__":
    main()
