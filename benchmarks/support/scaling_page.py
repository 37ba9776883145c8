"""Writes docs/scaling.md from the files in benchmarks/results, so that every figure of the page was measured.

python benchmarks/support/scaling_page.py
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipeline.words import counted

RESULTS = Path(__file__).resolve().parent.parent / "results"
PAGE = RESULTS.parent.parent / "docs" / "scaling.md"

Columns = dict[str, tuple[str, str]]
CHANNEL_STAGE: Columns = {
    "setting": ("setting", ""), "channels": ("channels", ""), "batch": ("batch", ""), "form": ("form", ""),
    "wall_s": ("time [s]", ".3g"), "tensors_MB": ("tensors [MB]", ".0f"), "memory_MB": ("process [MB]", ".0f"),
    "wall_over_fused": ("time / fused", ".1f"), "tensors_over_fused": ("tensors / fused", ".1f"),
}  # fmt: skip
STEP: Columns = {
    "form": ("form", ""), "groups": ("groups", ""), "unit": ("unit", ""), "channels": ("channels", ""),
    "wall_s": ("step [s]", ".2f"), "memory_MB": ("process [MB]", ".0f"),
    "wall_over_fused": ("time / fused", ".2f"), "memory_over_fused": ("process / fused", ".2f"),
}  # fmt: skip
RANKS: Columns = {
    "ranks": ("ranks", ""), "variant": ("variant", ""), "step_s": ("step [s]", ".2f"),
    "parameters_MB": ("parameters [MB]", ".0f"), "gradients_MB": ("gradients [MB]", ".0f"),
    "optimizer_MB": ("optimizer [MB]", ".0f"), "activations_MB": ("activations [MB]", ".0f"),
    "peak_MB": ("peak [MB]", ".0f"), "peak_over_tp": ("peak / TP only", ".2f"),
}  # fmt: skip
TRAIN: Columns = {
    "model": ("model", ""), "layout": ("layout", ""), "batch": ("batch", ""), "precision": ("precision", ""),
    "compile": ("compiled", ""), "step_s": ("step [s]", ".3g"), "samples_per_second": ("samples/s", ".3g"),
    "model_GFLOP_per_second": ("GFLOP/s", ".0f"), "matmul_peak_GFLOP_per_second": ("GFLOP/s of one product", ".0f"),
    "share_of_peak": ("share", ".2f"),
}  # fmt: skip
MEMORY: Columns = {
    "case": ("case", ""), "ranks": ("ranks", ""), "planned_MB": ("planned [MB]", ".1f"),
    "tensors_MB": ("measured, tensors [MB]", ".1f"), "planned_over_tensors": ("planned / measured", ".4f"),
    "planning_s": ("planning [s]", ".0f"),
}  # fmt: skip
STEP_TIME: Columns = {
    "network": ("network", ""), "ranks": ("ranks", ""), "layout": ("layout", ""),
    "measured_s": ("measured [s]", ".3f"), "predicted_s": ("predicted [s]", ".3f"), "error": ("error", "+.0%"),
}  # fmt: skip
LOADER: Columns = {"loader": ("loader", ""), "threads": ("threads", ""), "samples_per_second": ("samples/s", ".0f")}
STAGE_TEXT = "Forward and backward, width 1024, 512 patches."
STEP_TEXT = "Width 1024, depth 8, 108M parameters at 80 channels."
RANKS_TEXT = "{channels} channels, width {width}, depth {depth}; worst rank."
TRAIN_TEXT = "GFLOP/s count the model's matrix products only, without recomputation; 80 channels of 32 x 64 cells."
MEMORY_TEXT = "`plan --stage train` against {what}."
STEP_TIME_TEXT = (
    "`model.costs` against {what}; patches of 4 cells, batch 4. Over {settings} settings the median error is "
    "{median_error:.0%}, the worst {worst_error:.0%}; in {pairs_right:.0%} of {pairs} pairs of layouts of the same "
    "network the faster one was predicted (goals: 10%, 25% and 90%). {by_ranks}. The model does not include waiting "
    "for a rank that happens to be slower.\n\n"
    "![Predicted against measured step times](images/step_time.png)"
)
LOADER_TEXT = (
    "Shuffled samples of the demo's store, batches of {batch}. `floor` is zarr only decompressing the same bytes; "
    "`store` is our loader reading from the store, `memory` our loader after the store has been read into memory."
)
READING: Columns = {
    "data": ("data ranks", ""),
    "channel": ("channel ranks", ""),
    "held": ("held in memory", ""),
    "a_rank_over_one_rank": ("per rank / one rank alone", ".3f"),
    "all_over_one_rank": ("all ranks / one rank alone", ".3f"),
}
READING_TEXT = (
    "Bytes that a rank requests from files until it has its data and {steps} batches, as counted by the kernel; the "
    "demo's store, eight groups. A channel rank reads its own channels, rounded up to chunks of 16, so eight ranks of "
    "ten channels read more than an eighth each; with hundreds of channels this hardly matters. A data rank that holds "
    "the store in memory reads all of it; if memory is too small it reads only its own samples, and all data ranks "
    "together read little more than one rank alone."
)
INTRODUCTION = """# Measured: time and memory
Written by benchmarks/support/scaling_page.py from benchmarks/results; `make bench` measures again. Implementations of
the same function are compared in one run, each in a fresh process, by their minimum time over several repeats.
*process* is the peak memory of the whole process above its start, including what libraries keep; *tensors* is the peak
of torch's own allocations in one call. */ fused*: relative to the fused form.
"""


def read(name: str) -> dict[str, Any] | None:
    """A result, if there is one."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def where(content: dict[str, Any]) -> str:
    """When and on which machine it was measured."""
    machine = content["hardware"]
    device = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores"
    return f"Measured {content['date'][:10]} on {device}, torch {machine['torch']}."


