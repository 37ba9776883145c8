"""Writes docs/paper.md from benchmarks/results/paper_*.json: claim, published, ours, why, how to run it again.

python benchmarks/support/paper_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.support.measure import RESULTS
from benchmarks.support.paper import results
from benchmarks.support.process import ROOT

PAGE = ROOT / "docs" / "paper.md"
TITLES = {
    "gains": "a. Throughput per GPU over tensor parallelism alone",
    "memory": "b. Memory of a GPU",
    "sizes": "c, d. Larger models",
    "cluster": "e. From 1 to 1,024 GPUs",
    "parity": "f. Parity: trained here",
    "pays": "Where D-CHAG across ranks still pays",
}
INTRODUCTION = """# The D-CHAG paper's figures, modelled
Written by benchmarks/support/paper_page.py from benchmarks/results; `make paper` models everything again
(minutes{trained}). **Nothing on this page was measured on a GPU.** The published numbers are those of Tsaris et al.
(SC25, arXiv 2506.21411), on Frontier; ours are modelled for the same GPUs, dies of an MI250X with 64 GB:

- Memory: the step of the rank that needs most memory is rehearsed with tensors without data, at the paper's widths with
  one and two trunk blocks, and extrapolated to all blocks (tests/benchmarks/test_modelled.py: within 1% of rehearsing
  all). {memory}
- Time: operations, bytes and collectives of the same rehearsal go through a roofline and models of rings and trees, at
  half of the peak in matrix products, 0.8 of the memory bandwidth, 50 GB/s between dies of a node and 12.5 GB/s per die
  between nodes. {time}
- Batch: as many samples as fit into 90% of 64 GB, at most 64 per group of channel ranks, unless stated otherwise; gains
  are also given at the largest batch of TP alone. bfloat16 autocast, parameters and AdamW states in float32.
- Model, width x depth: {sizes}; 512 patches, all channels read and predicted, prediction head with two hidden layers,
  attention heads of 128 features.
- "TP alone" is tensor parallelism without D-CHAG (benchmarks/support/tensor_alone.py): every rank tokenises all
  channels; the cross-attention over channels and the trunk are split by heads. On two ranks it equals the flat network
  to 1e-10 (tests/benchmarks/test_tensor_alone.py). The published implementation forms the tokens: its counterpart is
  `channel_stage: reference`; *fused* is ours.
- The model leaves out slower kernels at small sizes, overlap of tensor-parallel sums with compute, RCCL's memory,
  fragmentation, reading data, and how the published code computes its cross-attention.
"""


def page() -> str:
    """The whole page."""
    from benchmarks.support.scale import SIZES

    sizes = ", ".join(f"{name} {width} x {depth}" for name, (width, depth) in SIZES.items())
    there = (RESULTS / "paper_parity.json").exists()
    trained = "; part f is trained by its own command, in an hour or two" if there else ""
    parts = [INTRODUCTION.format(memory=_memory(), time=_time(), sizes=sizes, trained=trained)]
    for name, title in TITLES.items():
        if not (RESULTS / f"paper_{name}.json").exists():
            continue
        content = results(name)
        origin = content["origin"].split(",")[0]
        lines = [f"| claim | published | ours, {origin} | why |", "|---|---|---|---|"]
        lines += ["| {claim} | {published} | {ours} | {why} |".format(**each) for each in content["points"]]
        parts.append(
            f"## {title}\n{TEXTS[name]}\n\n![{title}](images/paper/{name}.png)\n\n" + "\n".join(lines)
            + f"\n\n{origin.capitalize()} {content['date'][:10]} by `python benchmarks/paper/{name}.py`.\n"
        )  # fmt: skip
    return "\n".join(parts)


TEXTS = {
    "gains": "1.7B parameters. Yellow: published; dots: at the batch of TP alone; gray and blue: the paper's methods; "
    "green: with the fused stage.",
    "memory": "1.7B parameters, 1,024 channels, at the largest batch of TP alone. Yellow: the published saving.",
    "sizes": "256 channels; then 26B parameters with one sample and up to 4,096 channels.",
    "cluster": "1.7B parameters, 512 channels: channel ranks (with the trunk cut over them) times data ranks.",
    "parity": "The demo's planet and recipe with width 256 and 300 steps: flat, and D-CHAG with two and four groups, "
    "one per rank. Changes relative to flat, with paired 95% intervals over seeds and blocks of init times. "
    "The loss jumps where roll-outs get longer. Forecasts are calibrated, so at 30 days all are close to the "
    "climatology and can hardly differ. In MSE and RMSE every change is within 1%, as published; the ACC of z500 at 14 "
    "days is higher with two groups, from a small value.",
    "pays": "D-CHAG over the flat stage on every rank: both fused, with a tensor-parallel trunk and the same batch. "
    "C/L: cross-attention units, linear units.",
}


def _memory() -> str:
    path = RESULTS / "memory_cpu.json"
    content: dict[str, Any] = json.loads(path.read_text())
    if "largest_departure" not in content:
        return "docs/scaling.md compares rehearsed with measured memory."
    return (
        f"Rehearsed and measured peaks of tensors differ by at most {content['largest_departure']:.2%} over "
        f"{len(content['rows'])} layouts on this project's processor (benchmarks/memory.py)."
    )


def _time() -> str:
    path = RESULTS / "step_time_cpu.json"
    if not path.exists():
        return "The same model has not been compared with measured steps here."
    content: dict[str, Any] = json.loads(path.read_text())
    return (
        f"With measured efficiencies the same model predicts steps on a processor with a median error of "
        f"{content['median_error']:.0%}, at worst {content['worst_error']:.0%}, over {content['settings']} settings; "
        "that says nothing about the assumed efficiencies of a GPU."
    )


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
