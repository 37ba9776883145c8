"""Masked autoencoding at 500 bands: time and memory of a step, memory and loss on channel ranks, the loader.

Claims: a training step with the fused stage takes less time than with the reference stage or a loop over bands, and
where many patches are read at once less memory; a rank of the channel axis holds its part of tokeniser, targets and
output layer; the losses of the first steps on 1, 2 and 4 channel ranks agree to 1e-10 in float64; tiles straight from
the store come at 0.8 of the rate at which the same bytes are decompressed; the training of plants.yaml on two channel
ranks follows that on one within what another seed changes. Without --part all are measured.

    python benchmarks/hyperspectral.py --part step        # no data needed; some minutes on a processor
    python benchmarks/hyperspectral.py --part ranks       # no data needed
    python benchmarks/hyperspectral.py --part loader      # needs the store: run plants.yaml first
    python benchmarks/hyperspectral.py --part curves      # the same; three trainings, which may share the machine
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.support.loop import LoopStage
from benchmarks.support.measure import MB, compare, measure, tensor_peak, write
from benchmarks.support.process import ROOT, in_fresh_process, options, parser
from benchmarks.support.ranks import on_ranks
from benchmarks.support.training import train
from model.imaging.task import Autoencoding, open_images
from model.imaging.training_data import Reflectance
from model.parallel.launch import process_group
from model.parallel.mesh import CHANNEL, axis_size, build_mesh, channel_rank
from model.parallel.wrap import plan_for
from model.training.rehearsal import Rehearsal
from model.training.step import training_step
from pipeline.config import load
from pipeline.imaging.config import ImagingConfig

PLANTS = ROOT / "workflows" / "config" / "plants.yaml"
FORMS = {
    "fused": ["model.unit=C"],
    "reference": ["model.unit=C", "model.channel_stage=reference"],
    "loop": ["model.unit=C", "model.groups.by=flat"],
    "fused, linear units": ["model.unit=L"],
}
FLOAT32 = ["training.precision=float32", "training.layout={}"]
STEPS = 10


def plants(settings: list[str]) -> ImagingConfig:
    config = load(PLANTS, settings)
    assert isinstance(config, ImagingConfig)
    return config


def one(case: dict[str, Any]) -> dict[str, float]:
    """A training step with one form of the channel stage."""
    seen = ["masking.bands=null"]  # all bands, which the loop knows no way around
    config = plants([*FLOAT32, *FORMS[case["form"]], *seen, f"training.batch_size={case['batch']}"])
    task = Autoencoding.planned(config)
    with process_group(world_size=1) as device:
        rank = Rehearsal(task, config.training, mesh=build_mesh(), device=device)
        if case["form"] == "loop":
            take_loop(rank, config)
        return measure(rank.step, repeats=2)


def take_loop(rank: Rehearsal[Any], config: ImagingConfig) -> None:
    """Let the usual loop over bands stand in for the channel stage, reading the visible patches alone."""
    network, model = rank.learner.network, config.model
    names = len(rank.channels)
    loop = LoopStage(channels=names, patch=model.patch, width=model.width, heads=model.heads)

    def aggregate(x_BCHW: Tensor, _present: object, patches_BM: Tensor) -> Tensor:
        B, C, H, W = x_BCHW.shape
        p = model.patch
        patches = x_BCHW.view(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
        read = patches[torch.arange(B)[:, None], patches_BM]  # (B, M, C, p, p)
        return loop(read.flatten(0, 1)).view(1, -1, model.width)

    network._aggregate = aggregate  # type: ignore[assignment]


def step_table(batches: list[int]) -> list[dict[str, Any]]:
    """Every form with every number of tiles, each relative to the fused one with as many."""
    found: list[dict[str, Any]] = []
    for batch in batches:
        rows = [in_fresh_process(__file__, {"form": form, "batch": batch}) for form in FORMS]
        found += compare(rows, digits=2)
    return found


def on_rank(channel: int) -> dict[str, float]:
    """Peak of the tensors of a step, what is held of the cut parts, and the first losses in float64."""
    config = plants([*FLOAT32, f"training.layout.channel={channel}", "model.groups.count=20"])
    task, mesh = Autoencoding.planned(config), build_mesh(channel=channel)
    rank = Rehearsal(task, config.training, mesh=mesh, device=torch.device("cpu"))
    held = {name: p.numel() for name, p in rank.learner.parameters.items()}
    found: dict[str, float] = {
        "tensors_MB": tensor_peak(rank.step) / MB,
        "output_MB": 4 * held["output.weight"] / MB,
        "parameters_MB": 4 * sum(held.values()) / MB,
    }
    return found | {f"loss_{i}": loss for i, loss in enumerate(exact_losses(config))}


def exact_losses(config: ImagingConfig) -> list[float]:
    """Losses of a few steps in float64 on made-up smooth tiles; each rank cuts its bands out of the same ones."""
    training = config.training.model_copy(update={"precision": "float64", "batch_size": 2})
    config = config.model_copy(update={"training": training})
    task, mesh = Autoencoding.planned(config), build_mesh(channel=training.layout.channel)
    rank = Rehearsal(task, training, mesh=mesh, device=torch.device("cpu"))
    place = {name: i for i, name in enumerate(task.network.channels)}
    own = plan_for(task.network, ranks=axis_size(mesh, CHANNEL)).channels[channel_rank(mesh)]
    rows = [place[name] for name in own]
    losses = []
    for step in range(STEPS):
        random = np.random.default_rng(step)
        spectra = np.cumsum(random.standard_normal((2, len(place))), axis=1) / len(place) ** 0.5
        fields = torch.from_numpy(spectra)[:, :, None, None] * torch.from_numpy(
            random.random((2, 1, *task.network.image))
        )
        rank.batch.x.copy_(fields[:, rows])
        losses.append(training_step(rank.learner, task, rank.batch, step=step).loss)
    return losses


def ranks_table() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for channel in (1, 2, 4):
        measured = on_ranks(on_rank, channel, ranks=channel)
        row: dict[str, Any] = {"channel_ranks": channel}
        row |= {key: max(of_rank[key] for of_rank in measured) for key in measured[0] if not key.startswith("loss")}
        row["losses"] = [measured[0][f"loss_{i}"] for i in range(STEPS)]
        first = rows[0]["losses"] if rows else row["losses"]
        row["largest_relative_difference"] = max(abs(a / b - 1) for a, b in zip(row["losses"], first, strict=True))
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def loader_rate(config: ImagingConfig, *, seconds: float = 20.0) -> dict[str, float]:
    """Tiles per second of the loader, and of reading the same bytes and dropping them; one thread each, in turn."""
    torch.set_num_threads(1)
    store, normals = open_images(config)
    tiles = np.random.default_rng(0).permutation(len(store.places))
    loader, array = Reflectance(store, normals, readers=1), store.reader("reflectance").array

    def rate(read: Callable[[int], object]) -> float:
        read(int(tiles[0]))
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            read(int(tiles[count % len(tiles)]))
            count += 1
        return count / (time.perf_counter() - began)

    floor = rate(lambda tile: array[tile])
    ours = rate(lambda tile: loader.read(np.array([tile])))
    return {"tiles_per_second": ours, "floor_tiles_per_second": floor, "share_of_floor": ours / floor}


RUNS = {"one rank": (1, 0), "two ranks": (2, 0), "one rank, another seed": (1, 1)}
"""Channel ranks and seed of the trainings whose curves are compared."""


def curves_table(folder: Path, settings: list[str]) -> dict[str, Any]:
    """Losses of the whole training of plants.yaml on one and two ranks, and with another seed."""
    losses, finals = {}, {}
    for name, (ranks, seed) in RUNS.items():
        own = [f"directory={folder / name.replace(' ', '-')}", f"training.layout.channel={ranks}"]
        records = train(PLANTS, [*settings, *own, f"training.seed={seed}"], made=settings, ranks=ranks)
        losses[name] = np.array([record["loss"] for record in records if record["kind"] == "train"])
        finals[name] = [record["loss"] for record in records if record["kind"] == "validation"][-1]
    one, two, other = losses.values()
    apart = {
        "two ranks": np.abs(smooth(two) / smooth(one) - 1),
        "another seed": np.abs(smooth(other) / smooth(one) - 1),
    }
    return {
        "steps": len(one),
        "precision": plants(settings).training.precision,
        "first_loss_relative_difference_two_ranks": float(abs(two[0] / one[0] - 1)),
        "mean_relative_difference_of_smoothed_loss": {name: float(value.mean()) for name, value in apart.items()},
        "largest_relative_difference_of_smoothed_loss": {name: float(value.max()) for name, value in apart.items()},
        "final_validation_loss": finals,
        "losses": {name: [round(float(x), 5) for x in value] for name, value in losses.items()},
    }


def smooth(loss: Any, window: int = 20) -> Any:
    """Means of neighbouring steps."""
    return np.convolve(loss, np.ones(window) / window, mode="valid")


def main() -> None:
    """Measure and write results/hyperspectral_<part>.json."""
    command = parser(__doc__)
    parts = ("step", "ranks", "loader", "curves")
    command.add_argument("--part", choices=parts, help="only this one")
    command.add_argument("--batch", type=int, nargs="+", default=[4, 32], help="tiles of a step")
    command.add_argument("--set", action="append", default=[], help="settings of the experiment whose store is read")
    command.add_argument("--folder", type=Path, default=ROOT / "results" / "plants-curves", help="of the trainings")
    given = options(command, one)
    measured: dict[str, Callable[[], dict[str, Any]]] = {
        "step": lambda: {"rows": step_table(given.batch)},
        "ranks": lambda: {"rows": ranks_table()},
        "loader": lambda: loader_rate(plants(given.set)),
        "curves": lambda: curves_table(given.folder.resolve(), given.set),
    }
    for part in [given.part] if given.part else parts:
        found = measured[part]()
        print(json.dumps({key: value for key, value in found.items() if key != "losses"}))
        print(write(f"hyperspectral_{part}", found), flush=True)


if __name__ == "__main__":
    main()