def table(rows: list[dict[str, Any]], columns: Columns) -> str:
    """A Markdown table of those columns that the rows have."""
    used = {key: value for key, value in columns.items() if any(key in row for row in rows)}
    lines = ["| " + " | ".join(title for title, _ in used.values()) + " |", "|" + "---|" * len(used)]
    for row in rows:
        cells = [format(row[key], spec) if key in row else "" for key, (_, spec) in used.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(content: dict[str, Any]) -> str:
    """The comparison of training runs."""
    lines = [
        "| channel stage | largest relative change of loss, 1 to 2 ranks | skill at 7 days, mean and std over seeds |"
    ]
    lines.append("|---|---|---|")
    for setting, apart in content["two_ranks_against_one"].items():
        skill = content["final_skill_7_days"][setting]["all"]
        first = apart["largest_relative_difference_of_loss_first_10_steps"]
        lines.append(
            f"| {setting} | {first:.1e} in 10 steps, {apart['largest_relative_difference_of_loss']:.1e} in "
            f"{content['steps']} | {skill['mean']:.4f} +- {skill['std']:.4f} ({len(skill['seeds'])} seeds) |"
        )
    ratio = content["final_skill_7_days"]["range of means over seed std, all"]
    lines.append(f"\nThe three means differ by at most {ratio:.1f} standard deviations over seeds.")
    return "\n".join(lines)


def by_ranks(rows: list[dict[str, Any]]) -> str:
    """Errors of predicted step times, for each number of ranks."""
    found = []
    for ranks in sorted({row["ranks"] for row in rows}):
        errors = [row["error"] for row in rows if row["ranks"] == ranks]
        sizes = [abs(error) for error in errors]
        found.append(
            f"{counted(ranks, 'rank')}: median {statistics.median(sizes):.0%}, worst {max(sizes):.0%}, "
            f"median signed error {statistics.median(errors):+.0%}"
        )
    return "; ".join(found)


def loader(content: dict[str, Any]) -> str:
    """The fastest run of each loader, and the ratios."""
    best: dict[str, dict[str, Any]] = {}
    for row in content["rows"]:
        if row["samples_per_second"] > best.get(row["loader"], {"samples_per_second": 0})["samples_per_second"]:
            best[row["loader"]] = row
    ratios = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in content["ratios"].items())
    return f"{table(list(best.values()), LOADER)}\n\nRatios: {ratios}."


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for name, title, text, columns in (
        ("channel_stage_{}", "The channel stage alone", STAGE_TEXT, CHANNEL_STAGE),
        ("step_{}", "A whole training step", STEP_TEXT, STEP),
        ("ranks_{}", "Across ranks: D-CHAG against tensor parallelism alone", RANKS_TEXT, RANKS),
        ("train_{}", "Training throughput", TRAIN_TEXT, TRAIN),
        ("memory_{}", "The memory planner", MEMORY_TEXT, MEMORY),
        ("step_time_{}", "Predicted step times", STEP_TIME_TEXT, STEP_TIME),
    ):
        for device in ("cpu", "cuda"):
            content = read(name.format(device))
            if content:
                content["by_ranks"] = by_ranks(content["rows"]) if name == "step_time_{}" else ""
                kind = "bfloat16 on a GPU" if device == "cuda" else "float32 on a processor"
                about = f"{text.format(**content)} {where(content)}"
                parts.append(f"## {title}, {kind}\n{about}\n\n{table(content['rows'], columns)}\n")
    content = read("loader")
    if content:
        parts.append(f"## The loader\n{LOADER_TEXT.format(**content)} {where(content)}\n\n{loader(content)}\n")
    content = read("reading")
    if content:
        about = READING_TEXT.format(**content)
        parts.append(f"## What ranks read\n{about} {where(content)}\n\n{table(content['rows'], READING)}\n")
    content = read("training_curves")
    if content:
        parts.append(
            "## Training with three channel stages\nThe demo's recipe at the time (patches of 4 cells), shortened; "
            f"only the channel stage differs. {where(content)}\n\n![Loss of three channel stages on one and two ranks]"
            f"(images/channel_settings.png)\n\n{curves(content)}\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
